"""The optimisers inside Paddle's own training tools."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import types

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim import schedules
from paddle.distributed.fleet.meta_optimizers.dygraph_optimizer import HybridParallelOptimizer
from paddle.distributed.fleet.utils.mix_precision_utils import MixPrecisionOptimizer

NAMES = optim.list()
AVERAGING = [name for name in NAMES if optim.info(name).cls.averages]


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


class Gpu:
    """Paddle's mixed precision does nothing where it sees no GPU; its parts run on the CPU."""

    is_gpu_place = staticmethod(lambda: True)
    is_xpu_place = is_custom_place = staticmethod(lambda: False)


@pytest.fixture
def mixed_precision(monkeypatch):
    tracer = types.SimpleNamespace(_expected_place=Gpu)
    modules = [sys.modules[f"paddle.amp.{name}"] for name in ("auto_cast", "grad_scaler")]
    for module in modules:
        monkeypatch.setattr(module, "_dygraph_tracer", lambda: tracer)
    monkeypatch.setattr(modules[0], "_is_gpu_bfloat16_supported", lambda: True)


@pytest.mark.parametrize("name", NAMES)
def test_amp_decorate_turns_on_master_weights(name, mixed_precision):
    model = mlp()
    optimizer = optim.create(name, model, learning_rate=0.02)
    paddle.amp.decorate(model, optimizers=optimizer, level="O2", dtype="bfloat16")
    for parameter in model.parameters():
        assert parameter.dtype == paddle.bfloat16
        (parameter.astype("float32") * 2.0).sum().backward()
    optimizer.step()
    masters = optimizer.state_dict()["master_weights"]
    assert set(masters) == {p.name for p in model.parameters()}
    assert all(master.dtype == paddle.float32 for master in masters.values())


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


# Tracing takes seconds for each, and stops at the step of the base class: one with a kernel for all
# parameters, and one with a rule for each role, whose step runs Paddle operators.
@pytest.mark.parametrize("name", ["adamw", "muon"])
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


# Wrappers in paddle.Model -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_model_fit_with_wrappers_and_a_schedule(name, tmp_path):
    """Every wrapper that fits, stopped in the middle of Lookahead's cycle and gone on with."""
    averages = name in AVERAGING
    x, y = (paddle.to_tensor(part) for part in data())

    def start():
        network = mlp()
        model = paddle.Model(network)
        inside = optim.create(name, network, learning_rate=schedules.WSD(0.02, 20))
        if averages:
            for wrapper in (optim.Lookahead, optim.EMA):
                with pytest.raises(ValueError, match=r"optimizer.averaged\(\)"):
                    wrapper(inside)
        else:
            inside = optim.EMA(optim.Lookahead(inside, k=3), decay=0.5)
        optimizer = optim.SAM(inside, rho=0.02)
        loss = optimizer.remember(network, paddle.nn.CrossEntropyLoss())
        model.prepare(optimizer, loss)
        return network, model, optimizer

    def fit(model, epochs):
        rows = paddle.io.TensorDataset([x, y])
        model.fit(rows, batch_size=16, epochs=epochs, verbose=0, shuffle=False)

    network, model, optimizer = start()
    before = paddle.nn.functional.cross_entropy(network(x), y).item()
    fit(model, 2)
    model.save(str(tmp_path / "checkpoint"))
    again, loaded, other = start()
    loaded.load(str(tmp_path / "checkpoint"))
    fit(model, 3)
    fit(loaded, 3)
    for first, second in zip(numbers(network), numbers(again)):
        np.testing.assert_array_equal(first, second)
    if not averages:
        assert optimizer.steps == other.steps == 10 and optimizer.updates == 10
    assert optimizer.get_lr() == other.get_lr()
    assert optimizer._learning_rate.last_epoch == 10  # Model.fit steps the schedule by itself
    assert paddle.nn.functional.cross_entropy(network(x), y).item() < before
    with optimizer.averaged() if averages else optimizer.average():
        averaged = model.evaluate(paddle.io.TensorDataset([x, y]), batch_size=32, verbose=0)
    assert averaged["loss"][0] < before


# A trainer like PaddleNLP's ---------------------------------------------------------------------


