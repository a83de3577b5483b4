"""Mixed precision on a CPU: what is cast, that it trains, and that nothing of it stays behind."""

import threading

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.precision import autocast, decorate
from oarlock.core_opt.precision._autocast import _HOOKS
from oarlock.core_opt.precision._lists import lists
from oarlock.native.paddle import kernels
from paddle import _C_ops, nn
from paddle.nn import functional as F

LOW, HIGH = paddle.bfloat16, paddle.float32


@pytest.fixture(autouse=True)
def nothing_stays():
    names = ("matmul", "linear_v2", "softmax", "concat", "add")
    operators = [getattr(_C_ops, name) for name in names]
    methods = paddle.Tensor.__matmul__, paddle.Tensor.__pow__
    yield
    assert not _HOOKS.installed()
    assert [getattr(_C_ops, name) for name in names] == operators
    assert (paddle.Tensor.__matmul__, paddle.Tensor.__pow__) == methods


def matrices(seed=0, n=8):
    paddle.seed(seed)
    return paddle.randn([n, n]), paddle.randn([n, n])


def rounded(x):
    return x.astype("bfloat16").astype("float32").numpy()


def test_stock_auto_cast_does_nothing_and_ours_does(network, batch):
    kernels.load()
    plain = network(batch[0])
    with pytest.warns(UserWarning, match="no effect"), paddle.amp.auto_cast(dtype="bfloat16"):
        stock = network(batch[0])
        product = paddle.matmul(*matrices())
    assert stock.dtype == HIGH and product.dtype == HIGH
    assert np.array_equal(stock.numpy(), plain.numpy())
    with autocast():
        ours = network(batch[0])
        assert paddle.matmul(*matrices()).dtype == LOW
    assert ours.dtype == LOW
    difference = np.abs(ours.astype("float32").numpy() - plain.numpy()).max()
    assert 0 < difference < 0.05 * np.abs(plain.numpy()).max()


def test_o1_follows_paddles_lists():
    x, y = matrices()
    image = paddle.randn([2, 3, 9, 9])
    half = x.astype("bfloat16")
    with autocast():
        for low in (
            paddle.matmul(x, y),
            x @ y,
            x.matmul(y),
            paddle.mm(x, y),
            F.linear(x, y),
            F.linear(x, y, y[0]),
            F.conv2d(image, paddle.randn([4, 3, 3, 3])),
            paddle.einsum("ij,jk->ik", x, y),
            paddle.add(half, half),
            F.gelu(half),
            paddle.concat([half, half]),
            half.transpose([1, 0]),
        ):
            assert low.dtype == LOW
        for high in (
            F.softmax(half),
            F.log_softmax(half),
            F.layer_norm(half, [8]),
            paddle.exp(half),
            half.exp(),
            paddle.mean(half),
            half.mean(0),
            paddle.sum(half, 1),
            half**2.0,
            paddle.rsqrt(half.abs()),
            F.cross_entropy(half, paddle.zeros([8], "int64")),
            F.embedding(paddle.zeros([3], "int64"), x),
            half + x,
            paddle.concat([half, x]),
            paddle.stack([x, half]),
            paddle.where(x > 0, x, half),
            paddle.bmm(half[None], x[None]),
            F.gelu(x),
            x * 2,
        ):
            assert high.dtype == HIGH
        assert paddle.matmul(x.astype("float64"), y.astype("float64")).dtype == paddle.float64
        assert (paddle.arange(3) @ paddle.arange(3)).dtype == paddle.int64


def test_o2_has_paddles_short_black_list():
    half = matrices()[0].astype("bfloat16")
    with autocast(level="O2"):
        assert F.softmax(half).dtype == LOW and F.layer_norm(half, [8]).dtype == LOW
        assert (half @ half.astype("float32")).dtype == LOW
        assert F.embedding(paddle.zeros([3], "int64"), half).dtype == HIGH


def test_values_are_those_of_bfloat16_products():
    x, y = matrices()
    with autocast():
        product = (x @ y).astype("float32")
    exact = rounded(x).astype("float64") @ rounded(y).astype("float64")
    assert np.allclose(product.numpy(), exact, rtol=2**-8, atol=1e-5)


