"""The kinds of potentials by name."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from oarlock.sci_md.potentials.base import Potential, default_dtype
from oarlock.sci_md.potentials.config import PotentialConfig

P = TypeVar("P", bound=Potential)

_KINDS: dict[str, tuple[type[PotentialConfig], type[Potential]]] = {}


def register(config: type[PotentialConfig]) -> Callable[[type[P]], type[P]]:
    """Decorator of a `Potential` that is built from this kind of configuration."""

    def remember(kind: type[P]) -> type[P]:
        _KINDS[config.model] = (config, kind)
        return kind

    return remember


def names() -> tuple[str, ...]:
    return tuple(sorted(_KINDS))


def config_from_dict(values: Mapping[str, Any]) -> PotentialConfig:
    """A configuration from what a file holds: ``{"model": NAME, ...}``."""
    name = values.get("model")
    if name not in _KINDS:
        raise ValueError(f"model={name!r} is not known: there are {', '.join(names())}")
    return _KINDS[name][0].from_dict(values)


def build(config: PotentialConfig) -> Potential:
    """A potential with fresh parameters (`paddle.seed` decides which)."""
    if config.model not in _KINDS:
        raise ValueError(f"{type(config).__name__} is no registered kind of potential")
    with default_dtype(config.dtype):
        return _KINDS[config.model][1](config)