class Trainer:
    """Calls on optimiser and schedule what ``paddlenlp.trainer.Trainer`` does, in its order.

    ``create_optimizer`` builds from a class, keywords and ``apply_decay_param_fun``, or the
    optimiser is given; ``train`` accumulates, clips, steps and logs; checkpoints hold the states of
    model, optimiser and schedule.
    """

    def __init__(
        self, model, criterion, *, cls=None, optimizer=None, schedule=None, accumulation=1,
        options=None, amp=False, scaling=False,
    ):  # fmt: skip
        self.model, self.criterion, self.accumulation = model, criterion, accumulation
        self.optimizer, self.lr_scheduler = optimizer, schedule
        self.scaler = paddle.amp.GradScaler(init_loss_scaling=256.0) if scaling else None
        self.logs = []
        if optimizer is None:
            self.create_optimizer(cls, options or {}, amp)
        if amp:
            self.model, self.optimizer = paddle.amp.decorate(
                models=model, optimizers=self.optimizer, level="O2", dtype="bfloat16"
            )

    def create_optimizer(self, cls, options, amp):
        decayed = [
            p.name for n, p in self.model.named_parameters()
            if not any(part in n for part in ["bias", "norm"])
        ]  # fmt: skip
        if hasattr(cls, "_create_master_weight") and amp:
            options = {**options, "multi_precision": True}
        self.optimizer = cls(
            learning_rate=self.lr_scheduler,
            apply_decay_param_fun=lambda name: name in decayed,
            parameters=self.model.parameters(),
            weight_decay=0.1,
            grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0),
            **options,
        )

    def train(self, batches):
        for step, (x, y) in enumerate(batches, 1):
            self.model.train()
            loss = self.criterion(self.model(x=x), y)
            if self.accumulation > 1:
                loss = loss / self.accumulation
            if self.scaler is not None:
                self.scaler.scale(loss).backward()
            else:
                loss.backward()
            if step % self.accumulation:
                continue
            was_run = True
            if self.scaler is not None:
                self.scaler.step(self.optimizer)
                self.scaler.update()
                was_run = not self.scaler._cache_found_inf
            else:
                self.optimizer.step()
            if was_run:
                self.lr_scheduler.step()
            self.optimizer.clear_grad()
            self.logs.append(float(f"{self.optimizer.get_lr():.3e}"))

    def save(self, folder):
        paddle.save(self.model.state_dict(), str(folder / "model_state.pdparams"))
        paddle.save(self.optimizer.state_dict(), str(folder / "optimizer.pdopt"))
        paddle.save(self.lr_scheduler.state_dict(), str(folder / "scheduler.pdparams"))

    def load(self, folder):
        states = paddle.load(str(folder / "model_state.pdparams"), return_numpy=True)
        self.model.set_state_dict(states)
        self.lr_scheduler.set_state_dict(paddle.load(str(folder / "scheduler.pdparams")))
        self.optimizer.set_state_dict(
            paddle.load(str(folder / "optimizer.pdopt"), return_numpy=True)
        )


class Cast(paddle.nn.Layer):
    """A model that computes in float32 whatever its weights are, takes ``x`` by its name."""

    def __init__(self):
        super().__init__()
        paddle.seed(0)
        self.hidden = paddle.nn.Linear(4, 8)
        self.head = paddle.nn.Linear(8, 3)

    def forward(self, x):
        for layer in (self.hidden, self.head):
            w, b = layer.weight.astype("float32"), layer.bias.astype("float32")
            x = paddle.tanh(x @ w + b) if layer is self.hidden else x @ w + b
        return x


def cast():
    with paddle.utils.unique_name.guard():
        return Cast()


def batches(count, size=8):
    x, y = data(count * size)
    return [
        (paddle.to_tensor(x[i : i + size]), paddle.to_tensor(y[i : i + size]))
        for i in range(0, count * size, size)
    ]


def trainer(kind, amp=False, accumulation=1, scaling=False):
    model, schedule = cast(), schedules.WarmupCosine(0.02, 20, warmup_steps=2)
    criterion = paddle.nn.CrossEntropyLoss()
    optimizer = options = None
    cls = optim.AdamW
    if kind == "adamw":
        options = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8}
    elif (
        kind == "muon"
    ):  # built outside, as the trainer's argument optimizers=(optimizer, schedule)
        optimizer = optim.create("muon", model, learning_rate=schedule, multi_precision=amp)
    elif kind == "wrapped":
        inside = optim.AdamW(schedule, parameters=model.parameters(), multi_precision=amp)
        optimizer = optim.EMA(optim.Lookahead(inside, k=3), decay=0.8)
    elif kind == "sam":
        optimizer = optim.SAM(optim.AdamW(schedule, parameters=model.parameters()), rho=0.02)
        criterion = optimizer.remember(model, criterion, accumulation_steps=accumulation)
    return Trainer(
        model, criterion, cls=cls, optimizer=optimizer, schedule=schedule, options=options,
        amp=amp, accumulation=accumulation, scaling=scaling,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["adamw", "muon", "wrapped", "sam"])