def test_users_lists():
    x, y = matrices()
    with autocast(white=["bmm", "exp"], black=["matmul"]):
        assert paddle.bmm(x[None], y[None]).dtype == LOW and paddle.exp(x).dtype == LOW
        assert (x @ y).dtype == HIGH and F.linear(x, y, y[0]).dtype == LOW


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "O3"}, "level must be one of 'O1', 'O2'"),
        ({"dtype": "float8"}, "dtype must be one of 'bfloat16', 'float16'"),
        ({"white": ["matmull"]}, "white has 'matmull'.*did you mean.*'matmul'"),
        ({"black": "exp"}, "black must be a collection"),
        ({"white": ["exp"], "black": ["exp"]}, "both have exp"),
        ({"enabled": None}, "enabled"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        autocast(**options)


def test_float16_is_refused_on_a_cpu():
    context = autocast(dtype="float16")
    with pytest.raises(ValueError, match="'bfloat16' on a CPU, got 'float16'"), context:
        pass
    with pytest.raises(ValueError, match="'bfloat16' on a CPU"):
        decorate(nn.Linear(2, 2), dtype="float16")


def test_refused_where_kernels_cannot_be_had(monkeypatch):
    def unavailable():
        raise kernels.KernelsUnavailable("the kernels are written for Paddle 0")

    monkeypatch.setattr(kernels, "load", unavailable)
    with pytest.raises(kernels.KernelsUnavailable, match="written for Paddle 0"), autocast():
        pass
    linear = nn.Linear(2, 2)
    with pytest.raises(kernels.KernelsUnavailable):
        decorate(linear)
    assert linear.weight.dtype == HIGH


def test_gradients_arrive_in_float32(network, batch, loss):
    reference = loss(network, batch)
    reference.backward()
    expected = {p.name: p.grad.numpy() for p in network.parameters()}
    network.clear_gradients()
    with autocast():
        value = loss(network, batch)
        value.backward()
    assert value.dtype == HIGH
    for parameter in network.parameters():
        assert parameter.grad.dtype == HIGH and parameter.dtype == HIGH
        got, want = parameter.grad.numpy(), expected[parameter.name]
        assert not np.array_equal(got, want) or parameter.ndim == 1
        assert np.linalg.norm(got - want) < 0.02 * np.linalg.norm(want)


def test_a_step_by_native_kernels_is_seen():
    """They write to parameters without Paddle's noticing, here inside one long context."""
    linear = nn.Linear(4, 4)
    optimizer = optim.create("adamw", linear, learning_rate=0.1)
    x = paddle.randn([2, 4])
    with autocast():
        for _ in range(2):
            linear(x).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
            assert np.array_equal(
                linear(x).astype("float32").numpy(),
                F.linear(x, linear.weight + 0, linear.bias + 0).astype("float32").numpy(),
            )


def test_written_and_frozen_parameters():
    linear = nn.Linear(4, 4)
    x = paddle.randn([2, 4])
    with autocast():
        before = linear(x)
        linear.weight.set_value(linear.weight * 0)
        after = linear(x)
        with paddle.no_grad():
            linear.weight.set_value(linear.weight + 1)
            without_graph = linear(x)
            linear.weight.stop_gradient = True
        frozen = linear(x)
    assert before.numpy().tolist() != after.numpy().tolist()
    assert after.astype("float32").abs().max().item() == 0  # the bias is zero at first
    assert without_graph.numpy().tolist() == frozen.numpy().tolist() != after.numpy().tolist()


def test_nesting_and_entering_again():
    x, y = matrices()
    context = autocast()
    with context, context:
        assert (x @ y).dtype == LOW
        with autocast(enabled=False):
            assert (x @ y).dtype == HIGH
            with autocast(black=["matmul"]):
                assert (x @ y).dtype == HIGH and F.linear(x, y, y[0]).dtype == LOW
        with paddle.amp.auto_cast(enable=False):
            assert (x @ y).dtype == HIGH
        assert (x @ y).dtype == LOW
    with context:
        assert (x @ y).dtype == LOW
    with pytest.raises(RuntimeError, match="inside"), context:
        raise RuntimeError("inside")
    assert (x @ y).dtype == HIGH


def test_as_a_decorator():
    @autocast()
    def product(x, y):
        return x @ y

    assert product(*matrices()).dtype == LOW


def test_other_threads_are_left_alone():
    x, y = matrices()
    found = []
    with autocast():
        thread = threading.Thread(target=lambda: found.append((x @ y).dtype))
        thread.start()
        thread.join()
        assert (x @ y).dtype == LOW
    assert found == [HIGH]


def train(network, loss, batch, steps=25, wrap=None, **options):
    optimizer = optim.create("adamw", network, learning_rate=1e-2, **options)
    losses = []
    for _ in range(steps):
        if wrap is None:
            value = loss(network, batch)
        else:
            with wrap():
                value = loss(network, batch)
        value.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(value.astype("float32").item()))
    return losses


def test_trains_as_float32_does(network, batch, loss):
    start = {key: value.clone() for key, value in network.state_dict().items()}
    exact = train(network, loss, batch)
    network.set_state_dict(start)
    o1 = train(network, loss, batch, wrap=autocast)
    assert exact[-1] < 0.3 * exact[0]
    assert np.abs(np.array(o1) - exact).max() < 0.03 * exact[0]
    network.set_state_dict(start)
    decorate(network)
    assert {p.dtype for p in network.parameters()} == {LOW}
    o2 = train(network, loss, batch, wrap=lambda: autocast(level="O2"), multi_precision=True)
    assert np.abs(np.array(o2) - exact).max() < 0.06 * exact[0]
    assert {p.dtype for p in network.parameters()} == {LOW}


