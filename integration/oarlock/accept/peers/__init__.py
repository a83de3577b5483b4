"""Libraries that experiments compare with, each in a cached environment of its own.

>>> from oarlock.accept import peers
>>> with Worker.start(script, python=peers.python("torch")) as worker: ...

Programs that run there lie in `peers/<name>/`: they may import the standard library and what the peer
brings, nothing of ours.
"""

import difflib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "InstallFailed",
    "Peer",
    "PeerMissing",
    "find",
    "folder",
    "install",
    "load",
    "python",
    "scripts",
    "state",
    "summary",
    "versions",
]

_RECORD = "peer.json"


class PeerMissing(LookupError):
    """The environment of a peer is not installed; the message says how to install it."""


class InstallFailed(RuntimeError):
    """An environment could not be made; the message holds the last lines of what was printed."""


class Peer(BaseModel):
    """An entry of `peers.toml`, where the fields are explained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    summary: str
    requirements: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._\[\]-]+==[^\s*]+$")], ...]
    bare: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[^\s*]+$")], ...] = ()
    python: Annotated[str, Field(pattern=r"^3\.\d+$")]
    size_mb: Annotated[int, Field(ge=0)]

    @property
    def key(self) -> str:
        """A hash of all that decides the environment."""
        text = "\n".join([platform.python_version(), platform.machine(), *self.requirements])
        if self.bare:
            text += "\n".join(["", "bare", *self.bare])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def load() -> dict[str, Peer]:
    """All peers by name."""
    text = (files("oarlock.accept.peers") / "peers.toml").read_text(encoding="utf-8")
    found = [Peer.model_validate(entry) for entry in tomllib.loads(text)["peer"]]
    return {peer.name: peer for peer in found}


def find(name: str) -> Peer:
    """The peer of a name; ValueError proposes near ones."""
    known = load()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
    raise ValueError(f"no peer {name!r}; did you mean {', '.join(near)}?")


def folder(peer: Peer) -> Path:
    """Where its environment lies, or would."""
    return platformdirs.user_cache_path("oarlock") / "peers" / f"{peer.name}-{peer.key}"


def scripts(name: str) -> Path:
    """The folder of the programs that run in the peer's environment."""
    return Path(__file__).parent / find(name).name


def state(name: str) -> Literal["ready", "begun", "absent"]:
    """Whether the environment is there; `begun` where an installation did not finish."""
    where = folder(find(name))
    if (where / _RECORD).exists():
        return "ready"
    return "begun" if where.exists() else "absent"


def python(name: str) -> Path:
    """The interpreter of the peer's environment.

    Raises:
        ValueError: no such peer. PeerMissing: not installed; names the command.
    """
    peer = find(name)
    if state(name) != "ready":
        raise PeerMissing(
            f"the environment of peer {name} ({', '.join(peer.requirements)}) is not installed;"
            f" `oarlock-accept peers install {name}` makes it (about {peer.size_mb} MB)"
        )
    return folder(peer) / "bin" / "python"


def versions(name: str) -> dict[str, str]:
    """The versions in the peer's environment, as recorded when it was installed."""
    python(name)
    record = json.loads((folder(find(name)) / _RECORD).read_text(encoding="utf-8"))
    return record["versions"]


def summary(name: str) -> str:
    """The versions of what was asked for, such as "torch 2.13.0, numpy 1.26.4"."""
    installed, peer = versions(name), find(name)
    asked = [
        requirement.split("==")[0].split("[")[0] for requirement in (*peer.requirements, *peer.bare)
    ]
    return ", ".join(f"{one} {installed[one]}" for one in asked if one in installed)


def install(name: str) -> Path:
    """Makes the environment of a peer with venv and pip, unless it is there; its interpreter.

    What pip prints is kept in a `.log` file beside the environment. `peer.json` is written last, so
    that an environment without it is known to be incomplete, and is made anew.

    Raises:
        ValueError: no such peer. InstallFailed: with the reason.
    """
    peer = find(name)
    running = ".".join(platform.python_version_tuple()[:2])
    if running != peer.python:
        raise InstallFailed(f"peer {name} needs CPython {peer.python}; this is {running}")
    where = folder(peer)
    with _locked(where):
        if state(name) == "ready":
            return python(name)
        if where.exists():
            shutil.rmtree(where)
        base = getattr(sys, "_base_executable", sys.executable)
        pip = [] if peer.requirements else ["--without-pip"]
        log = where.with_name(f"{where.name}.log")
        _call([base, "-m", "venv", *pip, str(where)], log, name)
        inside = str(where / "bin" / "python")
        if peer.requirements:
            arguments = ["--disable-pip-version-check", "--no-input", *peer.requirements]
            _call([inside, "-m", "pip", "install", *arguments], log, name)
        if peer.bare:
            arguments = ["--disable-pip-version-check", "--no-input", "--no-deps", *peer.bare]
            _call([inside, "-m", "pip", "install", *arguments], log, name)
        listing = (
            "import json, importlib.metadata as m;"
            " print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
        )
        answer = subprocess.run(
            [inside, "-I", "-c", listing], check=True, capture_output=True, text=True
        )
        record = {
            "name": name,
            "requirements": [*peer.requirements, *peer.bare],
            "versions": {"python": platform.python_version()} | json.loads(answer.stdout),
        }
        part = where / f".{_RECORD}"
        part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(where / _RECORD)
    return python(name)


def _call(command: list[str], log: Path, name: str) -> None:
    places = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in places}
    with log.open("a", encoding="utf-8") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    if done.returncode != 0:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise InstallFailed(f"peer {name} could not be installed; the end of {log}:\n{last}")


@contextmanager
def _locked(where: Path) -> Iterator[None]:
    """Lets one process at a time install a peer; the others wait."""
    where.parent.mkdir(parents=True, exist_ok=True)
    with where.with_name(f".{where.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
