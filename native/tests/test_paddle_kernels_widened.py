"""bfloat16 operators that are computed by Paddle's own float32 kernels: equal to them, rounded once."""

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from native.tests.util_paddle_operators import (  # pants: no-infer-dep
    BF16,
    compare,
    evaluate,
    near,
    random,
    tensor,
)
from oarlock.native.paddle import as_numpy, kernels


@pytest.fixture(scope="module", autouse=True)
def loaded():
    return kernels.load()


LABELS = np.array([0, 2, 1, 3, 1])
IMAGE, FILTER = random((2, 4, 9, 8), "image"), random((6, 4, 3, 3), "filter")
X, Y = random((5, 6), "x"), random((5, 6), "y")
POSITIVE = random((5, 6), "positive", 0.1, 0.9)
INDEX = np.array([3, 0, 0, 2])
MANY_TO_ONE = np.zeros(3000, np.int64)


def batch_norm(x, scale, bias):
    mean, variance = paddle.zeros([4]), paddle.ones([4])
    out = F.batch_norm(x, mean, variance, scale, bias, training=True)
    return out, mean, variance


WIDENED = {
    "abs": (paddle.abs, X),
    "acos": (paddle.acos, POSITIVE),
    "addmm": (paddle.addmm, random((5, 5)), X, random((6, 5))),
    "amax": (lambda x: paddle.amax(x, 1), X),
    "amin": (lambda x: paddle.amin(x, 1), X),
    "argmax": (lambda x: paddle.argmax(x, 1), X),
    "asin": (paddle.asin, POSITIVE),
    "atan": (paddle.atan, X),
    "atan2": (paddle.atan2, X, Y),
    "batch_norm": (batch_norm, IMAGE, random((4,)), random((4,), "b")),
    "bce_loss": (F.binary_cross_entropy, POSITIVE, random((5, 6), "z", 0.0, 1.0)),
    "bce_with_logits": (F.binary_cross_entropy_with_logits, X, POSITIVE),
    "celu": (F.celu, X),
    "clip": (lambda x: paddle.clip(x, -0.5, 0.5), X),
    "concat": (lambda x, y: paddle.concat([x, y], 1), X, Y),
    "conv2d_transpose": (F.conv2d_transpose, IMAGE, random((4, 3, 3, 3))),
    "conv3d": (F.conv3d, random((1, 2, 5, 5, 5)), random((3, 2, 3, 3, 3))),
    "cos": (paddle.cos, X),
    "cumprod": (lambda x: paddle.cumprod(x, 1), X),
    "cumsum": (lambda x: paddle.cumsum(x, 1), X),
    "dot": (paddle.dot, X, Y),
    "einsum": (lambda x, y: paddle.einsum("ij,kj->ik", x, y), X, Y),
    "elu": (F.elu, X),
    "embedding": (lambda w: F.embedding(paddle.to_tensor(MANY_TO_ONE), w), X),
    "erf": (paddle.erf, X),
    "expm1": (paddle.expm1, X),
    "flip": (lambda x: paddle.flip(x, [1]), X),
    "fmax": (paddle.fmax, X, Y),
    "fmin": (paddle.fmin, X, Y),
    "fold": (lambda x: F.fold(x, [4, 5], 2), random((2, 12, 12))),
    "gather": (lambda x: paddle.gather(x, paddle.to_tensor(MANY_TO_ONE)), X),
    "gather_nd": (lambda x: paddle.gather_nd(x, paddle.to_tensor([[1, 2], [1, 2], [0, 3]])), X),
    "grid_sample": (F.grid_sample, IMAGE, random((2, 5, 5, 2), "grid", -0.9, 0.9)),
    "group_norm": (lambda x: F.group_norm(x, 2), IMAGE),
    "hardsigmoid": (F.hardsigmoid, X),
    "hardswish": (F.hardswish, X),
    "hardtanh": (F.hardtanh, X),
    "huber_loss": (F.smooth_l1_loss, X, Y),
    "index": (lambda x: x[paddle.to_tensor(MANY_TO_ONE)], X),
    "index_add": (lambda x, y: paddle.index_add(x, paddle.to_tensor(INDEX), 0, y[:4]), X, Y),
    "index_sample": (lambda x: paddle.index_sample(x, paddle.to_tensor([[0, 1]] * 5)), X),
    "index_select": (lambda x: paddle.index_select(x, paddle.to_tensor(MANY_TO_ONE)), X),
    "instance_norm": (lambda x: F.instance_norm(x), IMAGE),
    "kldiv_loss": (F.kl_div, X, POSITIVE),
    "label_smooth": (F.label_smooth, POSITIVE),
    "leaky_relu": (F.leaky_relu, X),
    "lerp": (paddle.lerp, X, Y, POSITIVE),
    "log10": (paddle.log10, POSITIVE),
    "log1p": (paddle.log1p, POSITIVE),
    "log2": (paddle.log2, POSITIVE),
    "log": (paddle.log, POSITIVE),
    "log_loss": (F.log_loss, random((5, 1), "p", 0.1, 0.9), random((5, 1), "q", 0.0, 1.0)),
    "logsigmoid": (F.log_sigmoid, X),
    "logsumexp": (lambda x: paddle.logsumexp(x, 1), X),
    "max": (lambda x: paddle.max(x, 1), X),
    "maxout": (lambda x: F.maxout(x, 2), IMAGE),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), IMAGE),
    "max_pool_mask": (lambda x: F.max_pool2d(x, 3, 2, 1, return_mask=True), IMAGE),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE),
    "adaptive_pool": (lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE),
    "meshgrid": (lambda x, y: paddle.meshgrid(x[0], y[1]), X, Y),
    "min": (lambda x: paddle.min(x, 1), X),
    "mish": (F.mish, X),
    "mv": (paddle.mv, X, random((6,))),
    "negative": (lambda x: -x, X),
    "nll_loss": (lambda x: F.nll_loss(x, paddle.to_tensor(LABELS)), X),
    "norm": (lambda x: paddle.linalg.norm(x, 2, 1), X),
    "normalize": (lambda x: F.normalize(x), X),
    "pad": (lambda x: F.pad(x, [1, 2, 0, 1]), IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pow": (lambda x: paddle.pow(x, 3.0), X),
    "prelu": (F.prelu, IMAGE, random((4,))),
    "prod": (lambda x: paddle.prod(x, 1), X),
    "put_along_axis": (
        lambda x, y: paddle.put_along_axis(x, paddle.to_tensor([[0, 2]] * 5), y[:, :2], 1),
        *(X, Y),
    ),
    "reciprocal": (paddle.reciprocal, POSITIVE),
    "relu6": (F.relu6, X),
    "roll": (lambda x: paddle.roll(x, 2, 1), X),
    "round": (paddle.round, X),
    "scatter": (lambda x, y: paddle.scatter(x, paddle.to_tensor([1, 3]), y[:2]), X, Y),
    "scatter_nd_add": (
        lambda x, y: paddle.scatter_nd_add(x, paddle.to_tensor([[1], [1]]), y[:2]),
        *(X, Y),
    ),
    "sign": (paddle.sign, X),
    "sin": (paddle.sin, X),
    "softplus": (F.softplus, X),
    "split": (lambda x: paddle.split(x, 2, 1), X),
    "stack": (lambda x, y: paddle.stack([x, y]), X, Y),
    "swish": (F.swish, X),
    "take_along_axis": (lambda x: paddle.take_along_axis(x, paddle.to_tensor([[0, 0]] * 5), 1), X),
    "tan": (paddle.tan, POSITIVE),
    "tile": (lambda x: paddle.tile(x, [2, 3]), X),
    "topk": (lambda x: paddle.topk(x, 2, 1), X),
    "trace": (paddle.trace, X),
    "tril": (paddle.tril, X),
    "triu": (paddle.triu, X),
    "unfold": (lambda x: F.unfold(x, 3), IMAGE),
    "unstack": (lambda x: paddle.unstack(x, 1), X),
    "where": (lambda x, y: paddle.where(paddle.to_tensor(INDEX[:1] > 0), x, y), X, Y),
}


