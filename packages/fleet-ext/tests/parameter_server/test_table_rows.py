"""Rows, their beginnings, their steps, and the two tiers that keep them."""

import numpy as np
import pytest
from oarlock.fleet_ext.parameter_server import (
    AdaGrad,
    Adam,
    Constant,
    Dense,
    Layout,
    Normal,
    Sgd,
    Sparse,
    Uniform,
)
from oarlock.fleet_ext.parameter_server.cold import ColdRows, ColdStore
from oarlock.fleet_ext.parameter_server.hashing import as_keys, salt_of, shard_of
from oarlock.fleet_ext.parameter_server.part import Part, summed
from oarlock.fleet_ext.parameter_server.rows import MemoryRows
from oarlock.fleet_ext.parameter_server.tiers import TieredRows

OPTIMIZERS = (Sgd(rate=0.3), AdaGrad(rate=0.3, start=0.1), Adam(rate=0.3, beta1=0.7, beta2=0.9))


def expected(optimizer, value, gradients):
    """A number after steps, in float64, by the formulas of the papers."""
    sums, first, second = getattr(optimizer, "start", 0.0), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        if isinstance(optimizer, Sgd):
            value -= optimizer.rate * gradient
        elif isinstance(optimizer, AdaGrad):
            sums += gradient**2
            value -= optimizer.rate * gradient / (sums**0.5 + optimizer.epsilon)
        else:
            b1, b2 = optimizer.beta1, optimizer.beta2
            first = b1 * first + (1 - b1) * gradient
            second = b2 * second + (1 - b2) * gradient**2
            mean, square = first / (1 - b1**step), second / (1 - b2**step)
            value -= optimizer.rate * mean / (square**0.5 + optimizer.epsilon)
    return value


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind)
def test_steps_are_those_of_the_formulas_for_each_row_by_its_own_pushes(optimizer):
    table = Sparse(width=3, optimizer=optimizer, initial=Constant(value=0.5))
    part, rng = Part(table, MemoryRows(table.record)), np.random.default_rng(0)
    given = {key: [] for key in range(6)}
    for _ in range(40):
        keys = rng.integers(0, 6, 4)
        gradients = rng.standard_normal((4, 3)).astype(np.float32)
        part.push(keys, gradients)
        for key in set(keys.tolist()):
            given[key].append(gradients[keys == key].astype(np.float64).sum(axis=0))
    for key, gradients in given.items():
        wanted = [
            expected(optimizer, 0.5, [one[column] for one in gradients]) for column in range(3)
        ]
        np.testing.assert_allclose(part.pull(np.array([key]))[0], wanted, rtol=3e-5, atol=1e-6)


def test_gradients_of_a_key_are_summed_and_others_stay():
    keys, sums = summed(np.array([7, 3, 7, 7, -1]), np.float32([[1], [2], [4], [8], [16]]))
    assert keys.tolist() == [-1, 3, 7] and sums.tolist() == [[16], [2], [13]]


@pytest.mark.parametrize(
    "initial", (Uniform(scale=0.5), Normal(deviation=0.5)), ids=lambda one: one.kind
)
def test_beginnings_depend_on_key_and_seed_alone(initial):
    keys = np.random.default_rng(1).integers(-(2**62), 2**62, 20_000)
    rows = initial.rows(keys, 5)
    order = np.random.default_rng(2).permutation(len(keys))
    np.testing.assert_array_equal(initial.rows(keys[order], 5), rows[order])
    assert not np.array_equal(type(initial)(seed=1).rows(keys, 5), type(initial)().rows(keys, 5))
    deviation = 0.5 / 3**0.5 if isinstance(initial, Uniform) else 0.5
    assert abs(rows.mean()) < 0.01 and abs(rows.std() / deviation - 1) < 0.02
    assert abs(np.corrcoef(rows.T) - np.eye(5)).max() < 0.03  # columns are independent
    assert abs(np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1]) < 0.03


def test_keys_spread_over_shards_also_where_they_lie_close():
    counts = np.bincount(shard_of(np.arange(64_000), salt_of("t"), 64), minlength=64)
    assert counts.min() > 800 and counts.max() < 1200  # 1000, with a deviation of 31


def test_keys_of_uint64_keep_their_bits_and_others_are_refused():
    assert as_keys(np.array([2**64 - 1], np.uint64)).tolist() == [-1]
    with pytest.raises(ValueError, match="hash other features"):
        as_keys(np.array([1.5]))


@pytest.fixture
def tiers(tmp_path):
    table = Sparse(width=4, optimizer=Adam())
    with ColdStore(tmp_path) as store:
        yield table, lambda capacity, shard=0: Part(
            table, TieredRows(table.record, capacity, ColdRows(store, shard, 0, table.record))
        )


