"""The terminal's side of a conversation: lines, commands, and answers that Ctrl-C stops."""

import difflib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from oarlock.llm.cli.conversation import Conversation

HELP = """\
/help            this
/reset           forget the conversation, but not what /system said
/system [TEXT]   tell the model something before the conversation, or nothing
/undo            take the last message and its answer back
/retry           answer the last message again
/set NAME VALUE  a sampling parameter, such as temperature 0.2; none for no limit
/save FILE       write the conversation as JSON
/load FILE       go on from such a file
/stats           tokens, and the speed of the last answer
/exit            leave, as Ctrl-D does

A line that ends with \\ goes on in the next. A message that begins with / is written with //."""
_COMMANDS = re.findall(r"^/(\w+)", HELP, re.M)
#: What a terminal would obey instead of showing, but for tabs and line ends.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Leave(Exception):
    """The user wants to end."""


def talk(conversation: Conversation) -> None:
    """Read messages and commands until they end; write answers.

    Where stdin is no terminal, nothing is written but answers, and the first that goes wrong ends the program.

    Raises:
        ValueError: of a pipe, a message or command is refused.
    """
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        _edit_lines()
        print("/help tells the commands; Ctrl-C stops an answer, Ctrl-D ends.", file=sys.stderr)
        with _uninterrupted():
            _turns(conversation, _typed(), at_terminal)
    else:
        _turns(conversation, _piped(), at_terminal)


def _turns(conversation: Conversation, texts: Iterator[str], at_terminal: bool) -> None:
    for text in texts:
        if not text.strip():
            continue
        try:
            _take(conversation, text)
        except _Leave:
            return
        except (ValueError, OSError) as error:
            if not at_terminal:
                raise
            print(f"{error}", file=sys.stderr)


def _take(conversation: Conversation, text: str) -> None:
    if text.startswith("//"):
        _say(conversation, text[1:])
    elif text.startswith("/"):
        _command(conversation, *_split(text))
    else:
        _say(conversation, text)


def _split(text: str) -> tuple[str, str]:
    name, _, rest = text[1:].strip().partition(" ")
    return name, rest.strip()


def _command(conversation: Conversation, name: str, rest: str) -> None:
    if name in ("exit", "quit"):
        raise _Leave
    if name == "help":
        print(HELP, file=sys.stderr)
    elif name == "reset":
        conversation.reset()
    elif name == "system":
        conversation.system(rest or None)
    elif name == "undo":
        conversation.undo()
    elif name == "retry":
        _say(conversation, conversation.undo())
    elif name == "set":
        setting, _, value = rest.partition(" ")
        conversation.set(setting, value.strip())
    elif name in ("save", "load"):
        if not rest:
            raise ValueError(f"/{name} needs a file.")
        act = conversation.save if name == "save" else conversation.load
        act(Path(rest).expanduser())
    elif name == "stats":
        print(_stats(conversation), file=sys.stderr)
    else:
        near = difflib.get_close_matches(name, _COMMANDS, 1)
        hint = f"did you mean /{near[0]}?" if near else "/help tells the commands."
        raise ValueError(f"there is no /{name}: {hint}")


def _stats(conversation: Conversation) -> str:
    held = f"{conversation.tokens} of {conversation.llm.engine.max_length} tokens"
    if conversation.last is None:
        return held
    count, seconds, reason = conversation.last
    return f"{held}; the last answer: {count} tokens in {seconds:.2f} s, ended by {reason}"


def _say(conversation: Conversation, text: str) -> None:
    clean = sys.stdout.isatty()
    with _stoppable() as stopped:
        for piece in conversation.answer(text, stopped):
            sys.stdout.write(_CONTROL.sub("\ufffd", piece) if clean else piece)
            sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
    assert conversation.last is not None
    count, _, reason = conversation.last
    if reason in ("length", "stopped"):
        why = "stopped" if reason == "stopped" else f"cut after {count} tokens"
        print(f"[{why}]", file=sys.stderr)


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed meanwhile; pressed again it interrupts as ever.

    A step of the engine is not to be interrupted halfway, so that the first one only asks.
    """
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C does nothing but where a line is awaited or an answer written, however short the time between."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _typed() -> Iterator[str]:
    """Messages from a terminal; Ctrl-C begins anew, Ctrl-D ends."""
    lines: list[str] = []
    while True:
        try:
            with _interruptible():
                line = input("> " if not lines else ". ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\nCtrl-D ends.", file=sys.stderr)
            lines = []
            continue
        if line.endswith("\\"):
            lines.append(line[:-1])
            continue
        yield "\n".join([*lines, line])
        lines = []


def _piped() -> Iterator[str]:
    lines: list[str] = []
    for line in sys.stdin:
        line = line.removesuffix("\n")
        if line.endswith("\\"):
            lines.append(line[:-1])
            continue
        yield "\n".join([*lines, line])
        lines = []
    if lines:
        yield "\n".join(lines)


def _edit_lines() -> None:
    """History and completion of commands, where Python has them."""
    try:
        import readline
    except ImportError:  # a Python that was built without
        return

    def complete(text: str, state: int) -> str | None:
        found = [f"/{name}" for name in _COMMANDS if f"/{name}".startswith(text)]
        return found[state] if text.startswith("/") and state < len(found) else None

    readline.set_completer_delims(" ")
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
