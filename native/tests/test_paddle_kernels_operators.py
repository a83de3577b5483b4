"""bfloat16 operators with kernels of their own, against Paddle's float32 on widened operands.

They may differ by float32 rounding, hence by one step of bfloat16.
"""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from native.tests.util_paddle_operators import (  # pants: no-infer-dep
    BF16,
    SHAPES,
    compare,
    evaluate,
    near,
    random,
    tensor,
)
from oarlock.native.paddle import as_numpy, kernels
from oarlock.native.paddle.cpu import this_cpu


@pytest.fixture(scope="module", autouse=True)
def loaded():
    return kernels.load()


ELEMENTWISE = {
    "relu": F.relu,
    "sigmoid": F.sigmoid,
    "tanh": paddle.tanh,
    "exp": paddle.exp,
    "sqrt": paddle.sqrt,
    "rsqrt": paddle.rsqrt,
    "square": paddle.square,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate=True),
}


# Paddle saves some results for their gradients, here rounded: these are the gradients of that.
FROM_RESULT = {
    "sigmoid": lambda out, d: d * out * (1 - out),
    "tanh": lambda out, d: d * (1 - out * out),
    "exp": lambda out, d: d * out,
    "sqrt": lambda out, d: d / (2 * out),
    "rsqrt": lambda out, d: -d * out**3 / 2,
    "softmax": lambda out, d: out * (d - (d * out).sum(-1, keepdims=True)),
    "log_softmax": lambda out, d: d - np.exp(out) * d.sum(-1, keepdims=True),
}


def compare_from_result(name, function, array):
    """The result as compare does, the gradient against that of the rounded result."""
    got, expected = (evaluate(function, [array], dtype) for dtype in ("bfloat16", "float32"))
    out = as_numpy(got[0][0]).astype(np.float32)
    near(out, expected[0][0].numpy())
    upstream = random(array.shape, "upstream").astype(np.float64)
    near(as_numpy(got[1][0]).astype("f"), FROM_RESULT[name](out.astype("d"), upstream))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, shape):
    low = (0.01, 9.0) if name in ("sqrt", "rsqrt") else ()
    array = random(shape, name, *low)
    if name in FROM_RESULT:
        compare_from_result(name, ELEMENTWISE[name], array)
    else:
        compare(ELEMENTWISE[name], [array], exactly=False)


EVERY = np.arange(1 << 16, dtype=np.uint16).view(BF16)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("relu", lambda x: np.where(x < 0, 0, x)),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("tanh", np.tanh),
        ("exp", np.exp),
        ("square", np.square),
        ("silu", lambda x: x / (1 + np.exp(-x))),
        ("gelu_tanh", lambda x: x / (1 + np.exp(-1.5957691216 * (x + 0.044715 * x**3)))),
    ],
)
def test_every_bfloat16(name, exact):
    """All 65 536 of them against float64: one step, or both tiny."""
    with np.errstate(all="ignore"):
        expected = exact(EVERY.astype(np.float64)).astype(np.float32)
    got = as_numpy(ELEMENTWISE[name](tensor(EVERY, "bfloat16").detach())).astype(np.float32)
    moderate = np.abs(expected) < 3e38
    near(got[moderate], expected[moderate], absolute=1e-36)
    huge = np.abs(expected) > 3.5e38
    assert np.array_equal(got[huge], expected[huge])
    assert np.array_equal(np.isnan(got), np.isnan(expected))


def test_gelu_of_every_bfloat16():
    x = paddle.to_tensor(EVERY.astype(np.float64))
    expected = x * 0.5 * (1 + paddle.erf(x / 2**0.5))  # cancels below -3
    got = as_numpy(F.gelu(tensor(EVERY, "bfloat16").detach())).astype(np.float32)
    expected, values = expected.numpy().astype(np.float32), EVERY.astype(np.float32)
    chosen = (values > -3) & (np.abs(values) < 1e38)
    near(got[chosen], expected[chosen], absolute=1.2e-38)
    tail = (values <= -3) & np.isfinite(values)
    assert np.all(got[tail] <= 0) and np.all(got[tail] > -0.0042)


