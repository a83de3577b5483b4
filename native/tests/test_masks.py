"""Masks against matrices written out from what they mean."""

import numpy as np
import pytest

from oarlock.native import masks


def matrix(length, sees):
    return np.array([[sees(i, j) for j in range(length)] for i in range(length)])


TEXTS = np.repeat([0, 1, 2], [5, 1, 6])  # of 12 tokens
BUILT = {
    "full": (masks.full(), lambda i, j: True),
    "causal": (masks.causal(), lambda i, j: j <= i),
    "document": (masks.document([5, 1, 6]), lambda i, j: j <= i and TEXTS[i] == TEXTS[j]),
    "document, both ways": (
        masks.document([5, 1, 6], causal=False),
        lambda i, j: TEXTS[i] == TEXTS[j],
    ),
    "document in a window": (
        masks.document([5, 1, 6], window=3),
        lambda i, j: j <= i < j + 3 and TEXTS[i] == TEXTS[j],
    ),
    "document in a window, both ways": (
        masks.document([5, 1, 6], window=3, causal=False),
        lambda i, j: abs(i - j) < 3 and TEXTS[i] == TEXTS[j],
    ),
    "window": (masks.sliding_window(12, 4), lambda i, j: j <= i < j + 4),
    "window, both ways": (
        masks.sliding_window(12, 4, causal=False),
        lambda i, j: abs(i - j) < 4,
    ),
    "window of one": (masks.sliding_window(12, 1), lambda i, j: i == j),
    "shared question": (
        masks.shared_question(5, [1, 6]),
        lambda i, j: j <= i and (j < 5 or TEXTS[i] == TEXTS[j]),
    ),
    "prefix": (masks.prefix(12, 5), lambda i, j: j < 5 or j <= i),
    "prefix of all": (masks.prefix(12, 12), lambda i, j: True),
    "prefix of none": (masks.prefix(12, 0), lambda i, j: j <= i),
    "concatenated": (
        masks.concatenate([masks.document([5]), masks.document([1]), masks.document([6])]),
        lambda i, j: j <= i and TEXTS[i] == TEXTS[j],
    ),
    "concatenated, mixed": (
        masks.concatenate([masks.prefix(5, 2), masks.document([1]), masks.sliding_window(6, 2)]),
        lambda i, j: TEXTS[i] == TEXTS[j] and (j <= i or i < 5 and j < 2) and (i < 6 or i < j + 2),
    ),
}


@pytest.mark.parametrize("mask, sees", BUILT.values(), ids=BUILT)
def test_builders(mask, sees):
    wanted = matrix(12, sees)
    assert np.array_equal(mask.to_dense(12)[0, 0], wanted)
    assert mask.seen(12) == pytest.approx(wanted.mean())


@pytest.mark.parametrize("mask, sees", BUILT.values(), ids=BUILT)
def test_flashmask_s_tensors_there_and_back(mask, sees):
    indices = mask.to_startend_row_indices(12)
    assert indices.dtype == np.int32 and indices.shape[:3] == (1, 1, 12)
    again = masks.from_startend_row_indices(indices, causal=mask.causal)
    assert np.array_equal(again.to_dense(12), mask.to_dense(12))


def test_bounds_mean_what_paddle_says():
    """The sentences of `flashmask_attention`, one after the other, for key 2 of 6."""
    bounds = np.array([6, 6, 4, 6, 6, 6])
    dense = masks.from_startend_row_indices(bounds[None, None, :, None], causal=True).to_dense(6)
    assert dense[0, 0, :, 2].tolist() == [False, False, True, True, False, False]
    pairs = np.stack([bounds, [6, 6, 5, 6, 6, 6]], -1)[None, None]
    dense = masks.from_startend_row_indices(pairs, causal=True).to_dense(6)
    assert dense[0, 0, :, 2].tolist() == [False, False, True, True, False, True]
    pairs = np.stack([bounds, [0, 0, 1, 0, 0, 0]], -1)[None, None]
    dense = masks.from_startend_row_indices(pairs, causal=False).to_dense(6)
    assert dense[0, 0, :, 2].tolist() == [False, True, True, True, False, False]
    four = np.broadcast_to([4, 5, 1, 2], (1, 1, 6, 4))
    dense = masks.from_startend_row_indices(four, causal=False).to_dense(6)
    assert dense[0, 0, :, 2].tolist() == [True, False, True, True, False, True]
    none = masks.from_startend_row_indices(None, causal=True)
    assert np.array_equal(none.to_dense(6), masks.causal().to_dense(6))


