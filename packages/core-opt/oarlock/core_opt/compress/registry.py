"""Parts of a recipe by name: frozen dataclasses that go to plain values and back."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from .. import _checks

_FAMILIES: dict[str, dict[str, type["Registered"]]] = {}


class Registered:
    """Base of the parts of a recipe.

    A subclass is a frozen dataclass with a ``kind``, its name in recipes; ``family`` tells observers
    from modifiers.
    """

    __slots__ = ()
    family: ClassVar[str]
    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            _FAMILIES.setdefault(cls.family, {})[cls.kind] = cls

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the kind, and the fields that are not at their default."""
        found: dict[str, Any] = {"kind": self.kind}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != _default(field):
                found[field.name] = _plain(value)
        return found

    @classmethod
    def from_dict(cls, family: str, values: Mapping[str, Any]) -> "Registered":
        """The part that ``to_dict`` described.

        Raises:
            ValueError: no such kind or field, or a wrong value; names them.
        """
        if not isinstance(values, Mapping) or "kind" not in values:
            raise ValueError(
                f"a {family} must be a mapping with a kind, got {_checks.shown(values)}."
            )
        known = _FAMILIES.get(family, {})
        kind = values["kind"]
        if kind not in known:
            raise ValueError(f"unknown {family} {kind!r}: {_checks.suggestion(str(kind), known)}")
        part = known[kind]
        fields = {field.name: field for field in dataclasses.fields(part)}  # type: ignore[arg-type]
        arguments = {}
        for name, value in values.items():
            if name == "kind":
                continue
            if name not in fields:
                raise ValueError(
                    f"{kind} has no field {name!r}: {_checks.suggestion(name, fields)}"
                )
            arguments[name] = _built(fields[name], value)
        try:
            return part(**arguments)
        except TypeError as error:
            raise ValueError(f"{kind}: {error}") from error

    def replace(self, **changes: Any) -> Self:
        """The same part with other fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def kinds(family: str) -> tuple[str, ...]:
    """Names of the parts of a family, sorted."""
    return tuple(sorted(_FAMILIES.get(family, {})))


def part(family: str, kind: str) -> type[Registered]:
    """The class of a kind."""
    return _FAMILIES[family][kind]


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Registered):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


def _built(field: dataclasses.Field, value: Any) -> Any:
    if isinstance(value, Mapping) and "kind" in value:
        return Registered.from_dict("observer", value)
    if isinstance(value, Mapping):
        return types.MappingProxyType(dict(value))
    if isinstance(value, list):
        return tuple(value)
    return value


def frozen(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A read-only copy of a mapping."""
    return types.MappingProxyType(dict(value or {}))
