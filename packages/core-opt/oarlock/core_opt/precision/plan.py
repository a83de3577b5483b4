"""A plan: which format each product of each linear layer takes, and why."""

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from .._checks import shown, suggestion
from .formats import ROLES, format_named
from .linear import Formats

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one layer takes."""

    formats: Formats
    reasons: Mapping[str, str] = field(default_factory=dict)  #: by role


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a plan is expected to do, measured before it was put to work.

    Attributes:
        step_ms: a training step without the plan: forward and backward.
        products_ms: the products of linear layers in it.
        planned_ms: the same products by the plan.
        loss_increase: predicted, relative to the loss.
        gradient_error: squared error of the gradient over its square, mean over parameters.
    """

    step_ms: float
    products_ms: float
    planned_ms: float
    loss_increase: float
    gradient_error: float

    @property
    def gain(self) -> float:
        """Share of the step's time that the plan saves."""
        return (self.products_ms - self.planned_ms) / self.step_ms

    @property
    def most(self) -> float:
        """Share that it would save if the products cost nothing."""
        return self.products_ms / self.step_ms

    def __str__(self) -> str:
        return (
            f"step {self.step_ms:.1f} ms, products of linear layers {self.products_ms:.1f} ms"
            f" ({self.most:.0%}), by the plan {self.planned_ms:.1f} ms: {self.gain:.0%} of the step"
            f" saved; predicted: loss +{self.loss_increase:.2%}, squared error of the gradient"
            f" {self.gradient_error:.2%}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Formats by layer. Layers that are not named compute as they always did."""

    layers: Mapping[str, Entry]
    forecast: Forecast | None = None

    @classmethod
    def of(cls, formats: Mapping[str, Formats]) -> "Plan":
        """A plan made by hand.

        Raises:
            ValueError: a format has no such name.
        """
        for name, three in formats.items():
            for role in ROLES:
                format_named(getattr(three, role), f"{role} of {name}")
        return cls(layers={name: Entry(formats=three) for name, three in formats.items()})

    def override(self, changes: Mapping[str, str | Mapping[str, str]]) -> "Plan":
        """The plan with other formats for layers whose name fits a pattern.

        Args:
            changes: ``{"*.head": "fp32", "blocks.0.*": {"weight_grad": "bf16"}}``: a format for all
                three products or for some; later patterns win. Patterns are those of a shell.

        Raises:
            ValueError: a pattern fits no layer, a role or a format has no such name.
        """
        layers = dict(self.layers)
        for pattern, wanted in changes.items():
            named = dict.fromkeys(ROLES, wanted) if isinstance(wanted, str) else dict(wanted)
            for role, number_format in named.items():
                if role not in ROLES:
                    raise ValueError(
                        f"override {pattern!r} has role {role!r}; {suggestion(role, ROLES)}"
                    )
                format_named(number_format, f"override {pattern!r}: {role}")
            fitting = fnmatch.filter(layers, pattern)
            if not fitting:
                raise ValueError(
                    f"override {pattern!r} fits no layer; {suggestion(pattern, layers)}"
                )
            why = dict.fromkeys(named, f"by hand ({pattern})")
            for name in fitting:
                entry = layers[name]
                layers[name] = Entry(
                    formats=entry.formats._replace(**named), reasons={**entry.reasons, **why}
                )
        return replace(self, layers=layers, forecast=None)

    def count(self) -> dict[str, int]:
        """How many products take each format."""
        counts: dict[str, int] = {}
        for entry in self.layers.values():
            for name in entry.formats:
                counts[name] = counts.get(name, 0) + 1
        return counts

    def report(self) -> str:
        """A table of layers and formats, and a reason for each choice."""
        width = max((len(name) for name in self.layers), default=5)
        lines = [] if self.forecast is None else [str(self.forecast), ""]
        lines.append(f"{'layer':{width}}  " + "  ".join(f"{role:11}" for role in ROLES))
        for name, entry in self.layers.items():
            cells = "  ".join(f"{number_format:11}" for number_format in entry.formats)
            lines.append(f"{name:{width}}  {cells}")
        reasons: dict[str, list[str]] = {}
        for name, entry in self.layers.items():
            for role, why in entry.reasons.items():
                reasons.setdefault(why, []).append(f"{name} {role}")
        if reasons:
            lines += ["", "why:"]
        for why, places in reasons.items():
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            lines.append(f"- {why}: {', '.join(places[:3])}{more}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are saved."""
        return {
            "version": VERSION,
            "forecast": None if self.forecast is None else asdict(self.forecast),
            "layers": {
                name: {**entry.formats._asdict(), "reasons": dict(entry.reasons)}
                for name, entry in self.layers.items()
            },
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Plan":
        """From what ``as_dict`` gives.

        Raises:
            ValueError: it is something else, or of another version.
        """
        try:
            if record["version"] != VERSION:
                raise ValueError(
                    f"its version is {record['version']}, this package reads {VERSION}"
                )
            layers = {name: _entry(name, one) for name, one in record["layers"].items()}
            forecast = None if record["forecast"] is None else Forecast(**record["forecast"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"record is not a plan: {shown(repr(error))}") from error
        return cls(layers=layers, forecast=forecast)

    def save(self, path: str | os.PathLike) -> None:
        """Write YAML; the file is complete or not there."""
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_text(yaml.safe_dump(self.as_dict(), sort_keys=False), encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Plan":
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file is no plan, or of another version.
        """
        text = Path(path).read_text(encoding="utf-8")
        try:
            return cls.from_dict(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"path {path} is not a plan: {shown(str(error))}") from error


def _entry(name: str, record: Mapping[str, Any]) -> Entry:
    formats = Formats(*(format_named(record[role], f"{role} of {name}").name for role in ROLES))
    return Entry(formats=formats, reasons=dict(record["reasons"]))
