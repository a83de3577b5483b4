"""What is found in a text as it grows."""

import dataclasses
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """Text for the reader."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins: its place among the text's calls, and the function's name."""

    index: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class CallArguments:
    """A further piece of a call's arguments, which are JSON."""

    index: int
    text: str


Event = Content | CallStart | CallArguments


class Reader(Protocol):
    """Takes a text in pieces."""

    def push(self, text: str) -> list[Event]:
        """What the next piece adds."""

    def finish(self) -> list[Event]:
        """What remains when the text has ended."""


class PlainReader:
    """A text without calls."""

    def push(self, text: str) -> list[Event]:
        return [Content(text)] if text else []

    def finish(self) -> list[Event]:
        return []
