"""Masks of attention, kept as a few numbers for each key: which rows (queries) do not see it.

That is the column-wise form of FlashMask, and of Paddle's ``startend_row_indices``: memory grows with
the length of the sequence instead of its square, and kernels skip blocks that nobody sees.

>>> from oarlock.native import masks
>>> masks.document([512, 200, 312])               # three texts in one sequence
>>> masks.shared_question(300, [100, 80, 120])    # answers that see the question, not each other
>>> masks.stack([masks.document([9, 7]), masks.document([16])])  # one for each row of a batch

Source: FlashMask, 2410.01359.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "Mask",
    "causal",
    "concatenate",
    "document",
    "from_startend_row_indices",
    "full",
    "prefix",
    "shared_question",
    "sliding_window",
    "stack",
]

INT32_MAX = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Which rows see which keys.

    Attributes:
        causal: row i sees keys up to ``i + keys - rows`` only, and of those what ``bounds`` leave.
        bounds: int32 [batch or 1, heads of k or 1, keys, numbers], or None for no other limit. If
            causal, the numbers of a key are ``begin`` of the rows that do not see it, or
            ``begin, end``; else ``lower begin, upper end`` (rows from the one on and rows before the
            other do not see it) or ``lower begin, lower end, upper begin, upper end``. Ends are
            exclusive.
    """

    causal: bool
    bounds: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.causal, bool):
            raise ValueError(f"causal must be True or False, not {self.causal!r}")
        if self.bounds is None:
            return
        bounds = np.ascontiguousarray(_integers("bounds", self.bounds), np.int32)
        allowed = (1, 2) if self.causal else (2, 4)
        if bounds.ndim != 4 or bounds.shape[3] not in allowed:
            raise ValueError(
                f"bounds has shape {list(bounds.shape)}, but must have [batch or 1, heads of k or 1, "
                f"keys, {allowed[0]} or {allowed[1]}] as the mask is {'' if self.causal else 'not '}"
                "causal"
            )
        if (bounds < 0).any():
            raise ValueError(f"bounds has {bounds.min()}; bounds are numbers of rows, from 0 on")
        pairs = bounds.shape[3] == 4 or (self.causal and bounds.shape[3] == 2)
        for first in range(0, bounds.shape[3] if pairs else 0, 2):
            begin, end = bounds[..., first], bounds[..., first + 1]
            if (end < begin).any():
                place = tuple(int(i) for i in np.argwhere(end < begin)[0])
                raise ValueError(
                    f"bounds has masked rows from {begin[place]} to {end[place]} at {list(place)}; an "
                    "end must not be before its begin"
                )
        bounds.setflags(write=False)
        object.__setattr__(self, "bounds", bounds)

    def to_startend_row_indices(self, rows: int, keys: int | None = None) -> np.ndarray:
        """The bounds as ``paddle.nn.functional.flashmask_attention`` takes them, with ``causal``.

        Args:
            rows, keys: lengths of the sequences; ``keys`` None for as many.

        Returns:
            int32 [batch or 1, heads of k or 1, keys, 1, 2 or 4].

        Raises:
            ValueError: the mask is for other lengths.
        """
        keys = rows if keys is None else keys
        self.check(rows, keys)
        if self.bounds is not None:
            return self.bounds
        if self.causal:
            return np.full((1, 1, keys, 1), rows, np.int32)
        return np.broadcast_to(np.array([rows, 0], np.int32), (1, 1, keys, 2)).copy()

    def to_dense(self, rows: int, keys: int | None = None) -> np.ndarray:
        """The mask as a matrix: bool [batch or 1, heads of k or 1, rows, keys], True where seen.

        Args, errors: as ``to_startend_row_indices``.
        """
        keys = rows if keys is None else keys
        bounds = self.to_startend_row_indices(rows, keys)[:, :, None].astype(np.int64)
        row, key = np.arange(rows)[:, None], np.arange(keys)
        parts = [bounds[..., i] for i in range(bounds.shape[-1])]
        if self.causal:
            end = parts[1] if len(parts) == 2 else rows
            hidden = (row >= parts[0]) & (row < end) | (key > row + keys - rows)
        elif len(parts) == 2:
            hidden = (row >= parts[0]) | (row < parts[1])
        else:
            hidden = (row >= parts[0]) & (row < parts[1]) | (row >= parts[2]) & (row < parts[3])
        return ~hidden

    def check(self, rows: int, keys: int) -> None:
        """ValueError unless the mask is for ``rows`` queries and ``keys`` keys."""
        if self.bounds is None:
            return
        if self.bounds.shape[2] != keys:
            raise ValueError(f"mask is for {self.bounds.shape[2]} keys, but there are {keys}")
        if self.bounds.size and self.bounds.max() > rows:
            raise ValueError(
                f"mask has a bound of {self.bounds.max()}, but there are {rows} rows (queries)"
            )

    def seen(self, rows: int, keys: int | None = None) -> float:
        """The share of (row, key) pairs that are seen, for one mask of the batch on average."""
        keys = rows if keys is None else keys
        bounds = self.to_startend_row_indices(rows, keys).astype(np.int64)
        begin, end = _hidden_rows(bounds, self.causal, rows, keys)
        # Two intervals a key, clipped; what they share counts once.
        sizes = np.maximum(end - begin, 0)
        both = np.minimum(end[0], end[1]) - np.maximum(begin[0], begin[1])
        both = np.where((sizes > 0).all(axis=0), np.maximum(both, 0), 0)
        hidden = sizes.sum(axis=0) - both
        return float(1 - hidden.mean() / rows) if hidden.size and rows else 0.0