def contents(part, most=5):
    image = part.image()
    keys, records = map(np.concatenate, zip(*image.chunks(most), strict=True))
    image.close()
    order = np.argsort(keys)
    assert len(np.unique(keys)) == len(keys)
    return keys[order], records[order]


@pytest.mark.parametrize("capacity", (1, 7, 64))
def test_rows_on_disk_are_the_same_bits(tiers, capacity):
    table, make = tiers
    memory, tiered = Part(table, MemoryRows(table.record)), make(capacity)
    other = make(2, shard=1)  # in the same file
    other.push(np.arange(5), np.ones((5, 4), np.float32))
    rng = np.random.default_rng(capacity)
    for _ in range(100):
        keys = rng.integers(-40, 40, rng.integers(1, 50))
        gradients = rng.standard_normal((len(keys), 4)).astype(np.float32)
        for part in (memory, tiered):
            part.push(keys, gradients)
        asked = rng.integers(-60, 60, 30)
        np.testing.assert_array_equal(memory.pull(asked), tiered.pull(asked))
        np.testing.assert_array_equal(memory.read(asked), tiered.read(asked))
        assert len(memory) == len(tiered)
    for mine, theirs in zip(contents(memory), contents(tiered), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    tiered.clear()
    assert len(tiered) == 0 and len(other) == 5


def test_an_image_stays_what_it_was(tiers):
    _, make = tiers
    part = make(8)
    part.push(np.arange(50), np.ones((50, 4), np.float32))
    before, image = contents(part), part.image()
    part.push(np.arange(100), np.ones((100, 4), np.float32))
    chunks = sorted((int(key), row.tobytes()) for keys, rows in image.chunks(7) for key, row in zip(keys, rows, strict=True))  # fmt: skip
    image.close()
    assert chunks == sorted((int(key), row.tobytes()) for key, row in zip(*before, strict=True))


def test_hot_rows_stay_in_memory(tiers):
    table, make = tiers
    part = make(16)
    hot = np.arange(8)
    for cold in range(100, 200):
        part.pull(hot)
        part.push(np.append(hot, cold), np.ones((9, 4), np.float32))
    assert set(hot.tolist()) <= set(part._rows._index)


def test_a_folder_has_one_server(tmp_path):
    with ColdStore(tmp_path), pytest.raises(ValueError, match="give each its own"):
        ColdStore(tmp_path)
    ColdStore(tmp_path).close()


def test_layouts_come_back_from_the_store_and_from_files(tmp_path):
    layout = Layout(
        shards=32,
        replicas=1,
        tables={"e": Sparse(width=4, optimizer=Adam(rate=0.1), initial=Normal(), hot_rows=5), "d": Dense(shape=(3, 2))},
    )  # fmt: skip
    assert Layout.unpack(layout.pack()) == layout
    path = tmp_path / "tables.yaml"
    path.write_text(
        "shards: 32\nreplicas: 1\ntables:\n"
        "  e: {kind: sparse, width: 4, hot_rows: 5, optimizer: {kind: adam, rate: 1e-1}, initial: {kind: normal}}\n"
        "  d: {kind: dense, shape: [3, 2]}\n"
    )
    assert Layout.read(path) == layout


@pytest.mark.parametrize(
    ("given", "words"),
    (
        ({}, "has `tables`"),
        ({"tables": {}}, "tables must be some"),
        ({"tables": {"e": {"kind": "other"}}}, "tables.e must have a kind: sparse, dense"),
        ({"tables": {"e": {"kind": "sparse"}}}, "width"),
        ({"tables": {"e": {"kind": "sparse", "width": 0}}}, "tables.e: width must be from 1"),
        ({"tables": {"e": {"kind": "sparse", "width": 1, "depth": 2}}}, "has no depth"),
        ({"tables": {"e": {"kind": "sparse", "width": 1, "optimizer": {"kind": "adam", "rate": 0}}}}, "rate must be above 0"),
        ({"tables": {"e": {"kind": "sparse", "width": "4"}}}, "tables.e: width must be of type int, not '4'"),
        ({"tables": {"e": {"kind": "sparse", "width": 1, "optimizer": {"kind": "sgd", "rate": "x"}}}}, "rate must be of type float"),
        ({"tables": {"e": {"kind": "dense", "shape": [3, "4"]}}}, "shape must be of type"),
        ({"shards": True, "tables": {"e": {"kind": "sparse", "width": 1}}}, "shards must be of type int"),
        ({"shards": 0, "tables": {"e": {"kind": "sparse", "width": 1}}}, "shards must be from 1"),
        ({"replicas": 3, "tables": {"e": {"kind": "sparse", "width": 1}}}, "replicas must be 1 or 2"),
    ),
)  # fmt: skip
def test_layouts_that_cannot_be_say_where(given, words):
    with pytest.raises(ValueError, match=words):
        Layout.of(given)
