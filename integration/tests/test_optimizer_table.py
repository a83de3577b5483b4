"""The table of all optimisers: the search of one, its rows, what the committed CSV holds."""

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from oarlock.accept.convergence import optimizer_table as table
from oarlock.accept.convergence import race as racing
from oarlock.accept.convergence.settings import TASKS, Setting
from oarlock.accept.convergence.sweep import best, neighbours
from oarlock.core_opt import optim

TEXT = "the quick brown fox jumps over the lazy dog; " * 60
RESULTS = Path(__file__).parents[1] / "results"
TINY = replace(
    TASKS["full"]["table"],
    hidden_size=16,
    num_layers=1,
    batch=2,
    context=16,
    steps=12,
    validation_batches=1,
)


def test_every_optimiser_has_a_start():
    assert sorted(table.START) == optim.list()


@pytest.mark.parametrize("name", sorted(table.START))
def test_every_optimiser_trains_in_the_race(name):
    run = racing.race(TINY, {name: (table.start(name), 25)}, TEXT, seed=0)[name]
    assert run.validation_loss < run.curve[0][1] < math.log(256) + 0.1


def test_alternatives_change_one_thing_each():
    setting = Setting(optimizer="adamw", learning_rate=1e-3, table_learning_rate=1e-2)
    found = list(table.alternatives(setting))
    changed = [one.options for one in found if one.options]
    assert changed == [
        {"beta2": 0.95},
        {"beta2": 0.99},
        {"weight_decay": 0.0},
        {"weight_decay": 0.1},
    ]
    warmer, higher, lower = [one for one in found if not one.options]
    assert warmer == replace(setting, warmup=0.25)
    assert (higher.vector_learning_rate, lower.vector_learning_rate) == (0.016, 0.001)


def test_vectors_begin_at_the_rate_of_their_rule():
    assert table.start("lion").vector_learning_rate == table.START["lion"][0]
    assert table.start("muon").vector_learning_rate == 4e-3  # AdamW's


def test_a_search_is_settled_when_every_neighbour_was_tried(tmp_path):
    sweep = table.TableSweep(tmp_path / "t.json", "full", TASKS["full"]["table"], TEXT, "a text")
    winner = table.start("adamw")
    around = list(neighbours(winner))
    for one in around:
        assert not sweep.settled(winner)
        sweep.record["trials"].append({"setting": asdict(one)})
    assert sweep.settled(winner) and not sweep.settled(around[0])


def test_rows_of_a_tiny_table(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS["quick"], "table", TINY)
    monkeypatch.setattr(table, "RATE_TRIALS", 2)
    monkeypatch.setattr(table, "STEPS_A_TURN", 2)
    sweep = table.TableSweep(tmp_path / "t.json", "quick", TASKS["quick"]["table"], TEXT, "a text")
    rows = table.rows(sweep, TEXT, ["adamw", "muon"])
    assert set(rows[0]) == set(table.FIELDS)
    assert [row["loss"] for row in rows] == sorted(row["loss"] for row in rows)
    by_name = {row["optimizer"]: row for row in rows}
    assert by_name["adamw"]["step_over_adamw"] == 1.0
    assert 8 < by_name["adamw"]["state_bytes_per_parameter"] < 8.2  # and a step count each
    assert by_name["muon"]["state_bytes_per_parameter"] < 8
    assert by_name["adamw"]["trials"] == sweep.trials("adamw") >= 2 + 4
    assert by_name["adamw"]["settled"] == "no"  # two trials cannot


def test_the_committed_table_holds_every_optimiser_with_the_search_it_came_from():
    with (RESULTS / "optimizers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["optimizer"] for row in rows) == optim.list()
    assert tuple(rows[0]) == table.FIELDS
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses) and losses[-1] < math.log(256)
    record = json.loads((RESULTS / "optimizers.trials.json").read_text(encoding="utf-8"))
    for row in rows:
        name, searched = row["optimizer"], record["trials"]
        winner = Setting(**best(searched, name, "whole")[0]["setting"])
        assert (float(row["learning_rate"]), float(row["table_learning_rate"])) == (
            winner.learning_rate,
            winner.table_learning_rate,
        )
        assert float(row["warmup"]) == winner.warmup
        assert int(row["trials"]) == sum(one["setting"]["optimizer"] == name for one in searched)
