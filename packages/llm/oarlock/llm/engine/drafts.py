"""A draft: a small model that says what the engine's model may say next.

It has its own cache, and follows the texts that run: what it has not seen of them is computed first, then the tokens that it
would draw, one after another, with the noise with which the model will draw (``sampling``). The model takes
all of them in one step and keeps those that it draws itself. So texts do not depend on the draft, only their speed does.

Source: Leviathan et al., 2211.17192; with common noise in place of rejection: Daliri et al., 2408.07978.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from oarlock.native import decoder
from oarlock.native.decoder import Cache, Decoder, Rows

from oarlock.llm.engine.pages import Holding, OutOfPages, PageTable
from oarlock.llm.engine.sampling import NothingToDraw
from oarlock.llm.engine.texts import Matcher, Text


@dataclasses.dataclass(slots=True, eq=False)
class _Place:
    """Where the draft is in a text.

    Args:
        holding: its pages.
        computed: tokens of the text whose keys and values are in them.
        ahead: guesses after these whose keys and values are there too.
    """

    holding: Holding
    computed: int
    ahead: list[int] = dataclasses.field(default_factory=list)

    def follow(self, tokens: Sequence[int]) -> None:
        """Keep of what was computed ahead what the text went on with, up to the token before its last."""
        for token in self.ahead:
            if self.computed >= len(tokens) - 1 or tokens[self.computed] != token:
                break
            self.computed += 1
        self.ahead = []


@dataclasses.dataclass(slots=True, eq=False)
class _Guessing:
    """Guesses of a text in a step, ``most`` at most."""

    text: Text
    place: _Place
    most: int
    matcher: Matcher | None
    tokens: list[int] = dataclasses.field(default_factory=list)
    ended: bool = False

    def take(self, logits: NDArray[np.float32]) -> None:
        """Draw the next guess."""
        try:
            token = self.text.draw_after(logits, self.tokens, self.matcher)
        except NothingToDraw:
            self.ended = True
            return
        self.tokens.append(token)
        self.ended = len(self.tokens) == self.most or token in self.text.ends
        if self.matcher is not None and not self.ended:
            self.matcher.accept(token)
            self.ended = self.matcher.complete


class Draft:
    """Guesses for the texts of an engine.

    Args:
        model: native decoder, with the vocabulary of the engine's model but for logits that stand for no token.
        vocab: logits of the engine's model.
        most_rows: tokens of a call.
        pages: of its cache.
        cache_format: of keys and values.
        share: whether equal beginnings are computed once.
        threads: of the kernels.
    """

    def __init__(
        self,
        model: decoder.Model,
        *,
        vocab: int,
        most_rows: int,
        pages: int,
        cache_format: str,
        share: bool,
        threads: int,
    ) -> None:
        self.model, self._vocab = model, vocab
        self._decoder, self._most_rows = Decoder(model, most_rows), most_rows
        self._cache = Cache(self._decoder, pages, cache_format)
        self._pages = PageTable(pages, share=share)
        self._threads = threads
        self._places: dict[Text, _Place] = {}
        self._steps, self._busy_s = 0, 0.0

    def guess(
        self, running: Sequence[Text], room: Callable[[Text], int]
    ) -> dict[Text, tuple[int, ...]]:
        """Guesses for the texts that are being written; prompts are followed beside them.

        A text has none while the draft has not seen all of it (a call takes ``most_rows`` tokens), where it is
        longer than the draft's positions or has a token that the draft has not, or where there is no page for it.

        Args:
            running: texts that have pages in the engine; all others are forgotten.
            room: how many guesses a text may have.
        """
        start = time.perf_counter()
        for text in self._places.keys() - set(running):
            self.forget(text)
        guessing = self._follow([text for text in running if room(text) > 0], room)
        active = guessing
        while active := [one for one in active if not one.ended and self._has_room(one)]:
            rows = []
            for one in active:
                place = one.place
                rows.append(Rows(one.tokens[-1:], place.computed + len(place.ahead), place.holding.pages))  # fmt: skip
                place.ahead.append(one.tokens[-1])
            for one, logits in zip(active, self._forward(rows, range(len(rows)))):
                one.take(logits)
        self._busy_s += time.perf_counter() - start
        return {one.text: tuple(one.tokens) for one in guessing}

    def forget(self, text: Text) -> None:
        """A text has ended or was put off."""
        place = self._places.pop(text, None)
        if place is not None:
            self._pages.release(place.holding)

    def stats(self) -> Mapping[str, float]:
        """Numbers of the moment and since the start."""
        used = self._cache.pages - self._pages.available
        return {"draft_steps": self._steps, "draft_pages_used": used, "draft_busy_s": self._busy_s}

    def _follow(self, texts: Sequence[Text], room: Callable[[Text], int]) -> list[_Guessing]:
        """Compute what was not seen of texts, and the first guess of those that are being written."""
        left = self._most_rows
        rows: list[Rows] = []
        wanted: list[int] = []
        complete: list[_Guessing] = []
        followed: list[tuple[Text, _Place]] = []
        for text in sorted(texts, key=lambda text: text.missing > 1):  # those being written first
            if left == 0 or len(text.tokens) > self.model.max_length:
                continue
            place = self._place(text)
            if text.missing == 1:  # the logits of its last token are wanted, perhaps again
                place.computed = min(place.computed, len(text.tokens) - 1)
            count = min(len(text.tokens) - place.computed, left)
            if count == 0:
                continue
            try:
                self._pages.extend(place.holding, place.computed + count)
            except OutOfPages:
                self.forget(text)
                continue
            tokens = text.tokens[place.computed : place.computed + count]
            if max(tokens) >= self.model.vocab:
                self.forget(text)
                continue
            rows.append(Rows(tokens, place.computed, place.holding.pages))
            left -= count
            place.computed += count
            followed.append((text, place))
            if place.computed == len(text.tokens) and text.missing == 1:
                wanted.append(self._most_rows - left - 1)
                matcher = None if text.matcher is None else text.matcher.copy()
                complete.append(_Guessing(text, place, room(text), matcher))
        if rows:
            logits = self._forward(rows, wanted)
            for text, place in followed:
                self._pages.publish(place.holding, text.tokens, place.computed)
            for one, row in zip(complete, logits):
                one.take(row)
        return complete

    def _place(self, text: Text) -> _Place:
        place = self._places.get(text)
        if place is None:
            # One token at least is computed: its logits are wanted.
            holding = self._pages.find(text.tokens[:-1])
            place = self._places[text] = _Place(holding, len(holding.path) * decoder.PAGE)
        place.follow(text.tokens)
        return place

    def _has_room(self, one: _Guessing) -> bool:
        """Take the page of one more position, if there is one."""
        position = one.place.computed + len(one.place.ahead)
        if position >= self.model.max_length:
            return False
        try:
            self._pages.extend(one.place.holding, position + 1)
        except OutOfPages:
            return False
        return True

    def _forward(self, rows: Sequence[Rows], wanted: Sequence[int]) -> NDArray[np.float32]:
        """Logits [wanted, vocab of the engine's model]."""
        self._steps += 1
        logits = self._decoder.forward(
            self._cache, rows, wanted=np.array(wanted, np.int32), threads=self._threads
        )
        missing = max(0, self._vocab - logits.shape[1])
        if missing:
            logits = np.pad(logits, ((0, 0), (0, missing)), constant_values=-np.inf)
        return logits[:, : self._vocab]
