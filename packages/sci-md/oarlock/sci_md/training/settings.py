"""How a potential is trained; what configuration files hold under ``training``."""

import difflib
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from oarlock.sci_md.data.batches import BatchSize


class Settings(BaseModel):
    """Base of settings that come from files: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    @classmethod
    def read(cls, values: Any, *, where: str) -> Self:
        """From what a file holds.

        Raises:
            ValueError: one line for each field that is wrong.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"{where}: {said(error, cls)}") from error


def said(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong, field by field."""
    parts = []
    for one in error.errors():
        field = ".".join(str(step) for step in one["loc"]) or "the whole"
        if one["type"] == "extra_forbidden":
            parts.append(f"{field} is not known{_near(model, one['loc'])}")
            continue
        parts.append(f"{field}: {one['msg'].removeprefix('Value error, ')} (got {one['input']!r})")
    return "; ".join(parts)


def _near(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """Which fields there are, where an unknown one was given."""
    here: type[BaseModel] | None = model
    for step in place[:-1]:
        here = None if here is None or isinstance(step, int) else _model(here, step)
    if here is None:
        return ""
    near = difflib.get_close_matches(str(place[-1]), here.model_fields, n=1)
    return f": did you mean {near[0]}?" if near else f": there are {', '.join(here.model_fields)}"


def _model(model: type[BaseModel], field: str) -> type[BaseModel] | None:
    kind = model.model_fields[field].annotation if field in model.model_fields else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


class Weight(Settings):
    """Weight of a term of the loss, w = limit + (start − limit) · lr / lr₀, as in DeePMD-kit.

    Args:
        start: while the learning rate is at its start.
        limit: as the learning rate goes to zero; None for `start` throughout.
    """

    start: float = Field(ge=0)
    limit: float | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"start": value} if isinstance(value, int | float) else value

    def at(self, fraction: float) -> float:
        """With the learning rate at this fraction of its start."""
        limit = self.start if self.limit is None else self.limit
        return limit + (self.start - limit) * fraction

    @property
    def used(self) -> bool:
        return self.start > 0 or bool(self.limit)


class LossSettings(Settings):
    """Σ of weight × mean of f(error) over energies, force components and virial components.

    Args:
        energy, forces, virial: weights; a number or start and limit.
        kind: f: "mse" d², "mae" |d|, "huber" ½d² within δ and linear beyond.
        delta: δ of "huber", in eV/atom and eV/Å.
        normalise: "atom" takes energies and virials per atom, d = ΔE / N; "deepmd" takes ΔE² / N as
            DeePMD-kit does ("mse" only).
    """

    energy: Weight = Weight(start=10.0)
    forces: Weight = Weight(start=1.0)
    virial: Weight = Weight(start=0.0)
    kind: Literal["mse", "mae", "huber"] = "mse"
    delta: float = Field(default=0.01, gt=0)
    normalise: Literal["atom", "deepmd"] = "atom"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (self.energy.used or self.forces.used or self.virial.used):
            raise ValueError("energy, forces and virial all have the weight 0")
        if self.normalise == "deepmd" and self.kind != "mse":
            raise ValueError("normalise='deepmd' needs kind='mse'")
        return self


class LearningRate(Settings):
    """The learning rate of each step; see `schedules`.

    Args:
        kind: "constant", "exponential", "cosine" or "plateau".
        start: after the warm-up.
        stop: at the last step; of "plateau" the least.
        warm_up: steps over which it rises to `start`.
        every: of "exponential", steps between its drops; None for a drop each step.
        factor, patience: of "plateau", what it is multiplied by after so many validations without
            improvement.
    """

    kind: Literal["constant", "exponential", "cosine", "plateau"] = "exponential"
    start: float = Field(default=1e-3, gt=0)
    stop: float = Field(default=1e-5, gt=0)
    warm_up: int = Field(default=0, ge=0)
    every: int | None = Field(default=None, ge=1)
    factor: float = Field(default=0.5, gt=0, lt=1)
    patience: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.kind != "constant" and self.stop > self.start:
            raise ValueError(f"stop={self.stop} is above start={self.start}")
        return self


class OptimizerSettings(Settings):
    """An optimizer of `paddle.optimizer`.

    Args:
        name: its class, such as "Adam", "AdamW", "SGD", "Momentum".
        options: its arguments, besides the learning rate and the parameters.
    """

    name: str = "Adam"
    options: dict[str, Any] = {}


class TrainingSettings(Settings):
    """Args:
    seed: of the order of structures, and of the parameters where a run makes them.
    epochs, steps: how long; exactly one of the two. An epoch is as many steps as the first has batches.
    seconds: stop after this time even so; the run can be resumed.
    batch: limits of a training batch; `validation_batch` of one in validation.
    ema: decay of the average of parameters that is validated and kept, (1 + t) / (10 + t) at most;
        None for the parameters themselves.
    clip: largest norm of all gradients together; None for any.
    validate_every: steps; None for once an epoch.
    checkpoint_every: steps; None for after each validation.
    monitor: what decides which parameters are best: the loss, or the mean absolute error of the
        energies, forces or virials, of the validation structures.
    patience: validations without improvement after which training stops; None for none.
    scale: what the network's output is multiplied by: "forces" for their root mean square, "energies"
        for their spread per atom, or a number in eV; None to leave it.
    reference: energies of atoms, "fit" for least squares, or eV by element; None to leave them.
    statistics: let a potential that normalises its input (Deep Potential) take means and deviations from
        the training structures.
    plots: draw parity.png and curves.png while training (at most 2 % of the time).
    """

    seed: int = 0
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    batch: BatchSize = BatchSize()
    validation_batch: BatchSize = BatchSize(structures=None, atoms=1000)
    loss: LossSettings = LossSettings()
    learning_rate: LearningRate = LearningRate()
    optimizer: OptimizerSettings = OptimizerSettings()
    ema: float | None = Field(default=0.99, gt=0, lt=1)
    clip: float | None = Field(default=None, gt=0)
    validate_every: int | None = Field(default=None, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    monitor: Literal["loss", "energy", "forces", "virial"] = "loss"
    patience: int | None = Field(default=None, ge=1)
    scale: Literal["forces", "energies"] | float | None = "forces"
    reference: Literal["fit"] | dict[str, float] | None = "fit"
    statistics: bool = True
    plots: bool = True

    @field_validator("batch", "validation_batch", mode="before")
    @classmethod
    def _limits(cls, value: Any) -> Any:
        """A number is one of structures; where others are given, structures are not limited."""
        if isinstance(value, int):
            return {"structures": value}
        if isinstance(value, dict):
            unknown = sorted(set(value) - {"structures", "atoms", "edges"})
            if unknown:
                raise ValueError(f"no {', '.join(unknown)} there: structures, atoms and edges")
            return {"structures": None, **value}
        return value

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self
