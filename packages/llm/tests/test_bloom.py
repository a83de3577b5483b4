"""BLOOM's own: ALiBi by its formula, no positions otherwise, no limit on the length."""

import numpy as np
import paddle
import pytest

from oarlock.llm.models import bloom, common


def test_slopes_of_powers_of_two_are_the_papers():
    assert bloom.alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert bloom.alibi_slopes(16)[:2] == pytest.approx([2**-0.5, 2**-1.0])
    assert bloom.alibi_slopes(1) == [2**-8]


def test_other_numbers_of_heads_take_slopes_between():
    assert bloom.alibi_slopes(12) == pytest.approx(
        [2.0**-i for i in range(1, 9)] + [2.0**-p for p in (0.5, 1.5, 2.5, 3.5)]
    )


@pytest.mark.parametrize("T, S", [(1, 1), (5, 5), (1, 6), (3, 8)])
def test_bias_is_minus_slope_times_distance(T, S):
    bias = bloom.alibi_bias(3, T, S, "float32").numpy() * np.ones([3, T, S])
    for head, slope in enumerate(bloom.alibi_slopes(3)):
        for t in range(T):
            position = S - T + t
            expected = [-slope * (position - s) for s in range(position + 1)]
            row = bias[head, t, : position + 1]
            # softmax does not see a constant
            np.testing.assert_allclose(row - row[-1], expected, atol=1e-6)
            assert (bias[head, t, position + 1 :] < common.MASKED / 2).all()


def test_any_length_works(small_model):
    tokens = paddle.to_tensor(np.random.default_rng(0).integers(0, 29, [1, 200]))
    assert np.isfinite(small_model("bloom")(tokens).numpy()).all()


def test_tokens_need_the_bias_to_know_their_order(small_model, tokens):
    """Two permuted contexts give another last logit, through ALiBi alone."""
    model = small_model("bloom", num_layers=1)
    swapped = tokens.numpy().copy()
    swapped[:, [0, 5]] = swapped[:, [5, 0]]
    last, other = (model(paddle.to_tensor(x))[:, -1].numpy() for x in (tokens.numpy(), swapped))
    assert abs(last - other).max() > 1e-3
