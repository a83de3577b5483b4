"""RWKV-4 weights in the format of rwkv.cpp ("ggmf").

Six int32: magic 0x67676d66, version 100 or 101, n_vocab, n_embed, n_layer, type. Then tensor after
tensor: int32 number of dimensions, length of the name and type; the dimensions, fastest first; the
name; the values. Types 0 (float32) and 1 (float16) are read, quantised ones refused. A matrix is
stored as [out, in]; ``time_decay`` is stored as w = -exp(log_decay).

Source: github.com/RWKV/rwkv.cpp, ``docs/FILE_FORMAT.md``.
"""

import os

import numpy as np

from oarlock.llm.models.registry import assign
from oarlock.llm.models.rwkv4 import RWKV4, RWKV4Config
from oarlock.llm.weights.binary import BinaryFile

MAGIC = 0x67676D66
VERSIONS = (100, 101)
DTYPES = {0: "<f4", 1: "<f2"}

# rwkv.cpp's name of each parameter; "blocks.N." stays in front.
_TOP = {
    "emb.weight": "embedding.weight",
    "blocks.0.ln0.weight": "embedding_norm.weight",
    "blocks.0.ln0.bias": "embedding_norm.bias",
    "ln_out.weight": "norm.weight",
    "ln_out.bias": "norm.bias",
    "head.weight": "head.weight",
}
_BLOCK = {
    "ln1.weight": "attention_norm.weight",
    "ln1.bias": "attention_norm.bias",
    "ln2.weight": "feed_forward_norm.weight",
    "ln2.bias": "feed_forward_norm.bias",
    "att.time_mix_k": "attention.mix_key",
    "att.time_mix_v": "attention.mix_value",
    "att.time_mix_r": "attention.mix_receptance",
    "att.time_decay": "attention.log_decay",
    "att.time_first": "attention.bonus",
    "att.key.weight": "attention.key.weight",
    "att.value.weight": "attention.value.weight",
    "att.receptance.weight": "attention.receptance.weight",
    "att.output.weight": "attention.out.weight",
    "ffn.time_mix_k": "feed_forward.mix_key",
    "ffn.time_mix_r": "feed_forward.mix_receptance",
    "ffn.key.weight": "feed_forward.key.weight",
    "ffn.receptance.weight": "feed_forward.receptance.weight",
    "ffn.value.weight": "feed_forward.value.weight",
}


def load_rwkv_cpp(path: str | os.PathLike) -> RWKV4:
    """Read an RWKV-4 ``.bin`` of rwkv.cpp, float32 or float16.

    Raises:
        ValueError: the file is truncated, quantised, of another RWKV version or no such file, or a
            tensor is missing, surplus or misshapen; all are named.
    """
    config, tensors = read_rwkv_cpp(path)
    model = RWKV4(config, seed=None)
    assign(model, tensors, str(path))
    return model.eval()


def read_rwkv_cpp(path: str | os.PathLike) -> tuple[RWKV4Config, dict[str, np.ndarray]]:
    """The configuration and, by our names, the parameters."""
    file = BinaryFile(path)
    magic, version, V, D, L, kind = file.numbers("6i", "the header")
    if magic != MAGIC or version not in VERSIONS:
        raise ValueError(
            f"{file.path} is no rwkv.cpp file: it begins with {magic:#x}, {version}, "
            f"expected {MAGIC:#x} and one of {VERSIONS}."
        )
    if kind not in DTYPES:
        raise ValueError(f"{file.path} is quantised (type {kind}); read the FP32 or FP16 file.")
    tensors: dict[str, np.ndarray] = {}
    while file.position < file.size:
        name, values = _tensor(file, len(tensors))
        tensors[_rename(name)] = _convert(name, values, file)
    F = tensors.get("blocks.0.feed_forward.key.weight", np.empty([D, 1])).shape[-1]
    try:
        config = RWKV4Config(vocab_size=V, hidden_size=D, num_layers=L, intermediate_size=F)
    except ValueError as error:
        raise ValueError(f"{file.path} is no RWKV-4 file: in its header {error}") from error
    return config, tensors


def _tensor(file: BinaryFile, number: int) -> tuple[str, np.ndarray]:
    what = f"the header of tensor {number}"
    num_dims, name_length, kind = file.numbers("3i", what)
    if not 1 <= num_dims <= 3 or not 1 <= name_length <= 256 or kind not in DTYPES:
        raise ValueError(
            f"{file.path} is corrupt or quantised: tensor {number} has {num_dims} dimensions, "
            f"a name of {name_length} bytes and type {kind}."
        )
    dims = file.numbers(f"{num_dims}i", what)
    name = file.take(name_length, what).tobytes().decode(errors="replace")
    if min(dims) < 1:
        raise ValueError(f"{file.path} is corrupt: tensor {name} has the dimensions {dims}.")
    return name, file.array(dims[::-1], DTYPES[kind], name)


def _rename(name: str) -> str:
    """Our name; an unknown one stays, so that ``assign`` names it."""
    if name in _TOP:
        return _TOP[name]
    block, number, part = (name.split(".", 2) + ["", ""])[:3]
    return f"blocks.{number}.{_BLOCK[part]}" if block == "blocks" and part in _BLOCK else name


def _convert(name: str, values: np.ndarray, file: BinaryFile) -> np.ndarray:
    values = values.astype(np.float32)
    if name.endswith("att.time_decay"):
        if not (values < 0).all():
            raise ValueError(f"{file.path}: {name} must be below 0, got {values.max()}.")
        return np.log(-values)
    return values.T if name != "emb.weight" else values