BROADCASTS = [  # and of nothing, but for division: Paddle's own gradient fails there
    ((), ()),
    ((7,), ()),
    ((3, 5), (5,)),
    ((3, 1), (1, 5)),
    ((2, 1, 5, 1), (3, 1, 7)),
    ((600, 300), (300,)),
    ((600, 300), (600, 1)),
    ((257, 129), (257, 129)),
    ((1, 1), (40000, 1)),
    ((0, 3), (3,)),
]


@pytest.mark.parametrize(("x", "y"), BROADCASTS, ids=str)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_arithmetic(name, x, y):
    if name == "divide" and 0 in x:
        x = y = (5,)
    function = getattr(paddle, name)
    arrays = [random(x, "x"), random(y, "y", 0.5, 2.0)]
    got, want = (evaluate(function, arrays, dtype) for dtype in ("bfloat16", "float32"))
    assert as_numpy(got[0][0]).tobytes() == want[0][0].numpy().astype(BF16).tobytes()
    terms = max(np.prod(x, dtype=int), np.prod(y, dtype=int))
    for ours, theirs in zip(got[1], want[1], strict=True):
        assert tuple(ours.shape) == tuple(theirs.shape)
        absolute = 1e-5 * (1 + terms**0.5)
        if name == "divide":  # its gradient is computed from the rounded result
            absolute += 0.01 * terms**0.5 * np.abs(theirs.numpy()).max()
        near(as_numpy(ours).astype("f"), theirs.numpy(), absolute)


def test_in_place_arithmetic():
    for name in ("add_", "subtract_", "multiply_"):
        x, y = random((5, 33), "x"), random((33,), "y")
        changed = tensor(x, "bfloat16").detach()
        getattr(changed, name)(tensor(y, "bfloat16").detach())
        plain = getattr(paddle, name[:-1])
        expected = plain(paddle.to_tensor(x.astype("f")), paddle.to_tensor(y.astype("f")))
        assert as_numpy(changed).tobytes() == expected.numpy().astype(BF16).tobytes()
    exp, sqrt = paddle.Tensor.exp_, paddle.Tensor.sqrt_
    for function in (F.relu_, F.tanh_, exp, sqrt, F.softmax_):
        x = random((5, 33), "x", 0.1, 3.0)
        changed = tensor(x, "bfloat16").detach()
        function(changed)
        expected = function(paddle.to_tensor(x.astype("f")))
        near(as_numpy(changed).astype("f"), expected.numpy())


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 257), (4, 1000), (300, 40), (1, 1), (0, 5)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, shape):
    function, array = getattr(F, name), random(shape, name)
    compare_from_result(name, function, array)
    if len(shape) > 1 and shape[0]:  # not the last axis: Paddle's float32 kernel
        got, want = (
            evaluate(lambda x: function(x, axis=0), [array], d) for d in ("bfloat16", "float32")
        )
        assert as_numpy(got[0][0]).tobytes() == want[0][0].numpy().astype(BF16).tobytes()
        largest = np.abs(want[1][0].numpy()).max()
        near(as_numpy(got[1][0]).astype("f"), want[1][0].numpy(), absolute=0.02 * largest)


def test_softmax_of_extremes():
    rows = np.array([[1e30, -1e30, 0], [88, 89, 90], [-3e38, -3e38, -3e38], [np.nan, 0, 1]], "f")
    got = F.softmax(tensor(rows.astype(BF16), "bfloat16").detach()).astype("float32").numpy()
    want = F.softmax(paddle.to_tensor(rows.astype(BF16).astype("f"))).numpy()
    near(got, want)


@pytest.mark.parametrize("label_type", ["int64", "int32"])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (7, 33), (64, 1000)])
def test_cross_entropy(rows, classes, label_type):
    labels = np.random.default_rng(0).integers(0, classes, rows).astype(label_type)
    labels[:1] = -100  # ignored
    hard, soft = paddle.to_tensor(labels), F.softmax(paddle.randn([rows, classes]))
    for function in (
        lambda x: F.cross_entropy(x, hard, reduction="none"),
        lambda x: F.cross_entropy(x, hard),
        lambda x: F.cross_entropy(x, soft.astype(x.dtype), soft_label=True, reduction="none"),
    ):
        arrays = [random((rows, classes), "logits")]
        got, want = (evaluate(function, arrays, dtype) for dtype in ("bfloat16", "float32"))
        near(as_numpy(got[0][0]).astype("f"), want[0][0].numpy(), absolute=0.02)
        ours, theirs = as_numpy(got[1][0]).astype("f"), want[1][0].numpy()
        near(ours, theirs, absolute=0.01 * np.abs(theirs).max())  # the probabilities are rounded
    with pytest.raises(ValueError, match="label"):
        F.cross_entropy(
            tensor(random((rows, classes)), "bfloat16"), paddle.full([rows], classes, "int64")
        )


