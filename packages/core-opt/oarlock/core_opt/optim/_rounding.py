"""Write a float32 result into a low-precision tensor."""

import paddle


def round_to(target: paddle.Tensor, value: paddle.Tensor, seed: int | None, index: int = 0) -> None:
    """Round ``value`` into ``target``: stochastically for bfloat16 with a seed, else to nearest.

    Stochastic rounding adds 16 random bits below the bfloat16 mantissa and truncates, so that
    the expectation is the float32 value. The bits come from a counter-based hash of
    (seed, ``index`` of the tensor, element): the result depends on nothing else.
    """
    if seed is None or target.dtype != paddle.bfloat16:
        paddle.assign(value.astype(target.dtype), output=target)
        return
    bits = value.view("int32")
    noise = _hash16(int(bits.size), _mix(_mix(seed) ^ index)).reshape(bits.shape)
    rounded = paddle.bitwise_and(bits + noise, paddle.full([], -65536, dtype="int32"))
    finite = paddle.isfinite(value)
    rounded = paddle.where(finite, rounded, bits).view("float32")
    paddle.assign(rounded.astype(target.dtype), output=target)


def _hash16(count: int, key: int) -> paddle.Tensor:
    """16 random bits for each element, from two rounds of a 31-bit multiplicative hash.

    The halves of the 64-bit key enter in different rounds: one alone would only shift the bits.
    """
    mask = paddle.full([], 0x7FFFFFFF, dtype="int64")
    x = paddle.arange(count, dtype="int64")
    for multiplier, part in ((0x7FEB352D, key >> 33), (0x5A1E5B69, key & 0x7FFFFFFF)):
        x = paddle.bitwise_and(x + part, mask)
        x = paddle.bitwise_xor(x, x // 65536)
        x = paddle.bitwise_and(x * multiplier, mask)
    return paddle.bitwise_and(x // 16384, paddle.full([], 0xFFFF, dtype="int64")).astype("int32")


def _mix(x: int) -> int:
    """A bijection of 64-bit integers that spreads every bit over all (splitmix64)."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31
