"""A model's parameters as the tensors of a file: what ``loading.parts`` says, read backwards."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.blocks import BlockArray
from oarlock.llm.loading.stored import Parameters, Part, Values
from oarlock.llm.writing import coding

_CHUNK = 1 << 22  # values that are turned at a time


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor to write.

    Args:
        name: in the file.
        shape: slowest dimension first.
        kind: of its numbers: "float32", "bfloat16", "q4_0"...
        parts: parameters by our names that it is made of, and how they lie in it.
        kinds: in which each of them comes.
        given: its values, if it is made of none.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    parts: tuple[tuple[str, Part], ...] = ()
    kinds: tuple[str, ...] = ()
    given: NDArray[np.float32] | None = None

    @property
    def num_bytes(self) -> int:
        """In the file."""
        return coding.size(self.kind, self.shape)


#: Of a tensor's name, its shape and the kinds of its parts: the kind to write.
Choice = Callable[[str, tuple[int, ...], list[str]], str]


def plan(parts: Mapping[str, Part], parameters: Parameters, choose: Choice) -> list[Tensor]:
    """The tensors that hold all parameters, in the order of ``parts``."""
    joined: dict[str, list[tuple[str, Part]]] = {}
    for ours, part in parts.items():
        assert part.name is not None
        joined.setdefault(part.name, []).append((ours, part))
    found = []
    for name, members in joined.items():
        shape = members[0][1].shape
        kinds = [kind_of(parameters, ours) for ours, _ in members]
        found.append(
            Tensor(
                name=name,
                shape=shape,
                kind=choose(name, shape, kinds),
                parts=tuple(members),
                kinds=tuple(kinds),
            )
        )
    return found


def kind_of(parameters: Parameters, name: str) -> str:
    """The kind of numbers that reading a parameter gives."""
    kind = parameters.format(name)
    if kind in coding.FLOATS or kind in coding.BLOCKS:
        return kind
    values = parameters[name]  # whether other codes stay codes is known when they are read
    return values.format.name if isinstance(values, BlockArray) else values.dtype.name


def widest(kinds: list[str]) -> str:
    """The float kind that holds all of some float kinds exactly."""
    return kinds[0] if len(set(kinds)) == 1 else "float32"


def content(tensor: Tensor, parameters: Parameters, *, threads: int | None = None) -> NDArray[Any]:
    """A tensor as it is to be written; memory holds it and the parameter at hand."""
    if tensor.given is not None:
        return coding.encode(tensor.kind, tensor.given, name=tensor.name)
    out = coding.empty(tensor.kind, tensor.shape)
    if len(tensor.shape) == 1:
        for ours, part in tensor.parts:
            rows = slice(None) if part.rows is None else part.rows
            out[rows] = _encode(tensor, parameters[ours], threads)
        return out
    flat = out.reshape(-1, out.shape[-1])
    for ours, part in tensor.parts:
        values = parameters[ours]
        values = values.T if part.transposed else values
        if part.columns is not None:
            flat[:, part.columns] = _encode(tensor, values, threads)
            continue
        rows = np.arange(len(flat))[slice(None) if part.rows is None else part.rows]
        step = max(1, _CHUNK // tensor.shape[-1])
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            piece = values.take(some) if isinstance(values, BlockArray) else values[some]
            flat[rows[some]] = _encode(tensor, piece, threads)
    return out


def _encode(tensor: Tensor, values: Values, threads: int | None) -> NDArray[Any]:
    return coding.encode(tensor.kind, values, name=tensor.name, threads=threads)


def check_whole(tensors: list[Tensor]) -> None:
    """Our own invariant: parts fill their tensor."""
    for tensor in tensors:
        held = sum(_size(part) for _, part in tensor.parts)
        assert tensor.given is not None or held == math.prod(tensor.shape), tensor.name


def _size(part: Part) -> int:
    rows = math.prod(part.shape[:-1]) if len(part.shape) > 1 else part.shape[0]
    columns = part.shape[-1] if len(part.shape) > 1 else 1
    if part.rows is not None:
        rows = len(np.arange(rows)[part.rows])
    if part.columns is not None:
        columns = len(range(columns)[part.columns])
    return rows * columns
