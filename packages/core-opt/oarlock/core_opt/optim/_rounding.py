"""Write a float32 result into a low-precision tensor."""

import paddle


def round_to(target: paddle.Tensor, value: paddle.Tensor, seed: int | None) -> None:
    """Round ``value`` into ``target``: stochastically for bfloat16 with a seed, else to nearest.

    Stochastic rounding adds 16 random bits below the bfloat16 mantissa and truncates, so that
    the expectation is the float32 value. The bits come from a counter-based hash of
    (seed, index): the result depends on nothing else.
    """
    if seed is None or target.dtype != paddle.bfloat16:
        paddle.assign(value.astype(target.dtype), output=target)
        return
    bits = value.view("int32")
    noise = _hash16(int(bits.size), seed).reshape(bits.shape)
    rounded = paddle.bitwise_and(bits + noise, paddle.full([], -65536, dtype="int32"))
    finite = paddle.isfinite(value)
    rounded = paddle.where(finite, rounded, bits).view("float32")
    paddle.assign(rounded.astype(target.dtype), output=target)


def _hash16(count: int, seed: int) -> paddle.Tensor:
    """16 random bits for each index, from two rounds of a 31-bit multiplicative hash."""
    mask = 0x7FFFFFFF
    x = paddle.arange(count, dtype="int64") + (seed & mask)
    for multiplier in (0x7FEB352D, 0x5A1E5B69):
        x = paddle.bitwise_xor(x, x // 65536)
        x = paddle.bitwise_and(x * multiplier, paddle.full([], mask, dtype="int64"))
    return paddle.bitwise_and(x // 16384, paddle.full([], 0xFFFF, dtype="int64")).astype("int32")
