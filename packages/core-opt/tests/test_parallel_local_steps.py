"""Local steps: the formula, K replicas in turn as K processes, quantisation, going on."""

import multiprocessing
import pickle

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.parallel import (
    Cluster,
    DiLoCo,
    FolderExchange,
    LocalSteps,
    ModelOracle,
    MuLoCo,
    Options,
    Replica,
    Ringmaster,
    Synchronous,
    Until,
    delays,
    inner_of,
    pack,
    train,
    unpack,
)

ADAMW = {"learning_rate": 0.01}
MUON = {"learning_rate": 0.02}
CLASSES = {"local": (LocalSteps, ADAMW), "diloco": (DiLoCo, ADAMW), "muloco": (MuLoCo, MUON)}
every_class = pytest.mark.parametrize("name", CLASSES)


def network(seed=0):
    paddle.seed(seed)
    return paddle.nn.Sequential(
        paddle.nn.Linear(6, 9), paddle.nn.Tanh(), paddle.nn.Linear(9, 9), paddle.nn.Linear(9, 1)
    )


class Batches:
    """The batches of each worker, each from a stream of its own."""

    def __init__(self, workers=2, seed=0):
        self.rngs = [np.random.default_rng([seed, worker]) for worker in range(workers)]

    def __call__(self, model, worker):
        x = self.rngs[worker].standard_normal([16, 6]).astype("float32")
        y = np.sin(x[:, :1]) + x[:, 1:2]
        return paddle.nn.functional.mse_loss(model(paddle.to_tensor(x)), paddle.to_tensor(y))


def weights(model):
    return [p.numpy() for p in model.parameters()]


def assert_equal(first, second):
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


# The common suite -------------------------------------------------------------------------------


@every_class
def test_it_descends_and_all_replicas_agree(name):
    cls, inner = CLASSES[name]
    model = network()
    local = cls(model, inner_options=inner, workers=2, inner_steps=5)
    losses = [local.round(Batches(seed=number)) for number in range(20)]
    assert np.mean(losses[-3:]) < 0.6 * losses[0]
    for replica in local.replicas:
        assert_equal(replica.model, model)
    assert local.rounds == 20
    assert local.bytes_sent == 20 * 4 * sum(p.size for p in model.parameters())


@every_class
@pytest.mark.parametrize("bits", [None, 4])
def test_going_on_from_a_saved_state_is_the_same_bits(name, bits):
    cls, inner = CLASSES[name]
    options = {"inner_options": inner, "workers": 2, "inner_steps": 3, "bits": bits}
    whole = cls(network(), **options)
    for number in range(4):
        whole.round(Batches(seed=number))
    half = cls(network(), **options)
    for number in range(2):
        half.round(Batches(seed=number))
    state = pickle.loads(pickle.dumps(half.state_dict()))
    half.round(Batches(seed=9))  # must not change what was saved
    rest = cls(network(seed=5), **options)  # its tensors have other names
    rest.set_state_dict(state)
    for number in range(2, 4):
        rest.round(Batches(seed=number))
    assert_equal(rest.model, whole.model)
    assert rest.rounds == 4 and rest.bytes_sent == whole.bytes_sent


@every_class
@pytest.mark.parametrize("nesterov", [True, False])
def test_outer_step_is_the_formula(name, nesterov):
    cls, inner = CLASSES[name]
    model = network()
    local = cls(
        model,
        inner_options=inner,
        workers=2,
        inner_steps=2,
        outer_learning_rate=0.5,
        outer_momentum=0.8,
        nesterov=nesterov,
    )
    batches, momentum = Batches(), [np.zeros_like(w) for w in weights(model)]
    for _ in range(3):
        before = weights(model)
        after, plain = [], local.replicas[0].receive
        for replica in local.replicas:  # look at what they reach before they agree
            replica.receive = lambda payloads, model=replica.model: after.append(weights(model))
        sent = [replica.send(batches)[0] for replica in local.replicas]
        for replica in local.replicas:
            replica.receive(sent)
            del replica.receive
            replica.receive(sent)
        local._publish()
        for i, old in enumerate(before):
            change = np.mean([old - one[i] for one in after], axis=0)
            momentum[i] = 0.8 * momentum[i] + change
            step = change + 0.8 * momentum[i] if nesterov else momentum[i]
            np.testing.assert_allclose(weights(model)[i], old - 0.5 * step, atol=2e-6)
        assert plain == local.replicas[0].receive