def test_trainer_saves_and_resumes(kind, tmp_path):
    whole, first, second = (trainer(kind, accumulation=2) for _ in range(3))
    rows = batches(16)
    whole.train(rows)
    first.train(rows[:10])
    first.save(tmp_path)
    second.load(tmp_path)
    second.train(rows[10:])
    for a, b in zip(numbers(whole.model), numbers(second.model)):
        np.testing.assert_array_equal(a, b)
    assert whole.logs == first.logs + second.logs and len(whole.logs) == 8
    schedule = schedules.WarmupCosine(0.02, 20, warmup_steps=2)
    schedule.step(8)
    assert whole.logs[-1] == pytest.approx(schedule(), rel=1e-3)


def test_trainer_with_adamw_is_paddles():
    """Decay by name, clipping and accumulation as in Paddle's own AdamW."""
    found = []
    for cls in (optim.AdamW, paddle.optimizer.AdamW):
        schedule = schedules.WarmupCosine(0.02, 20, warmup_steps=2)
        run = Trainer(
            cast(), paddle.nn.CrossEntropyLoss(), cls=cls, schedule=schedule, accumulation=2,
            options={"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8},
        )  # fmt: skip
        run.train(batches(16))
        found.append(numbers(run.model))
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "muon", "wrapped"])
def test_trainer_with_mixed_precision(kind, mixed_precision, tmp_path):
    """O2: bfloat16 weights and float32 masters; resumed bit for bit."""
    whole, first, second = (trainer(kind, amp=True) for _ in range(3))
    rows = batches(8)
    whole.train(rows)
    first.train(rows[:4])
    first.save(tmp_path)
    second.load(tmp_path)
    second.train(rows[4:])
    exact = trainer(kind)
    exact.train(rows)
    masters = [run.optimizer.state_dict()["master_weights"] for run in (whole, second)]
    for p, q in zip(whole.model.parameters(), exact.model.parameters()):
        assert p.dtype == paddle.bfloat16
        assert masters[0][p.name].numpy().tobytes() == masters[1][p.name].numpy().tobytes()
        assert (p == masters[0][p.name].astype("bfloat16")).all()
        error = np.abs(masters[0][p.name].numpy() - q.numpy()).max()
        assert error < 0.2 * np.abs(q.numpy()).max()


def test_an_overflow_moves_neither_schedule_nor_counters(mixed_precision):
    run = trainer("wrapped", scaling=True)
    rows = batches(3)
    run.train(rows[:1])
    before = [p.numpy().tobytes() for p in run.model.parameters()]
    run.train([(rows[1][0] * float("inf"), rows[1][1])])
    assert [p.numpy().tobytes() for p in run.model.parameters()] == before
    assert run.lr_scheduler.last_epoch == 1 and run.optimizer.updates == run.optimizer.steps == 1
    run.train(rows[2:])
    assert run.lr_scheduler.last_epoch == 2 and run.optimizer.updates == run.optimizer.steps == 2


@pytest.mark.parametrize("grouped", [False, True])
def test_main_grads_of_paddles_mixed_precision_optimizer(grouped):
    """It hands over prepared pairs, group by group; a step of the wrappers is one all the same."""
    found = []
    for master_grad in (True, False):
        model = cast()
        parameters = model.parameters()
        if grouped:
            parameters = [
                {"params": parameters[:2], "weight_decay": 0.3},
                {"params": parameters[2:], "learning_rate": 0.5},
            ]
        inside = optim.AdamW(0.02, parameters=parameters)
        wrapped = optim.EMA(optim.Lookahead(inside, k=2), decay=0.5)
        stepping = MixPrecisionOptimizer(wrapped) if master_grad else wrapped
        for x, y in batches(5):
            model.clear_gradients()
            paddle.nn.functional.cross_entropy(model(x), y).backward()
            for parameter in model.parameters():
                if master_grad:
                    parameter.main_grad = parameter.grad.clone()
            stepping.step()
        assert wrapped.steps == wrapped.updates == 5
        found.append([*numbers(model), *(s.numpy() for s in wrapped.shadow.values())])
    for first, second in zip(*found):
        np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="put SAM outside"):
        optim.SAM(wrapped)._apply_optimize(None, None, [])


# Several processes ------------------------------------------------------------------------------

