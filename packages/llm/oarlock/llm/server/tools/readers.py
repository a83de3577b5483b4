"""Calls in the text of a model, in the notations that chat templates teach."""

from collections.abc import Container

from oarlock.llm.server.tools.call_scanner import SPACES, CallScanner, NotACall
from oarlock.llm.server.tools.events import CallArguments, CallStart, Content, Event


class MarkedReader:
    """Text with calls between an opening and a closing mark: ``<tool_call>{…}</tool_call>``.

    What stands between the marks and is no call of a known function is text, marks included.

    Args:
        names: of the functions there are.
        open_mark: before a call.
        close_mark: after it.
    """

    def __init__(self, names: Container[str], *, open_mark: str, close_mark: str):
        self._names, self._open, self._close = names, open_mark, close_mark
        self._held = ""
        self._calls = 0
        self._scanner: CallScanner | None = None
        self._after_call = self._between = False

    def push(self, text: str) -> list[Event]:
        self._held += text
        events: list[Event] = []
        while self._held and self._advance(events):
            pass
        return events

    def finish(self) -> list[Event]:
        events: list[Event] = []
        if self._scanner is not None and not self._scanner.started:
            events.append(Content(self._open + self._scanner.raw))
        elif self._held and not self._after_call:
            events.append(Content(self._held))
        self._held, self._scanner = "", None
        return events

    def _advance(self, events: list[Event]) -> bool:
        if self._scanner is not None:
            return self._scan(self._scanner, events)
        if self._after_call:
            self._held = self._held.lstrip(SPACES)
            if self._close.startswith(self._held):
                return self._held == self._close and self._close_call()
            return self._close_call()  # also where the closing mark is missing
        if self._between:
            self._held = self._held.lstrip(SPACES)
            self._between = not self._held
        before, mark, after = self._held.partition(self._open)
        if mark:
            _content(before, events)
            self._held, self._scanner = after, CallScanner(self._calls, self._names)
            return True
        keep = overlap(self._held, self._open)
        ready, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        _content(ready, events)
        return False

    def _close_call(self) -> bool:
        self._held = self._held.removeprefix(self._close)
        self._after_call, self._between = False, True
        return True

    def _scan(self, scanner: CallScanner, events: list[Event]) -> bool:
        text, self._held = self._held, ""
        read_before = len(scanner.raw)
        try:
            found, self._held = scanner.push(text)
        except NotACall:
            self._scanner = None
            rest = text[len(scanner.raw) - read_before :]
            _content(self._open + scanner.raw, events)
            self._held = rest
            return True
        events += found
        if not scanner.done:
            return False
        self._calls += 1
        self._scanner, self._after_call = None, True
        return True


class LeadingReader:
    """A text that is calls from its beginning, or no call at all.

    Args:
        names: of the functions there are.
        marks: of which one may stand before the first call.
        separators: between calls, beside spaces; the brackets of a list among them.
    """

    def __init__(
        self, names: Container[str], *, marks: tuple[str, ...] = (), separators: str = ";,[]"
    ):
        self._names, self._marks, self._between = names, marks, separators + SPACES
        self._untold = ""  # text of which it is not known whether it belongs to a call
        self._calls = 0
        self._scanner: CallScanner | None = None
        self._is_text = False

    def push(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text and not self._is_text:
            text = self._advance(text, events)
        _content(text, events)
        return events

    def finish(self) -> list[Event]:
        events: list[Event] = []
        if self._scanner is not None and not self._scanner.started:
            _content(self._untold + self._scanner.raw, events)
        elif self._scanner is None and not self._calls:
            _content(self._untold, events)
        self._untold, self._scanner = "", None
        return events

    def _advance(self, text: str, events: list[Event]) -> str:
        """Read from ``text``; what remains of it."""
        if self._scanner is None:
            self._untold += text
            rest = self._after_mark(self._untold.lstrip(SPACES))
            if not rest:
                return ""
            if rest[0] != "{":
                return self._give_up("")
            self._scanner = CallScanner(self._calls, self._names)
            self._untold, text = self._untold[: len(self._untold) - len(rest)], rest
        read_before = len(self._scanner.raw)
        try:
            found, rest = self._scanner.push(text)
        except NotACall:
            return self._give_up(self._scanner.raw + text[len(self._scanner.raw) - read_before :])
        events += found
        if self._scanner.started:
            self._untold = ""
        if self._scanner.done:
            self._calls += 1
            self._scanner = None
        return rest

    def _after_mark(self, text: str) -> str:
        """``text`` without what may precede a call; empty while that is not clear."""
        if not self._calls:
            for mark in self._marks:
                if text.startswith(mark):
                    return text.removeprefix(mark).lstrip(self._between)
                if mark.startswith(text):
                    return ""
        return text.lstrip(self._between)

    def _give_up(self, read: str) -> str:
        """From here on everything is text, first what was held back."""
        text, self._untold = self._untold + read, ""
        self._is_text, self._scanner = True, None
        return text


class ArgumentsReader:
    """A text that is the arguments of one known function.

    Args:
        name: of the function.
    """

    def __init__(self, name: str):
        self._name, self._begun = name, False

    def push(self, text: str) -> list[Event]:
        if not text:
            return []
        start: list[Event] = [] if self._begun else [CallStart(0, self._name)]
        self._begun = True
        return [*start, CallArguments(0, text)]

    def finish(self) -> list[Event]:
        return []


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that begins ``mark``."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0


def _content(text: str, events: list[Event]) -> None:
    if text:
        events.append(Content(text))
