"""What the configurations of all models share: checks that name the field, and plain JSON."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Base of the frozen dataclasses that describe a model completely."""

    vocab_size: int

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Build the configuration from ``to_dict``'s output; unknown or missing fields are named."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
                raise ValueError(f"{cls.__name__} has no field {name!r}: {hint}")
        missing = [
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and name not in fields
        ]
        if missing:
            raise ValueError(f"{cls.__name__} needs {', '.join(missing)}, got {sorted(fields)}.")
        return cls(**fields)

    def _resolve(self, name: str, value: Any) -> None:
        """Give a field that was left as None its derived value (for ``__post_init__`` only)."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a finite number, 0 or above, got {value!r}.")

    def _check_flags(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}.")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}.")

    def _check_multiple(self, name: str, of: str) -> None:
        value, divisor = getattr(self, name), getattr(self, of)
        if value % divisor:
            raise ValueError(f"{name} must be a multiple of {of} = {divisor}, got {value}.")
