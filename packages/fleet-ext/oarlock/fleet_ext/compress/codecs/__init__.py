"""Codes of gradients, and what they are called in configurations."""

from oarlock.fleet_ext.compress.codecs.base import Codec
from oarlock.fleet_ext.compress.codecs.rounding import BFloat16, Blocks, Float32, Signs, TwoLevels
from oarlock.fleet_ext.compress.codecs.sparse import ChunkTopK, Cosines, RandomK, Sparse, TopK

#: Examples of each, by the names that strategies take.
CODECS: dict[str, Codec] = {
    "float32": Float32(),
    "bf16": BFloat16(),
    "int8": Blocks(bits=8),
    "int8-stochastic": Blocks(bits=8, stochastic=True),
    "int4": Blocks(bits=4, block=64),
    "1-bit": Signs(),
    "top-1%": TopK(density=0.01),
    "random-1%": RandomK(density=0.01),
    "chunk-top": ChunkTopK(k=64, chunk=4096),
    "sparseloco": ChunkTopK(k=64, chunk=4096, values=TwoLevels()),
    "demo": Cosines(k=4, chunk=64, values=BFloat16()),
}

__all__ = [
    "CODECS",
    "BFloat16",
    "Blocks",
    "ChunkTopK",
    "Codec",
    "Cosines",
    "Float32",
    "RandomK",
    "Signs",
    "Sparse",
    "TopK",
    "TwoLevels",
]
