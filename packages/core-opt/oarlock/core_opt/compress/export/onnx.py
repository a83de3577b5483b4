"""ONNX files of LLaMAs and of any other graph, with weights of 4 or 8 bits, which ONNX Runtime runs.

>>> onnx.write_llama(llama.from_layer(model), "model.onnx", method="blocks", bits=4)

A Paddle model of any other kind: ``paddle.onnx.export`` (package ``paddle2onnx``), then
``onnx_weights.quantize`` on what it wrote, then ``write``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from . import files, onnx_llama, onnx_weights
from .codes import Codes
from .llama import LlamaWeights, halves

MOST_INSIDE = 1_900_000_000  #: bytes of weights in one protocol-buffers file, which ends at 2 GiB


def write_llama(
    weights: LlamaWeights,
    path: str | os.PathLike,
    *,
    method: str | None = None,
    bits: int = 4,
    group: int = 32,
    ignore: Sequence[str] = (),
    accuracy_level: int = 4,
) -> None:
    """Write a LLaMA with a cache of keys and values; see ``onnx_llama`` for its inputs and outputs.

    Args:
        weights: of the model; matrices that are ``Codes`` keep their codes, which needs a method.
        path: of the file, in a folder that is there.
        method, bits, group, ignore, accuracy_level: as for ``onnx_weights.quantize``, for the matrices
            of blocks and head by the name of their part; without a method all are float32.

    Raises:
        ValueError: an argument is out of range, or codes do not suit the method.
        WriteFailed: the operating system refused; nothing is left at ``path``.
    """
    weights = halves(weights)
    codes = {name: part for name, part in weights.parts.items() if isinstance(part, Codes)}
    if codes and method is None:
        raise ValueError(
            f"method must be one of {onnx_weights.METHODS} for weights that are codes; with_values()"
            " makes them floats."
        )
    model = onnx_llama.build(weights)
    if method is not None:
        onnx_weights.quantize(
            model,
            method=method,
            bits=bits,
            group=group,
            codes=codes,
            ignore=ignore,
            accuracy_level=accuracy_level,
        )
    write(model, path)


def write(model: onnx.ModelProto, path: str | os.PathLike) -> None:
    """Write a model; its file, or two for more than 1.9 GB of weights, appear only when complete.

    The second file has the name of the first with ``.data`` behind it; they are moved together.
    A model that is written to two files has lost its weights in memory.

    Raises:
        ValueError: the graph is not valid ONNX.
        WriteFailed: the operating system refused; nothing is left at ``path``.
    """
    path = files.target(path)
    size = sum(len(one.raw_data) for one in model.graph.initializer)
    if size > MOST_INSIDE:
        data = path.with_name(f"{path.name}.data")
        with files.whole(data, path) as (data_part, part):
            _move_out(model, data_part, data.name)
            part.write_bytes(model.SerializeToString())
        return
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"model is not valid ONNX: {error}") from error
    with files.whole(path) as (part,):
        part.write_bytes(model.SerializeToString())


def _move_out(model: onnx.ModelProto, to: Path, name: str) -> None:
    """Move the weights to a file that the model knows by ``name``."""
    with to.open("wb") as file:
        for one in model.graph.initializer:
            if len(one.raw_data) < 1024:
                continue
            file.write(b"\0" * (-file.tell() % 4096))
            set_external_data(one, name, offset=file.tell(), length=len(one.raw_data))
            file.write(one.raw_data)
            one.ClearField("raw_data")