def _hidden_rows(bounds: np.ndarray, causal: bool, rows: int, keys: int):
    """Begin and end of both intervals of hidden rows: [2, batch, heads, keys] each."""
    first, last = bounds[..., 0], bounds[..., -1]
    zero, end = np.zeros_like(first), np.full_like(first, rows)
    if causal:
        diagonal = np.clip(np.arange(keys) - (keys - rows), 0, rows) + zero
        until = last if bounds.shape[-1] == 2 else end
        return np.stack([first, zero]), np.stack([until, diagonal])
    if bounds.shape[-1] == 2:
        return np.stack([first, zero]), np.stack([end, last])
    return np.stack([first, bounds[..., 2]]), np.stack([bounds[..., 1], last])


def full() -> Mask:
    """Every row sees every key."""
    return Mask(False)


def causal() -> Mask:
    """Row i sees keys up to i; the last row sees all where there are more keys than rows."""
    return Mask(True)


def document(lengths: Sequence[int], *, causal: bool = True, window: int | None = None) -> Mask:
    """Several texts in one sequence, each for itself.

    Args:
        lengths: of the texts, in order; their sum is the length of the sequence.
        causal: whether a row sees no later key.
        window: a row sees at most so many keys, as in ``sliding_window``; None for no limit.

    Raises:
        ValueError: a length or the window is below 1, or there is none.
    """
    sizes = _lengths("lengths", lengths)
    ends = np.repeat(np.cumsum(sizes), sizes)
    begins = np.repeat(np.cumsum(sizes) - sizes, sizes)
    if window is not None:
        keys = np.arange(ends.size)
        ends = np.minimum(ends, keys + _positive("window", window))
        begins = np.maximum(begins, keys - window + 1)
    return Mask(causal, _columns([ends] if causal else [ends, begins]))


def sliding_window(length: int, size: int, *, causal: bool = True) -> Mask:
    """A row sees ``size`` keys: itself and those before it, and if not causal as many after it.

    Args:
        length: of the sequence.
        size: 1 or more; 1 is the row itself only. Paddle's ``window_size`` is one less.
        causal: whether a row sees no later key.

    Raises:
        ValueError: ``length`` or ``size`` is below 1.
    """
    return document([_positive("length", length)], causal=causal, window=size)


def shared_question(question: int, answers: Sequence[int]) -> Mask:
    """A question and several answers to it, one after the other, all causal.

    Every answer sees the question and itself, as in training on preferences and reward models.

    Args:
        question: its length.
        answers: lengths of the answers.

    Raises:
        ValueError: a length is below 1, or there is no answer.
    """
    sizes = _lengths("answers", answers)
    length = _positive("question", question) + int(sizes.sum())
    ends = question + np.repeat(np.cumsum(sizes), sizes)
    return Mask(True, _columns([np.concatenate([np.full(question, length), ends])]))


