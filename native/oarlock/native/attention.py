"""Attention for training under column-wise masks: blocks that nobody sees cost nothing.

Tensors are Paddle's, NumPy's (bfloat16 as ``ml_dtypes.bfloat16``) or anything with ``__dlpack__``;
contiguous, on one device. Storage is float32 or bfloat16, arithmetic float32. Memory beside the
operands grows with the length of the sequences, not with its square. Results are the same bits for
any number of threads; code paths differ by rounding, as not all of them can fuse multiply and add.

>>> from oarlock.native import attention, masks
>>> attention.forward(q, k, v, out, lse, mask=masks.document([512, 512]))
>>> attention.backward(q, k, v, out, lse, out_grad, q_grad, k_grad, v_grad,
...                    mask=masks.document([512, 512]))

In Paddle's autograd: ``oarlock.native.paddle.attention``.
"""

import ctypes
import math
from typing import Any

from oarlock.native import _attention_abi, masks
from oarlock.native import threads as _threads
from oarlock.native._optim_arguments import factor, run
from oarlock.native._tensors import TensorList

__all__ = ["backward", "forward"]


def forward(
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    *,
    mask: masks.Mask | None = None,
    scale: float | None = None,
    threads: int | None = None,
) -> None:
    r"""Attention of queries to the keys that they see.

    With :math:`s_{ij} = \mathrm{scale}\; q_i \cdot k_j` over the keys :math:`j` that row :math:`i` sees,

    .. math::
        L_i = \log \sum_j e^{s_{ij}}, \qquad o_i = \sum_j e^{s_{ij} - L_i}\, v_j

    The softmax is taken block by block with the largest score so far. A row that sees no key gives
    zeros and :math:`L_i = -\infty`. NaN in an operand reaches every row that sees it. NaN or Inf in
    a value may also reach rows of the same block that do not see it, as under a dense mask.

    Args:
        q: queries [batch, rows, heads, dim], dim 1 to 256 (best a multiple of 16).
        k, v: keys and values [batch, keys, kv_heads, dim]; head h of the queries uses head
            ``h // (heads / kv_heads)``, so ``kv_heads`` divides ``heads``.
        out: like q, written.
        lse: L, float32 [batch, heads, rows], written; for ``backward``.
        mask: None for every key.
        scale: None for 1 / sqrt(dim).
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It does
            not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was written.

    Source: FlashAttention-2, 2307.08691; FlashMask, 2410.01359.
    """
    lists, bounds, options = _read(mask, scale, q=q, k=k, v=v, out=out, lse=lse)
    _call("oarlock_attention_forward", [*lists, bounds], options, threads)


def backward(
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    out_grad: Any,
    q_grad: Any,
    k_grad: Any,
    v_grad: Any,
    *,
    mask: masks.Mask | None = None,
    scale: float | None = None,
    threads: int | None = None,
) -> None:
    r"""Gradients of q, k and v from the gradient g of ``forward``'s result.

    With :math:`p_{ij} = e^{s_{ij} - L_i}` and :math:`\delta_i = g_i \cdot o_i`,

    .. math::
        dV_j = \sum_i p_{ij}\, g_i, \quad
        ds_{ij} = p_{ij}\, (g_i \cdot v_j - \delta_i), \quad
        dQ_i = \mathrm{scale} \sum_j ds_{ij}\, k_j, \quad
        dK_j = \mathrm{scale} \sum_i ds_{ij}\, q_i

    Probabilities are computed again from ``lse``. Sums have one order, whatever the number of threads.
    Rows that see no key, and keys that no row sees, have gradients of zero.

    Args:
        q, k, v, out, lse: as ``forward`` had and left them, with the same ``mask`` and ``scale``.
        out_grad: g, like q.
        q_grad, k_grad, v_grad: like q, k and v, written.

    The other arguments, and errors, are those of ``forward``.

    Source: FlashAttention-2, 2307.08691; FlashMask, 2410.01359.
    """
    lists, bounds, options = _read(
        mask,
        scale,
        q=q,
        k=k,
        v=v,
        out=out,
        lse=lse,
        out_grad=out_grad,
        q_grad=q_grad,
        k_grad=k_grad,
        v_grad=v_grad,
    )
    _call("oarlock_attention_backward", [*lists, bounds], options, threads)


def _read(mask: masks.Mask | None, scale: float | None, **tensors: Any):
    """The operands, the bounds and the options of a call."""
    if mask is not None and not isinstance(mask, masks.Mask):
        raise ValueError(
            f"mask must be a Mask of oarlock.native.masks or None, not {type(mask).__name__}; "
            "masks.from_startend_row_indices takes FlashMask's tensors"
        )
    lists = [TensorList(name, [tensor]) for name, tensor in tensors.items()]
    query, key = lists[0].items[0], lists[1].items[0]
    if mask is not None and query.ndim == key.ndim == 4:
        mask.check(query.shape[1], key.shape[1])
    given = None if mask is None else mask.bounds
    bounds = None if given is None else TensorList("bounds", [given])
    if scale is None:
        scale = 1 / math.sqrt(query.shape[3]) if query.ndim == 4 and query.shape[3] else 1.0
    options = _attention_abi.Attention(factor("scale", scale), mask is not None and mask.causal)
    return lists, bounds, options


def _call(name: str, lists: list, options: _attention_abi.Attention, threads: int | None) -> None:
    try:
        run(name, lists, ctypes.byref(options), _threads.count(threads))
    except ValueError as error:
        # The kernels know lists of tensors; here each has one, which is the argument.
        raise ValueError(str(error).replace("[0]", "")) from None