@every_class
@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"workers": 0}, "workers"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"outer_learning_rate": 0.0}, "outer_learning_rate"),
        ({"outer_momentum": 1.0}, "outer_momentum"),
        ({"nesterov": 1}, "nesterov"),
        ({"bits": 3}, "bits"),
        ({"error_feedback": None}, "error_feedback"),
        ({"inner": "adamv"}, "unknown optimiser"),
        ({"inner": 3}, "inner must"),
        ({"inner": lambda model: None}, "inner_options go with a name"),
    ],
)
def test_wrong_arguments_are_named(name, wrong, word):
    cls, inner = CLASSES[name]
    with pytest.raises(ValueError, match=word):
        cls(network(), **{"inner_options": inner, "workers": 2} | wrong)


# By itself --------------------------------------------------------------------------------------


def test_one_worker_that_agrees_with_itself_is_the_inner_optimiser():
    """eta = 1, mu = 0, K = 1: up to the rounding of theta - (theta - theta_1)."""
    model, alone = network(), network()
    local = LocalSteps(model, inner_options=ADAMW, workers=1, inner_steps=4)
    batches, same = Batches(1), Batches(1)
    optimizer = optim.create("adamw", alone, **ADAMW)
    for _ in range(3):
        local.round(batches)
        for _ in range(4):
            same(alone, 0).backward()
            optimizer.step()
            optimizer.clear_grad()
    for a, b in zip(weights(model), weights(alone)):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_schedules_of_the_inner_optimiser_step_and_last():
    def inner(model):
        schedule = optim.schedules.LinearToZero(0.01, 12)
        return optim.AdamW(schedule, parameters=model.parameters())

    local = LocalSteps(network(), inner, workers=2, inner_steps=4)
    for number in range(3):
        assert local.replicas[1].optimizer.get_lr() == pytest.approx(0.01 * (1 - number / 3))
        local.round(Batches())
    assert local.replicas[0].optimizer.get_lr() == 0.0


def with_batch_norm():
    paddle.seed(0)
    model = paddle.nn.Sequential(
        paddle.nn.Linear(6, 9), paddle.nn.BatchNorm1D(9), paddle.nn.Linear(9, 1)
    )
    model.register_buffer("scale", paddle.to_tensor(0.1))
    return model


def test_running_statistics_are_averaged_and_saved():
    model, batches = with_batch_norm(), Batches(3)
    local = LocalSteps(model, inner_options=ADAMW, workers=3, inner_steps=2, bits=4)
    sent = [replica.send(batches)[0] for replica in local.replicas]
    means = [one.model[1]._mean.numpy() for one in local.replicas]
    assert np.abs(means[0] - means[1]).max() > 1e-3
    for replica in local.replicas:
        replica.receive(sent)
    local._publish()
    for one in (model, *(replica.model for replica in local.replicas)):
        np.testing.assert_allclose(one[1]._mean.numpy(), np.mean(means, axis=0), rtol=1e-5)
        np.testing.assert_array_equal(one.scale.numpy(), np.float32(0.1))
    other = LocalSteps(with_batch_norm(), inner_options=ADAMW, workers=3, inner_steps=2, bits=4)
    other.set_state_dict(local.state_dict())
    np.testing.assert_array_equal(other.model[1]._mean.numpy(), model[1]._mean.numpy())
    with pytest.raises(ValueError, match="buffers .*_mean.* another model"):
        state = local.state_dict()
        for replica in state["replicas"]:
            del replica["buffers"]
        other.set_state_dict(state)


def test_a_state_of_another_shape_or_worker_is_refused():
    local = DiLoCo(network(), inner_options=ADAMW, workers=2)
    with pytest.raises(ValueError, match="the state is of 2 workers"):
        DiLoCo(network(), inner_options=ADAMW, workers=3).set_state_dict(local.state_dict())
    state = local.state_dict()["replicas"]
    with pytest.raises(ValueError, match="of worker 1"):
        local.replicas[0].set_state_dict(state[1])
    other = DiLoCo(paddle.nn.Linear(3, 3), inner_options=ADAMW, workers=2)
    with pytest.raises(ValueError, match="another model"):
        other.set_state_dict(local.state_dict())


def test_models_that_cannot_be_trained_so_are_refused():
    frozen = network()
    for parameter in frozen.parameters():
        parameter.stop_gradient = True
    with pytest.raises(ValueError, match="no parameters to train"):
        DiLoCo(frozen, inner_options=ADAMW, workers=1)
    with pytest.raises(ValueError, match="need float32"):
        DiLoCo(network().to(dtype="float64"), inner_options=ADAMW, workers=1)


def test_an_inner_optimiser_that_averages_by_itself_is_refused():
    def inner(model):
        averaging = optim.create("schedule_free_adamw", model)
        return optim.SAM(averaging) if wrapped else averaging

    for wrapped in (False, True):
        with pytest.raises(ValueError, match="averages its iterates"):
            Replica(paddle.nn.Linear(2, 2), inner, worker=0, options=Options())


