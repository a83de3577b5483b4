"""`doctor`: what this machine can run, what is missing, and how to get it."""

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import typer
from rich.markup import escape

from oarlock.accept import data, experiment, peers, prepare, stamp
from oarlock.accept.commands.common import AsJson, explained, out, print_json, table


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `remedy` says how to get what is missing."""

    what: str
    found: str
    state: str  # "ok", "missing", "optional"
    remedy: str = ""


def _python() -> Iterator[Finding]:
    running = platform.python_version()
    yield Finding(what="Python", found=running, state="ok")
    paddle = stamp.version("paddlepaddle") or stamp.version("paddlepaddle-gpu")
    if paddle is None or importlib.util.find_spec("paddle") is None:
        remedy = "pip install 'paddlepaddle>=3.3,<3.4'"
        yield Finding(what="Paddle", found="not installed", state="missing", remedy=remedy)
    else:
        state = "ok" if paddle.startswith("3.3") else "missing"
        remedy = "" if state == "ok" else "pip install 'paddlepaddle>=3.3,<3.4'"
        yield Finding(what="Paddle", found=paddle, state=state, remedy=remedy)


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    hardware = stamp.hardware()
    yield Finding(what="CPU", found=f"{hardware['cpu']}, {hardware['cores']} cores", state="ok")
    available = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield Finding(what="memory", found=available, state="ok")
    yield Finding(what="limits", found=str(hardware["limits"]), state="ok")


def _kernels() -> Iterator[Finding]:
    remedy = "pip install oarlock-native (in a checkout: scripts/dev-venv.sh)"
    if importlib.util.find_spec("oarlock.native") is None:
        yield Finding(what="kernels", found="not installed", state="missing", remedy=remedy)
        return
    from oarlock import native

    try:
        found = " ".join(str(native.info()).split())
    except native.LibraryUnavailable as error:
        yield Finding(what="kernels", found=str(error), state="missing", remedy=remedy)
        return
    yield Finding(what="kernels", found=found, state="ok")


def _tool(what: str, names: list[str], remedy: str) -> Finding:
    """A program that can be done without."""
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        return Finding(what=what, found="none", state="optional", remedy=remedy)
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    version = next((line for line in lines if "release" in line), lines[0] if lines else path)
    return Finding(what=what, found=version.strip(), state="ok")


def _tools() -> Iterator[Finding]:
    compilers = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    yield _tool(
        "C++ compiler", [c for c in compilers if c], "only to build kernels: g++ or clang++"
    )
    yield _tool("CUDA compiler", ["nvcc", "/usr/local/cuda/bin/nvcc"], "only for CUDA kernels")
    cards = stamp.gpus()
    remedy = "" if cards else "only for --tier gpu"
    state = "ok" if cards else "optional"
    yield Finding(what="GPU", found=", ".join(cards) or "none", state=state, remedy=remedy)


def _needs() -> Iterator[Finding]:
    experiments = experiment.discover()
    for name in sorted({name for one in experiments for name in one.data}):
        users = ", ".join(one.id for one in experiments if name in one.data)
        status = data.status(name)
        if status.present:
            size = f"{status.bytes / 1e6:.1f} MB"
            yield Finding(what=f"data {name}", found=size, state="ok")
            continue
        downloadable = status.reason.endswith("(can be downloaded)")
        remedy = "set OARLOCK_DATA to a folder that holds it"
        remedy += ", or let `run` download it" if downloadable else ""
        state = "optional" if downloadable else "missing"
        found = f"{status.reason}; for {users}"
        yield Finding(what=f"data {name}", found=found, state=state, remedy=remedy)
    for name in peers.load():
        users = ", ".join(one.id for one in experiments if name in one.peers) or "no experiment yet"
        ready = peers.state(name) == "ready"
        found = "installed" if ready else f"not installed; compared with in {users}"
        remedy = "" if ready else f"oarlock-accept peers install {name}"
        state = "ok" if ready else "optional"
        yield Finding(what=f"peer {name}", found=found, state=state, remedy=remedy)


def _models() -> Iterator[Finding]:
    for name in prepare.names():
        status = prepare.status(name)
        ready = status.state == "ready"
        begun = f"step {status.step} of {status.steps}" if status.state == "begun" else status.state
        yield Finding(
            what=f"model {name}",
            found=begun,
            state="ok" if ready else "optional",
            remedy="" if ready else f"oarlock-accept prepare {name}",
        )


def findings() -> list[Finding]:
    """All that was looked at."""
    parts = (_python, _machine, _kernels, _tools, _needs, _models)
    return [finding for part in parts for finding in part()]


@explained
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can run, what is missing, and how to get it. Writes nothing.

    Exit code: 1 if something is missing that experiments need, else 0.
    """
    found = findings()
    missing = [one for one in found if one.state == "missing"]
    if as_json:
        fields = ("what", "found", "state", "remedy")
        print_json([{field: getattr(one, field) for field in fields} for one in found])
    else:
        rows = table("what", "state", "found")
        styles = {"ok": "green", "missing": "red", "optional": "yellow"}
        for one in found:
            remedy = f"\n→ {escape(one.remedy)}" if one.remedy else ""
            style = styles[one.state]
            rows.add_row(one.what, f"[{style}]{one.state}[/]", escape(one.found) + remedy)
        out().print(rows)
        out().print(
            f"\n{len(missing)} missing" if missing else "\nall is here that experiments need"
        )
    raise typer.Exit(1 if missing else 0)