WORKER = pathlib.Path(__file__).with_name("data_parallel_worker.py")
RUN = (  # with the modules of this process, however it found them
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); sys.argv[:] = sys.argv[2:];"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run_workers(count, folder):
    """Run ``count`` ranks over gloo; their parameters by rank, once all have ended well.

    Paddle's store dies if its port, free a moment ago, is taken meanwhile: that is forgiven once.
    """
    ended = start_workers(count, folder)
    if any(code != 0 and "TCPServer::create" in log for code, log in ended):
        ended = start_workers(count, folder)
    assert not any(code for code, _ in ended), "\n".join(log[-3000:] for _, log in ended)
    return [np.load(folder / f"{count}_{rank}.npz") for rank in range(count)]


def start_workers(count, folder):
    """Exit code and output of each rank. Once one has failed, the others are not waited for."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count + 1)]
    ranks = []
    for rank in range(count):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PADDLE_DISTRI_BACKEND": "gloo",
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(count),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses[1:]),
            "PADDLE_CURRENT_ENDPOINT": addresses[1 + rank],
            "PADDLE_MASTER": addresses[0],
        }
        command = [sys.executable, "-c", RUN, json.dumps(sys.path), str(WORKER)]
        command.append(str(folder / f"{count}_{rank}.npz"))
        with (folder / f"{count}_{rank}.log").open("wb") as log:
            ranks.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
    deadline = time.monotonic() + 240
    try:
        while any(rank.poll() is None for rank in ranks):
            if any(rank.poll() for rank in ranks) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
                rank.wait()
    logs = [(folder / f"{count}_{rank}.log").read_text("utf-8", "replace") for rank in range(count)]
    return [(rank.returncode, log) for rank, log in zip(ranks, logs)]


def test_data_parallel_of_two_processes_is_one_process(tmp_path):
    """Every optimiser, and the wrappers: ranks agree bit for bit, and with one process nearly."""
    first, second = run_workers(2, tmp_path)
    (alone,) = run_workers(1, tmp_path)
    runs = {key.split("|")[0] for key in alone.files}
    assert {*NAMES, "ema of lookahead", "sam", "accumulated"} <= runs
    for key in alone.files:
        assert first[key].tobytes() == second[key].tobytes(), key
        np.testing.assert_allclose(first[key], alone[key], rtol=2e-3, atol=2e-4, err_msg=key)


# Sharded parameters -----------------------------------------------------------------------------


def needs_whole_tensors(name):
    """Whether some rule of this optimiser refuses a shard."""
    model = sharded(mlp())
    try:
        optim.create(name, model)
    except ValueError as error:
        assert "shard" in str(error)
        return True
    return False


def sharded(model):
    mesh = paddle.distributed.ProcessMesh([0], dim_names=["x"])
    for layer in model.sublayers():
        for key, parameter in list(layer._parameters.items()):
            placements = [paddle.distributed.Shard(parameter.ndim - 1)]
            layer._parameters[key] = paddle.distributed.shard_tensor(parameter, mesh, placements)
    return model


ELEMENTWISE = [name for name in NAMES if not needs_whole_tensors(name)]


def test_adamw_takes_shards():
    assert {"adamw", "lion"} <= set(ELEMENTWISE) and "muon" not in ELEMENTWISE


@pytest.mark.parametrize("wrapper", ["none", "ema of lookahead", "sam", "cautious"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_shards_are_updated_as_whole_tensors(name, wrapper):
    found = []
    for shard in (True, False):
        model = sharded(mlp()) if shard else mlp()
        clip = paddle.nn.ClipGradByGlobalNorm(0.5)
        options = {"learning_rate": 0.02, "weight_decay": 0.1, "grad_clip": clip}
        optimizer = inside = optim.create(name, model, path=None if shard else "paddle", **options)
        if wrapper == "sam":
            optimizer = optim.SAM(inside, rho=0.1)
        elif wrapper == "ema of lookahead":
            if name in AVERAGING:
                with pytest.raises(ValueError, match=r"optimizer.averaged\(\)"):
                    optim.Lookahead(inside)
                return
            optimizer = optim.EMA(optim.Lookahead(inside, k=2), decay=0.5)
        elif wrapper == "cautious":
            if not all(slot.rule.decoupled for slot in inside._slots.values()):
                with pytest.raises(ValueError, match="cautious_weight_decay must be False"):
                    optim.cautious_weight_decay(inside)
                return
            optim.cautious_weight_decay(inside)
        x, y = (paddle.to_tensor(part) for part in data())

        def closure(model=model, x=x, y=y):
            loss = paddle.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for _ in range(4):
            if wrapper == "sam":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            optimizer.clear_grad()
        assert all(p.is_dist() == shard for p in model.parameters())
        found.append(numbers(model))
    for ours, whole in zip(*found):
        np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)
