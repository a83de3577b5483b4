"""Finding and loading the kernel library, and turning its status codes into exceptions."""

import ctypes
import functools
from importlib import metadata
from pathlib import Path

from oarlock.native import _abi

LIBRARY = "liboarlock_native.so"


class LibraryUnavailable(RuntimeError):
    """A kernel library cannot be had here; the message says why and what would help."""


def find(name: str) -> Path | None:
    """The library beside this module, or where an editable install put it."""
    beside = Path(__file__).parent / name
    if beside.exists():
        return beside
    for file in metadata.files("oarlock-native") or []:
        if file.name == name:
            path = Path(str(file.locate()))
            return path if path.exists() else None
    return None


class Library:
    """A loaded kernel library. Calls release the GIL."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.functions = ctypes.CDLL(str(path))
        self._last_error = self.functions.oarlock_last_error
        self._last_error.restype = ctypes.c_char_p
        version = self.functions.oarlock_abi_version()
        if version != _abi.ABI_VERSION:
            raise LibraryUnavailable(
                f"{path} has ABI version {version}, but this oarlock-native needs "
                f"{_abi.ABI_VERSION}: reinstall oarlock-native"
            )

    def last_error(self) -> str:
        return self._last_error().decode(errors="replace")

    def text(self, name: str, *arguments) -> str:
        """Call an entry point that returns text; empty for null."""
        function = getattr(self.functions, name)
        function.restype = ctypes.c_char_p
        found = function(*arguments)
        return "" if found is None else found.decode(errors="replace")

    def call(self, name: str, *arguments) -> None:
        """Call an entry point that returns a status.

        Raises:
            ValueError: the kernel refused an argument.
            MemoryError: no memory for its temporaries.
            ConnectionError: another process that is needed is gone.
        """
        status = getattr(self.functions, name)(*arguments)
        if status == _abi.OK:
            return
        if status == _abi.BAD_ARGUMENT:
            raise ValueError(self.last_error())
        if status == _abi.OUT_OF_MEMORY:
            raise MemoryError(f"{name}: {self.last_error()}")
        if status == _abi.DISCONNECTED:
            raise ConnectionError(self.last_error())
        raise RuntimeError(f"{name} failed: {self.last_error()}")


@functools.cache
def load() -> Library:
    """The CPU library.

    Raises:
        LibraryUnavailable: it is missing or of another version.
    """
    path = find(LIBRARY)
    if path is None:
        raise LibraryUnavailable(
            f"{LIBRARY} is missing: reinstall oarlock-native (in a checkout: "
            "pip install --no-deps --no-build-isolation -e native)"
        )
    return Library(path)