def test_attention_trains():
    paddle.seed(0)
    projections = nn.Linear(16, 48), nn.Linear(16, 16)
    x = paddle.randn([2, 10, 16])

    def attend():
        q, k, v = projections[0](x).reshape([2, 10, 3, 4, 4]).unbind(2)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return projections[1](out.reshape([2, 10, 16])).astype("float32").square().mean()

    exact = attend()
    exact.backward()
    expected = projections[0].weight.grad.numpy()
    projections[0].clear_gradients()
    with autocast():
        value = attend()
    value.backward()
    got = projections[0].weight.grad
    assert got.dtype == HIGH and abs(value.item() - exact.item()) < 0.02 * exact.item()
    assert np.linalg.norm(got.numpy() - expected) < 0.03 * np.linalg.norm(expected)


def test_decorate_keeps_batch_norms_and_what_is_asked():
    network = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.Linear(7, 5), nn.LayerNorm(5))
    assert decorate(network, keep=[nn.LayerNorm]) is network
    assert [{p.dtype for p in layer.parameters()} for layer in network] == [
        {LOW},
        {HIGH},
        {LOW},
        {HIGH},
    ]
    with autocast(level="O2"):
        out = network(paddle.randn([2, 3, 9, 9]))
        out.astype("float32").sum().backward()
    assert out.dtype == LOW
    for parameter in network.parameters():
        assert parameter.stop_gradient or parameter.grad.dtype == parameter.dtype
    with pytest.raises(ValueError, match="model must be a paddle.nn.Layer"):
        decorate(network.parameters())
    with pytest.raises(ValueError, match="keep must have classes"):
        decorate(network, keep=[network[0]])


def test_to_static_traces_the_casts(network, batch, loss):
    with autocast():
        eager = loss(network, batch)
        eager.backward()
        expected = {p.name: p.grad.numpy() for p in network.parameters()}
        network.clear_gradients()
        static = paddle.jit.to_static(network, full_graph=True)
        value = loss(static, batch)
    value.backward()
    program = static.forward.concrete_program.main_program
    types = [op.results()[0].dtype for op in program.global_block().ops if "matmul" in op.name()]
    assert types and all(str(dtype) == "paddle.bfloat16" for dtype in types)
    assert abs(value.item() - eager.item()) < 0.01 * eager.item()
    for parameter in network.parameters():
        assert parameter.grad.dtype == HIGH
        want = expected[parameter.name]
        assert np.linalg.norm(parameter.grad.numpy() - want) < 0.02 * np.linalg.norm(want)
    assert np.array_equal(loss(static, batch).numpy(), value.numpy())  # keeps its casts outside


@pytest.mark.parametrize("full_graph", [True, False])
def test_to_static_around_and_inside(full_graph):
    x, y = matrices()

    def product(x, y):
        return x @ y

    with autocast():
        assert paddle.jit.to_static(product, full_graph=full_graph)(x, y).dtype == LOW
    if full_graph:

        def inside(x, y):
            with autocast():
                return x @ y

        assert paddle.jit.to_static(inside, full_graph=True)(x, y).dtype == LOW


def test_kernels_are_not_loaded_while_tracing(monkeypatch):
    kernels.load()
    monkeypatch.setattr(kernels, "_loaded", None)

    def inside(x, y):
        with autocast():
            return x @ y

    with pytest.raises(RuntimeError, match=r"kernels.load\(\) first"):
        paddle.jit.to_static(inside, full_graph=True)(*matrices())


def test_recompute_with_the_context_inside():
    from paddle.distributed.fleet.utils import recompute

    paddle.seed(0)
    linear = nn.Linear(8, 8)
    x = paddle.randn([4, 8])
    x.stop_gradient = False

    def part(x):
        with autocast():
            return linear(x)

    recompute(part, x).astype("float32").sum().backward()
    got = linear.weight.grad.numpy()
    linear.clear_gradients()
    part(x).astype("float32").sum().backward()
    assert np.array_equal(got, linear.weight.grad.numpy())


def test_lists_are_paddles():
    for level in ("O1", "O2"):
        names = lists(level=level, dtype="bfloat16")
        assert names.low == paddle.amp.white_list()["bfloat16"][level]
        assert names.high == paddle.amp.black_list()["bfloat16"][level]
    rules = lists(level="O1", dtype="bfloat16").rules()
    assert rules["matmul"] == rules["linear_v2"] == rules["conv2d"] == "low"
    for name in ("sum", "mean", "mean_all", "embedding", "cross_entropy_with_softmax"):
        assert rules[name] == "high"
    assert rules["concat"] == "widest" and "relu" not in rules
    names = lists(level="O1", dtype="bfloat16", white=["sum", "bmm"], black=["matmul_v2", "matmul"])
    assert {"sum", "reduce_sum", "bmm"} <= names.low and "matmul_v2" in names.high
    assert not {"matmul", "matmul_v2"} & names.low and "reduce_sum" not in names.high
