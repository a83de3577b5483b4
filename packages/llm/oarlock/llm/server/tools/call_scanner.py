"""One call, a JSON object with a name and arguments, character by character."""

import json
from collections.abc import Container

from oarlock.llm.server.tools.events import CallArguments, CallStart, Event

NAME_KEYS = ("name",)
ARGUMENT_KEYS = ("arguments", "parameters")
SPACES = " \t\r\n"


class NotACall(Exception):
    """The text is something else; nothing of it has been told."""


class CallScanner:
    """Finds the name and the arguments of ``{"name": …, "arguments": {…}}`` while it is written.

    Arguments are passed on as they are spelt, once the name is known. What contradicts the form
    before that is `NotACall`; after it, everything up to the end counts as arguments, which are
    then no valid JSON (clients must expect that of any model).

    Args:
        index: of the call.
        names: of the functions there are.
    """

    def __init__(self, index: int, names: Container[str]):
        self._index, self._names = index, names
        self._raw: list[str] = []
        self._depth = 0
        self._in_string = self._escaped = False
        self._key: str | None = None
        self._token: list[str] = []  # of a string or value at the object's own level
        self._expects = "open"
        self._name: str | None = None
        self._early: list[str] = []  # arguments before the name
        self._has_arguments = False
        self.done = False

    @property
    def raw(self) -> str:
        """All that was read."""
        return "".join(self._raw)

    @property
    def started(self) -> bool:
        """Whether the call has been told of."""
        return self._name is not None

    def push(self, text: str) -> tuple[list[Event], str]:
        """Read on; the events, and what follows the object's end."""
        events: list[Event] = []
        arguments: list[str] = []
        for at, character in enumerate(text):
            self._raw.append(character)
            if self._name is None:
                self._step(character, self._early)
                if self._name is not None:
                    events.append(CallStart(self._index, self._name))
                    arguments += self._early
            else:
                self._step(character, arguments)
            if self.done:
                break
        rest = text[at + 1 :] if self.done else ""
        if self.done and self._name is None:
            raise NotACall
        if self.done and not self._has_arguments:
            arguments.append("{}")
        if arguments:
            events.append(CallArguments(self._index, "".join(arguments)))
        return events, rest

    def _step(self, character: str, arguments: list[str]) -> None:
        if self._expects == "value":
            self._value(character, arguments)
        elif self._in_string:
            self._key_character(character)
        elif character in SPACES:
            pass
        elif (self._expects, character) == ("open", "{"):
            self._expects = "key or end"
        elif character == '"' and self._expects in ("key", "key or end"):
            self._in_string, self._token = True, ['"']
        elif (self._expects, character) == ("colon", ":"):
            self._expects, self._token = "value", []
        elif (self._expects, character) == ("comma or end", ","):
            self._expects = "key"
        elif character == "}" and self._expects in ("comma or end", "key or end"):
            self.done = True
        else:
            self._broken(character, arguments)

    def _key_character(self, character: str) -> None:
        self._token.append(character)
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string, self._expects = False, "colon"
            self._key = _string("".join(self._token))

    def _value(self, character: str, arguments: list[str]) -> None:
        """A value at the object's own level; it ends where its brackets, quotes or a comma say."""
        spells_arguments = self._key in ARGUMENT_KEYS
        if not self._token and character in SPACES:
            return
        if not self._in_string and self._depth == 0 and self._token and character in ",}":
            self._end_value()  # of a number or word
            self._expects = "comma or end"
            self._step(character, arguments)
            return
        self._token.append(character)
        if spells_arguments:
            self._has_arguments = True
            arguments.append(character)
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
                if self._depth == 0:
                    self._end_value()
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            if self._depth <= 0:
                self._end_value()
        if spells_arguments and self._token[0] != "{":
            self._broken("", arguments)

    def _end_value(self) -> None:
        if self._key in NAME_KEYS and self._name is None:
            name = _string("".join(self._token))
            if name is None or name not in self._names:
                raise NotACall
            self._name = name
        self._expects = "comma or end"

    def _broken(self, character: str, arguments: list[str]) -> None:
        if self._name is None:
            raise NotACall
        arguments.append(character)


def _string(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