@pytest.mark.parametrize("parameters", ["bfloat16", "float32", None])
@pytest.mark.parametrize("shape", [(1, 8), (7, 33), (2, 5, 256), (300, 12), (0, 8)], ids=str)
def test_layer_norm(shape, parameters):
    n = shape[-1]

    def function(x, scale, bias):
        if parameters is None:
            return F.layer_norm(x, [n], epsilon=1e-3)
        keep = "float32" if x.dtype == paddle.float32 else parameters
        return F.layer_norm(x, [n], scale.astype(keep), bias.astype(keep), epsilon=1e-3)

    arrays = [random(shape, "x"), random((n,), "scale"), random((n,), "bias")]
    got, want = (evaluate(function, arrays, dtype) for dtype in ("bfloat16", "float32"))
    scale = max(1.0, np.prod(shape) / n) ** 0.5
    for ours, theirs in zip(got[0] + got[1], want[0] + want[1], strict=True):
        near(ours.astype("float32").numpy(), theirs.numpy(), absolute=4e-5 * scale)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 8), (7, 33), (2, 5, 256), (130, 12), (0, 8)], ids=str)
def test_rms_norm(shape, dtype):
    """Paddle has it on GPUs only: against its definition."""
    n = shape[-1]
    arrays = [random(shape, "x"), random((n,), "scale")]

    def definition(x, scale):
        return x * paddle.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3) * scale

    want = evaluate(definition, arrays, "float32")
    got = evaluate(lambda x, scale: F.rms_norm(x, [n], scale, 1e-3)[0], arrays, dtype)
    scale = max(1.0, np.prod(shape) / n) ** 0.5
    for ours, theirs in zip(got[0] + got[1], want[0] + want[1], strict=True):
        assert ours.dtype == getattr(paddle, dtype)
        near(ours.astype("float32").numpy(), theirs.numpy(), absolute=4e-5 * scale)


def test_norms_refuse_what_does_not_fit():
    x = tensor(random((3, 8)), "bfloat16")
    with pytest.raises(ValueError, match="8|scale"):
        F.layer_norm(x, [8], tensor(random((7,)), "bfloat16"), tensor(random((7,)), "bfloat16"))


@pytest.mark.parametrize("shape", [(2,), (5, 66), (2, 3, 600), (0, 4)], ids=str)
def test_swiglu(shape):
    compare(F.swiglu, [random(shape, "x"), random(shape, "y")], exactly=False)
    compare(F.swiglu, [random(shape, "x")], exactly=False)


@pytest.mark.parametrize("path", ["native", "float32"])
@pytest.mark.parametrize("rows", [(), (1,), (7,), (3, 5), (0,)], ids=str)
def test_linear(rows, path):
    arrays = [random((*rows, 33), "x"), random((33, 17), "w"), random((17,), "b")]

    def check():
        got, want = (evaluate(F.linear, arrays, dtype) for dtype in ("bfloat16", "float32"))
        for ours, theirs in zip(got[0] + got[1], want[0] + want[1], strict=True):
            assert tuple(ours.shape) == tuple(theirs.shape)
            near(as_numpy(ours).astype("f"), theirs.numpy(), absolute=0.1)  # product, then sum
        if rows:
            fused = paddle._C_ops.linear_v2(*(tensor(a, "bfloat16") for a in arrays), False)
            near(as_numpy(fused).astype("f"), want[0][0].numpy(), absolute=1e-4)

    if path == "native" and not this_cpu().avx512:
        pytest.skip("this processor has no AVX-512, which oneDNN needs for bfloat16")
    with kernels.forced_bfloat16() if path == "native" else kernels.forced_float32():
        check()


AXES = [((7,), None), ((3, 5), 0), ((3, 5), 1), ((2, 3, 40), (0, 2)), ((600, 30), 0)]


