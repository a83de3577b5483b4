"""What criterion 1.2 compares: each way of computing a model does what its name says."""

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from oarlock.accept.convergence import race, sweep
from oarlock.accept.convergence.settings import Setting
from oarlock.accept.low_precision import arms, divergence, rates
from oarlock.accept.low_precision.settings import ADAMW, SMALL, SMALL_ADAMW, TASKS
from oarlock.llm import models

SWEEPS = Path(__file__).parents[1] / "results" / "sweeps"
TEXT = "the quick brown fox jumps over the lazy dog; " * 400


@pytest.fixture(name="batch")
def batch_fixture():
    paddle.seed(0)
    return paddle.randint(0, 256, [4, 32]), paddle.randint(0, 256, [4, 32])


@pytest.fixture(name="model")
def model_fixture():
    config = models.config_class("gpt").from_dict(
        {"vocab_size": 256, "hidden_size": 64, "num_layers": 1, "num_heads": 2}
    )
    return models.create("gpt", config, seed=0)


def gradients(model, batch):
    arms.loss(model, batch).backward()
    found = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    model.clear_gradients()
    return found


def test_float32_computes_as_paddle_does(model, batch):
    expected = gradients(model, batch)
    arms.float32(model)
    assert any("forward" in vars(layer) for layer in model.sublayers())
    for name, found in gradients(model, batch).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-6)


def test_stock_amp_changes_nothing_on_a_cpu(model, batch):
    expected = gradients(model, batch)
    arms.stock_amp(model)
    for name, found in gradients(model, batch).items():
        np.testing.assert_array_equal(found, expected[name])


def test_uniform_bfloat16_rounds(model, batch):
    exact = float(arms.loss(model, batch))
    arms.uniform_bfloat16(model)
    rounded = float(arms.loss(model, batch))
    assert rounded != exact and abs(rounded - exact) < 0.01 * exact
    assert all(found.dtype == np.float32 for found in gradients(model, batch).values())


def test_a_race_prepares_its_arms():
    seen = []
    task = SMALL["quick"]
    race.race(
        task,
        {"one": (SMALL_ADAMW, 2), "two": (SMALL_ADAMW, 2)},
        TEXT,
        seed=0,
        turns=1,
        prepare={"two": seen.append},
    )
    assert len(seen) == 1 and isinstance(seen[0], models.LanguageModel)


def test_choices_measure_what_rounding_changes():
    found = divergence.choices(
        SMALL["quick"], SMALL_ADAMW, TEXT, seed=0, formats=("int8", "fp8"), steps=2, total_steps=80
    )
    layers = {one.layer for one in found}
    assert len(found) == 2 * 3 * len(layers) and all(one.change >= 0 for one in found)
    mean = {
        name: np.mean([one.change for one in found if one.format == name])
        for name in ("int8", "fp8")
    }
    assert 0 < mean["int8"] < mean["fp8"]
    drift = divergence.drift_of(found)
    assert drift > 0 and -1 <= divergence.rank_correlation(found, drift) <= 1
    forward = next(one for one in found if one.role == "forward")
    assert forward.predicted(0.0) == pytest.approx(
        (2 * forward.loss_increase / forward.tokens) ** 0.5
    )


@pytest.mark.parametrize("model", sorted(ADAMW))
def test_settings_are_the_best_of_the_committed_trials(model):
    record = json.loads((SWEEPS / f"1.2-full-{model}.json").read_text(encoding="utf-8"))
    winner = sweep.best(record["trials"], "adamw", "whole")[0]
    assert Setting(**winner["setting"]) == ADAMW[model]
    task = {key: getattr(TASKS["full"][model], key) for key in record["task"]}
    assert task == record["task"] and record["criterion"] == "1.2"


def test_trials_of_rates_go_on_from_the_record(tmp_path):
    path = shutil.copy(SWEEPS / "1.2-full-gpt.json", tmp_path)
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    found = rates.sweep(tmp_path, "gpt", TEXT, record["data"])
    known = record["trials"][0]
    loss = found.trial(Setting(**known["setting"]), known["stage"], known["steps"])
    assert loss == known["validation_loss"]
    with pytest.raises(ValueError, match="another sweep"):
        rates.sweep(tmp_path, "gpt", TEXT, "another text")


def test_tasks_are_of_the_same_size():
    llama, gpt = TASKS["full"]["llama"], TASKS["full"]["gpt"]
    assert llama.tokens_a_step == gpt.tokens_a_step and llama.hidden_size == gpt.hidden_size
