"""Fields of JSON objects and metadata, whose absence or wrong type is an error that names them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MISSING = object()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Fields:
    """Typed access to a mapping that comes from a file.

    Args:
        values: by name.
        source: for messages.
    """

    def __init__(self, values: Mapping[str, Any], source: str):
        self.values, self.source = values, source

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def integer(self, *names: str, default: Any = _MISSING) -> Any:
        """The first of the names that is there, an integer."""
        return self._get(names, default, _is_integer, "an integer")

    def number(self, *names: str, default: Any = _MISSING) -> Any:
        """The first of the names that is there, as a float."""
        value = self._get(names, default, _is_number, "a number")
        return float(value) if isinstance(value, int) else value

    def flag(self, *names: str, default: Any = _MISSING) -> Any:
        """The first of the names that is there, True or False."""
        return self._get(names, default, lambda x: isinstance(x, bool), "true or false")

    def text(self, *names: str, default: Any = _MISSING) -> Any:
        """The first of the names that is there, a text."""
        return self._get(names, default, lambda x: isinstance(x, str), "a text")

    def mapping(self, *names: str, default: Any = _MISSING) -> Any:
        """The first of the names that is there, a mapping."""
        return self._get(names, default, lambda x: isinstance(x, dict), "an object")

    def must_be(self, name: str, *allowed: Any, why: str) -> None:
        """Refuse a value besides the allowed ones; a missing one is allowed."""
        value = self.values.get(name)
        if value is not None and value not in allowed:
            raise ValueError(
                f"{self.source}: {name} must be {' or '.join(map(repr, allowed))}, got {value!r}: {why}."
            )

    def _get(self, names: tuple[str, ...], default: Any, fits: Any, what: str) -> Any:
        for name in names:
            value = self.values.get(name)
            if value is not None:
                if not fits(value):
                    raise ValueError(f"{self.source}: {name} must be {what}, got {value!r}.")
                return value
        if default is _MISSING:
            raise ValueError(f"{self.source} has no {' or '.join(names)}.")
        return default


def read_json(path: Path) -> Fields:
    """A JSON object; ValueError if the file holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is truncated or no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(values).__name__}.")
    return Fields(values, str(path))
