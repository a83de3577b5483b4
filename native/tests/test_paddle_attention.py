"""Masked attention in Paddle's autograd: equal to the same function by Paddle's operators."""

import numpy as np
import paddle
import pytest

from oarlock.native import attention, masks
from oarlock.native.paddle.attention import dense_attention, masked_attention

MASKS = {
    "none": None,
    "causal": masks.causal(),
    "documents": masks.document([60, 5, 65]),
    "window": masks.sliding_window(130, 20),
    "window both ways": masks.sliding_window(130, 20, causal=False),
    "shared question": masks.shared_question(50, [40, 40]),
    "prefix": masks.prefix(130, 30),
    "each batch": masks.stack([masks.document([130]), masks.prefix(130, 30)]),
    "each head": masks.Mask(True, np.tile(np.int32([130, 90])[:, None, None], (1, 1, 130, 1))),
    "empty rows": masks.Mask(False, np.tile(np.int32([40, 90, 0, 0]), (1, 1, 130, 1))),
}


def tensors(*shapes, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    found = [
        paddle.to_tensor(rng.standard_normal(shape, np.float32)).astype(dtype) for shape in shapes
    ]
    for tensor in found:
        tensor.stop_gradient = False
    return found


def shapes(rows=130, keys=130):
    return (2, rows, 4, 24), (2, keys, 2, 24), (2, keys, 2, 24)


def results(function, q, k, v, mask, **options):
    """The result and the gradients of a weighted sum of it."""
    for tensor in (q, k, v):
        tensor.clear_grad()
    out = function(q, k, v, mask, **options)
    weights = paddle.to_tensor(np.cos(np.arange(out.size, dtype=np.float32)).reshape(out.shape))
    (out.astype("float32") * weights).sum().backward()
    found = [out.detach()] + [tensor.grad for tensor in (q, k, v)]
    return [tensor.astype("float32").numpy() for tensor in found]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_equal_to_paddle_s_operators(mask):
    given = tensors(*shapes())
    for ours, theirs in zip(
        results(masked_attention, *given, mask), results(dense_attention, *given, mask)
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows, keys", [(20, 130), (130, 20)])
def test_other_rows_than_keys(rows, keys):
    given = tensors(*shapes(rows, keys))
    for mask in (None, masks.causal()):
        ours, theirs = (
            results(f, *given, mask, scale=0.3) for f in (masked_attention, dense_attention)
        )
        for one, other in zip(ours, theirs):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_equal_to_paddle_s_own_attention():
    q, k, v = tensors(*[(2, 50, 4, 16)] * 3)
    theirs = paddle.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    ours = masked_attention(q, k, v, causal=True)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_bfloat16():
    given = tensors(*shapes(), dtype="bfloat16")
    wide = [tensor.astype("float32").detach() for tensor in given]
    for tensor in wide:
        tensor.stop_gradient = False
    mask = MASKS["documents"]
    assert masked_attention(*given, mask).dtype == paddle.bfloat16
    for ours, theirs in zip(
        results(masked_attention, *given, mask), results(dense_attention, *wide, mask)
    ):
        np.testing.assert_allclose(ours, theirs, rtol=2e-2, atol=3e-2)


def test_views_are_copied_not_changed():
    x = tensors((2, 4, 130, 24))[0]
    q = paddle.transpose(x, [0, 2, 1, 3])
    k, v = tensors(*shapes()[1:], seed=1)
    out = masked_attention(q, k, v, MASKS["causal"])
    out.sum().backward()
    assert not q.is_contiguous() and x.grad.shape == x.shape
    plain = q.detach().clone()
    plain.stop_gradient = False
    masked_attention(plain, k, v, MASKS["causal"]).sum().backward()
    assert np.array_equal(x.grad.numpy(), plain.grad.numpy().transpose(0, 2, 1, 3))


def test_gradients_only_where_wanted():
    q, k, v = tensors(*shapes())
    k.stop_gradient = True
    masked_attention(q, k, v, causal=True).sum().backward()
    assert k.grad is None and q.grad is not None and v.grad is not None
    with paddle.no_grad():
        assert masked_attention(q, k, v, causal=True).stop_gradient


def test_gradients_add_up():
    q, k, v = tensors(*shapes())
    first = results(masked_attention, q, k, v, None)[1]
    masked_attention(q, k, v).sum().backward()
    second = q.grad.numpy() - first
    q.clear_grad()
    masked_attention(q, k, v).sum().backward()
    np.testing.assert_allclose(second, q.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_the_kernel_computes_on_the_cpu(monkeypatch):
    calls = []
    forward = attention.forward
    monkeypatch.setattr(attention, "forward", lambda *a, **o: (calls.append(o), forward(*a, **o)))
    masked_attention(*tensors(*shapes()), MASKS["window"], threads=2)
    assert calls == [{"mask": MASKS["window"], "scale": None, "threads": 2}]


class Layer(paddle.nn.Layer):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, q, k, v):
        return masked_attention(q, k, v, self.mask)


@pytest.mark.parametrize("name", ["documents", "empty rows"])
def test_to_static(name):
    given = tensors(*shapes())
    static = paddle.jit.to_static(Layer(MASKS[name]), full_graph=True)

    def function(q, k, v, mask):
        return static(q, k, v)

    for ours, theirs in zip(
        results(masked_attention, *given, MASKS[name]), results(function, *given, None)
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [masked_attention, dense_attention])
def test_refused(function):
    q, k, v = tensors(*shapes())
    with pytest.raises(ValueError, match="mask must be a Mask"):
        function(q, k, v, paddle.zeros([1, 1, 130, 1], "int32"))
    with pytest.raises(ValueError, match="without a mask"):
        function(q, k, v, MASKS["prefix"], causal=True)
    with pytest.raises(ValueError, match="mask is for 130 keys, but there are 20"):
        function(q[:, :20], k[:, :20], v[:, :20], MASKS["prefix"])
    with pytest.raises(ValueError, match="heads"):
        function(q[:, :, :3], k, v)


@pytest.mark.skipif(
    not paddle.device.is_compiled_with_cuda(), reason="this Paddle is for CPUs: no GPU tensors"
)
def test_on_a_gpu():
    given = [tensor.cuda().detach() for tensor in tensors(*shapes())]
    for tensor in given:
        tensor.stop_gradient = False
    on_cpu = tensors(*shapes())
    mask = MASKS["documents"]
    for ours, theirs in zip(
        results(masked_attention, *given, mask), results(masked_attention, *on_cpu, mask)
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
