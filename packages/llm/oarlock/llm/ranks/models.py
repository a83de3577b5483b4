"""Native decoders and adapters as fields and arrays, to be sent."""

import dataclasses
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from oarlock.native.adapters import Adapter, AdapterLayer, LowRank, Part
from oarlock.native.decoder import Layer, Linear, Model, Norm
from oarlock.native.quant import WIDTH, Matrix, memory, packed_bytes

Kind = TypeVar("Kind", Model, Adapter)
_SENT = (Adapter, AdapterLayer, Layer, Linear, LowRank, Model, Norm, Part)
_CLASSES: dict[str, type] = {one.__name__: one for one in _SENT}
_LINE = 64  # bytes, at multiples of which weights begin


def pack(model: Model | Adapter) -> tuple[Any, list[NDArray[Any]]]:
    """Fields that JSON can write, and arrays; memory that is used twice is there once."""
    arrays: list[NDArray[Any]] = []
    numbers: dict[int, int] = {}  # by id of an array, which `arrays` keeps
    table = model.embedding if isinstance(model, Model) else None

    def add(array: NDArray[Any]) -> int:
        if id(array) not in numbers:
            numbers[id(array)] = len(arrays)
            arrays.append(array)
        return numbers[id(array)]

    def write(value: Any) -> Any:
        if isinstance(value, Matrix):
            columns = None if table is None else _columns(table, value)
            if columns is not None:
                return {"columns": columns}
            return {
                "matrix": [add(value.packed), value.inputs, value.outputs, value.format],
            }
        if isinstance(value, np.ndarray):
            return {"floats": add(np.ascontiguousarray(value, np.float32))}
        if dataclasses.is_dataclass(value):
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            return {
                "is": type(value).__name__,
                **{name: write(one) for name, one in fields.items()},
            }
        if isinstance(value, tuple):
            return [write(one) for one in value]
        return value.item() if isinstance(value, np.generic) else value

    return write(model), arrays


def unpack(fields: Any, arrays: list[NDArray[Any]], kind: type[Kind]) -> Kind:
    """The model or adapter of ``pack``.

    Raises:
        ValueError: this is none.
    """
    table: Matrix | None = None

    def read(value: Any) -> Any:
        nonlocal table
        if isinstance(value, list):
            return tuple(read(one) for one in value)
        if not isinstance(value, dict):
            return value
        if "columns" in value:
            return table.columns(*value["columns"])  # type: ignore[union-attr]
        if "matrix" in value:
            number, inputs, outputs, format = value["matrix"]
            found = Matrix(_aligned(arrays[number]), inputs, outputs, format)
            if found.packed.nbytes != packed_bytes(inputs, outputs, format):
                raise ValueError("a matrix has another size than it says")
            table = table or found  # the embedding comes first
            return found
        if "floats" in value:
            return arrays[value["floats"]]
        made = _CLASSES[value["is"]]
        return made(**{name: read(one) for name, one in value.items() if name != "is"})

    try:
        found = read(fields)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"the leader sent {kind.__name__} that cannot be read: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(f"the leader sent something that is no {kind.__name__}.")
    return found


def _aligned(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if packed.ctypes.data % _LINE == 0:
        return packed
    found = memory(packed.nbytes)
    found[:] = packed
    return found


def _columns(table: Matrix, other: Matrix) -> list[int] | None:
    """Which outputs of a table another matrix is, if it lies in its memory."""
    begin, end = (
        other.packed.ctypes.data - table.packed.ctypes.data + place
        for place in (0, other.packed.nbytes)
    )
    if other is table or begin < 0 or end > table.packed.nbytes:
        return None
    panel = table.packed.nbytes // -(-table.outputs // WIDTH)
    first = begin // panel * WIDTH
    return [first, first + other.outputs]
