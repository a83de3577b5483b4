"""A rank that trains with Paddle: `python -m oarlock.accept.fleet.rank ORDER RANK`."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from oarlock.accept.fleet.task import Order
from oarlock.fleet_ext.compress import Adaptive, EveryStep, LocalSteps, averaging_of, wrap
from oarlock.fleet_ext.job import join
from oarlock.llm import models
from oarlock.native.paddle import accelerate

_HELD_OUT = 0.1  #: of the text, at its end


class LossOf(nn.Layer):
    """A model whose forward pass is its loss, as `paddle.DataParallel` wants it."""

    def __init__(self, model: models.LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        return self.model.loss(tokens, targets)


class InBFloat16(nn.Layer):
    """A model whose parameters, and so its gradients, are bfloat16, and its optimizer, whose weights are float32.

    It is what level O2 of Paddle's `amp` does, which does nothing on a CPU, and neither has its AdamW bfloat16 there.
    `paddle.DataParallel` sends gradients as they are. What is computed is float32.

    Args:
        model: gives its loss.
        inner: an optimizer of the model's parameters.
    """

    def __init__(self, model: nn.Layer, inner: Any) -> None:
        super().__init__()
        self._hidden = [model]  # whose parameters `DataParallel` must not find
        self._exact, self._inner = list(model.parameters()), inner
        places: dict[int, list[tuple[nn.Layer, str]]] = {id(one): [] for one in self._exact}
        for layer in model.sublayers(include_self=True):
            for name, one in layer._parameters.items():
                places[id(one)].append((layer, name))
        self._places = list(places.values())
        self.coarse = nn.ParameterList(
            [self.create_parameter(one.shape, dtype="bfloat16") for one in self._exact]
        )
        self._round()

    def forward(self, tokens: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        for one, places in zip(self.coarse, self._places):
            computed = one.astype("float32")
            for layer, name in places:
                layer._parameters.pop(name, None)
                object.__setattr__(layer, name, computed)
        return self._hidden[0](tokens, targets)

    def step(self) -> None:
        """A step of the optimizer, by the gradients that were averaged."""
        for one, coarse in zip(self._exact, self.coarse):
            assert coarse.grad is not None, "every parameter takes part"
            one.grad = coarse.grad.astype("float32")
        self._inner.step()
        self._round()

    def clear_grad(self) -> None:
        self._inner.clear_grad()
        for one in self.coarse:
            one.clear_gradient()

    def _round(self) -> None:
        for one, coarse in zip(self._exact, self.coarse):
            coarse.set_value(one.astype("bfloat16"))


class Text:
    """Batches of a rank."""

    def __init__(self, order: Order, rank: int) -> None:
        text = np.load(order.text).astype(np.int64)
        cut = int(len(text) * (1 - _HELD_OUT))
        self._parts = {"training": text[:cut], "validation": text[cut:]}
        self._order, self._rank = order, rank

    def batch(self, part: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        task, text = self._order.task, self._parts[part]
        key = [self._order.seed, self._rank, number] if part == "training" else [0, number]
        starts = np.random.default_rng(key).integers(0, len(text) - task.context - 1, task.batch)
        rows = np.stack([text[start : start + task.context + 1] for start in starts])
        return rows[:, :-1], rows[:, 1:]


def strategy_of(order: Order) -> Any:
    """What `wrap` takes."""
    way, options = order.arm.way, dict(order.arm.options)
    if way == "adaptive":
        return Adaptive(**options)
    if "averaging" in options:
        options["averaging"] = averaging_of(options["averaging"])
    if way == "local-steps":
        return LocalSteps(**options)
    return EveryStep(averaging=averaging_of(way), **options)


def train(order: Order, rank: int) -> dict[str, Any]:
    """Trains as ordered; times of steps in seconds, losses, and what the strategy says.

    `curve` has steps, seconds of training until then, and the loss of this rank's part of held-out text.
    """
    accelerate(threads=1)
    task = order.task
    config = models.llama.LlamaConfig.from_dict(task.shape)
    whole: nn.Layer = LossOf(models.create("llama", config, seed=order.seed))
    inner = paddle.optimizer.AdamW(
        task.rate, beta2=task.beta2, parameters=whole.parameters(), weight_decay=0.1,
        grad_clip=nn.ClipGradByGlobalNorm(task.clip, auto_skip_clip=True),
    )  # fmt: skip
    finish: Callable[[], None] = lambda: None  # noqa: E731
    report: Callable[[], str] = lambda: ""  # noqa: E731
    sent: Callable[[], int] = lambda: 0  # noqa: E731
    job = None
    layer: Any
    optimizer: Any
    if order.arm.library == "paddle":
        paddle.distributed.init_parallel_env()
        optimizer = inner
        if order.arm.way == "bf16":
            optimizer = whole = InBFloat16(whole, inner)
        layer = paddle.DataParallel(whole)
    else:
        job = join()
        layer, optimizer = whole, wrap(whole, inner, job.group, strategy_of(order))
        finish, report, sent = optimizer.finish, optimizer.report, lambda: job.mesh.traffic()[0]
    text, seconds, losses, traffic, curve = Text(order, rank), [], [], [], []
    for step in range(task.steps):
        tokens, targets = map(paddle.to_tensor, text.batch("training", step))
        inner.set_lr(task.learning_rate(step))
        begin, before = time.perf_counter(), sent()
        loss = layer(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
        seconds.append(time.perf_counter() - begin)
        traffic.append(sent() - before)
        if task.every and (step + 1) % task.every == 0:
            curve.append([step + 1, sum(seconds), _validated(whole, text, task.held_out(rank))])
    finish()
    found = {"seconds": seconds, "losses": losses, "traffic": traffic, "curve": curve, "report": report(),
             "parameters": sum(int(np.prod(one.shape)) for one in whole.parameters())}  # fmt: skip
    if not order.time_only:
        found["checksum"] = float(sum(one.astype("float64").sum() for one in whole.parameters()))
    if job is not None:
        job.group.barrier().wait()
        optimizer.close()
        job.close()
    return found


def _validated(layer: nn.Layer, text: Text, batches: Iterable[int]) -> float:
    with paddle.no_grad():
        losses = [
            float(layer(*map(paddle.to_tensor, text.batch("validation", number))))
            for number in batches
        ]
    return float(np.mean(losses))


if __name__ == "__main__":
    given, number = Order.read(sys.argv[1]), int(sys.argv[2])
    found = train(given, number)
    Path(given.out, f"{number}.json").write_text(json.dumps(found))
