"""Blocks that several models share exactly, written so that Paddle's CPU kernels run them fast.

Two habits explain the code (CPU, measured on 8 x 128 tokens of width 256, forward and backward):

- The gradient of a broadcast multiply or add is a slow reduction (2.9 ms against 0.2 ms), so
  norms spread their row statistics and gains by a rank-one matrix product instead.
- ``transpose`` makes a strided view whose copy is slow (2.1 ms against 0.1 ms);
  ``F.channel_shuffle`` moves the same data in one pass and keeps the result contiguous.

Shapes: B batch, T positions of the queries, S positions of the keys, D width of the model,
H heads, G key and value heads (H a multiple of G), K size of a head, V vocabulary, R = B*T rows.
"""

import numpy as np
import paddle
import paddle.nn.functional as F
from oarlock.native.masks import Mask
from oarlock.native.paddle.attention import masked_attention
from paddle import nn

MASKED = -1e30  # score of a key that may not be seen; finite, so that bfloat16 and float32 agree


class RMSNorm(nn.Layer):
    """Root-mean-square norm, y = x / sqrt(mean(x^2) + epsilon) * weight. Source: 1910.07467."""

    def __init__(self, size: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1))

    def forward(self, x_BTD: paddle.Tensor) -> paddle.Tensor:
        mean_square_BT1 = row_mean(paddle.square(x_BTD))
        return x_BTD * spread(self.weight, paddle.rsqrt(mean_square_BT1 + self.epsilon))


class LayerNorm(nn.Layer):
    """Layer norm, y = (x - mean) / sqrt(var + epsilon) * weight + bias. Source: 1607.06450."""

    def __init__(self, size: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1))
        self.bias = self.create_parameter([size], is_bias=True)

    def forward(self, x_BTD: paddle.Tensor) -> paddle.Tensor:
        mean_BT1 = row_mean(x_BTD)
        x_BTD = x_BTD - spread(paddle.ones_like(self.bias), mean_BT1)
        scale_BT1 = paddle.rsqrt(row_mean(paddle.square(x_BTD)) + self.epsilon)
        bias_BTD = spread(self.bias, paddle.ones_like(mean_BT1))
        return x_BTD * spread(self.weight, scale_BT1) + bias_BTD


def row_mean(x_BTD: paddle.Tensor) -> paddle.Tensor:
    """Mean over the last axis, [..., D] -> [..., 1]."""
    size = x_BTD.shape[-1]
    return paddle.matmul(x_BTD, paddle.full([size, 1], 1 / size, dtype=x_BTD.dtype))


def swap_axes(x_NPQK: paddle.Tensor) -> paddle.Tensor:
    """Swap the middle axes, [N, P, Q, K] -> [N, Q, P, K], contiguous."""
    N, P, Q, K = x_NPQK.shape
    if P == 1 or Q == 1:
        return x_NPQK.reshape([N, Q, P, K])
    return F.channel_shuffle(x_NPQK.reshape([N, P * Q, 1, K]), P).reshape([N, Q, P, K])