@pytest.mark.parametrize(
    "wrap, message",
    [
        (optim.EMA, "EMA.*optim.EMA.model."),
        (optim.Lookahead, "Lookahead, which moves"),
        (lambda inner: optim.SAM(optim.Lookahead(inner)), "Lookahead, which moves"),
        (lambda inner: optim.SAM(optim.EMA(inner)), "EMA, which"),
    ],
)
def test_an_inner_wrapper_that_combines_steps_is_refused(wrap, message):
    def inner(model):
        return wrap(optim.create("adamw", model))

    with pytest.raises(ValueError, match=message):
        Replica(paddle.nn.Linear(2, 2), inner, worker=0, options=Options())


def test_inner_wrappers_that_keep_to_the_step_and_any_attribute_are_let_in():
    def inner(model):
        optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
        optimizer.averages = lambda: {}  # of whatever optimiser: says nothing about its iterates
        return optim.SAM(optimizer)

    Replica(paddle.nn.Linear(2, 2), inner, worker=0, options=Options())


@pytest.mark.parametrize("bits", [None, 4])
def test_weights_that_are_not_finite_are_refused_and_the_last_agreement_kept(bits):
    """The last inner step may spoil weights of which no loss has told yet."""
    model = network()
    options = Options(inner_steps=2, bits=bits)
    replica = Replica(model, lambda m: optim.create("adamw", m, **ADAMW), worker=0, options=options)
    batches = Batches()
    payload, _ = replica.send(batches)
    replica.receive([payload])
    before, sent = replica.state_dict(), replica.bytes_sent
    calls = []

    def spoilt(model, worker):
        loss = batches(model, worker)
        calls.append(loss)
        if len(calls) == options.inner_steps:  # after the last loss, as an overflowing step does
            step = replica.optimizer.step

            def overflow():
                step()
                parameter = model.parameters()[-1]
                parameter.set_value(parameter * float("nan"))

            replica.optimizer.step = overflow
        return loss

    with pytest.raises(FloatingPointError, match="weights of worker 0 .*are not finite"):
        replica.send(spoilt)
    del replica.optimizer.step
    assert replica.bytes_sent == sent
    after = replica.state_dict()
    for key in ("agreed", "momentum", "held_back"):
        for name, value in before[key].items():
            np.testing.assert_array_equal(after[key][name], value)
    replica.set_state_dict(before)
    payload, _ = replica.send(batches)
    replica.receive([payload])
    assert all(np.isfinite(value).all() for value in weights(model))


def test_a_loss_that_is_not_finite_is_refused_and_the_last_agreement_kept():
    model = network()
    local = DiLoCo(model, inner_options=ADAMW, workers=2, inner_steps=2)
    local.round(Batches())
    before, state = weights(model), local.state_dict()
    with pytest.raises(FloatingPointError, match="not finite"):
        local.round(lambda model, worker: Batches()(model, worker) * float("nan"))
    for a, b in zip(weights(model), before):
        np.testing.assert_array_equal(a, b)
    local.set_state_dict(state)
    local.round(Batches())


