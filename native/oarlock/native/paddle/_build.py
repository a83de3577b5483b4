"""Compiling the kernels for Paddle's operators against the Paddle that is installed here."""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

LIBRARY = "liboarlock_phi_kernels.so"
_HERE = Path(__file__).parent


class KernelsUnavailable(RuntimeError):
    """The kernels cannot be had here; the message says why and what would help."""


def sources() -> Path:
    """The folder of the kernels' sources: in the wheel, else in the source tree."""
    for folder in (_HERE.parent / "phi", _HERE.parents[2] / "phi"):
        if (folder / "PADDLE_VERSION").exists():
            return folder
    for file in metadata.files("oarlock-native") or []:
        if file.name == "PADDLE_VERSION":
            return Path(file.locate()).parent
    raise KernelsUnavailable("the kernels' sources are missing: reinstall oarlock-native")


def prebuilt() -> Path | None:
    """The library built with the wheel, if it was."""
    beside = _HERE.parent / LIBRARY
    if beside.exists():
        return beside
    for file in metadata.files("oarlock-native") or []:
        if file.name == LIBRARY:
            path = Path(file.locate())
            return path if path.exists() else None
    return None


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "oarlock" / "phi"


def compiled(paddle_folder: Path, paddle_version: str) -> Path:
    """The library compiled for this Paddle by this compiler, from the cache if it is there.

    Processes that ask at the same time wait for one of them to compile.

    Raises:
        KernelsUnavailable: no compiler, or it failed.
    """
    folder, compiler = sources(), _compiler()
    folder_of_key = cache_folder() / _key(folder, compiler, paddle_version)
    library = folder_of_key / LIBRARY
    if library.exists():
        return library
    folder_of_key.mkdir(parents=True, exist_ok=True)
    with _locked(folder_of_key / "lock"):
        if not library.exists():
            note = f"oarlock: compiling the kernels for Paddle {paddle_version} (once, ~30 s)"
            print(note, file=sys.stderr, flush=True)
            _compile(folder, compiler, paddle_folder, library)
    return library


def _lines(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().split()


def _compiler() -> list[str]:
    command = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(command[0]) is None:
        raise KernelsUnavailable(
            f"the kernels have to be compiled, but there is no C++ compiler {command[0]!r}: "
            f"install one (Debian: apt install g++) or name yours in the variable CXX"
        )
    return command


def _key(folder: Path, compiler: list[str], paddle_version: str) -> str:
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, text=True, check=False
    ).stdout
    digest = hashlib.sha256()
    for part in (paddle_version, version, " ".join(compiler)):
        digest.update(part.encode() + b"\0")
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(folder: Path, compiler: list[str], paddle_folder: Path, library: Path) -> None:
    include = paddle_folder / "include"
    flags = [*_lines(folder, "compile_flags.txt"), f"-I{folder}"]
    for path in (include, include / "third_party"):
        flags += ["-isystem", str(path)]
    # In the folder of the result, so that the finished file can be moved there in one step.
    with tempfile.TemporaryDirectory(dir=library.parent) as temporary:

        def compile_one(source: Path) -> str:
            name = source.relative_to(folder).as_posix().replace("/", "_")
            target = f"{temporary}/{name}.o"
            _run([*compiler, *flags, "-c", str(source), "-o", target])
            return target

        with ThreadPoolExecutor(max_workers=2) as pool:
            objects = list(pool.map(compile_one, sorted(folder.rglob("*.cc"))))
        needed = [str(paddle_folder / name) for name in _lines(folder, "link_libraries.txt")]
        result = f"{temporary}/{LIBRARY}"
        link_flags = _lines(folder, "link_flags.txt")
        _run([*compiler, "-shared", "-o", result, *objects, *link_flags, *needed])
        os.replace(result, library)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KernelsUnavailable(
            f"compiling the kernels failed ({done.returncode}): {shlex.join(command)}\n"
            f"{done.stderr[-3000:]}"
        )