# Their gradients are computed from results, or statistics, that are rounded to bfloat16 between.
ROUNDED_BETWEEN = (
    "bce_loss cumprod elu expm1 group_norm huber_loss logsumexp norm normalize prod reciprocal"
).split()


@pytest.mark.parametrize("name", WIDENED)
def test_widened(name):
    function, *arrays = WIDENED[name]
    if name not in ROUNDED_BETWEEN:
        compare(function, arrays, exactly=True)
        return
    got, want = (evaluate(function, arrays, dtype) for dtype in ("bfloat16", "float32"))
    for ours, theirs in zip(got[0] + got[1], want[0] + want[1], strict=True):
        ours, theirs = as_numpy(ours).astype("f"), theirs.numpy()
        near(ours, theirs, absolute=0.02 * np.abs(theirs).max())


CONVOLUTIONS = {
    "plain": (FILTER, {}),
    "strided": (FILTER, {"stride": 2, "padding": 1}),
    "dilated": (FILTER, {"dilation": 2, "padding": [1, 2]}),
    "uneven": (FILTER, {"padding": [1, 0, 2, 1]}),
    "same": (FILTER, {"padding": "SAME", "stride": 2}),
    "grouped": (random((6, 2, 3, 3)), {"groups": 2}),
    "depthwise": (random((4, 1, 3, 3)), {"groups": 4, "padding": 1}),
    "pointwise": (random((6, 4, 1, 1)), {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    weight, options = CONVOLUTIONS[name]
    arrays = [IMAGE, weight]
    results = [
        evaluate(lambda x, w: F.conv2d(x, w, **options), arrays, dtype)
        for dtype in ("bfloat16", "float32")
    ]
    for ours, theirs in zip(*(first + second for first, second in results), strict=True):
        assert tuple(ours.shape) == tuple(theirs.shape)
        near(as_numpy(ours).astype("f"), theirs.numpy(), absolute=1e-4)


def test_channels_last():
    arrays = [np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1)), FILTER]
    results = [
        evaluate(lambda x, w: F.conv2d(x, w, padding=1, data_format="NHWC"), arrays, dtype)
        for dtype in ("bfloat16", "float32")
    ]
    for ours, theirs in zip(*(first + second for first, second in results), strict=True):
        near(as_numpy(ours).astype("f"), theirs.numpy(), absolute=1e-4)


def test_attention():
    arrays = [random((2, 9, 3, 8), name) for name in "qkv"]
    for causal in (False, True):
        got, want = (
            evaluate(
                lambda q, k, v, c=causal: F.scaled_dot_product_attention(q, k, v, is_causal=c),
                arrays,
                dtype,
            )
            for dtype in ("bfloat16", "float32")
        )
        for ours, theirs in zip(got[0] + got[1], want[0] + want[1], strict=True):
            ours, theirs = ours.astype("float32").numpy(), theirs.numpy()
            assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_widened_in_place_and_views():
    x = random((5, 6), "x")
    changed = tensor(x, "bfloat16").detach()
    changed.clip_(-0.5, 0.5)
    assert np.array_equal(as_numpy(changed), np.clip(x, BF16(-0.5), BF16(0.5)))
    view = tensor(x, "bfloat16").detach().t()
    expected = paddle.cumsum(paddle.to_tensor(x.astype("f").T.copy()), 0).numpy().astype(BF16)
    assert np.array_equal(as_numpy(paddle.cumsum(view, 0)), expected)
