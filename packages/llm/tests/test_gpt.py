"""GPT-2's own: learned positions and the tied head."""

import numpy as np
import paddle
import paddle.nn.functional as F

from oarlock.llm.models import common


def test_positions_are_learned_and_added(small_model, tokens):
    model = small_model("gpt")
    before = model(tokens).numpy()
    weight = model.position_embedding.weight
    changed = weight.numpy()
    changed[4, 0] += 1
    weight.set_value(changed)
    after = model(tokens).numpy()
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert (abs(after[:, 4:] - before[:, 4:]).max(-1) > 1e-3).all()


def test_the_head_is_the_embedding(small_model):
    names = [name for name, _ in small_model("gpt").named_parameters()]
    assert not [name for name in names if "head" in name]


def test_layer_norm_equals_paddles_own():
    rng = np.random.default_rng(0)
    for shape in ([3, 5], [2, 7, 24]):
        norm = common.LayerNorm(shape[-1], 1e-5)
        norm.weight.set_value(rng.standard_normal(shape[-1:]).astype("float32"))
        norm.bias.set_value(rng.standard_normal(shape[-1:]).astype("float32"))
        x = paddle.to_tensor(10 + rng.standard_normal(shape), "float32", stop_gradient=False)
        g = paddle.to_tensor(rng.standard_normal(shape), "float32")
        inputs = [x, norm.weight, norm.bias]
        ours = [norm(x), *paddle.grad([norm(x)], inputs, [g])]
        plain = F.layer_norm(x, shape[-1:], norm.weight, norm.bias, 1e-5)
        for found, expected in zip(ours, [plain, *paddle.grad([plain], inputs, [g])]):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=3e-5)


def test_swap_axes_is_a_contiguous_transpose():
    for shape in ([2, 3, 5, 4], [1, 1, 5, 4], [2, 3, 1, 4], [1, 2, 3, 1]):
        x = paddle.to_tensor(np.random.default_rng(0).standard_normal(shape))
        swapped = common.swap_axes(x)
        assert swapped.is_contiguous()
        np.testing.assert_array_equal(swapped.numpy(), x.numpy().transpose(0, 2, 1, 3))
