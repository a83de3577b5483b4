"""The optimisers inside Paddle's own training tools."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from paddle.distributed.fleet.meta_optimizers.dygraph_optimizer import HybridParallelOptimizer

NAMES = optim.list()


def mlp():
    with paddle.utils.unique_name.guard():
        paddle.seed(0)
        return paddle.nn.Sequential(
            paddle.nn.Linear(4, 8), paddle.nn.ReLU(), paddle.nn.Linear(8, 8), paddle.nn.Linear(8, 3)
        )


def data(count=32):
    rng = np.random.default_rng(0)
    x = rng.standard_normal([count, 4]).astype("float32")
    return x, (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)


def numbers(model):
    return [p.numpy() for p in model.parameters()]


def train_by_hand(name, steps, wrap=None):
    model = mlp()
    optimizer = optim.create(name, model, learning_rate=0.02)
    forward = wrap(model) if wrap else model
    x, y = (paddle.to_tensor(part) for part in data())
    for _ in range(steps):
        paddle.nn.functional.cross_entropy(forward(x), y).backward()
        optimizer.step()
        optimizer.clear_grad()
    return model


@pytest.mark.parametrize("name", NAMES)
def test_data_parallel_of_one_process(name):
    for ours, plain in zip(
        numbers(train_by_hand(name, 5, paddle.DataParallel)), numbers(train_by_hand(name, 5))
    ):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("name", NAMES)
def test_model_fit_save_and_load(name, tmp_path):
    x, y = data()

    def start():
        network = mlp()
        model = paddle.Model(network)
        optimizer = optim.create(name, network, learning_rate=0.02)
        model.prepare(optimizer, paddle.nn.CrossEntropyLoss())
        return network, model

    def fit(model, epochs):
        rows = paddle.io.TensorDataset([paddle.to_tensor(x), paddle.to_tensor(y)])
        model.fit(rows, batch_size=len(x), epochs=epochs, verbose=0, shuffle=False)

    network, model = start()
    fit(model, 3)
    for ours, plain in zip(numbers(network), numbers(train_by_hand(name, 3))):
        np.testing.assert_array_equal(ours, plain)
    model.save(str(tmp_path / "checkpoint"))
    again, loaded = start()
    loaded.load(str(tmp_path / "checkpoint"))
    fit(model, 2)
    fit(loaded, 2)
    for first, second in zip(numbers(network), numbers(again)):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_amp_decorate_turns_on_master_weights(name):
    model = mlp()
    optimizer = optim.create(name, model, learning_rate=0.02)
    paddle.amp.decorate(model, optimizers=optimizer, level="O2", dtype="bfloat16")
    for parameter in model.parameters():
        (parameter.astype("float32") * 2.0).sum().backward()
    optimizer.step()
    low = [p.name for p in model.parameters() if p.dtype == paddle.bfloat16]
    assert set(optimizer.state_dict().get("master_weights", {})) == set(low)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_handed_over_by_a_wrapper(name):
    """Sharding and pipeline wrappers prepare the pairs and call ``_apply_optimize``."""
    assert hasattr(HybridParallelOptimizer, "step")
    model, twin = mlp(), mlp()
    for network in (model, twin):
        x, y = (paddle.to_tensor(part) for part in data())
        paddle.nn.functional.cross_entropy(network(x), y).backward()
    pairs = [(parameter, parameter._grad_ivar()) for parameter in model.parameters()]
    optim.create(name, model, learning_rate=0.02)._apply_optimize(None, None, pairs)
    optim.create(name, twin, learning_rate=0.02).step()
    for first, second in zip(numbers(model), numbers(twin)):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_main_grad_goes_before_grad(name):
    model, twin = mlp(), mlp()
    for parameter, other in zip(model.parameters(), twin.parameters()):
        (parameter * 5.0).sum().backward()
        parameter.main_grad = paddle.full(parameter.shape, 2.0)
        (other * 2.0).sum().backward()
    for network in (model, twin):
        optim.create(name, network, learning_rate=0.02).step()
    for first, second in zip(numbers(model), numbers(twin)):
        np.testing.assert_array_equal(first, second)


def test_static_graphs_are_refused():
    model = mlp()
    parameters = model.parameters()
    optimizer = optim.AdamW(parameters=parameters)
    paddle.enable_static()
    try:
        with pytest.raises(ValueError, match="disable_static"):
            optim.AdamW(parameters=parameters)
    finally:
        paddle.disable_static()

    @paddle.jit.to_static(full_graph=True)
    def whole_step(x):
        optimizer.step()
        return model(x)

    with pytest.raises(Exception, match="leave the step outside"):
        whole_step(paddle.ones([2, 4]))


def test_compiled_forward_with_an_eager_step():
    model = mlp()
    plain = mlp()
    forward = paddle.jit.to_static(model, full_graph=True)
    x, y = (paddle.to_tensor(part) for part in data())
    for network, run in ((model, forward), (plain, plain)):
        optimizer = optim.create("adamw", network, learning_rate=0.02)
        for _ in range(3):
            paddle.nn.functional.cross_entropy(run(x), y).backward()
            optimizer.step()
            optimizer.clear_grad()
    for first, second in zip(numbers(model), numbers(plain)):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_step_under_sot(name):
    model, plain = mlp(), mlp()
    x, y = (paddle.to_tensor(part) for part in data())

    def step(network, optimizer):
        loss = paddle.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return loss

    compiled = paddle.jit.to_static(step, full_graph=False)
    for network, run in ((model, compiled), (plain, step)):
        optimizer = optim.create(name, network, learning_rate=0.02)
        for _ in range(3):
            run(network, optimizer)
    for first, second in zip(numbers(model), numbers(plain)):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_stale_graphs_are_noticed():
    """The native step counts as an in-place change, as Paddle's own does."""
    layer = paddle.nn.Linear(3, 3)
    optimizer = optim.AdamW(parameters=layer.parameters())
    x = paddle.randn([2, 3])
    x.stop_gradient = False
    loss = paddle.square(layer(x)).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()
