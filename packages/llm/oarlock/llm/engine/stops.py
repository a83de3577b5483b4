"""Where a text ends: stop texts that may begin before the end of what is known."""

from collections.abc import Sequence


class StopTexts:
    """Passes a growing text on, but for what may turn out to begin a stop text.

    Args:
        stops: texts that end it, themselves left out.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """What can be passed on, and the stop text that was met, the earliest in the text."""
        self._held += text
        met = [(self._held.find(stop), -len(stop), stop) for stop in self._stops]
        met = [one for one in met if one[0] >= 0]
        if met:
            place, _, stop = min(met)
            passed, self._held = self._held[:place], ""
            return passed, stop
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        place = len(self._held) - keep
        passed, self._held = self._held[:place], self._held[place:]
        return passed, None

    def finish(self) -> str:
        """What was held back: the text has ended otherwise."""
        passed, self._held = self._held, ""
        return passed


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``, not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
