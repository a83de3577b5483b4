"""A prefix code of bytes, written and read in lanes, so that NumPy works on all lanes at once.

Symbol i belongs to lane i mod lanes. Every lane is a bit string of its own, lowest bits first, that
begins at a word of 32 bits; a step of the reader takes four symbols from each lane: one gather of 64
bits, and two look-ups in a table of all 16-bit windows, each of which begins with two whole codes since
a code has 8 bits at most. Symbols too rare for such a code share one, the escape, and are listed apart.

Source: lengths by package-merge (Larmore and Hirschberg, 1990); the layout follows the block-parallel
decoder of DFloat11 (arXiv 2504.11651) in spirit, with lanes in the place of its threads.
"""

import dataclasses

import numpy as np

LONGEST = 8  #: bits of a code at most: two codes then fit the table's 16 bits
STEP = 4  #: symbols that a lane gives in one step
MOST_LANES = 8192  #: a step on these stays in the cache
LEAST_SYMBOLS = 1024  #: of a lane, so that its unused bits and its length weigh little
_PAD_WORDS = 2  #: behind the last lane: a gather reads a word more than it needs


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """Lengths of the codes of all bytes, 0 for those without, and the byte that means an escape.

    Args:
        lengths: [256] uint8, 0 .. 8; canonical codes follow from them.
        escape: a byte whose code says that the symbol is in the list; None if there is none.
    """

    lengths: np.ndarray
    escape: int | None

    def __post_init__(self):
        used = self.lengths[self.lengths > 0].astype(np.float64)
        if self.lengths.shape != (256,) or (used > LONGEST).any():
            raise ValueError(f"lengths must be 256 numbers in 0..{LONGEST}.")
        if len(used) > 1 and (2.0**-used).sum() != 1 or not len(used):
            raise ValueError("lengths are those of no complete prefix code.")
        if self.escape is not None and not (0 <= self.escape < 256 and self.lengths[self.escape]):
            raise ValueError(f"escape must be a byte with a code, got {self.escape}.")

    def words(self) -> np.ndarray:
        """The code of each byte, [256] uint64, its first bit lowest."""
        codes, code, last = np.zeros(256, np.uint64), 0, 0
        for symbol in sorted(np.flatnonzero(self.lengths), key=lambda s: (self.lengths[s], s)):
            length = int(self.lengths[symbol])
            code <<= length - last
            codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
            code, last = code + 1, length
        return codes

    def table(self) -> np.ndarray:
        """What 16 bits begin with, [65536] uint32: a byte, the next one, the bits of both."""
        symbols, lengths = np.zeros(256, np.uint32), np.zeros(256, np.uint32)
        codes = self.words()
        for symbol in np.flatnonzero(self.lengths):
            length = int(self.lengths[symbol])
            at = int(codes[symbol]) + (np.arange(256 >> length) << length)
            symbols[at], lengths[at] = symbol, length
        windows = np.arange(1 << 16, dtype=np.uint32)
        first = lengths[windows & 255]
        then = (windows >> first) & 255
        return symbols[windows & 255] | (symbols[then] << 8) | ((first + lengths[then]) << 16)


@dataclasses.dataclass(frozen=True, slots=True)
class Coded:
    """Symbols as written by ``encode``.

    Args:
        lanes: [lanes] uint16, words of each lane.
        words: uint32, one lane behind another.
        escaped: uint8, the symbols behind the escapes in their order.
    """

    lanes: np.ndarray
    words: np.ndarray
    escaped: np.ndarray


def best_code(counts: np.ndarray) -> Code:
    """The code that makes symbols of these counts shortest, escapes included.

    Args:
        counts: [256] of the bytes, at least one above 0.
    """
    present = [int(symbol) for symbol in np.argsort(-counts, kind="stable") if counts[symbol]]
    total = int(counts.sum())
    best: tuple[int, Code] | None = None
    for kept in sorted(
        {len(present), *(int((counts * 2**t >= total).sum()) for t in range(4, 13))}
    ):
        if kept == 0:
            continue
        weights, escape = {s: int(counts[s]) for s in present[:kept]}, None
        rare = total - sum(weights.values())
        if rare:
            escape = present[kept]
            weights[escape] = rare
        lengths = _lengths(weights)
        size = sum(weights[s] * int(lengths[s]) for s in weights) + 8 * rare
        if best is None or size < best[0]:
            best = size, Code(lengths, escape)
    if best is None:
        raise AssertionError("counts of at least one symbol")
    return best[1]


