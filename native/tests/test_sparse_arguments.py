"""What the sparse kernels refuse: each message names the argument and what would be right."""

import numpy as np
import pytest

from oarlock.native import sparse

F, I = np.float32, np.int32  # noqa: E741


def bsr(**changed):
    given = {
        "x": np.ones((3, 8), F),
        "pointers": np.array([0, 1, 2], I),
        "indices": np.array([0, 2], I),
        "values": np.ones((2, 4, 2), F),
        "out": np.zeros((3, 6), F),
    } | changed
    out = given["out"]
    before = out.copy() if isinstance(out, np.ndarray) else None
    try:
        sparse.bsr_matmul(**given)
    finally:
        if before is not None:
            assert np.array_equal(out, before) or not changed


def test_a_good_call_passes():
    bsr()


FAULTS = [
    ({"x": np.ones((3, 8))}, "x is float64, but must be float32"),
    ({"x": np.ones((8, 3), F).T}, "x of shape .* is not contiguous"),
    ({"x": np.ones(8, F)}, "x has shape .8., but must have 2 axes"),
    ({"x": np.ones((3, 9), F)}, r"x has shape \[3, 9\], but the sparse matrix needs \[3, 8\]"),
    ({"out": np.zeros((3, 7), F)}, "out has 7 columns, which do not divide into blocks of 2"),
    ({"out": np.zeros((2, 6), F)}, r"out has shape \[2, 6\].* needs \[3, 6\]"),
    ({"indices": np.array([0, 3], I)}, r"indices has 3 in row 1, but must be in \[0, 3\)"),
    ({"indices": np.array([0, -1], I)}, "indices has -1 in row 1"),
    ({"indices": np.array([0, 2])}, "indices is int64, but must be int32"),
    (
        {"pointers": np.array([0, 2, 1], I)},
        "pointers goes from 0 to 1, but must go from 0 to the 2",
    ),
    ({"pointers": np.array([0, 3, 2], I)}, "pointers falls from 3 to 2 after row 1"),
    ({"pointers": np.zeros(0, I)}, "pointers is empty"),
    (
        {"pointers": np.array([0, 2, 2], I), "indices": np.array([1, 1], I)},
        "indices has 1 in row 0, after 1; they must rise",
    ),
    ({"values": np.ones((3, 4, 2), F)}, "values has 3 blocks, but there are 2 indices"),
    ({"values": np.ones((2, 4), F)}, "values has shape .* but must be .blocks, block rows"),
    ({"x": "words"}, "x must be a Paddle tensor"),
    ({"transpose": 1}, "transpose must be True or False"),
    ({"threads": 0}, "threads must be between 1"),
]


@pytest.mark.parametrize("changed, message", FAULTS)
def test_bsr_matmul_refuses(changed, message):
    with pytest.raises(ValueError, match=message):
        bsr(**changed)


def test_results_need_memory_of_their_own():
    x = np.ones((4, 4), F)
    with pytest.raises(ValueError, match="shares memory"):
        sparse.bsr_matmul(x, np.array([0, 1], I), np.array([0], I), np.ones((1, 4, 4), F), x)


def csr(**changed):
    given = {
        "pointers": np.array([0, 1, 2], I),
        "indices": np.array([0, 2], I),
        "values": np.ones(2, F),
        "dense": np.ones((3, 5), F),
        "out": np.zeros((2, 5), F),
    } | changed
    sparse.csr_matmul(**given)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"values": np.ones(3, F)}, "values has 3 elements, but there are 2 indices"),
        ({"dense": np.ones((2, 5), F)}, r"indices has 2 in row 1, but must be in \[0, 2\)"),
        ({"out": np.zeros((3, 5), F)}, r"out has shape \[3, 5\].* needs \[2, 5\]"),
        ({"out": np.zeros((5, 2), F)}, r"out has shape .* needs \[2, 5\]"),
        ({"transpose": True}, r"indices has 2 in row 1, but must be in \[0, 2\)"),
        ({"transpose": True, "out": np.zeros((3, 5), F)}, "dense has shape .* needs .2, 5."),
    ],
)
def test_csr_matmul_refuses(changed, message):
    csr()
    with pytest.raises(ValueError, match=message):
        csr(**changed)


def test_csr_sample_refuses():
    structure = np.array([0, 1], I), np.array([1], I)
    a, b, out = np.ones((1, 4), F), np.ones((2, 4), F), np.zeros(1, F)
    sparse.csr_sample(a, b, *structure, out)
    with pytest.raises(ValueError, match="a has shape .2, 4., but the sparse matrix needs .1, 4."):
        sparse.csr_sample(np.ones((2, 4), F), b, *structure, out)
    with pytest.raises(ValueError, match="b has shape .2, 5., but a needs .2, 4."):
        sparse.csr_sample(a, np.ones((2, 5), F), *structure, out)
    with pytest.raises(ValueError, match="out has 2 elements"):
        sparse.csr_sample(a, b, *structure, np.zeros(2, F))


@pytest.mark.parametrize(
    "codes, group, message",
    [
        (np.array([[0], [1], [1]], np.uint8), 4, "does not fit 2 groups of 4 rows"),
        (np.array([[1], [1], [0], [1]], np.uint8), 4, r"codes has 1 at \[1, 0\].*rise"),
        (np.array([[0], [4], [0], [1]], np.uint8), 4, r"codes has 4 at \[1, 0\].*below 4"),
        (np.array([[0], [1], [0], [1]], np.int32), 4, "codes is int32, but must be uint8"),
        (np.array([[0], [1], [0], [1]], np.uint8), 3, "8 rows, which do not divide into groups"),
        (np.array([[0], [1], [0], [1]], np.uint8), 0, "group must be an integer in"),
    ],
)
def test_nm_matmul_refuses(codes, group, message):
    x, out = np.ones((2, 8), F), np.zeros((2, 1), F)
    good = np.array([[0], [1], [0], [3]], np.uint8)
    sparse.nm_matmul(x, good, np.ones((4, 1), F), out)
    with pytest.raises(ValueError, match=message):
        sparse.nm_matmul(x, codes, np.ones((len(codes), 1), F), out, group=group)


def test_from_dense_refuses():
    with pytest.raises(ValueError, match="x must be a matrix"):
        sparse.csr_from_dense(np.ones(4, F))
    with pytest.raises(ValueError, match="x is float64"):
        sparse.csr_from_dense(np.ones((2, 2)))
    with pytest.raises(ValueError, match="above must be a finite number"):
        sparse.csr_from_dense(np.ones((2, 2), F), above=float("nan"))


def test_transpose_refuses():
    with pytest.raises(ValueError, match=r"indices has 2 in row 0, but must be in \[0, 2\)"):
        sparse.csr_transpose(np.array([0, 1], I), np.array([2], I), columns=2)
    with pytest.raises(ValueError, match="columns must be an integer"):
        sparse.csr_transpose(np.array([0, 1], I), np.array([2], I), columns=-1)
