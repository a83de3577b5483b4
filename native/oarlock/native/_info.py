"""What the kernel library found on this machine, and forcing a code path."""

import contextlib
import dataclasses
from collections.abc import Iterator

from oarlock.native import _library, threads

_FEATURES = ("avx2+fma", "avx512", "avx512_bf16", "avx512_vnni", "neon")
_NOT_BUILT, _NOT_HERE, _AVAILABLE = range(3)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What ``oarlock.native.info()`` tells; ``str()`` of it is for people.

    Attributes:
        version: ABI version of the library.
        features: what the processor can do and the operating system enables.
        paths: code paths that this build has and this processor can run.
        path: the one that kernels called from this thread take.
        forced: whether ``forced_path`` chose it.
        threads: threads a kernel uses when not told otherwise.
        thread_runtime: ``"libiomp5"`` (Paddle's OpenMP team) or ``"pool"`` (our own).
        build: compiler and flags.
        library: file of the library.
    """

    version: int
    features: tuple[str, ...]
    paths: tuple[str, ...]
    path: str
    forced: bool
    threads: int
    thread_runtime: str
    build: str
    library: str

    def __str__(self) -> str:
        runtime = {"libiomp5": "Paddle's OpenMP team (libiomp5)", "pool": "own pool"}
        rows = {
            "processor": ", ".join(self.features) or "no vector extensions that we use",
            "code path": f"{self.path}{' (forced)' if self.forced else ''} of "
            + ", ".join(self.paths),
            "threads": f"{self.threads}, {runtime[self.thread_runtime]}",
            "build": self.build,
            "library": self.library,
        }
        return "\n".join(f"{name:10} {value}" for name, value in rows.items())


def info() -> Info:
    """What the library found on this machine and chose.

    Raises:
        LibraryUnavailable: the library is missing.
    """
    library = _library.load()
    c = library.functions
    features = c.oarlock_cpu_features()
    names = _path_names()
    active = c.oarlock_active_path()
    return Info(
        version=c.oarlock_abi_version(),
        features=tuple(name for bit, name in enumerate(_FEATURES) if features >> bit & 1),
        paths=tuple(n for i, n in enumerate(names) if c.oarlock_path_state(i) == _AVAILABLE),
        path=names[active],
        forced=bool(c.oarlock_path_forced()),
        threads=threads.count(None),
        thread_runtime=library.text("oarlock_thread_runtime"),
        build=library.text("oarlock_build"),
        library=str(library.path),
    )


@contextlib.contextmanager
def forced_path(path: str) -> Iterator[None]:
    """Kernels called from this thread take ``path`` inside the ``with`` block. For tests.

    Args:
        path: ``"portable"``, ``"avx2"``, ``"avx512"`` or ``"neon"``.

    Raises:
        ValueError: no such path, or this build or processor lacks it.
    """
    names = _path_names()
    if path not in names:
        raise ValueError(f"path must be one of {', '.join(names)}, not {path!r}")
    library = _library.load()
    c = library.functions
    available = ", ".join(n for i, n in enumerate(names) if c.oarlock_path_state(i) == _AVAILABLE)
    state = c.oarlock_path_state(names.index(path))
    if state != _AVAILABLE:
        why = "is not in this build" if state == _NOT_BUILT else "cannot run on this processor"
        raise ValueError(f"path {path!r} {why}; available here: {available}")
    before = c.oarlock_active_path() if c.oarlock_path_forced() else -1
    library.call("oarlock_force_path", names.index(path))
    try:
        yield
    finally:
        library.call("oarlock_force_path", before)


def _path_names() -> list[str]:
    library = _library.load()
    names: list[str] = []
    while name := library.text("oarlock_path_name", len(names)):
        names.append(name)
    return names
