"""Recovery by training: distillation from the uncompressed model, and quantisation-aware training."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ... import _checks, optim
from .. import saving
from ..grids import Grid, rows_of_group
from ..layers import QuantizedLinear, QuantizedSpec, weight_of
from ..statistics import evaluation
from ..structure import get, matching, put
from .base import Context, ModelModifier
from .rounding import Rounding

logger = logging.getLogger("oarlock.core_opt.compress")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Training(ModelModifier):
    """What modifiers that train share.

    Args:
        steps: each on one batch of the calibration data, in their order, over and over.
        learning_rate: of AdamW; falls linearly to zero.
        save_every: steps after which the state is kept, where there is a folder.
    """

    trains: ClassVar[bool] = True
    steps: int = 100
    learning_rate: float = 1e-3
    save_every: int = 50

    def __post_init__(self):
        _checks.whole("steps", self.steps, 1)
        _checks.non_negative("learning_rate", self.learning_rate)
        _checks.whole("save_every", self.save_every, 1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Distillation(_Training):
    """Trains what a compressed model keeps in floating point towards the outputs of the original.

    Minimises T^2 KL(softmax(z/T) || softmax(y/T)), z of the original. Codes and masks stay as they
    are; scales, norms, biases, embeddings, residuals and weights that were not rounded are trained.

    Args:
        temperature: T.

    Source: 1503.02531.
    """

    kind: ClassVar[str] = "distillation"
    needs_original: ClassVar[bool] = True
    temperature: float = 1.0

    def __post_init__(self):
        _Training.__post_init__(self)
        _checks.real("temperature", self.temperature, 0.0, 1e6, open_low=True)

    def apply(self, model: nn.Layer, context: Context) -> Mapping[str, Any]:
        """See ``ModelModifier.apply``."""
        outputs = context.data.outputs
        if outputs is None:
            raise ValueError(
                "distillation needs outputs: Data(batches=..., loss=..., outputs=...)."
            )
        teacher = context.original
        assert teacher is not None

        def loss(batch: Any) -> paddle.Tensor:
            with evaluation(teacher), paddle.no_grad():
                wanted = F.softmax(outputs(teacher, batch) / self.temperature, axis=-1)
            given = F.log_softmax(outputs(model, batch) / self.temperature, axis=-1)
            rows = wanted.size // wanted.shape[-1]
            return F.kl_div(given, wanted, reduction="sum") * (self.temperature**2 / rows)

        return train(model, loss, self, context)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QAT(_Training):
    """Trains weights and step sizes through the rounding, then rounds for good.

    The rounding passes gradients on as if it were not there (straight-through); inside the grid the
    step size s gets the gradient round(w/s) - w/s, outside the bound of the grid.

    Args:
        bits, group, symmetric, targets, ignore: as of ``RTN``.

    Source: LSQ 1902.08153.
    """

    kind: ClassVar[str] = "qat"
    bits: int = 4
    group: int | None = None
    symmetric: bool = False
    targets: tuple[str, ...] = ("*",)
    ignore: tuple[str, ...] = ()

    def __post_init__(self):
        _Training.__post_init__(self)
        self._rounding()

    def _rounding(self) -> Rounding:
        return Rounding(
            bits=self.bits,
            group=self.group,
            symmetric=self.symmetric,
            targets=self.targets,
            ignore=self.ignore,
        )

    def apply(self, model: nn.Layer, context: Context) -> Mapping[str, Any]:
        """See ``ModelModifier.apply``."""
        rounding = self._rounding()
        alive = [name for name, layer in model.named_sublayers() if type(layer) is nn.Linear]
        if not alive:
            raise ValueError("no plain linear layer is left to train; put qat before rounding.")
        names = matching(alive, rounding.targets, rounding.ignore, self.kind)
        for name in names:
            weight = weight_of(get(model, name))
            group = rows_of_group(len(weight), rounding.group, name)
            grid = rounding.observer.grid(
                weight, bits=rounding.bits, group=group, symmetric=rounding.symmetric
            )
            put(model, name, StepSizeLinear(get(model, name), grid, rounding.symmetric))
        told = train(model, lambda batch: context.data.loss(model, batch), self, context)
        for name in names:
            put(model, name, _rounded(get(model, name)))
        return told


def _rounded(layer: Any) -> QuantizedLinear:
    return layer.rounded()


class StepSizeLinear(nn.Layer):
    """A linear layer whose weight is rounded in each call, with gradients; only within ``QAT``."""

    def __init__(self, linear: Any, grid: Grid, symmetric: bool):
        super().__init__()
        self.weight = self.create_parameter(linear.weight.shape)
        self.weight.set_value(linear.weight.astype("float32"))
        self.scale = self.create_parameter(list(grid.scale.shape))
        self.scale.set_value(grid.scale)
        self.register_buffer("zero", paddle.to_tensor(grid.zero))
        self.bias = linear.bias
        self._bits, self._symmetric = grid.bits, symmetric
        # a step size moves all weights of its group: its gradient is scaled down by their number
        self._damping = (grid.group * (2**grid.bits - 1)) ** -0.5

    def _grouped_weight(self) -> paddle.Tensor:
        groups, out = self.scale.shape
        scale = self.scale * self._damping + (self.scale * (1 - self._damping)).detach()
        scale, zero = scale.unsqueeze(1), self.zero.unsqueeze(1)
        steps = self.weight.reshape([groups, -1, out]) / scale
        inside = paddle.clip(steps + zero, 0, 2**self._bits - 1) - zero
        whole = inside + (paddle.round(inside) - inside).detach()
        return (whole * scale).reshape(self.weight.shape)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        bias = None if self.bias is None else self.bias.astype(x.dtype)
        return F.linear(x, self._grouped_weight().astype(x.dtype), bias)

    def rounded(self) -> QuantizedLinear:
        """The quantised layer that computes the same."""
        rows, out = self.weight.shape
        # a step size that training made negative mirrors its grid; only its size counts then
        scale = np.maximum(np.abs(self.scale.numpy()), np.finfo(np.float32).tiny)
        grid = Grid(bits=self._bits, scale=scale, zero=self.zero.numpy(), rows=rows)
        spec = QuantizedSpec(
            in_features=rows,
            out_features=out,
            bits=self._bits,
            groups=len(scale),
            symmetric=self._symmetric,
            bias=self.bias is not None,
        )
        layer = QuantizedLinear(spec)
        layer.set_codes(grid.codes(self.weight.numpy()), grid)
        if self.bias is not None:
            layer.bias.set_value(self.bias.astype("float32"))
        return layer


def train(
    model: nn.Layer, loss: Callable[[Any], paddle.Tensor], settings: _Training, context: Context
) -> Mapping[str, Any]:
    """Train all floating-point parameters in evaluation mode; returns first and last loss.

    Raises:
        ValueError: there are no batches, or a loss is not finite. Parameters are as before then.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.trainable]
    before = [parameter.clone() for parameter in parameters]
    optimizer = optim.AdamW(
        parameters=parameters,
        learning_rate=optim.schedules.LinearToZero(settings.learning_rate, settings.steps),
        weight_decay=0.0,
    )
    losses: list[float] = []
    try:
        losses = _resume(context.folder, model, optimizer, parameters)
        batches = _endless(context.data.batches, skip=len(losses))
        for step in range(len(losses), settings.steps):
            value = loss(next(batches))
            number = float(value.numpy())
            if not np.isfinite(number):
                raise ValueError(
                    f"the training loss is {number} at step {step}; lower learning_rate."
                )
            losses.append(number)
            value.backward()
            optimizer.step()
            optimizer.clear_grad()
            optimizer._learning_rate.step()
            if (step + 1) % settings.save_every == 0:
                _keep(context.folder, model, optimizer, parameters, losses)
            context.progress(step + 1, settings.steps, f"{settings.kind}, loss {number:.4g}")
    except BaseException:
        for parameter, value in zip(parameters, before):
            parameter.set_value(value)
            parameter.clear_gradient(False)
        raise
    return {"first_loss": losses[0], "last_loss": losses[-1], "steps": settings.steps}