def split_heads(x_BTD: paddle.Tensor, num_heads: int) -> paddle.Tensor:
    """Cut the width into heads and put them first: [B, T, H*K] -> [B, H, T, K]."""
    B, T, D = x_BTD.shape
    return swap_axes(x_BTD.reshape([B, T, num_heads, D // num_heads]))


def merge_heads(x_BHTK: paddle.Tensor) -> paddle.Tensor:
    """Undo ``split_heads``: [B, H, T, K] -> [B, T, H*K]."""
    B, H, T, K = x_BHTK.shape
    return swap_axes(x_BHTK).reshape([B, T, H * K])


def spread(row_D: paddle.Tensor, column: paddle.Tensor) -> paddle.Tensor:
    """Product of a row vector and a column [..., 1], giving [..., D] with a fast gradient."""
    return paddle.matmul(column, row_D.unsqueeze(0))


def attention(
    q_BHTK: paddle.Tensor,
    k_BGSK: paddle.Tensor,
    v_BGSK: paddle.Tensor,
    bias: paddle.Tensor | Mask | None,
) -> paddle.Tensor:
    """Softmax attention, softmax(q k^T / sqrt(K) + bias) v, with H/G query heads to a key head.

    Args:
        q_BHTK: queries.
        k_BGSK: keys. The queries of a group are stacked as rows, so nothing is repeated.
        v_BGSK: values.
        bias: added to the scores [B, H, T, S], broadcast from the right; ``causal_bias`` or None.
            Or a mask, which says what is seen; what is not costs no time.

    Returns:
        The heads side by side, [B, T, H*K].

    Source: arXiv 1706.03762; grouped queries arXiv 2305.13245.
    """
    B, H, T, K = q_BHTK.shape
    G, S = k_BGSK.shape[1:3]
    if isinstance(bias, Mask):
        heads = masked_attention(swap_axes(q_BHTK), swap_axes(k_BGSK), swap_axes(v_BGSK), bias)
        return heads.reshape([B, T, H * K])
    q = (q_BHTK * K**-0.5).reshape([B, G, H // G * T, K])
    scores = paddle.matmul(q, k_BGSK, transpose_y=True)
    if bias is not None:
        scores = scores.reshape([B, H, T, S]) + bias
    weights = F.softmax(scores, axis=-1).reshape([B, G, H // G * T, S])
    return merge_heads(paddle.matmul(weights, v_BGSK).reshape([B, H, T, K]))


def causal_bias(
    T: int, S: int, dtype: paddle.dtype = paddle.float32, window: int | None = None
) -> paddle.Tensor | None:
    """Bias [T, S] that hides later keys from the last T of S positions; None if there are none.

    With a ``window`` it also hides keys that lie so many positions back or more.
    """
    if window is not None and S > window:
        hidden = paddle.full([T, S], MASKED, dtype=dtype)
        earlier = paddle.tril(hidden, S - T - window)
        return earlier if T == 1 else earlier + paddle.triu(hidden, S - T + 1)
    if T == 1:
        return None
    return paddle.triu(paddle.full([T, S], MASKED, dtype=dtype), S - T + 1)


def rope_tables(length: int, size: int, theta: float) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Cosine and sine of position p times theta^(-2i/size), each [length, size/2].

    Source: arXiv 2104.09864.
    """
    frequencies = theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    angles = np.outer(np.arange(length), frequencies)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return paddle.to_tensor(cos), paddle.to_tensor(sin)


def rope_rotations(
    cos: paddle.Tensor, sin: paddle.Tensor, start: int, T: int, copies: int
) -> paddle.Tensor:
    """Rotations e^(i angle) of T positions from ``start``, repeated to [copies, T, size/2].

    Single precision, or double for float64 tables.
    """
    dtype = cos.dtype if cos.dtype == paddle.float64 else paddle.float32
    cos, sin = (table[start : start + T].astype(dtype) for table in (cos, sin))
    return paddle.tile(paddle.complex(cos, sin), [copies, 1, 1])


def rotate(x_BHTK: paddle.Tensor, rotations: paddle.Tensor) -> paddle.Tensor:
    """Turn each adjacent pair of the last axis by the angle of its position.

    Args:
        x_BHTK: queries or keys.
        rotations: ``rope_rotations`` of at least B*H copies.
    """
    B, H, T, K = x_BHTK.shape
    real = paddle.float64 if rotations.dtype == paddle.complex128 else paddle.float32
    pairs = paddle.as_complex(x_BHTK.astype(real).reshape([B * H, T, K // 2, 2]))
    turned = paddle.as_real(pairs * rotations[: B * H])
    return turned.reshape([B, H, T, K]).astype(x_BHTK.dtype)


class KeyValueCache:
    """Keys and values of the positions seen so far, one pair a layer."""

    def __init__(self, num_layers: int):
        self._pairs: list[tuple[paddle.Tensor, paddle.Tensor] | None] = [None] * num_layers

    @property
    def length(self) -> int:
        """Number of positions that every layer holds."""
        return 0 if self._pairs[-1] is None else self._pairs[-1][0].shape[2]

    def append(
        self, layer: int, k_BGTK: paddle.Tensor, v_BGTK: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Add the positions of this call and return all, [B, G, S, K]."""
        past = self._pairs[layer]
        if past is not None:
            k_BGTK = paddle.concat([past[0], k_BGTK], axis=2)
            v_BGTK = paddle.concat([past[1], v_BGTK], axis=2)
        self._pairs[layer] = (k_BGTK, v_BGTK)
        return k_BGTK, v_BGTK


def check_tokens(tokens: paddle.Tensor, vocab_size: int) -> tuple[int, int]:
    """B and T of tokens [B, T]; ValueError if they are no such integers, empty, or unknown ids.

    Ids are looked through on the CPU only (8 us for 8 x 128); a GPU would have to be waited for.
    Tensors of a static graph are not checked.
    """
    if paddle.in_dynamic_mode():
        _check_shape(tokens)
        if tokens.place.is_cpu_place():
            check_ids(tokens, vocab_size)
    return tokens.shape[0], tokens.shape[1]


def check_ids(tokens: paddle.Tensor, vocab_size: int) -> None:
    """Refuse ids outside the vocabulary; Paddle itself takes -1 for padding, in silence."""
    ids = tokens.numpy()
    for wrong in (ids.min(), ids.max()):
        if not 0 <= wrong < vocab_size:
            raise ValueError(
                f"tokens must be ids of the vocabulary, 0..{vocab_size - 1}, got {wrong}."
            )


def _check_shape(tokens: paddle.Tensor) -> None:
    if not isinstance(tokens, paddle.Tensor):
        found = type(tokens).__name__
    elif tokens.dtype not in (paddle.int64, paddle.int32):
        found = f"{tokens.dtype} of shape {list(tokens.shape)}"
    elif len(tokens.shape) != 2 or 0 in tokens.shape:
        found = f"shape {list(tokens.shape)}"
    else:
        return
    raise ValueError(f"tokens must be an int64 tensor [B, T] with B, T >= 1, got {found}.")


def check_length(length: int, max_length: int) -> None:
    """Refuse a text longer than the model's context."""
    if length > max_length:
        raise ValueError(f"tokens reach position {length}, but max_length is {max_length}.")
