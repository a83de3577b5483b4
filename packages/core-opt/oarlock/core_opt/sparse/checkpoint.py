"""Sparse matrices in files: one of safetensors, and an index that tells what its tensors are.

save("model", {"ffn.weight": layer.weight})  # model.safetensors, model.index.json
matrices = load("model")
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors
from safetensors import SafetensorError
from safetensors.numpy import save as to_bytes

from .. import _checks
from ._base import SparseMatrix
from .formats import FORMATS
from .layers import SparseLinear

VERSION = 1


def save(path: str | os.PathLike, matrices: Mapping[str, SparseMatrix]) -> None:
    """Write ``path``.safetensors and ``path``.index.json, whole or not at all.

    Args:
        path: without ending.
        matrices: by name; values float32 or float64.

    Raises:
        ValueError: a matrix is none of the formats, or of another type.
        OSError: the files cannot be written; files of these names are what they were before.
    """
    tensors: dict[str, np.ndarray] = {}
    entries: dict[str, dict[str, Any]] = {}
    if not isinstance(matrices, Mapping) or not matrices:
        raise ValueError(f"matrices must be a dict of matrices, got {_checks.shown(matrices)}.")
    for name, matrix in matrices.items():
        if not isinstance(matrix, SparseMatrix):
            raise ValueError(
                f"matrices[{name!r}] must be one of {', '.join(FORMATS)}, got "
                f"{_checks.shown(matrix)}."
            )
        if matrix.values.dtype not in (paddle.float32, paddle.float64):
            raise ValueError(
                f"matrices[{name!r}] is {matrix.values.dtype}, but must be float32 or float64."
            )
        tensors[f"{name}/values"] = matrix.values.numpy()
        for field in matrix.arrays:
            tensors[f"{name}/{field}"] = getattr(matrix, field)
        numbers = {field: int(getattr(matrix, field)) for field in matrix.numbers}
        entries[name] = {"format": matrix.format, "shape": list(matrix.shape)} | numbers
    content = to_bytes(tensors)
    index = {
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "matrices": entries,
    }
    index["index_sha256"] = digest(index)
    weights, table = _files(path)
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    _replace({weights: content, table: text.encode()})


def load(path: str | os.PathLike) -> dict[str, SparseMatrix]:
    """What ``save`` wrote, bit for bit.

    Args:
        path: without ending.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or they do not belong together.
    """
    weights, table = _files(path)
    index = _read_index(table)
    content = weights.read_bytes()
    if hashlib.sha256(content).hexdigest() != index["sha256"]:
        raise ValueError(
            f"{weights} is damaged, or not the file that {table} was written with; its SHA-256 is "
            "another."
        )
    try:
        tensors = dict(safetensors.deserialize(content))
        return {name: _matrix(name, entry, tensors) for name, entry in index["matrices"].items()}
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{weights} is not what {table} tells: {error}.") from error


def export(path: str | os.PathLike, model: paddle.nn.Layer) -> None:
    """Save the weights of all ``SparseLinear`` layers of a model, by the names of the layers.

    Raises:
        ValueError: there are none.
    """
    layers = _sparse_layers(model)
    save(path, {name: layer.weight for name, layer in layers.items()})


@paddle.no_grad()
def restore(path: str | os.PathLike, model: paddle.nn.Layer) -> None:
    """Put what ``export`` wrote into a model of the same layers and structures.

    Raises:
        ValueError: names, formats, shapes or structures differ; nothing was changed.
    """
    layers, found = _sparse_layers(model), load(path)
    if set(layers) != set(found):
        odd = sorted(set(layers) ^ set(found))
        raise ValueError(f"model and file must have the same layers; {odd[0]!r} is in one only.")
    for name, layer in layers.items():
        own, other = layer.weight, found[name]
        same = (
            own.format == other.format
            and own.shape == other.shape
            and own.values.shape == other.values.shape
            and own.values.dtype == other.values.dtype
            and all(np.array_equal(a, b) for a, b in zip(_parts(own), _parts(other)))
        )
        if not same:
            raise ValueError(
                f"layer {name!r} is {own!r}, but the file has {other!r} of another structure; build "
                f"the layer by SparseLinear(load(path)[{name!r}])."
            )
    for name, layer in layers.items():
        layer.values.set_value(found[name].values)


def _parts(matrix: SparseMatrix) -> list[Any]:
    return list(matrix.structure().values())


def _sparse_layers(model: paddle.nn.Layer) -> dict[str, SparseLinear]:
    pairs = model.named_sublayers(include_self=True)
    layers = {name: layer for name, layer in pairs if isinstance(layer, SparseLinear)}
    if not layers:
        raise ValueError(
            "model has no SparseLinear; convert its layers by SparseLinear.from_linear."
        )
    return layers


def _files(path: str | os.PathLike) -> tuple[Path, Path]:
    base = Path(path)
    return base.with_name(base.name + ".safetensors"), base.with_name(base.name + ".index.json")


def digest(index: Mapping[str, Any]) -> str:
    """SHA-256 of what an index says, but for this number itself."""
    said = {key: value for key, value in index.items() if key != "index_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _read_index(table: Path) -> dict[str, Any]:
    try:
        index = json.loads(table.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{table} is damaged: {error}.") from error
    if not isinstance(index, dict) or index.get("version") != VERSION:
        version = index.get("version") if isinstance(index, dict) else None
        raise ValueError(f"{table} is of version {version!r}; version {VERSION} can be read.")
    if index.get("index_sha256") != digest(index):
        raise ValueError(f"{table} is damaged; its own SHA-256 is another.")
    entries = index.get("matrices")
    if not isinstance(index.get("sha256"), str) or not isinstance(entries, dict):
        raise ValueError(f"{table} is damaged: it lacks sha256 or matrices.")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("format") not in FORMATS:
            raise ValueError(f"{table} is damaged: {name!r} is of no known format.")
    return index


def _matrix(name: str, entry: dict[str, Any], tensors: dict[str, Any]) -> SparseMatrix:
    kind = FORMATS[entry["format"]]
    fields: dict[str, Any] = {field: _array(tensors[f"{name}/{field}"]) for field in kind.arrays}
    fields |= {field: entry[field] for field in kind.numbers}
    values = paddle.to_tensor(_array(tensors[f"{name}/values"]))
    return kind(shape=tuple(entry["shape"]), values=values, **fields)


_TYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "U8": np.uint8}


def _array(part: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(part["data"], _TYPES[part["dtype"]]).reshape(part["shape"]).copy()


def _replace(files: dict[Path, bytes]) -> None:
    """Write all files beside their places, and only then move them there."""
    written: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            written[path] = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, partial in written.items():
            partial.replace(path)
    finally:
        for partial in written.values():
            partial.unlink(missing_ok=True)
