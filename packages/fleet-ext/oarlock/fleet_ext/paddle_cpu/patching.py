"""Replacing names in somebody else's modules, and giving them back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Patch:
    """One name.

    Args:
        owner: a module or class.
        value: what it is while installed.
    """

    owner: Any
    name: str
    value: Any

    def apply(self) -> Callable[[], None]:
        """Returns what undoes it."""
        earlier = vars(self.owner).get(self.name, _MISSING)
        setattr(self.owner, self.name, self.value)

        def undo() -> None:
            if earlier is _MISSING:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, earlier)

        return undo


class Overlay:
    """A module as one other module is to see it, with some names of its own."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