def _lengths(weights: dict[int, int]) -> np.ndarray:
    """Lengths of the shortest code with at most ``LONGEST`` bits, by package-merge."""
    found = np.zeros(256, np.uint8)
    if len(weights) == 1:
        found[next(iter(weights))] = 1
        return found
    coins: list[tuple[int, tuple[int, ...]]]
    coins = sorted((weight, (symbol,)) for symbol, weight in weights.items())
    row = coins
    for _ in range(LONGEST - 1):
        pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(row[::2], row[1::2])]
        row = sorted(coins + pairs, key=lambda coin: coin[0])
    for _, symbols in row[: 2 * len(weights) - 2]:
        for symbol in symbols:
            found[symbol] += 1
    return found


def lanes_of(count: int) -> int:
    """Lanes for so many symbols."""
    return min(max(count // LEAST_SYMBOLS, 1), MOST_LANES)


def encode(symbols: np.ndarray, code: Code) -> Coded:
    """Write symbols, uint8, all of which the code has or may escape."""
    escaped = np.zeros(0, np.uint8)
    if code.escape is not None:
        rare = (code.lengths[symbols] == 0) | (symbols == code.escape)
        escaped = symbols[rare]
        symbols = np.where(rare, np.uint8(code.escape), symbols)
    lanes = lanes_of(len(symbols))
    rows = -(-len(symbols) // (lanes * STEP)) * STEP
    shortest = int(np.argmin(np.where(code.lengths > 0, code.lengths, 255)))
    filled = np.full(rows * lanes, shortest, np.uint8)
    filled[: len(symbols)] = symbols
    grid = filled.reshape(rows, lanes)
    bits = code.lengths[grid].sum(0, dtype=np.int64)
    sizes = -(-bits // 32)
    starts = np.cumsum(sizes) - sizes
    words = np.zeros(int(sizes.sum()) + _PAD_WORDS, np.uint64)
    lengths, codes, at = code.lengths.astype(np.uint64), code.words(), starts * 32
    for first in range(0, rows, STEP):
        gathered, width = codes[grid[first]], lengths[grid[first]]
        for row in grid[first + 1 : first + STEP]:
            gathered |= codes[row] << width
            width += lengths[row]
        gathered <<= (at & 31).astype(np.uint64)
        word = at >> 5
        words[word] |= gathered & np.uint64(0xFFFFFFFF)
        words[word + 1] |= gathered >> np.uint64(32)
        at += width.astype(np.int64)
    return Coded(sizes.astype(np.uint16), words[:-_PAD_WORDS].astype(np.uint32), escaped)


def decode(coded: Coded, code: Code, count: int) -> np.ndarray:
    """The ``count`` symbols that ``encode`` wrote.

    Raises:
        ValueError: lanes, words and escapes do not fit each other and ``count``.
    """
    lanes = lanes_of(count)
    sizes = coded.lanes.astype(np.int64)
    if len(sizes) != lanes or len(coded.words) != sizes.sum():
        raise ValueError(
            f"{count} symbols need {lanes} lanes with their words, got {len(sizes)} lanes of"
            f" {sizes.sum()} words and {len(coded.words)} words."
        )
    pairs = np.zeros(len(coded.words) + _PAD_WORDS, np.uint64)
    pairs[: len(coded.words)] = coded.words
    pairs[:-1] |= pairs[1:] << np.uint64(32)
    rows = -(-count // (lanes * STEP)) * STEP
    out = np.empty((rows, lanes), np.uint8)
    table, at = code.table(), (np.cumsum(sizes) - sizes) * 32
    word, window, low = (np.empty(lanes, kind) for kind in (np.int64, np.uint64, np.uint64))
    entry = np.empty(lanes, np.uint32)
    for row in range(0, rows, STEP):
        np.right_shift(at, 5, out=word)
        np.take(pairs, word, out=window, mode="clip")
        np.right_shift(window, (at & 31).view(np.uint64), out=window)
        for pair in range(row, row + STEP, 2):
            np.bitwise_and(window, np.uint64(0xFFFF), out=low)
            np.take(table, low.view(np.int64), out=entry, mode="clip")
            out[pair] = entry
            entry >>= np.uint32(8)
            out[pair + 1] = entry
            entry >>= np.uint32(8)
            np.right_shift(window, entry, out=window)
            at += entry
    symbols = out.reshape(-1)[:count]
    if code.escape is not None:
        places = np.flatnonzero(symbols == code.escape)
        if len(places) != len(coded.escaped):
            raise ValueError(
                f"{len(places)} escapes, but {len(coded.escaped)} symbols in their list."
            )
        symbols[places] = coded.escaped
    return symbols
