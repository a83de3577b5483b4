"""Recipes: which modifiers in which order, and how they see the calibration data.

>>> recipe = Recipe(modifiers=(Hadamard(), GPTQ(bits=4, group=32)), pipeline="sequential")
>>> Recipe.from_yaml(recipe.to_yaml()) == recipe
True
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from .. import _checks
from .modifiers.base import LayerModifier, Modifier, ModelModifier, Stage
from .registry import Registered

PIPELINES = ("sequential", "basic", "data_free")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A compression, described completely.

    Neighbouring layer modifiers make one pass over the linear layers; modifiers of the whole model
    come between passes.

    Args:
        modifiers: in their order. Those of one pass go from transforms through pruning and rounding
            to residuals.
        pipeline: "sequential" measures the inputs of each block after all before it were compressed,
            a block at a time; "basic" measures all inputs on the uncompressed model in one pass over
            the data, with the moments of all layers in memory; "data_free" measures nothing.
        max_batches: of the calibration data; None for all.
        blocks: name of the list of blocks, or None for the one found by itself.
    """

    modifiers: tuple[Modifier, ...]
    pipeline: str = "sequential"
    max_batches: int | None = None
    blocks: str | None = None

    def __post_init__(self):
        _checks.choice("pipeline", self.pipeline, PIPELINES)
        if self.max_batches is not None:
            _checks.whole("max_batches", self.max_batches, 1)
        object.__setattr__(self, "modifiers", tuple(self.modifiers))
        if not self.modifiers:
            raise ValueError("modifiers is empty; name at least one.")
        for modifier in self.modifiers:
            if not isinstance(modifier, Modifier):
                raise ValueError(f"modifiers must be modifiers, got {_checks.shown(modifier)}.")
            needs = isinstance(modifier, LayerModifier) and modifier.needs_data
            if needs and self.pipeline == "data_free":
                raise ValueError(
                    f"{modifier.kind} needs calibration data, but pipeline is 'data_free'."
                )
        for run in self.passes():
            if isinstance(run, tuple):
                _check_pass(run)

    def passes(self) -> list["tuple[LayerModifier, ...] | ModelModifier"]:
        """Neighbouring layer modifiers together, modifiers of the whole model by themselves."""
        found: list[Any] = []
        for modifier in self.modifiers:
            if isinstance(modifier, ModelModifier):
                found.append(modifier)
            elif _continues(found, modifier):
                found[-1] = (*found[-1], modifier)
            else:
                found.append((modifier,))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values; fields at their default are left out."""
        found: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "modifiers" and getattr(self, field.name) != field.default
        }
        return found | {"modifiers": [modifier.to_dict() for modifier in self.modifiers]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that ``to_dict`` described; ValueError names what is wrong."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a recipe must be a mapping, got {_checks.shown(values)}.")
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ValueError(
                    f"a recipe has no field {name!r}: {_checks.suggestion(name, known)}"
                )
        modifiers = values.get("modifiers")
        if not isinstance(modifiers, list | tuple):
            raise ValueError(f"modifiers must be a list, got {_checks.shown(modifiers)}.")
        built = []
        for number, one in enumerate(modifiers):
            try:
                built.append(Registered.from_dict("modifier", one))
            except ValueError as error:
                raise ValueError(f"modifiers[{number}]: {error}") from error
        return cls(**{**values, "modifiers": tuple(built)})

    def to_yaml(self) -> str:
        """As YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """From YAML text."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"the recipe is no YAML: {error}") from error
        return cls.from_dict(values)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """From a YAML file."""
        return cls.from_yaml(Path(path).read_text(encoding="utf-8"))


def _continues(found: list[Any], modifier: Any) -> bool:
    """Whether a layer modifier belongs to the last pass: its stage does not come before."""
    return bool(found) and isinstance(found[-1], tuple) and modifier.stage >= found[-1][-1].stage


def _check_pass(run: tuple[LayerModifier, ...]) -> None:
    stages = [modifier.stage for modifier in run]
    for stage, needed in ((Stage.TRANSFORM, Stage.ROUND), (Stage.RESIDUAL, Stage.ROUND)):
        if stage in stages and needed not in stages:
            name = run[stages.index(stage)].kind
            raise ValueError(
                f"{name} needs a modifier that rounds (rtn, gptq) beside it, in the same pass."
            )
