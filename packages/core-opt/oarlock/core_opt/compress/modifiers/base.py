"""The one interface of all modifiers."""

import dataclasses
import enum
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import paddle
from paddle import nn

from ... import _checks
from ..registry import Registered
from ..statistics import Loss
from ..structure import Structure
from ..work import LayerWork

if TYPE_CHECKING:
    from ..analysis.report import Report

logger = logging.getLogger("oarlock.core_opt.compress")
Progress = Callable[[int, int, str], None]


class Stage(enum.IntEnum):
    """When a modifier works on a layer; those of one pass must come in this order."""

    TRANSFORM = 0
    PRUNE = 1
    ROUND = 2
    RESIDUAL = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Calibration data.

    Args:
        batches: a list, or what can be iterated again; a batch is whatever ``loss`` takes.
        loss: ``loss(model, batch)`` runs the model and returns a scalar, a mean over predictions.
        outputs: ``outputs(model, batch)`` returns logits [..., classes]; distillation needs it.
        predictions: number of predictions of a batch, over which the loss is a mean; None takes the
            rows of the inputs of the model's linear layers (batch times positions).
    """

    batches: Any
    loss: Loss
    outputs: Callable[[nn.Layer, Any], paddle.Tensor] | None = None
    predictions: Callable[[Any], int] | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class Context:
    """What a modifier of the whole model may use.

    Args:
        data: calibration data.
        structure: names of linear layers and blocks, as the model came.
        original: a copy of the uncompressed model, for distillation; None if no modifier asked.
        report: gives the user's redundancy report, or makes one of the model as it is, with the
            attention heads that are named.
        folder: where a long modifier may keep its state; None for nowhere.
        progress: called with (done, total, text).
    """

    data: Data
    structure: Structure
    original: nn.Layer | None
    report: "Callable[[Mapping[str, int]], Report]"
    folder: Path | None
    progress: Progress


class Modifier(Registered):
    """Part of a recipe that changes a model."""

    __slots__ = ()
    family: ClassVar[str] = "modifier"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerModifier(Modifier):
    """Changes linear layers one by one.

    Args:
        targets: shell patterns of names of linear layers.
        ignore: patterns to leave out of them.
    """

    stage: ClassVar[Stage]
    #: whether it cannot work without input statistics
    needs_data: ClassVar[bool] = False
    targets: tuple[str, ...] = ("*",)
    ignore: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("targets", "ignore"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(one, str) for one in value):
                raise ValueError(f"{name} must be a list of patterns, got {_checks.shown(value)}.")
            object.__setattr__(self, name, tuple(value))

    def apply(self, work: LayerWork) -> None:
        """Change the work on one layer.

        Raises:
            ValueError: it cannot be done on this layer; names the layer and the remedy.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelModifier(Modifier):
    """Changes the model as a whole."""

    #: whether it needs a copy of the model before any compression
    needs_original: ClassVar[bool] = False
    #: whether it changes parameters in place; the others put new layers in
    trains: ClassVar[bool] = False

    def apply(self, model: nn.Layer, context: Context) -> Mapping[str, Any]:
        """Change the model; returns what to tell of it.

        Raises:
            ValueError: it cannot be done.
        """
        raise NotImplementedError
