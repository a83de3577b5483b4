"""Criterion 1.1: the race, the settings and their sweep, the length at which Muon would be even."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oarlock.accept.convergence import race as racing
from oarlock.accept.convergence import sweep
from oarlock.accept.convergence.lengths import length_to
from oarlock.accept.convergence.settings import BEST, MODELS, TASKS, Setting, best
from oarlock.accept.topics.t1_1_adamw_step import shapes_of_llama
from oarlock.accept.topics import t1_1_convergence as topic
from oarlock.accept.topics import t1_1_large_batch as large
from oarlock.accept.topics.t1_1_large_batch import LENGTHS, share_kept
from oarlock.llm import models

TEXT = "the quick brown fox jumps over the lazy dog; " * 60
TINY = replace(
    TASKS["quick"]["llama"], hidden_size=16, batch=2, context=16, steps=12, validation_batches=2
)
ADAMW = Setting(optimizer="adamw", learning_rate=1e-2, table_learning_rate=3e-2)
MUON = Setting(optimizer="muon", learning_rate=0.02, table_learning_rate=3e-2)
SWEEPS = Path(__file__).parents[1] / "results" / "sweeps"


def test_both_optimisers_learn_and_the_curve_ends_with_the_schedule():
    runs = racing.race(TINY, {"adamw": (ADAMW, 30), "muon": (MUON, 20)}, TEXT, seed=0)
    for name, steps in (("adamw", 30), ("muon", 20)):
        run = runs[name]
        assert [step for step, _ in run.curve] == [steps * turn // 10 for turn in range(1, 11)]
        assert run.validation_loss == run.curve[-1][1] < run.curve[0][1] < math.log(256)
        assert run.wall_s > 0 and run.cpu_s > 0


def test_an_arm_does_not_depend_on_the_others_or_on_turns():
    alone = racing.race(TINY, {"adamw": (ADAMW, 12)}, TEXT, seed=3, turns=1)["adamw"]
    arms = {"muon": (MUON, 9), "adamw": (ADAMW, 12)}
    together = racing.race(TINY, arms, TEXT, seed=3)["adamw"]
    assert alone.validation_loss == together.validation_loss
    other = racing.race(TINY, {"adamw": (ADAMW, 12)}, TEXT, seed=4, turns=1)["adamw"]
    assert other.validation_loss != alone.validation_loss


@pytest.mark.parametrize("setting", [ADAMW, MUON], ids=lambda one: one.optimizer)
@pytest.mark.parametrize(
    "rate,kept",
    [
        ("table_learning_rate", {"embedding.weight", "head.weight"}),
        ("vector_learning_rate", {"norm.weight", "blocks.0.attention_norm.weight"}),
    ],
)
def test_tables_and_vectors_have_their_own_rates(setting, rate, kept):
    """A rate near zero leaves them where they were, and moves everything else."""
    still = replace(setting, **{rate: 1e-12})
    training, _ = racing.tokens(TEXT)
    runner = racing.runner_of(TINY, still, 5, training, 0)
    before = {name: p.numpy() for name, p in runner.model.named_parameters()}
    runner.advance(5)
    moved = {
        name
        for name, p in runner.model.named_parameters()
        if np.abs(p.numpy() - before[name]).max() > 1e-6
    }
    everything = {name for name, _ in runner.model.named_parameters()}
    assert kept <= everything and not moved & kept
    assert "blocks.0.attention.query.weight" in moved


def test_diverged_arms_are_refused_and_count_as_trials(tmp_path, monkeypatch):
    wild = replace(ADAMW, learning_rate=1e30, table_learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="not finite"):
        racing.race(TINY, {"adamw": (wild, 12)}, TEXT, seed=0)
    monkeypatch.setitem(TASKS["quick"], "llama", TINY)
    trials = sweep.Sweep(tmp_path / "sweep.json", "quick", TASKS["quick"]["llama"], TEXT, "a text")
    assert trials.trial(wild, "shortened", 12) == math.inf
    [trial] = trials.record["trials"]
    assert trial["validation_loss"] is None
    assert sweep.best(trials.record["trials"], "adamw", "shortened") == []


def test_length_to_a_loss_follows_a_logarithmic_curve_exactly():
    def end(steps):
        return 3.0 - 0.4 * math.log(steps)

    runs = [(steps, end(steps)) for steps in (100, 160, 250)]
    for steps in (90, 100, 130, 200, 300):  # outside the lengths as well
        assert length_to(runs, end(steps)) == pytest.approx(steps)


def test_a_length_needs_two_runs_of_which_the_longer_is_better():
    with pytest.raises(ValueError, match="higher loss"):
        length_to([(100, 1.0), (160, 1.6)], 1.5)
    with pytest.raises(ValueError, match="two runs"):
        length_to([(100, 1.0)], 1.5)


def test_share_of_token_efficiency():
    """The large batch needs a quarter more tokens where its loss is reached at 1.25 the steps."""
    end = {steps: 3.0 - 0.4 * math.log(steps) for steps in (*LENGTHS["muon"], 500)}
    losses = {f"muon {steps}": end[steps] for steps in LENGTHS["muon"]} | {"muon": end[500]}
    assert share_kept(losses, "muon", 400 * 1024, 1024) == pytest.approx(0.8)


def fabricated_races(task, needed, seconds_a_step):
    """Races whose losses fall by the logarithm of the length; Muon is even with AdamW at `needed`."""

    def one(steps, equivalent, pace):
        end = 3.0 - 0.4 * math.log(equivalent)
        return {
            "steps": steps,
            "wall_s": steps * pace,
            "cpu_s": 2 * steps * pace,
            "curve": [[steps // 2, end + 0.5], [steps, end]],
        }

    races = []
    for seed in range(5):
        factor = task.steps / (needed + 0.1 * seed)
        race = {"adamw": one(task.steps, task.steps, seconds_a_step)}
        for steps in task.shorter:
            race[f"muon {steps}"] = one(steps, steps * factor, 1.25 * seconds_a_step)
        races.append(race)
    return races


SHARED = {"n": 5, "seeds": list(range(5)), "level": "measured"}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_evidence_of_a_race_says_what_happened(model):
    task = TASKS["full"][model]
    races = fabricated_races(task, needed=50, seconds_a_step=0.5)
    lengths = [topic.length_to(topic._muon_ends(one), topic._end(one["adamw"])) for one in races]
    steps = topic._steps(task, lengths, "", SHARED)
    assert steps.ratio == pytest.approx(task.steps / 50.2, rel=1e-3) and steps.verdict == "met"
    assert (steps.baseline, steps.target) == (task.steps, 1.3)
    assert steps.ours == pytest.approx(50.2) and "for 5 of 5 seeds" in steps.notes
    for clock, name, seconds in (("wall", "time", 0.5), ("cpu", "cpu-time", 1.0)):
        time = topic._time(task, races, lengths, clock, "", SHARED)
        assert time.name == f"muon-{model}-{name}"
        assert time.baseline == pytest.approx(task.steps * seconds)
        assert time.ratio == pytest.approx(task.steps / 50.2 / 1.25, rel=1e-3)
    loss = topic._loss(task, races, "", SHARED)
    assert loss.ratio > 1 and loss.verdict == "met" and len(loss.series) == 1 + len(task.shorter)
    assert topic._significance(task, races, SHARED).verdict == "met"


def test_evidence_of_a_race_that_is_lost_is_short():
    task = TASKS["full"]["llama"]
    races = fabricated_races(task, needed=95, seconds_a_step=0.5)
    lengths = [topic.length_to(topic._muon_ends(one), topic._end(one["adamw"])) for one in races]
    assert topic._steps(task, lengths, "", SHARED).verdict == "short"
    assert topic._time(task, races, lengths, "wall", "", SHARED).verdict == "short"
    assert topic._loss(task, races, "", SHARED).verdict == "short"
    assert topic._significance(task, races, SHARED).ours > 0.999


def fabricated_shares(adamw, muon):
    """Losses of five seeds that fall by the logarithm of the length, for these shares kept."""
    steps = TASKS["full"]["large-batch"].steps
    found = []
    for seed in range(5):
        losses = {}
        for name, share in (("adamw", adamw), ("muon", muon)):
            losses[name] = 3.0 - 0.4 * math.log(steps / share * (1 + 0.001 * seed))
            losses |= {f"{name} {n}": 3.0 - 0.4 * math.log(n) for n in large.LENGTHS[name]}
        found.append(losses)
    return found


def test_evidence_of_the_large_batch():
    steps = TASKS["full"]["large-batch"].steps
    (adamw_low, adamw_high), (muon_low, muon_high) = (
        [steps / n for n in large.LENGTHS[name][::-1]] for name in ("adamw", "muon")
    )
    adamw, muon = (adamw_low + adamw_high) / 2, (muon_low + muon_high) / 2
    kept, against, tokens = large._evidence(fabricated_shares(adamw, muon), range(5), "a text")
    assert kept.ours == pytest.approx(muon, rel=0.01)
    assert kept.ratio == pytest.approx(muon / 0.8, rel=0.01)
    assert against.ratio == pytest.approx(muon / adamw, rel=1e-3) and against.verdict == "met"
    assert tokens.verdict == "info" and "5 (AdamW) and 5 (Muon) of 5" in kept.notes
    worse = fabricated_shares(0.98 * adamw_high, 1.01 * muon_low)
    assert [one.verdict for one in large._evidence(worse, range(5), "a text")][1] == "short"
    outside = list(large._evidence(fabricated_shares(0.3, 0.3), range(5), "a text"))
    assert {one.verdict for one in outside} == {"info"} and "extrapolated" in outside[0].notes


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_that_is_compared_learns(model):
    task = replace(TASKS["full"][model], hidden_size=16, num_layers=1, batch=2, context=16)
    for setting in (ADAMW, MUON):
        curve = racing.race(task, {"only": (setting, 30)}, TEXT, seed=0)["only"].curve
        assert curve[-1][1] < curve[0][1] < math.log(256)


PAIRS = [(tier, name) for tier, tasks in BEST.items() for name in tasks]


@pytest.mark.parametrize("tier,name", PAIRS)
def test_settings_are_the_winners_of_the_committed_sweep(tier, name):
    record = json.loads((SWEEPS / f"1.1-{tier}-{name}.json").read_text(encoding="utf-8"))
    trials = dict.fromkeys(BEST[tier][name], 0)
    for optimizer, setting in BEST[tier][name].items():
        winner = sweep.best(record["trials"], optimizer, "whole")[0]
        assert Setting(**winner["setting"]) == setting
        trials[optimizer] = sum(t["setting"]["optimizer"] == optimizer for t in record["trials"])
    assert trials["adamw"] >= trials["muon"], "the baseline is tuned with no less effort"
    task = {key: getattr(TASKS[tier][name], key) for key in record["task"]}
    assert task == record["task"]


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_committed_evidence_holds_every_model(model):
    """Three architectures are asked for: each with its steps, its time and its significance."""
    record = json.loads((SWEEPS.parent / "full" / "1.1.json").read_text(encoding="utf-8"))
    found = {one["name"]: one for one in record["evidence"]}
    for part in ("loss", "p", "steps", "time"):
        assert found[f"muon-{model}-{part}"]["n"] >= 5


def test_a_task_without_a_sweep_says_how_to_make_one():
    with pytest.raises(ValueError, match="--tier quick --task gpt"):
        best("quick", "gpt")


def test_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch):
    ran = []

    def fake(task, arms, text, *, seed, turns, prepare):
        [(setting, steps)] = arms.values()
        ran.append(setting)
        distance = abs(math.log2(setting.learning_rate / 8e-3))
        distance += abs(math.log2(setting.table_learning_rate / 1.6e-2))
        return {"only": racing.Run(steps=steps, curve=[(steps, 2 + distance)])}

    monkeypatch.setattr(racing, "race", fake)
    path = tmp_path / "sweep.json"
    first = sweep.Sweep(path, "quick", TASKS["quick"]["llama"], TEXT, "a text")
    winner = first.run("adamw")
    assert (winner.learning_rate, winner.table_learning_rate) == (8e-3, 1.6e-2)
    count = len(ran)
    again = sweep.Sweep(path, "quick", TASKS["quick"]["llama"], TEXT, "a text")
    assert again.run("adamw") == winner and len(ran) == count
    with pytest.raises(ValueError, match="another sweep"):
        sweep.Sweep(path, "quick", TASKS["quick"]["llama"], TEXT, "another text")
    assert again.also("adamw", {"learning_rate": 4e-3, "beta1": 0.6}) == 3
    further = ran[-1]
    assert further.learning_rate == 4e-3 and further.options == dict(winner.options) | {
        "beta1": 0.6
    }
    with pytest.raises(ValueError, match="adamw has no setting momentum here, but .*warmup, beta1"):
        again.also("adamw", {"momentum": 0.9})


def test_sweep_follows_a_valley_along_which_both_rates_must_change(tmp_path, monkeypatch):
    """A change of one rate alone is worse everywhere in it."""

    def fake(task, arms, text, *, seed, turns, prepare):
        [(setting, steps)] = arms.values()
        rate = math.log2(setting.learning_rate / 4e-3)
        table_rate = math.log2(setting.table_learning_rate / 3.2e-2)
        loss = 2 + 3 * abs(rate - table_rate) + abs(rate + table_rate - 4)
        return {"only": racing.Run(steps=steps, curve=[(steps, loss)])}

    monkeypatch.setattr(racing, "race", fake)
    search = sweep.Sweep(tmp_path / "sweep.json", "quick", TASKS["quick"]["llama"], TEXT, "a text")
    winner = search.run("adamw")
    assert (winner.learning_rate, winner.table_learning_rate) == (1.6e-2, 12.8e-2)


def test_shapes_add_up_to_the_parameters_of_the_model():
    shapes = shapes_of_llama(16, 2, 256)
    config = models.llama.LlamaConfig(vocab_size=256, hidden_size=16, num_layers=2, num_heads=2)
    model = models.create("llama", config)
    assert sorted(shapes) == sorted(list(p.shape) for p in model.parameters())
    assert sum(math.prod(shape) for shape in shapes_of_llama(512, 8, 8192)) == 33_685_504 + 17 * 512
