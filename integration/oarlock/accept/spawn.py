"""Starts fresh interpreters that import from where this one does, and ends them with all they started.

Pants and editable installations put source folders on `sys.path` in ways that a fresh interpreter
does not know, partly as paths relative to the working folder; so the search path is handed over.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from importlib import import_module;"
    " import_module(sys.argv[2]).main(json.loads(sys.argv[3]))"
)


def search_path() -> list[str]:
    """`sys.path` as absolute paths, without the folder of a script inside this package."""
    inside = Path(__file__).resolve().parent
    absolute = [os.path.abspath(entry) for entry in sys.path]
    return [entry for entry in dict.fromkeys(absolute) if Path(entry).resolve() != inside]


def command(module: str, argument: Any) -> list[str]:
    """The command line that calls `main(argument)` of a module in a fresh interpreter."""
    return [sys.executable, "-c", _BOOT, json.dumps(search_path()), module, json.dumps(argument)]


def end(process: subprocess.Popen, patience_s: float) -> None:
    """Ends a process that leads its own group, and then whatever is left of the group.

    It is interrupted as by Ctrl-C first and has `patience_s` seconds to close what it has open.
    """
    try:
        if process.poll() is None and patience_s > 0:
            process.send_signal(signal.SIGINT)
            process.wait(patience_s)
    except subprocess.TimeoutExpired:
        pass  # it is killed now
    finally:  # at once, if Ctrl-C comes again
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nothing is left of the group
        process.wait()


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a text file."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 100 * 1024))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.rstrip().splitlines()[-lines:])
