"""Which texts take part in a step, and with how many tokens.

Texts that are being written go first, one token each; then prompts, in parts as large as a step has room for.
Where pages run out, the text that came last gives its own back and is computed again later; much of it is
found in the tree of prefixes then.
"""

import bisect
import dataclasses
from collections.abc import Callable

from oarlock.native.decoder import PAGE

from oarlock.llm.engine.pages import OutOfPages, PageTable
from oarlock.llm.engine.texts import Text


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """The next tokens of a text: ``count`` of those it has, then guesses of what follows."""

    text: Text
    count: int
    guesses: tuple[int, ...] = ()


class Scheduler:
    """Waiting and running texts over one table of pages.

    Args:
        pages: of the cache.
        most_rows: tokens of a step.
        most_texts: that run at a time.
        guess: for a text that is being written, tokens that may follow; or None.
    """

    def __init__(
        self,
        pages: PageTable,
        most_rows: int,
        most_texts: int,
        guess: Callable[[Text], tuple[int, ...]] | None = None,
    ) -> None:
        self.pages, self.most_rows, self.most_texts = pages, most_rows, most_texts
        self.guess = guess
        self.waiting: list[Text] = []  # by order
        self.running: list[Text] = []  # by order
        self.preemptions = 0

    def add(self, text: Text) -> None:
        """Let a text wait for its turn."""
        bisect.insort(self.waiting, text, key=_order)

    def run(self, text: Text) -> None:
        """Take a text that has its pages already."""
        bisect.insort(self.running, text, key=_order)

    def remove(self, text: Text) -> None:
        """A text has ended."""
        (self.running if text in self.running else self.waiting).remove(text)
        self.pages.release(text.holding)

    def plan(self) -> list[Part]:
        """What to compute next; its pages are taken. Empty only if nothing waits or runs."""
        left, parts = self.most_rows, []
        written = [text for text in self.running if text.missing == 1]
        prompts = [text for text in self.running if text.missing > 1]
        for text in written + prompts:
            if text not in self.running or left == 0:
                continue  # it had to make room, or must wait for the next step
            part = self._part(text, left)
            if part is None:
                continue
            left -= part.count + len(part.guesses)
            parts.append(part)
        parts = [part for part in parts if part.text in self.running]
        while self.waiting and left > 0 and len(self.running) < self.most_texts:
            part = self._admit(self.waiting[0], left)
            if part is None:
                break
            left -= part.count
            parts.append(part)
        return parts

    def _part(self, text: Text, left: int) -> Part | None:
        """The next part of a running text; None if it had to give its pages back itself."""
        count = min(text.missing, left)
        guesses: tuple[int, ...] = ()
        if self.guess is not None and text.missing == 1:
            guesses = self.guess(text)[: left - count]
        while True:
            try:
                self.pages.extend(text.holding, text.computed + count + len(guesses))
                return Part(text, count, guesses)
            except OutOfPages:
                if guesses:
                    guesses = ()
                    continue
                last = self.running[-1]
                self._preempt(last)
                if last is text:
                    return None

    def _admit(self, text: Text, left: int) -> Part | None:
        """Start a waiting text, if there are pages for its next part beside one for each that runs."""
        if text.computed == 0:
            # The token before what comes next, or is reported, is computed: its logits are wanted.
            text.holding = self.pages.find(text.tokens[: text.reported - 1], text.adapter)
            text.computed = len(text.holding.path) * PAGE
        count = min(text.missing, left)
        try:
            if self.running and self.pages.available < len(self.running) + -(-count // PAGE) + 1:
                raise OutOfPages
            self.pages.extend(text.holding, text.computed + count)
        except OutOfPages:
            self.pages.release(text.holding)
            text.computed = 0
            return None
        if text.drawn == 0:
            text.cached = max(text.cached, text.computed)
        self.waiting.remove(text)
        self.run(text)
        return Part(text, count)

    def preempt_last(self) -> None:
        """Make the text that came last give its pages back until it is its turn again."""
        self._preempt(self.running[-1])

    def _preempt(self, text: Text) -> None:
        self.running.remove(text)
        self.pages.release(text.holding)
        text.computed = 0
        self.preemptions += 1
        self.add(text)


def _order(text: Text) -> tuple[int, int]:
    return text.order
