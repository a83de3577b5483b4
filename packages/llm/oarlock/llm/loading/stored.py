"""Tensors as files have them, and how a model's parameters are made of them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.blocks import BlockArray

Values = NDArray[np.generic] | BlockArray


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor of a file, which is read only when asked for.

    Args:
        name: in the file.
        shape: in the file, slowest dimension first.
        format: "float32", "float16", "bfloat16" or of blocks, such as "q4_k".
        num_bytes: in the file.
        read: gives it; of blocks, with all dimensions but the last made one.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    num_bytes: int
    read: Callable[[], Values]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How a parameter is made of a stored tensor: some of its rows or columns, perhaps transposed.

    Args:
        name: of the stored tensor; None for zeros.
        shape: that the stored tensor must have (the parameter, for zeros).
        rows: of the stored tensor, all dimensions but the last made one, which and in which order.
        columns: which.
        transposed: our products are ``x @ w``, most files' ``x @ w.T``.
    """

    name: str | None
    shape: tuple[int, ...]
    rows: slice | NDArray[np.intp] | None = None
    columns: slice | None = None
    transposed: bool = False

    def of(self, stored: Stored) -> Values:
        """The parameter."""
        values = stored.read()
        if isinstance(values, BlockArray):
            if self.columns is not None:
                raise ValueError(f"{stored.name} must not be in blocks of {stored.format}.")
            values = values if self.rows is None else values.take(self.rows)
            return values.T if self.transposed else values
        if self.rows is not None:
            flat = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values
            values = flat[self.rows]
        if self.columns is not None:
            values = values[..., self.columns]
        return values.T if self.transposed else values


class Parameters(Mapping[str, Values]):
    """A model's parameters by their names in ``oarlock.llm.models``, read one by one when asked for.

    Nothing is kept: what is read of an uncompressed file is a view of it, mapped into memory, or the
    copy that an order of rows makes necessary.

    Args:
        stored: the file's tensors by name.
        parts: how each parameter is made of them.
        source: for messages.
        ignored: names that the file may have besides.
        float32: decode blocks and widen shorter floats.

    Raises:
        ValueError: a tensor is missing, surplus or misshapen; all such are named.
    """

    def __init__(
        self,
        stored: Mapping[str, Stored],
        parts: Mapping[str, Part],
        *,
        source: str,
        ignored: Callable[[str], bool] = lambda name: False,
        float32: bool = False,
    ):
        self._stored, self._parts, self._float32 = stored, parts, float32
        wanted = {part.name: part.shape for part in parts.values() if part.name is not None}
        wrong = [f"{name} is missing" for name in wanted if name not in stored]
        wrong += [
            f"{name} is not of this model"
            for name in stored
            if name not in wanted and not ignored(name)
        ]
        wrong += [
            f"{name} has shape {stored[name].shape}, expected {shape}"
            for name, shape in wanted.items()
            if name in stored and stored[name].shape != shape
        ]
        if wrong:
            shown = wrong[:50] + [f"and {len(wrong) - 50} more"] * (len(wrong) > 50)
            raise ValueError(f"{source} does not fit its configuration: {'; '.join(shown)}.")

    def __getitem__(self, name: str) -> Values:
        part = self._parts[name]
        if part.name is None:
            return np.zeros(part.shape, np.float32)
        values = part.of(self._stored[part.name])
        if not self._float32:
            return values
        if isinstance(values, BlockArray):
            return values.dequantize()
        return values.astype(np.float32, copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def format(self, name: str) -> str:
        """How the file has the parameter: "float32", "bfloat16", "q4_k"..."""
        part = self._parts[name]
        return "float32" if part.name is None else self._stored[part.name].format

    def made_of(self, name: str) -> dict[str, Part]:
        """The parameters that are made of the stored tensor ``name``, and how."""
        return {ours: part for ours, part in self._parts.items() if part.name == name}

    def formats(self) -> dict[str, int]:
        """Bytes of the file in each format."""
        used = {part.name for part in self._parts.values()}
        found: dict[str, int] = {}
        for name, stored in self._stored.items():
            if name in used:
                found[stored.format] = found.get(stored.format, 0) + stored.num_bytes
        return found
