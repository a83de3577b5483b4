"""Parameters that remember what a format could not take as it was."""

from collections.abc import Iterator, Mapping

from oarlock.llm.engine import packing
from oarlock.llm.loading.stored import Parameters, Values

_TABLES = ("embedding.weight", "head.weight")
_FLOATS = ("float32", "float16", "bfloat16")


class Noted(Mapping[str, Values]):
    """A model's parameters, which note codes that are rounded anew when they are read.

    Args:
        parameters: of a file or folder.
        weights: format that they are packed into.
    """

    def __init__(self, parameters: Parameters, weights: str) -> None:
        self._parameters, self._weights = parameters, weights
        self._rounded: dict[str, str] = {}

    @property
    def rounded_anew(self) -> dict[str, int]:
        """How many matrices of each format were read whose codes did not stay."""
        formats = list(self._rounded.values())
        return {one: formats.count(one) for one in dict.fromkeys(formats)}

    def __getitem__(self, name: str) -> Values:
        values, format = self._parameters[name], self._parameters.format(name)
        if self._weights in ("int8", "int4") and format not in _FLOATS:
            into = packing.TABLES[self._weights] if name in _TABLES else self._weights
            if not packing.keeps(values, into):
                self._rounded[name] = format
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)
