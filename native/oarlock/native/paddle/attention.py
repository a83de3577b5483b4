"""Attention under column-wise masks in Paddle's autograd.

>>> from oarlock.native import masks
>>> from oarlock.native.paddle.attention import masked_attention
>>> out = masked_attention(q, k, v, masks.document([512, 300, 212]))

On the CPU the kernels of ``oarlock.native.attention`` compute, eagerly; blocks that no row sees cost
nothing, and memory grows with the length of the sequences. On a GPU, and while a program is traced
(``to_static``), the same function is computed by ``dense_attention``: Paddle's own operators on a
mask of [rows, keys].
"""

import math
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from oarlock.native import attention
from oarlock.native.masks import Mask
from oarlock.native.masks import causal as causal_mask

__all__ = ["dense_attention", "masked_attention"]


@paddle.jit.not_to_static  # traced as it is: nothing in it depends on values of tensors
def masked_attention(
    q: paddle.Tensor,
    k: paddle.Tensor,
    v: paddle.Tensor,
    mask: Mask | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    threads: int | None = None,
) -> paddle.Tensor:
    r"""softmax(scale q k^T) v over the keys that a row sees, with gradients of the first order.

    A row that sees no key gives zeros and no gradient. See ``oarlock.native.attention.forward`` for the
    maths and for NaN.

    Args:
        q: [batch, rows, heads, dim], float32 or bfloat16, dim up to 256.
        k, v: [batch, keys, kv_heads, dim], of q's type; ``kv_heads`` divides ``heads``.
        mask: of ``oarlock.native.masks``; None for none.
        causal: short for ``mask=masks.causal()``.
        scale: None for 1 / sqrt(dim).
        threads: of the CPU kernels; None for as many as Paddle's operators use.

    Returns:
        Tensor like q.

    Raises:
        ValueError: an argument is not as above, or both ``mask`` and ``causal`` are given.

    Source: FlashMask, 2410.01359.
    """
    mask = _mask(mask, causal)
    if not paddle.in_dynamic_mode() or not q.place.is_cpu_place():
        return dense_attention(q, k, v, mask, scale=scale)
    return _MaskedAttention.apply(q, k, v, mask, scale, threads)


@paddle.jit.not_to_static
def dense_attention(
    q: paddle.Tensor,
    k: paddle.Tensor,
    v: paddle.Tensor,
    mask: Mask | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> paddle.Tensor:
    """The same as ``masked_attention`` by Paddle's operators, on any device and in static graphs.

    Scores and mask take memory of [batch, heads, rows, keys]. Lengths must be known when a program is
    traced.

    Args, errors: as ``masked_attention``.
    """
    mask = _mask(mask, causal)
    (_, rows, heads, dim), (keys, kv_heads) = q.shape, k.shape[1:3]
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"the {kv_heads} heads of k must divide the {heads} heads of q")
    if min(rows, keys) < 0:
        raise ValueError("q and k must have known lengths, not -1: a mask is for one length")
    q, k, v = (paddle.transpose(x, [0, 2, 1, 3]) for x in (q, k, v))
    if heads != kv_heads:
        k, v = (paddle.repeat_interleave(x, heads // kv_heads, axis=1) for x in (k, v))
    scores = paddle.matmul(q, k, transpose_y=True) * (
        1 / math.sqrt(dim) if scale is None else scale
    )
    if mask is None:
        p = F.softmax(scores, axis=-1)
    else:
        dense = mask.to_dense(rows, keys)
        if dense.shape[1] != 1:
            dense = dense.repeat(heads // dense.shape[1], axis=1)
        seen = paddle.expand(paddle.to_tensor(dense), scores.shape)
        # Finite, so that a row that sees nothing has no NaN on its way to 0.
        scores = paddle.where(seen, scores, paddle.full_like(scores, -1e30))
        p = F.softmax(scores, axis=-1)
        p = paddle.where(seen, p, paddle.zeros_like(p))
    return paddle.transpose(paddle.matmul(p, v), [0, 2, 1, 3])


def _mask(mask: Mask | None, causal: bool) -> Mask | None:
    if mask is not None and not isinstance(mask, Mask):
        raise ValueError(
            f"mask must be a Mask of oarlock.native.masks or None, not {type(mask).__name__}; "
            "masks.from_startend_row_indices takes FlashMask's tensors"
        )
    if not causal:
        return mask
    if mask is not None:
        raise ValueError(
            "causal is for calls without a mask; a mask itself says whether it is causal"
        )
    return causal_mask()


def _contiguous(x: paddle.Tensor) -> paddle.Tensor:
    return x if x.is_contiguous() else paddle.assign(x)  # contiguous() would change x itself


class _MaskedAttention(PyLayer):
    @staticmethod
    def forward(ctx: Any, q, k, v, mask, scale, threads):  # type: ignore[override]
        ctx.wanted = [not x.stop_gradient for x in (q, k, v)]
        q, k, v = (_contiguous(x) for x in (q, k, v))
        out = paddle.empty_like(q)
        rows, heads = (q.shape[1], q.shape[2]) if q.ndim == 4 else (0, 0)  # refused below
        lse = paddle.empty([q.shape[0], heads, rows], "float32")
        ctx.options = {"mask": mask, "scale": scale, "threads": threads}
        attention.forward(q, k, v, out, lse, **ctx.options)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, out_grad):  # type: ignore[override]
        q, k, v, out, lse = ctx.saved_tensor()
        grads = [paddle.empty_like(x) for x in (q, k, v)]
        attention.backward(q, k, v, out, lse, _contiguous(out_grad), *grads, **ctx.options)
        return tuple(grad if wanted else None for grad, wanted in zip(grads, ctx.wanted))
