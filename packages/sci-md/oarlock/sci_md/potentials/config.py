"""What every potential is configured by."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from ase.data import atomic_numbers
from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True, kw_only=True, slots=True)
class PotentialConfig:
    """Args:
    elements: chemical symbols, in the order in which species are counted.
    cutoff: Å; atoms further apart do not see each other.
    dtype: "float32" or "float64".
    zbl: add the screened repulsion of nuclei (Ziegler, Biersack, Littmark), which keeps atoms apart
        where no data are.

    Raises:
        ValueError: an unknown element, a repeated one, a cut-off or dtype that cannot be.
    """

    model: ClassVar[str] = ""  #: the name in configuration files

    elements: tuple[str, ...]
    cutoff: float = 5.0
    dtype: Literal["float32", "float64"] = "float32"
    zbl: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(self.elements))
        unknown = [symbol for symbol in self.elements if symbol not in atomic_numbers]
        if unknown or not self.elements:
            raise ValueError(f"elements={self.elements} have to be chemical symbols, at least one")
        if len(set(self.elements)) < len(self.elements):
            raise ValueError(f"elements={self.elements} repeat one: name each once")
        if not self.cutoff > 0:
            raise ValueError(f"cutoff={self.cutoff} has to be a positive length in Å")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype={self.dtype!r} has to be 'float32' or 'float64'")

    def to_dict(self) -> dict[str, Any]:
        """With the model's name, as files hold it."""
        return {"model": self.model, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in values.items() if name != "model"}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ValueError(
                f"{cls.model} has no {', '.join(unknown)}: it has {', '.join(sorted(known))}"
            )
        try:
            return TypeAdapter(cls).validate_python(given)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or cls.model}: "
                f"{one['msg'].removeprefix('Value error, ')}"
                + (f" (got {one['input']!r})" if one["loc"] else "")
                for one in error.errors()
            )
            raise ValueError(wrong) from error
