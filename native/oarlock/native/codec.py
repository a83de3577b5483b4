"""Gradient codes: what ranks send in place of gradients, with error feedback in the same pass.

An encoder takes an accumulator, ``acc``: the gradient plus what earlier steps did not send. It writes a
code to arrays of the caller and, with ``keep=True``, leaves ``acc - decoded(code)`` in ``acc``. A decoder
adds ``weight`` times the decoded code to ``out``, so that a mean over ranks is a loop of decoders; with
weight 1 it adds exactly what the encoder subtracted.

Tensors are Paddle's, NumPy's (bfloat16 as ``ml_dtypes.bfloat16``) or anything with ``__dlpack__``;
contiguous, on the CPU, of any shape and read flat. Nothing is copied. Results are the same bits for any
number of threads and on every code path. NaN and Inf show in what is decoded; each function says how.

>>> from oarlock.native import codec
>>> codec.accumulate(acc, gradient)
>>> codec.chunk_topk_encode(acc, indices, values, chunk=4096, k=32, keep=True)
>>> for indices, values in received:
...     codec.chunk_topk_add(indices, values, mean, chunk=4096, k=32, weight=1 / ranks)
"""

from oarlock.native._codec_entries import (
    CapacityError,
    chunk_topk_add,
    chunk_topk_encode,
    chunk_topk_size,
    kth_magnitude,
    random_k,
    random_k_add,
    select,
    select_add,
)
from oarlock.native._codec_low_rank import low_rank_back, low_rank_product, low_rank_take
from oarlock.native._codec_transforms import (
    dct,
    orthogonalise,
    pack_bits,
    packed_size,
    unpack_bits,
)
from oarlock.native._codec_values import (
    accumulate,
    bf16_add,
    bf16_encode,
    bf16_write,
    blocks_add,
    blocks_encode,
    blocks_sizes,
    blocks_write,
    signs_add,
    signs_encode,
    signs_sizes,
    signs_write,
)

__all__ = [
    "CapacityError",
    "accumulate",
    "bf16_add",
    "bf16_encode",
    "bf16_write",
    "blocks_add",
    "blocks_encode",
    "blocks_sizes",
    "blocks_write",
    "chunk_topk_add",
    "chunk_topk_encode",
    "chunk_topk_size",
    "dct",
    "kth_magnitude",
    "low_rank_back",
    "low_rank_product",
    "low_rank_take",
    "orthogonalise",
    "pack_bits",
    "packed_size",
    "random_k",
    "random_k_add",
    "select",
    "select_add",
    "signs_add",
    "signs_encode",
    "signs_sizes",
    "signs_write",
    "unpack_bits",
]
