"""Runs `ip` and `tc`, whose refusals become errors."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence


class LabUnavailable(RuntimeError):
    """This machine, or this user, cannot have a lab (or that part of it); the message says why."""


class CommandError(RuntimeError):
    """A command of the system failed; the message holds the command and its words."""


def tool(name: str) -> str:
    """The path of a system program.

    Raises:
        LabUnavailable: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if found is None:
        raise LabUnavailable(f"the program {name} is not installed (it is part of iproute2)")
    return found


def run(command: Sequence[str], given: str | None = None) -> None:
    """Runs a command to its end, with `given` as its input.

    Raises:
        CommandError: it failed.
    """
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        commands = f" with {given.strip()!r}" if given else ""
        raise CommandError(f"{' '.join(command)}{commands}: {words}")


def batch(program: str, namespace: str, lines: Iterable[str]) -> None:
    """Gives several commands to one `ip` or `tc`, all of them for that namespace.

    Raises:
        CommandError: one failed; those after it have not run.
    """
    run([tool(program), "-n", namespace, "-batch", "-"], "\n".join(lines) + "\n")
