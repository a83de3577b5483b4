"""Starts the confined process, waits for it, and reads what it found."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from oarlock.llm.eval.sandbox import child, landlock

CHILD = Path(child.__file__)
Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


class SandboxUnavailable(RuntimeError):
    """This system lacks what confines a process, and weaker means were not allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use.

    Args:
        wall_s: seconds from start to end.
        cpu_s: seconds of processor time.
        memory_mb: address space.
        output_mb: what it may print, and the size of each file.
        processes: of the user, where the kernel counts them for this process.
    """

    wall_s: float = 10.0
    cpu_s: int = 5
    memory_mb: int = 512
    output_mb: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise ValueError(f"{field.name} must be a number above 0, got {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What confines a process here, beside limits and the audit hook."""

    namespaces: bool
    landlock: bool

    @property
    def strong(self) -> bool:
        """Whether the kernel itself keeps the process from network and files."""
        return self.namespaces and self.landlock


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a program.

    Args:
        status: "ok" if it was read and all calls were made, whatever they returned; else what ended it.
        values: result of each call, None where it raised.
        errors: one a call, empty where it returned.
        printed: what it wrote to standard output and error, the first part.
        detail: of a status that is not "ok".
        seconds: wall time.
    """

    status: Status
    values: list[Any]
    errors: list[str]
    printed: str
    detail: str
    seconds: float


@cache
def isolation() -> Isolation:
    """What this system offers; looked up once."""
    return Isolation(namespaces=_can_unshare(), landlock=landlock.version() > 0)


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_unshare(), "true"], capture_output=True, timeout=10).returncode == 0


def _unshare() -> list[str]:
    return "unshare --map-root-user --net --pid --mount --ipc --fork --kill-child --".split()


def call(
    code: str,
    entry: str | None,
    calls: Sequence[Sequence[Any]] = (),
    *,
    limits: Limits = Limits(),
    allow_weak: bool = False,
    use: Isolation | None = None,
) -> Outcome:
    """Run ``code``, then call its function ``entry`` with each of the arguments.

    Only the arguments go in and only results come out (as JSON), so that a program cannot know what is
    expected of it.

    Args:
        code: a Python program.
        entry: name of the function; None to run the program alone.
        calls: positional arguments of each call.
        limits: of time and memory.
        allow_weak: run even where the kernel does not confine the process.
        use: what to use of what this system offers; None for all of it.

    Raises:
        SandboxUnavailable: the kernel cannot confine a process, and ``allow_weak`` is False.
    """
    use = isolation() if use is None else use
    if not use.strong and not allow_weak:
        raise SandboxUnavailable(
            "code must not run here: the system lacks "
            + " and ".join(
                name
                for name, there in (
                    ("unprivileged namespaces (unshare)", use.namespaces),
                    ("Landlock", use.landlock),
                )
                if not there
            )
            + ". Run in a container of its own and pass allow_weak=True, or leave out tasks of code."
        )
    with tempfile.TemporaryDirectory(prefix="oarlock-sandbox-") as folder:
        work, answer, printed = (Path(folder) / name for name in ("work", "answer", "printed"))
        work.mkdir()
        order = {
            "code": code,
            "entry": entry,
            "calls": [list(arguments) for arguments in calls],
            "limits": dataclasses.asdict(limits),
            "work": str(work),
            "namespaces": use.namespaces,
            "landlock": use.landlock,
            "landlock_source": str(Path(landlock.__file__)),
        }
        start = time.monotonic()
        status, code_of_exit = _start(order, answer, printed, limits, use)
        seconds = time.monotonic() - start
        text = printed.read_bytes()[: 1 << 16].decode(errors="replace")
        raw = answer.read_bytes()
        full = printed.stat().st_size >= limits.output_mb << 20
    found: dict[str, Any] = {}
    if raw and status == "ok":
        try:
            found = json.loads(raw)
        except ValueError:
            found = {"status": "error", "detail": "its answer is no JSON"}
    if not found:
        found = _unfinished(status, code_of_exit, full)
    elif full:
        found["status"], found["detail"] = "output", f"printed more than {limits.output_mb} MB"
    return Outcome(
        status=found["status"],
        values=found.get("values", []),
        errors=found.get("errors", []),
        printed=text,
        detail=found.get("detail", ""),
        seconds=seconds,
    )


def _start(
    order: dict[str, Any], answer: Path, printed: Path, limits: Limits, use: Isolation
) -> tuple[Literal["ok", "timeout"], int]:
    prefix = _unshare() if use.namespaces else []
    environment = {"PATH": "/usr/bin:/bin", "HOME": order["work"], "LANG": "C.UTF-8"}
    with answer.open("wb") as answers, printed.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-B", str(CHILD), str(answers.fileno())],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[answers.fileno()],
            cwd=order["work"],
            env=environment,
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(order).encode(), timeout=limits.wall_s)
            return "ok", process.returncode
        except subprocess.TimeoutExpired:
            return "timeout", -signal.SIGKILL
        finally:
            # the group, and with it the namespace: nothing that it started outlives it
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def _unfinished(status: str, code: int, full: bool) -> dict[str, Any]:
    if status == "timeout":
        return {"status": "timeout", "detail": "ran out of wall time"}
    if full:
        return {"status": "output", "detail": "printed too much"}
    signal_number = -code if code < 0 else code - 128
    if signal_number in (signal.SIGXCPU, signal.SIGKILL):
        return {"status": "timeout", "detail": "ran out of processor time, or was killed"}
    return {"status": "killed", "detail": f"left with code {code} and no answer"}