def _endless(batches: Any, *, skip: int) -> Iterator[Any]:
    number = 0
    while True:
        empty = True
        for batch in batches:
            empty = False
            number += 1
            if number > skip:
                yield batch
        if empty:
            raise ValueError("batches is empty; training needs at least one batch.")


def _keep(
    folder: Path | None,
    model: nn.Layer,
    optimizer: optim.Optimizer,
    parameters: Sequence[paddle.Tensor],
    losses: list[float],
) -> None:
    if folder is None:
        return
    arrays = {f"model/{name}": a for name, a in saving.arrays_of(model).items()}
    plain = {}
    for key, value in optimizer.state_dict().items():
        if isinstance(value, paddle.Tensor):
            arrays[f"optimizer/{_numbered(key, parameters)}"] = value.numpy()
        else:
            plain[key] = value
    saving.write(folder.with_suffix(".npz"), {"losses": losses, "optimizer": plain}, arrays)


def _resume(
    folder: Path | None,
    model: nn.Layer,
    optimizer: optim.Optimizer,
    parameters: Sequence[paddle.Tensor],
) -> list[float]:
    if folder is None or not folder.with_suffix(".npz").exists():
        return []
    about, arrays = saving.read(folder.with_suffix(".npz"))
    own = {k.removeprefix("model/"): a for k, a in arrays.items() if k.startswith("model/")}
    saving.fill(model, own, str(folder))
    state = dict(about["optimizer"])
    for key, array in arrays.items():
        if key.startswith("optimizer/"):
            number, _, rest = key.removeprefix("optimizer/").partition("/")
            state[f"{parameters[int(number)].name}_{rest}"] = paddle.to_tensor(array)
    optimizer.set_state_dict(state)
    return list(about["losses"])


def _numbered(key: str, parameters: Sequence[paddle.Tensor]) -> str:
    """A key with the number of its parameter for its name, which changes between processes."""
    fitting = [(len(p.name), n) for n, p in enumerate(parameters) if key.startswith(f"{p.name}_")]
    length, number = max(fitting)
    return f"{number}/{key[length + 1:]}"
