"""Oracle of ``oarlock.native.lowp``: rounding with the bits of the kernels, products in float64.

``ml_dtypes`` rounds to nearest; rounding at random goes through whole multiples of the distance of
two numbers.
"""

import math

import ml_dtypes
import numpy as np

Array = np.ndarray
LARGEST = {"int8": 127.0, "int16": 5792.0, "fp8_e4m3": 448.0, "fp8_e5m2": 57344.0}
TYPES = {
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}
# Bits of precision, and exponent of the smallest normal number.
PRECISION = {"bf16": (7, -126), "fp16": (10, -14), "fp8_e4m3": (3, -6), "fp8_e5m2": (2, -14)}
LEAST = np.float32(2.0**-100)


def scales(x: Array, format: str, axis: int, block: int | None = None) -> tuple[Array, Array]:
    """Scale and inverse of every element of a matrix, float32."""
    x = np.moveaxis(np.asarray(x, np.float32), axis, 0)
    scale, inverse = np.empty_like(x), np.empty_like(x)
    size = block or max(1, len(x))
    for begin in range(0, len(x), size):
        part = slice(begin, begin + size)
        most = np.abs(x[part]).max(axis=0)
        kept = np.maximum(most, LEAST)
        finite = np.isfinite(most)
        largest = np.float32(LARGEST[format])
        scale[part] = np.where(finite, kept / largest, np.float32(np.nan))
        inverse[part] = np.where(finite, largest / kept, np.float32(0))
    return np.moveaxis(scale, 0, axis), np.moveaxis(inverse, 0, axis)


def nearest(y: Array, format: str) -> Array:
    """Float32 numbers rounded to a format without scales, ties to even, as float32."""
    y = np.asarray(y, np.float32)
    if format == "fp32":
        return y
    if format in ("int8", "int16"):
        return np.rint(y)
    with np.errstate(over="ignore"):
        found = y.astype(TYPES[format]).astype(np.float32)
    if format == "fp8_e4m3":  # saturates; ml_dtypes gives NaN
        found = np.where(np.isfinite(y) & (np.abs(y) > 448), np.copysign(448, y), found)
    return found.astype(np.float32)


def at_random(y: Array, format: str, random16: Array) -> Array:
    """The same, up where a chance of (random16 + 1/2) / 2^16 is below the distance to go up."""
    y = np.asarray(y, np.float32)
    if format == "fp32":
        return y
    chance = (random16.astype(np.float64) + 0.5) / 65536
    if format in ("int8", "int16"):
        below = np.floor(y.astype(np.float64))
        up = below + (chance < y - below)
        return np.clip(up, -LARGEST[format], LARGEST[format]).astype(np.float32)
    if format == "bf16":
        bits = y.view(np.uint32)
        added = np.where(np.isfinite(y), random16.astype(np.uint32), np.uint32(0))
        return ((bits + added) & np.uint32(0xFFFF0000)).view(np.float32)
    precision, least = PRECISION[format]
    magnitude = np.abs(y).astype(np.float64)
    exponent = np.maximum(np.frexp(magnitude)[1] - 1, least)
    step = np.exp2(exponent - precision)
    below = np.floor(magnitude / step)
    found = np.copysign((below + (chance < magnitude / step - below)) * step, y)
    return nearest(np.where(np.isfinite(y), found, y).astype(np.float32), format)


def random16(seed: int, operand: int, shape: tuple[int, int]) -> Array:
    """The 16 random bits of each element of a matrix in memory; operand 0 is a, 1 is b."""

    def mix(x: int) -> int:  # splitmix64
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    found = np.empty(shape, np.uint32)
    columns = np.arange(shape[1], dtype=np.uint32) * np.uint32(0x9E3779B1)
    for row in range(shape[0]):
        key = mix(mix(mix(seed) ^ operand) ^ row)
        h: np.ndarray = columns + np.uint32(key % 2**32)
        h = (h ^ h >> 16) * np.uint32(0x85EBCA6B)
        h = (h ^ h >> 13) + np.uint32(key >> 32)
        found[row] = ((h ^ h >> 15) * np.uint32(0xC2B2AE35)) >> 16
    return found


def quantize(x, format, axis=None, block=None, rounding_seed=None, operand=0):
    """Numbers of the format (as float32), and the scale of each; without an axis no scales."""
    x = np.asarray(x).astype(np.float32)
    scale = inverse = np.ones_like(x)
    if axis is not None and format in LARGEST:
        scale, inverse = scales(x, format, axis, block)
    with np.errstate(invalid="ignore"):
        y = x * inverse
    if rounding_seed is None:
        return nearest(y, format), scale
    return at_random(y, format, random16(rounding_seed, operand, x.shape)), scale


def cast(x, format, **options):
    numbers, scale = quantize(x, format, **options)
    with np.errstate(invalid="ignore"):
        return numbers * scale


def activate(x: Array, activation: str | None) -> Array:
    if activation == "relu":
        return np.where(x < 0, 0.0, x)
    if activation == "gelu":
        return 0.5 * x * np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2))
    return x / (1 + np.exp(-x)) if activation == "silu" else x


def matmul(
    a,
    b,
    *,
    format,
    transpose_a=False,
    transpose_b=False,
    block=None,
    bias=None,
    activation=None,
    rounding_seed=None,
):
    """The product of the rounded operands in float64."""
    formats = (format, format) if isinstance(format, str) else format
    a = cast(
        a, formats[0], axis=0 if transpose_a else 1, block=block, rounding_seed=rounding_seed
    ).astype(np.float64)
    b = cast(
        b,
        formats[1],
        axis=1 if transpose_b else 0,
        block=block,
        rounding_seed=rounding_seed,
        operand=1,
    ).astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    return activate(found + (0 if bias is None else bias), activation)


def hadamard(x: Array, block: int) -> Array:
    """The stages of the transform in float32, in the kernel's order."""
    y = np.asarray(x).astype(np.float32).reshape(-1, block)
    distance = 1
    while distance < block:
        pairs = y.reshape(len(y), -1, 2, distance)
        y = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        y, distance = y.reshape(-1, block), distance * 2
    return (y * (np.float32(1) / np.sqrt(np.float32(block)))).reshape(np.shape(x))
