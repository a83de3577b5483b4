"""Batches: shifted targets, dependence on seed and number only, resuming, whole coverage."""

import json

import numpy as np
import paddle
import pytest

from oarlock.llm.data import BatchSampler, eval_batches, split, write_tokens


@pytest.fixture
def row():
    return np.arange(1000, 1100)


def draw(sampler, count):
    return [tuple(x.numpy() for x in next(sampler)) for _ in range(count)]


def same(one, two):
    return all((a == b).all() for x, y in zip(one, two, strict=True) for a, b in zip(x, y))


def test_targets_are_the_next_tokens(row):
    tokens, targets = next(BatchSampler(row, batch_size=3, length=7))
    assert tokens.dtype == targets.dtype == paddle.int64
    assert tokens.shape == targets.shape == [3, 7]
    assert (targets.numpy() == tokens.numpy() + 1).all()


def test_batches_depend_on_seed_and_number_only(row):
    one, two, other = (draw(BatchSampler(row, 3, 7, seed=seed), 4) for seed in (1, 1, 2))
    assert same(one, two) and not same(one, other)
    assert not same(one[:1], one[1:2])


def test_resumed_sampler_continues_exactly(row):
    whole = draw(BatchSampler(row, 3, 7), 5)
    sampler = BatchSampler(row, 3, 7)
    draw(sampler, 2)
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = BatchSampler(row, 3, 7)
    resumed.load_state_dict(state)
    assert same(draw(resumed, 3), whole[2:])


def test_state_of_another_sampler_is_refused(row):
    state = BatchSampler(row, 3, 7, seed=1).state_dict()
    with pytest.raises(ValueError, match="state has seed = 1, this sampler 0"):
        BatchSampler(row, 3, 7).load_state_dict(state)
    with pytest.raises(ValueError, match="state has num_tokens = 100, this sampler 99"):
        BatchSampler(row[1:], 3, 7, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="state must have the keys"):
        BatchSampler(row, 3, 7).load_state_dict({"batch": 1})


def test_every_window_can_be_drawn(row):
    sampler = BatchSampler(row[:5], batch_size=64, length=3)
    assert {int(x) for x in next(sampler)[0].numpy()[:, 0]} == {1000, 1001}
    only = next(BatchSampler(row[:4], batch_size=2, length=3))
    assert (only[1].numpy() == [[1001, 1002, 1003]] * 2).all()


def test_token_files_serve_as_arrays_do(row, tmp_path):
    file = write_tokens(tmp_path / "a", row)
    assert same(draw(BatchSampler(file, 3, 7), 2), draw(BatchSampler(row, 3, 7), 2))
    wide = write_tokens(tmp_path / "b", row + 1_000_000, dtype="uint32")
    assert next(BatchSampler(wide, 1, 1))[0].numpy().min() >= 1_001_000


@pytest.mark.parametrize("count", [2, 7, 8, 9, 29, 30, 100])
def test_evaluation_meets_every_target_once_in_order(row, count):
    met, first = [], []
    for tokens, targets in eval_batches(row[:count], batch_size=3, length=7):
        assert tokens.shape == targets.shape and tokens.shape[0] <= 3 and tokens.shape[1] <= 7
        assert (targets.numpy() == tokens.numpy() + 1).all()
        first += tokens.numpy().ravel().tolist()
        met += targets.numpy().ravel().tolist()
    assert met == row[1:count].tolist() and first == row[: count - 1].tolist()


def test_split_shares_memory_and_loses_nothing(row):
    train, validation = split(row, validation=0.25)
    assert (len(train), len(validation)) == (75, 25)
    assert (np.concatenate([train, validation]) == row).all()
    assert np.shares_memory(train, row) and np.shares_memory(validation, row)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda row: BatchSampler(row, 0, 7), "batch_size must be a positive integer, got 0"),
        (lambda row: BatchSampler(row, 2, 7.0), "length must be a positive integer, got 7.0"),
        (lambda row: BatchSampler(row, 2, 7, seed=-1), "seed must be an integer, 0 or above"),
        (lambda row: BatchSampler(row, 2, 100), "length 100 needs at least 101 tokens, got 100"),
        (lambda row: BatchSampler(row[None], 2, 7), "tokens must be one row of integers"),
        (lambda row: BatchSampler(row / 2, 2, 7), "one row of integers, got float64"),
        (lambda row: eval_batches(row[:1], 2, 7), "at least two to have a target, got 1"),
        (lambda row: eval_batches(row, True, 7), "batch_size must be a positive integer"),
        (lambda row: split(row, validation=1.0), "validation must be above 0 and below 1"),
    ],
)
def test_bad_arguments_are_named(row, make, message):
    with pytest.raises(ValueError, match=message):
        make(row)
