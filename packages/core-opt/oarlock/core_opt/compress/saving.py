"""Compressed models in one file: descriptions of the layers that were put in, and all arrays.

>>> compress.save(model, "model.npz")
>>> model = compress.load(Llama(config), "model.npz")  # a fresh, uncompressed model

NumPy's ``npz`` without pickles; a file appears whole or not at all.
"""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from .layers import PrunedLinear, QuantizedLinear, QuantizedSpec, Skip
from .structure import get, put

ABOUT = "__about__"
VERSION = 1


def describe(layer: nn.Layer) -> dict[str, Any] | None:
    """What is needed to build a layer of this package, or None for any other layer."""
    if isinstance(layer, QuantizedLinear):
        return {"kind": "quantized"} | dataclasses.asdict(layer.spec)
    if isinstance(layer, Skip):
        return {"kind": "skip", "outputs": layer.outputs}
    if type(layer) in (PrunedLinear, nn.Linear):
        rows, out = layer.weight.shape
        kind = "pruned" if isinstance(layer, PrunedLinear) else "linear"
        dtype = str(layer.weight.dtype).rpartition(".")[2]
        return {
            "kind": kind,
            "in": rows,
            "out": out,
            "bias": layer.bias is not None,
            "dtype": dtype,
        }
    return None


def build(about: Mapping[str, Any]) -> nn.Layer:
    """The layer that ``describe`` described, without its numbers."""
    fields = dict(about)
    kind = fields.pop("kind")
    if kind == "quantized":
        return QuantizedLinear(QuantizedSpec(**fields))
    if kind == "skip":
        return Skip(fields["outputs"])
    if kind == "pruned":
        layer: Any = PrunedLinear(fields["in"], fields["out"], bias=fields["bias"])
    elif kind == "linear":
        layer = nn.Linear(fields["in"], fields["out"], bias_attr=None if fields["bias"] else False)
    else:
        raise ValueError(f"unknown kind of layer {kind!r}; the file is of a later version.")
    return layer.to(dtype=fields["dtype"])


def arrays_of(layer: nn.Layer) -> dict[str, np.ndarray]:
    """State dict as arrays; bfloat16 as its bits in uint16."""
    return {name: tensor.numpy() for name, tensor in layer.state_dict().items()}


def fill(layer: nn.Layer, arrays: Mapping[str, np.ndarray], what: str) -> None:
    """Set the state dict; names, shapes and types must be those of the layer."""
    state = layer.state_dict()
    missing, surplus = sorted(state.keys() - arrays.keys()), sorted(arrays.keys() - state.keys())
    if missing or surplus:
        raise ValueError(
            f"{what} does not fit the model: missing {missing[:3]}, not of the model {surplus[:3]}; "
            "build the model with the configuration it was saved with."
        )
    for name, tensor in state.items():
        array = arrays[name]
        if list(array.shape) != tensor.shape or array.dtype != tensor.numpy().dtype:
            raise ValueError(
                f"{what}: {name} is {array.dtype} {list(array.shape)}, "
                f"the model has {tensor.dtype} {tensor.shape}."
            )
    for name, tensor in state.items():
        tensor.set_value(_tensor(arrays[name], tensor))


def _tensor(array: np.ndarray, like: paddle.Tensor) -> Any:
    if like.dtype == paddle.bfloat16:  # by its bits
        wide = (array.astype(np.uint32) << 16).view(np.float32)
        return paddle.to_tensor(wide).astype("bfloat16")
    return array


def write(path: str | os.PathLike, about: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Write JSON and arrays so that the file appears whole or not at all."""
    path = Path(path)
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(buffer, **{ABOUT: text}, **arrays)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(buffer.getbuffer())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> tuple[Any, dict[str, np.ndarray]]:
    """What ``write`` wrote.

    Raises:
        ValueError: the file is damaged, or none of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop(ABOUT).tobytes())
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged, or no file of this package: {error}") from error
    return about, arrays


def compressed_layers(model: nn.Layer) -> dict[str, dict[str, Any]]:
    """Descriptions of all linear layers, and of what took their place or that of a block."""
    found = {}
    for name, layer in model.named_sublayers():
        about = describe(layer)
        if about is not None:
            found[name] = about
    return found


def save(model: nn.Layer, path: str | os.PathLike) -> None:
    """Write a model, compressed or not, to one file."""
    layers = compressed_layers(model)
    write(path, {"version": VERSION, "layers": layers}, arrays_of(model))


def load(model: nn.Layer, path: str | os.PathLike) -> nn.Layer:
    """Turn a freshly built, uncompressed model into the saved one; returns it.

    Raises:
        ValueError: the file is damaged or of another model. The model is unchanged then.
    """
    about, arrays = read(path)
    if about.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {about.get('version')}, this package reads {VERSION}."
        )
    names = dict(model.named_sublayers())
    unknown = [name for name in about["layers"] if name not in names]
    if unknown:
        raise ValueError(f"{path} is of another model: it has no layer {unknown[0]!r}.")
    before = {name: get(model, name) for name in about["layers"]}
    for name, fields in about["layers"].items():
        if fields["kind"] != "skip" and describe(before[name]) is None:
            raise ValueError(
                f"{path} is of another model: {name} is a {type(before[name]).__name__} here, "
                "no linear layer."
            )
    try:
        for name, fields in about["layers"].items():
            if describe(before[name]) != fields:
                put(model, name, build(fields))
        fill(model, arrays, str(path))
    except ValueError:
        for name, layer in before.items():
            put(model, name, layer)
        raise
    return model