# Quantisation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [[7, 5], [3], [1], [], [2, 3, 5], [4, 16]])
def test_packing_is_off_by_half_a_step_at_most(bits, shape):
    values = np.asarray(np.random.default_rng(0).standard_normal(shape), np.float32)
    packed = pack(values, bits)
    found = unpack(packed)
    assert found.shape == values.shape and found.dtype == np.float32
    rows = values.reshape([-1, shape[-1] if shape else 1])
    step = np.ptp(rows, axis=1, keepdims=True) / (2**bits - 1)
    assert (np.abs(found.reshape(rows.shape) - rows) <= step / 2 * (1 + 1e-5) + 1e-7).all()
    assert packed.nbytes == -(-values.size * bits // 8) + 8 * len(rows)


def test_float32_and_constants_survive():
    values = np.random.default_rng(0).standard_normal([3, 4]).astype("float32")
    assert pack(values, None).nbytes == 48
    np.testing.assert_array_equal(unpack(pack(values, None)), values)
    np.testing.assert_array_equal(unpack(pack(np.full([3, 4], 2.5, np.float32), 2)), 2.5)
    with pytest.raises(ValueError, match="bits"):
        pack(values, 16)


def test_error_feedback_sends_in_the_end_what_was_held_back():
    """The sum of what was sent differs from the sum of changes by what is held back, no more."""

    def sums(error_feedback):
        options = Options(inner_steps=2, bits=2, error_feedback=error_feedback)
        replica = Replica(network(), inner_of("adamw", ADAMW), worker=0, options=options)
        batches, sent, changed = Batches(1), 0.0, 0.0
        for _ in range(8):
            before = replica._agreed["0.weight"]
            payload, _ = replica.send(batches)
            changed = changed + before - replica._values()["0.weight"]
            sent = sent + unpack(payload["0.weight"])
            replica.receive([payload])
        return sent, changed, replica._held_back["0.weight"]

    sent, changed, held_back = sums(True)
    np.testing.assert_allclose(sent + held_back, changed, atol=1e-5)
    plain_sent, plain_changed, nothing = sums(False)
    assert not nothing.any()
    assert np.abs(sent - changed).max() < np.abs(plain_sent - plain_changed).max()


# Over real processes ----------------------------------------------------------------------------


def work(folder, worker, bits, out):
    """One replica in a process of its own."""
    options = Options(inner_steps=3, outer_learning_rate=0.7, outer_momentum=0.9, bits=bits)
    replica = Replica(network(), inner_of("muon", MUON), worker=worker, options=options)
    exchange = FolderExchange(folder, worker=worker, workers=2, patience_s=120)
    losses = train(replica, exchange, Batches(), rounds=3)
    np.savez(out, *weights(replica.model), losses=losses)


@pytest.mark.parametrize("bits", [None, 4])
def test_processes_compute_what_replicas_in_turn_compute(bits, tmp_path):
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / f"worker{worker}.npz" for worker in range(2)]
    processes = [
        context.Process(target=work, args=(tmp_path / "exchange", worker, bits, out))
        for worker, out in enumerate(outs)
    ]
    for process in processes:
        process.start()
    model, batches = network(), Batches()
    local = MuLoCo(model, inner_options=MUON, workers=2, inner_steps=3, bits=bits)
    losses = [local.round(batches) for _ in range(3)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    found = [np.load(out) for out in outs]
    np.testing.assert_allclose(np.mean([one["losses"] for one in found], axis=0), losses)
    for one in found:
        for i, wanted in enumerate(weights(model)):
            np.testing.assert_array_equal(one[f"arr_{i}"], wanted)
    left = sorted(path.name for path in (tmp_path / "exchange").iterdir())
    assert left == [f"round{n}-worker{w}" for n in (1, 2) for w in range(2)]


def test_what_another_run_left_is_refused(tmp_path):
    exchange = FolderExchange(tmp_path, worker=0, workers=1)
    payload = {"w": pack(np.arange(6, dtype="float32").reshape(2, 3), 4)}
    for _ in range(2):  # a round begun again sends the same
        (found,) = exchange.gather(0, payload)
        np.testing.assert_array_equal(unpack(found["w"]), unpack(payload["w"]))
        assert found["w"].nbytes == payload["w"].nbytes
    with pytest.raises(FileExistsError, match="round0-worker0 is of another run"):
        exchange.gather(0, {"w": pack(np.ones([2, 3], "float32"), 4)})


def test_a_worker_that_stays_away_is_named(tmp_path):
    exchange = FolderExchange(tmp_path, worker=0, workers=2, patience_s=0.05)
    with pytest.raises(TimeoutError, match="worker 1 sent nothing for round 0"):
        exchange.gather(0, {})
    with pytest.raises(ValueError, match="worker must be below"):
        FolderExchange(tmp_path, worker=2, workers=2)


# Asynchronous SGD of a model --------------------------------------------------------------------


def loss(model, worker, rng):
    x = rng.standard_normal([16, 6]).astype("float32")
    y = np.sin(x[:, :1]) + x[:, 1:2]
    return paddle.nn.functional.mse_loss(model(paddle.to_tensor(x)), paddle.to_tensor(y))


def test_oracle_gives_the_gradient_of_the_model():
    oracle = ModelOracle(network(), loss)
    start = oracle.parameters
    gradient = oracle.gradient(start, 0, np.random.default_rng(0))
    model = network()
    loss(model, 0, np.random.default_rng(0)).backward()
    wanted = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    np.testing.assert_array_equal(gradient, wanted)
    with pytest.raises(ValueError, match="parameters must have the shape"):
        oracle.load(start[:-1])


def test_strategies_train_a_model():
    oracle = ModelOracle(network(), loss)

    def held_out(parameters):
        oracle.load(parameters)
        with paddle.no_grad():
            return float(loss(oracle.model, 0, np.random.default_rng(99)))

    cluster = Cluster(delays.power_law(5, 1.0))
    for strategy in (Ringmaster(0.05, threshold=4), Synchronous(0.1)):
        trace = cluster.run(
            strategy,
            oracle,
            ModelOracle(network(), loss).parameters,
            until=Until(updates=200),
            observe=held_out,
            every=50,
        )
        assert trace.values[-1] < 0.5 * trace.values[0]
