"""Local steps: workers train on their own for a while, then agree (DiLoCo, MuLoCo)."""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer.lr import LRScheduler

from .. import _checks
from .._base import Optimizer
from .._registry import create
from ..wrappers._wrapper import Wrapper, chain
from .quantize import BITS, Packed, pack, unpack

#: Makes the inner optimiser of a replica.
Inner = Callable[[nn.Layer], paddle.optimizer.Optimizer]
#: Gives the loss of a replica on its next batch: ``loss(model, worker)``.
Loss = Callable[[nn.Layer, int], paddle.Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How replicas agree; see `LocalSteps`."""

    inner_steps: int = 30
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    nesterov: bool = True
    bits: int | None = None
    error_feedback: bool = True

    def __post_init__(self) -> None:
        _checks.whole("inner_steps", self.inner_steps, 1)
        _checks.real(
            "outer_learning_rate",
            self.outer_learning_rate,
            0,
            math.inf,
            open_low=True,
            open_high=True,
        )
        _checks.fraction("outer_momentum", self.outer_momentum)
        _checks.flag("nesterov", self.nesterov)
        _checks.choice("bits", self.bits, (None, *BITS))
        _checks.flag("error_feedback", self.error_feedback)


class Replica:
    """One worker: its model, its inner optimiser, and what quantisation has held back.

    A round is ``send(loss)``, an exchange of what all replicas sent, and ``receive(all of it)``.
    Every replica takes the outer step itself, on the same numbers in the same order, so that all
    stay equal to the bit without a server. Buffers that are saved with the model and hold float32,
    such as the running statistics of batch norm, are sent as they are and averaged.

    Args:
        model: changed in place; all replicas must begin with the same weights.
        inner: makes the inner optimiser; its LRScheduler, if it has one, steps with it.
        worker: its number.
        options: the same for all replicas.
    """

    def __init__(self, model: nn.Layer, inner: Inner, *, worker: int, options: Options):
        self.model, self.worker, self.options = model, worker, options
        self._parameters = {n: p for n, p in model.named_parameters() if not p.stop_gradient}
        if not self._parameters:
            raise ValueError("model has no parameters to train; unfreeze some.")
        for name, parameter in self._parameters.items():
            if parameter.dtype != paddle.float32:
                raise ValueError(
                    f"parameter {name!r} is {parameter.dtype}; local steps need float32 parameters."
                )
        self._buffers = _running(model)
        self.optimizer = inner(model)
        for one in chain(self.optimizer):
            if isinstance(one, Optimizer) and one.averages:
                raise ValueError(
                    f"inner makes a {type(one).__name__}, which averages its iterates itself and "
                    "cannot follow when workers agree; take one that does not, such as optim.AdamW."
                )
            if isinstance(one, Wrapper) and one.combines_steps:
                raise ValueError(
                    f"inner makes a {type(one).__name__}, which moves or averages parameters over "
                    "many steps and cannot follow when workers agree; leave it out. "
                    "optim.EMA(model) on the agreed weights takes an average with update() after "
                    "each round."
                )
        self.rounds = 0
        self.bytes_sent = 0
        self._agreed = self._values()
        self._momentum = {name: np.zeros_like(value) for name, value in self._agreed.items()}
        self._held_back = {name: np.zeros_like(value) for name, value in self._agreed.items()}

    def _values(self) -> dict[str, np.ndarray]:
        return {name: np.array(p.numpy()) for name, p in self._parameters.items()}

    def send(self, loss: Loss) -> tuple[dict[str, Packed], float]:
        """Train for the inner steps; what has changed, and the mean training loss.

        Raises:
            FloatingPointError: a loss or a weight is not finite; the round can be begun again after
                ``set_state_dict``.
        """
        losses = []
        self.optimizer.clear_grad()  # what a round that failed may have left
        for _ in range(self.options.inner_steps):
            one = loss(self.model, self.worker)
            one.backward()
            self.optimizer.step()
            self.optimizer.clear_grad()
            if isinstance(self.optimizer._learning_rate, LRScheduler):
                self.optimizer._learning_rate.step()
            losses.append(one.detach())
        mean = float(paddle.stack([scalar.reshape([]) for scalar in losses]).mean())
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss of worker {self.worker} is not finite.")
        # the pseudo-gradients
        changes = {name: self._agreed[name] - value for name, value in self._values().items()}
        for name, change in changes.items():  # all, before what is held back changes
            if not np.isfinite(change).all():
                raise FloatingPointError(
                    f"the weights of worker {self.worker} ({name!r}) are not finite."
                )
        payload = {name: pack(value.numpy(), None) for name, value in self._buffers.items()}
        for name, change in changes.items():
            if self.options.bits is None:
                payload[name] = pack(change, None)
                continue
            if self.options.error_feedback:
                change += self._held_back[name]
            payload[name] = pack(change, self.options.bits)
            if self.options.error_feedback:
                self._held_back[name] = change - unpack(payload[name])
        self.bytes_sent += sum(one.nbytes for one in payload.values())
        return payload, mean

    @paddle.no_grad()
    def receive(self, payloads: Sequence[Mapping[str, Packed]]) -> None:
        """Take the outer step on what all replicas sent, in the order of their numbers."""
        o = self.options
        rate, momentum = np.float32(o.outer_learning_rate), np.float32(o.outer_momentum)
        for name, parameter in self._parameters.items():
            mean = np.array(unpack(payloads[0][name]))
            for other in payloads[1:]:
                mean += unpack(other[name])
            mean /= np.float32(len(payloads))
            velocity = self._momentum[name]
            velocity *= momentum
            velocity += mean
            step = mean + momentum * velocity if o.nesterov else velocity
            self._agreed[name] = self._agreed[name] - rate * step
            parameter.set_value(self._agreed[name])
        for name, buffer in self._buffers.items():
            first, *others = (unpack(payload[name]) for payload in payloads)
            apart = sum((other - first for other in others), np.zeros_like(first))
            mean = first + apart / np.float32(len(payloads))  # equal ones stay so
            buffer.set_value(np.asarray(mean))
        self.rounds += 1

    def state_dict(self) -> dict:
        """Everything needed to go on from the last agreement, to the bit; copies."""
        names = {parameter.name: name for name, parameter in self._parameters.items()}
        return {
            "worker": self.worker,
            "rounds": self.rounds,
            "bytes_sent": self.bytes_sent,
            "agreed": {name: value.copy() for name, value in self._agreed.items()},
            "momentum": {name: value.copy() for name, value in self._momentum.items()},
            "held_back": {name: value.copy() for name, value in self._held_back.items()},
            "buffers": {name: np.array(buffer.numpy()) for name, buffer in self._buffers.items()},
            "inner": _copied(self.optimizer.state_dict()),
            "names": names,
        }

    @paddle.no_grad()
    def set_state_dict(self, state: Mapping) -> None:
        """Go on from ``state_dict()``, also of a model whose tensors had other names.

        Raises:
            ValueError: it belongs to another model or another worker.
        """
        if state["worker"] != self.worker:
            raise ValueError(f"the state is of worker {state['worker']}, this is {self.worker}.")
        for name, value in self._agreed.items():
            given = state["agreed"].get(name)
            if given is None or given.shape != value.shape:
                raise ValueError(
                    f"the state has no parameter {name!r} of shape {list(value.shape)}; it belongs "
                    "to another model."
                )
        unknown = sorted(self._buffers.keys() ^ state.get("buffers", {}).keys())
        if unknown:
            raise ValueError(
                f"the buffers {', '.join(unknown)} are of the state or the model only; the state "
                "belongs to another model."
            )
        now = {name: parameter.name for name, parameter in self._parameters.items()}
        renamed = {old: now[name] for old, name in state["names"].items()}
        self.optimizer.set_state_dict(_renamed(state["inner"], renamed))
        self.rounds, self.bytes_sent = state["rounds"], state["bytes_sent"]
        for mine, given in (
            (self._agreed, state["agreed"]),
            (self._momentum, state["momentum"]),
            (self._held_back, state["held_back"]),
        ):
            mine.update({name: np.array(given[name]) for name in mine})
        for name, parameter in self._parameters.items():
            parameter.set_value(self._agreed[name])
        for name, buffer in self._buffers.items():
            buffer.set_value(state["buffers"][name])


BATCH_NORMS = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)


def _running(model: nn.Layer) -> dict[str, paddle.Tensor]:
    """What a model updates besides its training: saved float32 buffers, and batch norm's statistics.

    The latter are parameters without a gradient to Paddle, as frozen weights are, which do not
    change and are not sent.
    """
    saved = model.state_dict()
    found = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    for prefix, layer in model.named_sublayers(include_self=True):
        if isinstance(layer, BATCH_NORMS):
            start = f"{prefix}." if prefix else ""
            found |= {f"{start}_mean": layer._mean, f"{start}_variance": layer._variance}
    return {name: value for name, value in found.items() if value.dtype == paddle.float32}


def _copied(state: Mapping) -> dict:
    def copied(value):
        if isinstance(value, paddle.Tensor):
            return value.numpy().copy()
        return _copied(value) if isinstance(value, Mapping) else copy.deepcopy(value)

    return {key: copied(value) for key, value in state.items()}


def _renamed(state: Mapping, names: Mapping[str, str]) -> dict:
    """The state of an optimiser with the names of other tensors in its keys."""
    out = {}
    by_length = sorted(names, key=len, reverse=True)
    for key, value in state.items():
        old = next((old for old in by_length if key == old or key.startswith(f"{old}_")), None)
        new = key if old is None else names[old] + key[len(old) :]
        if isinstance(value, np.ndarray):
            value = paddle.to_tensor(value)
        elif isinstance(value, Mapping) and key == "master_weights":
            value = _renamed(value, names)
        out[new] = value
    return out


class LocalSteps:
    r"""K workers take H steps each on their own, then one outer step together.

    With the weights :math:`\theta` that all agree on, :math:`\theta_k` those of worker k after its
    inner steps, and :math:`\Delta = \frac1K \sum_k (\theta - \theta_k)`,

    .. math::
        m \leftarrow \mu m + \Delta, \qquad
        \theta \leftarrow \theta - \eta\, (\Delta + \mu m)

    (:math:`\theta - \eta m` without Nesterov). With :math:`\eta = 1, \mu = 0` this is local SGD,
    the mean of the replicas. Here the K replicas take turns in one process and compute exactly what
    K processes would; `Replica` is the part for a process of its own. Layers that draw random
    numbers draw them from the one stream of the process.

    Args:
        model: the weights to begin with; holds the agreed weights after each round.
        inner: name of a registered optimiser, or a function that makes the optimiser of a model.
        inner_options: options of a registered optimiser, such as ``learning_rate``.
        workers: K >= 1.
        inner_steps: H >= 1.
        outer_learning_rate: :math:`\eta` > 0.
        outer_momentum: :math:`\mu` in [0, 1).
        nesterov: Nesterov's form of the momentum.
        bits: 2, 4 or 8 to quantise what workers send; None sends float32.
        error_feedback: add to what is sent what quantisation held back before.

    Raises:
        ValueError: wrong arguments.
    """

    def __init__(
        self,
        model: nn.Layer,
        inner: str | Inner = "adamw",
        inner_options: Mapping | None = None,
        *,
        workers: int,
        inner_steps: int = 30,
        outer_learning_rate: float = 1.0,
        outer_momentum: float = 0.0,
        nesterov: bool = True,
        bits: int | None = None,
        error_feedback: bool = True,
    ):
        options = Options(
            inner_steps=inner_steps,
            outer_learning_rate=outer_learning_rate,
            outer_momentum=outer_momentum,
            nesterov=nesterov,
            bits=bits,
            error_feedback=error_feedback,
        )
        build = inner_of(inner, inner_options)
        self.replicas = [
            Replica(_clone(model), build, worker=worker, options=options)
            for worker in range(_checks.whole("workers", workers, 1))
        ]
        self.model = model

    def round(self, loss: Loss) -> float:
        """H steps of every worker and the outer step; returns the mean training loss."""
        sent = [replica.send(loss) for replica in self.replicas]
        for replica in self.replicas:
            replica.receive([payload for payload, _ in sent])
        self._publish()
        return float(np.mean([mean for _, mean in sent]))

    @property
    def bytes_sent(self) -> int:
        """Bytes that each worker has sent so far."""
        return self.replicas[0].bytes_sent

    @property
    def rounds(self) -> int:
        """Rounds so far."""
        return self.replicas[0].rounds

    @paddle.no_grad()
    def _publish(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.replicas[0]._agreed:
                parameter.set_value(self.replicas[0]._agreed[name])
        for name, buffer in _running(self.model).items():
            buffer.set_value(self.replicas[0]._buffers[name])

    def state_dict(self) -> dict:
        """The states of all replicas; goes on to the bit, between rounds."""
        return {"replicas": [replica.state_dict() for replica in self.replicas]}

    def set_state_dict(self, state: Mapping) -> None:
        """Go on from ``state_dict()``.

        Raises:
            ValueError: it has another number of workers, or belongs to another model.
        """
        if len(state["replicas"]) != len(self.replicas):
            raise ValueError(
                f"the state is of {len(state['replicas'])} workers, these are {len(self.replicas)}."
            )
        for replica, one in zip(self.replicas, state["replicas"]):
            replica.set_state_dict(one)
        self._publish()


class DiLoCo(LocalSteps):
    r"""DiLoCo: AdamW inside, Nesterov momentum outside, :math:`\eta = 0.7, \mu = 0.9`.

    The arguments are those of `LocalSteps`. The paper takes 500 inner steps; small models want
    fewer.

    Source: Douillard et al., 2311.08105.
    """

    def __init__(
        self,
        model: nn.Layer,
        inner: str | Inner = "adamw",
        inner_options: Mapping | None = None,
        *,
        workers: int,
        inner_steps: int = 30,
        outer_learning_rate: float = 0.7,
        outer_momentum: float = 0.9,
        nesterov: bool = True,
        bits: int | None = None,
        error_feedback: bool = True,
    ):
        super().__init__(
            model,
            inner,
            inner_options,
            workers=workers,
            inner_steps=inner_steps,
            outer_learning_rate=outer_learning_rate,
            outer_momentum=outer_momentum,
            nesterov=nesterov,
            bits=bits,
            error_feedback=error_feedback,
        )


class MuLoCo(DiLoCo):
    r"""MuLoCo: DiLoCo with Muon inside, whose changes point more alike and bear fewer bits.

    The arguments are those of `LocalSteps`.

    Source: Thérien et al., 2505.23725.
    """

    def __init__(
        self,
        model: nn.Layer,
        inner: str | Inner = "muon",
        inner_options: Mapping | None = None,
        *,
        workers: int,
        inner_steps: int = 30,
        outer_learning_rate: float = 0.7,
        outer_momentum: float = 0.9,
        nesterov: bool = True,
        bits: int | None = None,
        error_feedback: bool = True,
    ):
        super().__init__(
            model,
            inner,
            inner_options,
            workers=workers,
            inner_steps=inner_steps,
            outer_learning_rate=outer_learning_rate,
            outer_momentum=outer_momentum,
            nesterov=nesterov,
            bits=bits,
            error_feedback=error_feedback,
        )


def inner_of(inner: str | Inner, options: Mapping | None) -> Inner:
    """The function that makes the inner optimiser.

    Raises:
        ValueError: options beside a function, which has its own.
    """
    if isinstance(inner, str):
        chosen = dict(options or {})
        return lambda model: create(inner, model, **chosen)
    if not callable(inner):
        raise ValueError(
            f"inner must be the name of an optimiser or a function, got {_checks.shown(inner)}."
        )
    if options:
        raise ValueError("inner_options go with a name; a function sets its own.")
    return inner


def _clone(model: nn.Layer) -> nn.Layer:
    """A copy whose parameters keep their names, which optimiser options may refer to."""
    clone = copy.deepcopy(model)
    for (_, old), (_, new) in zip(model.named_parameters(), clone.named_parameters()):
        new.name = old.name
        new.optimize_attr = dict(getattr(old, "optimize_attr", {"learning_rate": 1.0}))
    return clone
