"""What criterion 2.3.1 compares: masks, rivals of as many operations, times to a loss."""

import json
from pathlib import Path

import pytest
from oarlock.accept.convergence import race, sweep
from oarlock.accept.convergence.settings import Setting
from oarlock.accept.sparse_training.settings import COMPARISONS, MUON, WEIGHTS, operations
from oarlock.accept.topics import t2_3_training, t2_3_weights
from oarlock.core_opt.precision import linears
from oarlock.native import masks

SWEEPS = Path(__file__).parents[1] / "results" / "sweeps"
FULL = COMPARISONS["full"]


def test_operations_are_those_of_the_model():
    task = COMPARISONS["quick"].task
    model = race.model_of(task, 0)
    weights = sum(layer.weight.size for _, layer in linears(model))
    seen = [masks.causal()] * task.num_layers
    keys = task.num_layers * (task.context + 1) / 2
    assert operations(task, seen) == 3 * weights + 7 * task.hidden_size * keys


def test_the_rival_has_as_many_operations_as_the_sparse_model():
    dense = operations(FULL.task, FULL.dense())
    sparse = operations(FULL.task, FULL.windows())
    rival = operations(FULL.rival, FULL.dense())
    assert sparse <= rival < 1.15 * sparse < dense
    assert FULL.rival.num_heads * FULL.task.hidden_size == FULL.task.num_heads * FULL.narrow


def test_the_last_layer_sees_everything():
    *local, last = FULL.windows()
    assert last.bounds is None and len(local) == FULL.task.num_layers - 1
    assert all(mask.to_dense(FULL.task.context)[0, 0, -1].sum() == FULL.window for mask in local)


def test_time_to_a_loss_is_that_of_the_length_between():
    def run(steps, loss):
        return {"steps": steps, "wall_s": 2.0 * steps, "curve": [(steps, loss)]}

    race_of_three = {
        "dense": run(400, 2.0),
        "sparse 100": run(100, 2.2),
        "sparse 400": run(400, 1.8),
    }
    assert t2_3_training._time_to(race_of_three, "sparse", 2.0) == pytest.approx(2 * 200)


@pytest.mark.parametrize("width", ["dense", "narrow"])
def test_rates_are_the_best_of_the_committed_trials(width):
    record = json.loads((SWEEPS / f"2.3.1-full-{width}.json").read_text(encoding="utf-8"))
    task = FULL.task if width == "dense" else FULL.rival
    assert {key: getattr(task, key) for key in record["task"]} == record["task"]
    assert Setting(**sweep.best(record["trials"], "muon", "whole")[0]["setting"]) == MUON


def test_sparse_weights_train_and_end_dense():
    one = WEIGHTS["quick"]
    densities = []

    def prepare(model):
        tail = t2_3_weights.sparsify(model, one=one)
        assert len(tail.layers) == 3 * one.task.num_layers
        step = tail.step
        tail.step = lambda: (densities.append(sum(tail.densities()) / len(tail.layers)), step())
        return tail

    found = race.race(
        one.task,
        {"sparse": (one.setting, one.task.steps)},
        "the quick brown fox jumps over the lazy dog; " * 400,
        seed=0,
        turns=2,
        prepare={"sparse": prepare},
    )["sparse"]
    assert len(densities) == one.task.steps and densities[0] == pytest.approx(one.kept, abs=0.02)
    assert densities[-1] == 1 and found.curve[-1][1] < found.curve[0][1] < 4


def test_the_narrower_model_has_as_many_weights_as_the_sparse_one():
    ours, theirs = WEIGHTS["full"].parameters()
    assert ours <= theirs < 1.15 * ours
    rival = WEIGHTS["full"].rival
    assert rival.hidden_size % rival.num_heads == 0