def prefix(length: int, size: int) -> Mask:
    """The first ``size`` keys are seen by every row, the others by later rows: a prefix language model.

    Raises:
        ValueError: ``length`` is below 1, or ``size`` not from 0 to ``length``.
    """
    length = _positive("length", length)
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 0 <= size <= length:
        raise ValueError(f"size must be an integer from 0 to {length}, the length, not {size!r}")
    keys = np.arange(length)
    return Mask(False, _columns([np.full(length, length), np.where(keys < size, 0, keys)]))


def concatenate(parts: Sequence[Mask]) -> Mask:
    """Several sequences behind each other, none of which sees another, each under its own mask.

    Args:
        parts: masks of one batch and head for as many rows as keys, with one number for a key if
            causal, else two. Causal ones and others may be mixed.

    Raises:
        ValueError: not such masks.
    """
    given = _alike(parts)
    pieces: list[np.ndarray] = []
    start = 0
    for index, one in enumerate(given):
        width = 1 if one.causal else 2
        if one.bounds.shape[:2] != (1, 1) or one.bounds.shape[3] != width:
            raise ValueError(
                f"parts[{index}] has bounds of shape {list(one.bounds.shape)}, but must have "
                f"[1, 1, keys, {width}]: rows that are hidden for good leave no room for more numbers"
            )
        keys = one.bounds.shape[2]
        one.check(keys, keys)
        # Rows of the parts before are above the diagonal or before the upper end, those of the parts
        # behind it after the lower begin.
        pieces.append(one.bounds + start)
        start += keys
    return Mask(given[0].causal, np.concatenate(pieces, axis=2))


def stack(parts: Sequence[Mask]) -> Mask:
    """One mask for each sequence of a batch, in order.

    Args:
        parts: masks of batch 1 for the same number of heads and keys. Causal ones and others may be
            mixed.

    Raises:
        ValueError: not such masks.
    """
    given = _alike(parts)
    shapes = [list(one.bounds.shape) for one in given]
    if any(shape != shapes[0] for shape in shapes) or shapes[0][0] != 1:
        raise ValueError(f"parts must have bounds of one shape [1, heads, keys, numbers]: {shapes}")
    return Mask(given[0].causal, np.concatenate([one.bounds for one in given]))


def from_startend_row_indices(indices: Any, *, causal: bool) -> Mask:
    """The mask that ``paddle.nn.functional.flashmask_attention`` means by ``startend_row_indices``.

    Args:
        indices: integers [batch or 1, heads of k or 1, keys, 1, 2 or 4], an array or a CPU tensor; None
            for no bounds.
        causal: as given there.

    Raises:
        ValueError: of another shape, or an end before its begin.
    """
    return Mask(causal, None if indices is None else np.asarray(indices))


def _alike(parts: Sequence[Mask]) -> list[Any]:
    """The masks, all causal or none: causal ones with one number get the diagonal as a second."""
    given = list(parts)
    for index, one in enumerate(given):
        if not isinstance(one, Mask) or one.bounds is None:
            raise ValueError(
                f"parts[{index}] must be a mask with bounds, which knows its length, not {one!r}; a "
                "causal text of n tokens is document([n])"
            )
    if not given:
        raise ValueError("parts must have at least one mask")
    if all(one.causal for one in given):
        return given
    return [_two_sided(one) if one.causal else one for one in given]


def _two_sided(mask: Mask) -> Mask:
    bounds = mask.bounds
    if bounds is None or bounds.shape[3] != 1:
        raise ValueError(
            "a causal mask with two numbers for a key cannot be mixed with masks that are not causal"
        )
    keys = np.arange(bounds.shape[2], dtype=np.int32)[:, None]
    return Mask(False, np.concatenate([bounds, np.broadcast_to(keys, bounds.shape)], axis=3))


def _columns(numbers: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(numbers, axis=-1)[None, None].astype(np.int32)


def _integers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or (array.size and array.max() > INT32_MAX):
        raise ValueError(f"{name} must be integers below 2^31, not {array.dtype}")
    return array


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, not {value!r}")
    return int(value)


def _lengths(name: str, lengths: Sequence[int]) -> np.ndarray:
    sizes = [_positive(f"{name}[{index}]", size) for index, size in enumerate(lengths)]
    if not sizes:
        raise ValueError(f"{name} must have at least one length")
    return np.array(sizes, np.int64)
