"""Passes of the power method: against the oracle, the same bits everywhere, what they refuse."""

import numpy as np
import pytest

from oarlock import native
from oarlock.native import codec
from oarlock.native.reference import codec as reference

PATHS = native.info().paths
# Rows and columns, columns of what is projected on, columns of what was sent.
CASES = [
    (1, 1, 1, 1),
    (5, 3, 2, 1),
    (7, 16, 4, 4),
    (17, 33, 3, 5),
    (4, 515, 1, 64),
    (64, 700, 64, 6),
    (300, 1376, 4, 4),
    (50, 2100, 5, 0),
    (9, 40, 0, 2),
    (0, 10, 2, 1),
]
each_case = pytest.mark.parametrize(("rows", "columns", "rank", "sent"), CASES)
each_path = pytest.mark.parametrize("path", PATHS)


def normals(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def given(rows, columns, rank, sent):
    arrays = {"acc": normals(rows, columns), "gradient": normals(rows, columns, seed=1)}
    if sent:
        arrays |= {"left": normals(rows, sent, seed=2), "right": normals(columns, sent, seed=3)}
    if rank:
        arrays |= {"onto": normals(columns, rank, seed=4)}
    return arrays


def taken(arrays, rank, threads=1):
    acc = arrays["acc"].copy()
    out = np.full((len(acc), rank), 7, np.float32) if rank else None
    others = {name: one for name, one in arrays.items() if name != "acc"}
    codec.low_rank_take(acc, out, threads=threads, **others)
    return acc, np.zeros((len(acc), 0), np.float32) if out is None else out


@each_case
@each_path
def test_take(rows, columns, rank, sent, path):
    arrays = given(rows, columns, rank, sent)
    with native.forced_path(path):
        acc, out = taken(arrays, rank, threads=2)
    wanted, projected = reference.low_rank_take(**arrays)
    np.testing.assert_array_equal(acc, wanted)
    np.testing.assert_allclose(out, projected, atol=1e-5 * max(1, columns), rtol=1e-5)


@each_case
@each_path
def test_product_is_what_take_takes_out(rows, columns, rank, sent, path):
    arrays = given(rows, columns, rank, sent)
    if not sent:
        return
    product = np.full((rows, columns), 7, np.float32)
    zeros = np.zeros_like(product)
    with native.forced_path(path):
        codec.low_rank_product(arrays["left"], arrays["right"], product, threads=2)
        codec.low_rank_take(zeros, left=arrays["left"], right=arrays["right"])
    np.testing.assert_array_equal(
        product, reference.low_rank_product(arrays["left"], arrays["right"])
    )
    np.testing.assert_array_equal(zeros, -product)


@each_case
@each_path
def test_back(rows, columns, rank, sent, path):
    acc, left = normals(rows, columns), normals(rows, rank, seed=1)
    out = np.full((columns, rank), 7, np.float32)
    with native.forced_path(path):
        codec.low_rank_back(acc, left, out, threads=2)
    np.testing.assert_array_equal(out, reference.low_rank_back(acc, left))


@each_case
def test_same_bits_on_every_path_and_for_any_number_of_threads(rows, columns, rank, sent):
    arrays, results = given(rows, columns, rank, sent), set()
    for path in PATHS:
        for threads in (1, 2, 5):
            with native.forced_path(path):
                acc, out = taken(arrays, rank, threads)
                back = np.empty((columns, rank), np.float32)
                codec.low_rank_back(acc, out, back, threads=threads)
            results.add(acc.tobytes() + out.tobytes() + back.tobytes())
    assert len(results) == 1


@each_path
def test_nan_shows_in_its_place_and_its_row(path):
    arrays = given(20, 90, 3, 2)
    arrays["gradient"][11, 70] = np.nan
    with native.forced_path(path):
        acc, out = taken(arrays, 3)
    assert np.argwhere(np.isnan(acc)).tolist() == [[11, 70]]
    assert np.isnan(out).any(axis=1).nonzero()[0].tolist() == [11]


def test_a_matrix_of_low_rank_is_sent_in_two_steps():
    """The first finds the range, the second sends what noise there was of the first."""
    gradient = normals(60, 3) @ normals(3, 40)
    acc, right = np.zeros((60, 40), np.float32), normals(40, 3, seed=5)
    left, product = np.empty((60, 3), np.float32), np.empty((60, 40), np.float32)
    codec.low_rank_take(acc, left, right, gradient=gradient)
    codec.orthogonalise(left)
    codec.low_rank_back(acc, left, right)
    codec.low_rank_product(left, right, product)
    np.testing.assert_allclose(product, gradient, atol=1e-4)


def ones(*shape):
    return np.ones(shape, np.float32)


BAD = {
    "acc .* 2 axes": {"acc": ones(12)},
    "gradient has 11 elements, but the 12 elements of acc": {"gradient": ones(11)},
    "gradient is float64": {"gradient": ones(3, 4).astype(np.float64)},
    "left has 4 rows, but the rows of acc need 3": {"left": ones(4, 2)},
    "right has 3 columns, but left has 2": {"right": ones(4, 3)},
    "left and right must both be given": {"left": None},
    "out and onto must both be given": {"onto": None},
    "onto has 3 rows, but the columns of acc need 4": {"onto": ones(3, 1)},
    "out has 2 columns, but onto has 1": {"out": ones(3, 2)},
    "onto has 65 columns, but may have at most 64": {"onto": ones(4, 65)},
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_wrong_is_named(message):
    good = {"acc": ones(3, 4), "out": ones(3, 1), "onto": ones(4, 1), "gradient": ones(3, 4),
            "left": ones(3, 2), "right": ones(4, 2)}  # fmt: skip
    arguments = good | BAD[message]
    before = {name: None if one is None else one.copy() for name, one in arguments.items()}
    with pytest.raises(ValueError, match=message):
        codec.low_rank_take(**arguments)
    for name, one in arguments.items():
        np.testing.assert_array_equal(one, before[name])


def test_memory_that_is_written_is_nobody_elses():
    acc = ones(3, 4)
    with pytest.raises(ValueError, match="shares memory"):
        codec.low_rank_take(acc, gradient=acc)
    with pytest.raises(ValueError, match="shares memory"):
        codec.low_rank_take(acc, acc, ones(4, 4))
    with pytest.raises(ValueError, match="shares memory"):
        codec.low_rank_product(acc, ones(4, 4), acc)
