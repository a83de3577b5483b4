"""Oracle of ``oarlock.native.codec``: flat float32 arrays, with the kernels' operations one by one.

Encoders return the code and what stays, decoders what is added to zeros. All but ``orthogonalise``,
``dct`` and the projection of ``low_rank_take``, which are float64, have the kernels' bits.
"""

import ml_dtypes
import numpy as np

Array = np.ndarray
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.float32
NAN = FLOAT32(np.nan)
LEVELS = {8: 127, 4: 7, 2: 3}


def mix(x: int) -> int:
    """splitmix64."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def uniform(seed: int, block: int, count: int) -> Array:
    """The number in [0, 1) of each place in a block, float32 [count]."""
    key = mix(mix(seed) ^ block)
    h: Array = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(key % 2**32)
    h = (h ^ h >> 16) * np.uint32(0x7FEB352D)
    h = ((h ^ h >> 15) + np.uint32(key >> 32)) * np.uint32(0x846CA68B)
    h = h ^ h >> 16
    return (h >> 8).astype(FLOAT32) * FLOAT32(2.0**-24)


def accumulate(acc: Array, gradient: Array, scale: float = 1.0, decay: float = 1.0) -> Array:
    return FLOAT32(decay) * acc + FLOAT32(scale) * gradient.astype(FLOAT32)


def bf16_encode(acc: Array) -> tuple[Array, Array]:
    code = acc.astype(BFLOAT16).view(np.uint16)
    with np.errstate(invalid="ignore"):  # Inf - Inf
        return code, acc - bf16_decode(code)


def bf16_decode(code: Array) -> Array:
    return code.view(BFLOAT16).astype(FLOAT32)


def _blocks(count: int, block: int) -> list[slice]:
    return [slice(begin, min(begin + block, count)) for begin in range(0, count, block)]


def blocks_encode(
    acc: Array, *, bits: int, block: int, seed: int | None = None
) -> tuple[Array, Array, Array]:
    """Returns codes, scales and what stays."""
    numbers, scales = np.zeros(acc.size, np.uint8), []
    most = FLOAT32(LEVELS[bits])
    for index, part in enumerate(_blocks(acc.size, block)):
        x = acc[part]
        largest = np.abs(x).max()
        if not np.isfinite(largest):
            scales.append(NAN)
            continue
        tiny = largest < FLOAT32(2.0**-100)
        scales.append(FLOAT32(0) if tiny else largest / most)
        place = x * (FLOAT32(0) if tiny else most / largest)
        if bits == 2:
            place = place * FLOAT32(0.5) + FLOAT32(1.5)
        if seed is None:
            code = np.rint(place)
        else:
            below = np.floor(place)
            code = below + (uniform(seed, index, x.size) < place - below)
        code = np.clip(code, 0 if bits == 2 else -most, most)
        numbers[part] = code.astype(np.int8).view(np.uint8)
    codes = pack_bits(numbers & (2**bits - 1), bits)
    found = np.array(scales, FLOAT32)
    stays = acc - blocks_decode(codes, found, acc.size, bits=bits, block=block)
    return codes, found, stays


def blocks_decode(codes: Array, scales: Array, count: int, *, bits: int, block: int) -> Array:
    numbers = unpack_bits(codes, count, bits).astype(np.int32)
    signed = numbers - (numbers >= 2 ** (bits - 1)) * 2**bits
    levels = 2 * numbers - 3 if bits == 2 else signed
    return levels.astype(FLOAT32) * np.repeat(scales, block)[:count]


def signs_encode(acc: Array, *, block: int) -> tuple[Array, Array, Array]:
    """Returns bits, scales and what stays."""
    bits = np.packbits(np.signbit(acc), bitorder="little")
    scales = np.array([_mean_magnitude(acc[part]) for part in _blocks(acc.size, block)], FLOAT32)
    return bits, scales, acc - signs_decode(bits, scales, acc.size, block=block)


def _mean_magnitude(x: Array) -> float:
    lanes = np.zeros(-(-x.size // 16) * 16)
    lanes[: x.size] = np.abs(x)
    sums = np.zeros(16)
    for row in lanes.reshape(-1, 16):
        sums += row
    while sums.size > 1:
        sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
    mean = sums[0] / x.size
    return mean if np.isfinite(mean) else np.nan


def signs_decode(bits: Array, scales: Array, count: int, *, block: int) -> Array:
    negative = np.unpackbits(bits, count=count, bitorder="little").astype(bool)
    scale = np.repeat(scales, block)[:count]
    return np.where(negative, -scale, scale)


def _order(acc: Array) -> Array:
    """Positions by falling magnitude, NaN first, equal ones as they stand."""
    magnitudes = np.where(np.isnan(acc), np.inf, np.abs(acc))
    return np.lexsort((np.arange(acc.size), -magnitudes, ~np.isnan(acc)))


def _without(acc: Array, taken: Array) -> Array:
    rest = acc.copy()
    with np.errstate(invalid="ignore"):  # Inf - Inf
        rest[taken] = acc[taken] - acc[taken]
    return rest


def chunk_topk_encode(acc: Array, *, chunk: int, k: int) -> tuple[Array, Array, Array]:
    """Returns indices, values and what stays."""
    taken = [np.sort(_order(acc[part])[:k]) + part.start for part in _blocks(acc.size, chunk)] or [
        np.empty(0, np.int64)
    ]
    places = np.concatenate(taken)
    return (places % chunk).astype(np.uint16), acc[places], _without(acc, places)


def chunk_topk_decode(indices: Array, values: Array, count: int, *, chunk: int, k: int) -> Array:
    out = np.zeros(count, FLOAT32)
    if count:
        starts = np.repeat(np.arange(0, count, chunk), k)[: indices.size]
        out[starts + indices] = values
    return out


def kth_magnitude(acc: Array, k: int) -> float:
    return abs(float(acc[_order(acc)[k - 1]]))


def select(acc: Array, threshold: float, most: int | None = None) -> tuple[Array, Array, Array]:
    """Returns indices, values and what stays."""
    reach = np.isnan(acc) | (np.abs(acc) >= FLOAT32(threshold))
    equal = np.isnan(acc) if np.isnan(threshold) else np.abs(acc) == FLOAT32(threshold)
    if most is not None:
        late = np.cumsum(equal) > most - (reach & ~equal).sum()
        reach &= ~(equal & late)
    places = np.nonzero(reach)[0]
    return places.astype(np.uint32), acc[places], _without(acc, places)


def random_positions(n: int, k: int, seed: int) -> Array:
    key = mix(seed)
    if not k:
        return np.empty(0, np.int64)
    start = (mix(key ^ 2**64 - 1) >> 32) * n >> 32
    edges = [arc * n // k for arc in range(k + 1)]
    return np.array(
        [
            (start + edges[arc] + ((mix(key ^ arc) >> 32) * (edges[arc + 1] - edges[arc]) >> 32))
            % n
            for arc in range(k)
        ],
        np.int64,
    )


def random_k(acc: Array, k: int, *, seed: int, scale: float = 1.0) -> tuple[Array, Array]:
    """Returns values and what stays."""
    places = random_positions(acc.size, k, seed)
    values, rest = FLOAT32(scale) * acc[places], acc.copy()
    rest[places] = acc[places] - values
    return values, rest


def random_k_decode(values: Array, count: int, *, seed: int) -> Array:
    out = np.zeros(count, FLOAT32)
    out[random_positions(count, values.size, seed)] = values
    return out


def pack_bits(values: Array, width: int) -> Array:
    bits = values[:, None] >> np.arange(width, dtype=values.dtype) & 1
    return np.packbits(bits.astype(np.uint8).ravel(), bitorder="little")


def unpack_bits(packed: Array, count: int, width: int) -> Array:
    bits = np.unpackbits(packed, count=count * width, bitorder="little")
    weights = 1 << np.arange(width)
    return (bits.reshape(count, width) * weights).sum(1).astype(np.uint16)


def orthogonalise(matrix: Array) -> Array:
    """Of independent columns."""
    q, r = np.linalg.qr(matrix.astype(np.float64))
    return q * np.where(np.diag(r) < 0, -1, 1)


def fused(a: Array, b: Array, c: Array) -> Array:
    """a b + c in float32, rounded once."""
    product, other = a.astype(np.float64) * b, c.astype(np.float64)  # the product is exact
    total = product + other
    part = total - product
    error = (product - (total - part)) + (other - part)
    # What float64 has rounded becomes odd, so that the second rounding does not take it for a tie.
    even = (error != 0) & (total.view(np.int64) % 2 == 0)
    odd = np.nextafter(total, np.copysign(np.inf, error))
    return np.where(even, odd, total).astype(FLOAT32)


def low_rank_product(left: Array, right: Array) -> Array:
    """left right^T, each number a fused chain over the rank."""
    out = np.zeros((len(left), len(right)), FLOAT32)
    for k in range(left.shape[1]):
        out = fused(left[:, k, None], right[None, :, k], out)
    return out


def low_rank_take(
    acc: Array,
    gradient: Array,
    left: Array | None = None,
    right: Array | None = None,
    onto: Array | None = None,
) -> tuple[Array, Array]:
    """What is in ``acc`` then, and its projection, of which the sums are float64."""
    if left is not None and right is not None:
        acc = acc - low_rank_product(left, right)
    acc = acc + gradient
    onto = np.zeros((acc.shape[1], 0), FLOAT32) if onto is None else onto
    return acc, acc.astype(np.float64) @ onto.astype(np.float64)


def low_rank_back(acc: Array, left: Array) -> Array:
    """acc^T left, each number a fused chain over the rows."""
    out = np.zeros((acc.shape[1], left.shape[1]), FLOAT32)
    for row, factor in zip(acc, left):
        out = fused(row[:, None], factor[None, :], out)
    return out


def cosines(size: int) -> Array:
    """The orthonormal DCT-II, [frequency, place]."""
    frequency, place = np.arange(size)[:, None], np.arange(size)
    matrix = np.cos(np.pi * frequency * (2 * place + 1) / (2 * size)) * np.sqrt(2 / size)
    matrix[0] = np.sqrt(1 / size)
    return matrix


def dct(x: Array, chunk: int, *, inverse: bool = False) -> Array:
    out = np.empty(x.size)
    for part in _blocks(x.size, chunk):
        matrix = cosines(part.stop - part.start)
        out[part] = (matrix.T if inverse else matrix) @ x[part].astype(np.float64)
    return out