@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums(name, shape, axis):
    for keepdim in (False, True):
        compare(
            lambda x, k=keepdim: getattr(paddle, name)(x, axis=axis, keepdim=k),
            [random(shape, name)],
            exactly=False,
        )
    many = tensor(np.ones(10001, "f").astype(BF16), "bfloat16")
    assert paddle.sum(many).item() == 9984 and paddle.mean(many).item() == 1
    assert paddle.sum(many, dtype="float32").item() == 10001


def test_mean_of_nothing():
    nothing = tensor(random((0, 3)), "bfloat16").detach()
    assert np.isnan(paddle.mean(nothing, 0).astype("float32").numpy()).all()
    assert paddle.sum(nothing, 0).astype("float32").numpy().tolist() == [0, 0, 0]


@pytest.mark.parametrize("to", ["bfloat16", "float16", "float64", "int32", "bool"])
def test_cast_of_float32(to):
    bits = np.random.default_rng(0).integers(0, 1 << 32, 70001, np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    if to in ("int32", "float16"):
        values = np.random.default_rng(0).standard_normal(70001).astype("f") * 100
    got = paddle.to_tensor(values).astype(to)
    with np.errstate(all="ignore"):
        want = values.astype(BF16 if to == "bfloat16" else to)
    got = as_numpy(got)
    nan = np.isnan(values)
    assert np.array_equal(
        np.isnan(got.astype("f")) if to != "bool" else got, nan if to != "bool" else want
    )
    if to != "bool":
        assert got[~nan].tobytes() == want[~nan].tobytes()
    x = paddle.to_tensor(values[:9].copy())
    if to == "bfloat16":
        x.cast_("bfloat16")
        assert np.array_equal(as_numpy(x)[~nan[:9]], want[:9][~nan[:9]])


class Block(nn.Layer):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2D(3, 8, 3, padding=1, bias_attr=False)
        self.batch_norm = nn.BatchNorm2D(8)
        self.norm = nn.LayerNorm(8)
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        x = F.relu(self.batch_norm(self.convolution(x)))
        x = F.max_pool2d(x, 2).flatten(2).transpose([0, 2, 1])
        x = x + F.gelu(self.linear(self.norm(x)))
        return F.log_softmax(paddle.concat([x, F.swiglu(x, x)], -1).mean(1))


def test_to_static_equals_eager():
    paddle.seed(1)
    eager = Block().to(dtype="bfloat16")
    static = Block().to(dtype="bfloat16")
    static.set_state_dict(eager.state_dict())
    compiled = paddle.jit.to_static(static, full_graph=True)
    x = random((2, 3, 8, 8), "x")
    for net in (eager, compiled):
        out = net(tensor(x, "bfloat16"))
        assert out.dtype == paddle.bfloat16
        F.nll_loss(out, paddle.to_tensor([1, 2])).backward()
    for ours, theirs in zip(eager.parameters(), static.parameters(), strict=True):
        if ours.stop_gradient:  # running statistics
            continue
        ours, theirs = (p.grad.astype("float32").numpy() for p in (ours, theirs))
        # The graph adds the bias after rounding the product, eager mode before.
        assert np.abs(ours - theirs).max() <= 0.03 * np.abs(theirs).max() + 1e-6


def test_global_norm_clipping_and_scaler():
    paddle.seed(0)
    net = nn.Linear(8, 8).to(dtype="bfloat16")
    optimizer = paddle.optimizer.SGD(
        1.0, parameters=net.parameters(), grad_clip=nn.ClipGradByGlobalNorm(1.0)
    )
    before = net.weight.astype("float32").numpy()
    (net(tensor(random((4, 8)), "bfloat16")) * 100).sum().backward()
    optimizer.step()
    moved = np.linalg.norm(net.weight.astype("float32").numpy() - before)
    assert 0.5 < moved < 1.1


def test_loading_tells_what_it_brought(loaded):
    assert len(loaded.kernels) > 200
    for name in ("linear_v2", "softmax_grad", "layer_norm", "conv2d_grad", "rms_norm"):
        assert f"{name}[bfloat16]" in loaded.kernels
    assert "rms_norm[float32]" in loaded.kernels