def test_causal_with_more_keys_than_rows_ends_at_the_last_key():
    wanted = [[True, True, True, False], [True, True, True, True]]
    assert masks.causal().to_dense(2, 4)[0, 0].tolist() == wanted
    assert masks.causal().seen(2, 4) == pytest.approx(7 / 8)
    assert masks.causal().to_dense(4, 2)[0, 0].tolist()[:2] == [[False, False]] * 2


def test_stack():
    mask = masks.stack([masks.document([9, 3]), masks.prefix(12, 4)])
    dense = mask.to_dense(12)
    assert dense.shape == (2, 1, 12, 12)
    assert np.array_equal(dense[0], masks.document([9, 3]).to_dense(12)[0])
    assert np.array_equal(dense[1], masks.prefix(12, 4).to_dense(12)[0])


def test_overlapping_intervals_count_once():
    four = np.broadcast_to([1, 4, 2, 6], (1, 1, 6, 4))
    mask = masks.Mask(False, four)
    assert mask.seen(6) == pytest.approx(mask.to_dense(6).mean())


def test_a_mask_keeps_its_own_numbers():
    bounds = np.full((1, 1, 4, 1), 4, np.int64)
    mask = masks.Mask(True, bounds)
    bounds[:] = 0
    assert (mask.bounds == 4).all()
    with pytest.raises(ValueError, match="read-only"):
        mask.bounds[:] = 0


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: masks.document([]), "lengths must have at least one"),
        (lambda: masks.document([3, 0]), r"lengths\[1\] must be an integer >= 1, not 0"),
        (lambda: masks.document([3], window=0), "window must be an integer >= 1"),
        (lambda: masks.sliding_window(0, 1), "length must be"),
        (lambda: masks.shared_question(0, [1]), "question must be"),
        (lambda: masks.shared_question(1, []), "answers must have at least one"),
        (lambda: masks.prefix(4, 5), "size must be an integer from 0 to 4"),
        (lambda: masks.Mask(1), "causal must be True or False"),
        (lambda: masks.Mask(True, np.zeros((1, 1, 4, 4), int)), "4, 1 or 2|keys, 1 or 2"),
        (lambda: masks.Mask(False, np.zeros((1, 1, 4, 1), int)), "keys, 2 or 4"),
        (lambda: masks.Mask(True, np.zeros((4, 1), int)), "must have"),
        (lambda: masks.Mask(True, np.zeros((1, 1, 4, 1))), "must be integers"),
        (lambda: masks.Mask(True, np.full((1, 1, 4, 1), -1)), "bounds has -1"),
        (lambda: masks.Mask(True, np.full((1, 1, 4, 1), 2**31)), "below 2"),
        (lambda: masks.Mask(True, np.array([[[[3, 2]]]])), r"from 3 to 2 at \[0, 0, 0\]"),
        (lambda: masks.Mask(False, np.array([[[[0, 1, 3, 2]]]])), "from 3 to 2"),
        (lambda: masks.concatenate([]), "parts must have at least one"),
        (lambda: masks.concatenate([masks.causal()]), "which knows its length"),
        (lambda: masks.stack([masks.document([3]), masks.document([4])]), "of one shape"),
        (lambda: masks.stack([masks.document([3]), 7]), r"parts\[1\] must be a mask"),
        (
            lambda: masks.concatenate([masks.Mask(True, np.zeros((1, 1, 2, 2), int))]),
            r"parts\[0\] has bounds of shape \[1, 1, 2, 2\]",
        ),
        (
            lambda: masks.stack(
                [masks.Mask(True, np.zeros((1, 1, 2, 2), int)), masks.prefix(2, 1)]
            ),
            "cannot be mixed",
        ),
        (lambda: masks.document([3]).to_dense(4), "mask is for 3 keys, but there are 4"),
        (lambda: masks.document([3]).to_dense(2, 3), "mask has a bound of 3, but there are 2"),
    ],
)
def test_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
