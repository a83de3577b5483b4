"""Kernels that Paddle's own CPU operators lack: bfloat16, with gradients.

``load()`` opens a library whose kernels register themselves with Paddle. From then on models in
bfloat16 compute and train on the CPU, eagerly and under ``to_static``, with gradients of the first
order: products, layers, activations, losses, reductions, indexing (``status().kernels`` lists
them all). Each operator widens, computes in float32 and rounds once, to nearest even.

- Kernels of their own: ``matmul``, ``bmm``, ``linear_v2``, ``add``, ``subtract``, ``multiply``, ``sum``,
  ``mean``, ``relu``, ``sigmoid``, ``tanh``, ``exp``, ``sqrt``, ``rsqrt``, ``square``, ``silu``, ``gelu``,
  ``swiglu``, ``softmax``, ``log_softmax``, ``cross_entropy_with_softmax``, ``layer_norm``, ``rms_norm``.
- The others call Paddle's float32 kernel on widened copies: as fast as float32, and a little more.

What Paddle has already stays its own, with these exceptions: ``subtract``, ``multiply`` and ``sum``
are far slower there, with the same results; so is ``cast`` from float32 to bfloat16; and the
gradients of ``embedding``, ``gather``, ``index_select`` and of indexing add up in bfloat16 there, where
256 + 1 is 256. ``rms_norm`` gets a float32 kernel too: Paddle has it for GPUs only.

Paddle's optimisers ``AdamW`` and ``Momentum`` get no bfloat16: those of ``oarlock.core_opt`` have it.

The library belongs to one version of Paddle. It comes with the wheel if that was built where this
Paddle was installed; else the sources, which the wheel always carries, are compiled once into
the user's cache (``$XDG_CACHE_HOME``, else ``~/.cache``), which takes a C++17 compiler and about
half a minute.
"""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paddle
from paddle.base import core

from oarlock.native.paddle import _build
from oarlock.native.paddle._build import KernelsUnavailable
from oarlock.native.paddle.cpu import this_cpu

__all__ = [
    "KernelsUnavailable",
    "Status",
    "forced_bfloat16",
    "forced_float32",
    "load",
    "status",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Whether the kernels are loaded, and what they are.

    Args:
        needs: version of Paddle the kernels are written for.
        installed: version of Paddle in this process.
        library: file they were loaded from; None if they are not loaded.
        origin: "prebuilt" (came with the wheel) or "compiled" (on this machine); None as above.
        kernels: what Paddle's registry gained, as "operator[type]".
        matmul: what products are computed in on this processor: "bfloat16" with AVX512-BF16,
            else "float32".
    """

    needs: str
    installed: str
    library: Path | None = None
    origin: str | None = None
    kernels: tuple[str, ...] = ()
    matmul: str | None = None

    @property
    def loaded(self) -> bool:
        return self.library is not None

    def __str__(self) -> str:
        versions = f"for Paddle {self.needs}, installed {self.installed}"
        if not self.loaded:
            return f"kernels: not loaded ({versions})"
        count, names = len(self.kernels), ", ".join(self.kernels)
        head = f"kernels: {count}, products in {self.matmul}; {self.origin}: {self.library}"
        return f"{head} ({versions})\n{names}"


_loaded: tuple[ctypes.CDLL, Status] | None = None  # a library cannot be unloaded from a process


def status() -> Status:
    """What is loaded now; loads nothing."""
    if _loaded is not None:
        return _loaded[1]
    return Status(needs=_needed_version(), installed=paddle.__version__)


def load() -> Status:
    """Register the kernels with Paddle; a second call does nothing.

    Raises:
        KernelsUnavailable: another version or build of Paddle, another kind of processor, or no
            way to compile. Nothing is loaded then.
    """
    global _loaded
    if _loaded is not None:
        return _loaded[1]
    needed, installed = _needed_version(), paddle.__version__
    _check(needed, installed)
    path, origin = _build.prebuilt(), "prebuilt"
    if path is None:
        path, origin = _build.compiled(Path(paddle.__file__).parent, needed), "compiled"
    before = _registered()
    library = ctypes.CDLL(str(path))
    library.oarlock_phi_mismatches.restype = ctypes.c_char_p
    mismatches = library.oarlock_phi_mismatches()
    assert not mismatches, f"operators of another signature: {mismatches}"
    _loaded = library, Status(
        needs=needed,
        installed=installed,
        library=path,
        origin=origin,
        kernels=tuple(sorted(_registered() - before)),
        matmul="bfloat16" if library.oarlock_phi_native_bf16() else "float32",
    )
    return _loaded[1]


@contextmanager
def forced_float32() -> Iterator[None]:
    """Compute products by widening to float32, as on processors without AVX512-BF16; for tests.

    Raises:
        KernelsUnavailable: ``load()`` was not called.
    """
    with _forced(1):
        yield


@contextmanager
def forced_bfloat16() -> Iterator[None]:
    """Compute products in bfloat16, which AVX-512 without AVX512-BF16 emulates slowly; for tests.

    Raises:
        KernelsUnavailable: ``load()`` was not called, or the processor has no AVX-512.
    """
    with _forced(2):
        yield


@contextmanager
def _forced(path: int) -> Iterator[None]:
    if _loaded is None:
        raise KernelsUnavailable("load() comes first")
    library = _loaded[0]
    if not library.oarlock_phi_force(path):
        raise KernelsUnavailable("oneDNN needs AVX-512 for products in bfloat16")
    try:
        yield
    finally:
        library.oarlock_phi_force(0)


def _needed_version() -> str:
    return (_build.sources() / "PADDLE_VERSION").read_text().strip()


def _check(needed: str, installed: str) -> None:
    if installed != needed:
        raise KernelsUnavailable(
            f"the kernels are written for Paddle {needed}, and their interface differs from "
            f"version to version; installed is {installed}: pip install paddlepaddle=={needed}"
        )
    if paddle.is_compiled_with_cuda():
        raise KernelsUnavailable("the kernels are for the CPU build of Paddle; this is a GPU build")
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "AMD64"):
        raise KernelsUnavailable(f"the kernels need Linux on x86-64, not {sys.platform} {machine}")
    if "sse4_1" not in this_cpu().flags:
        raise KernelsUnavailable("the kernels need a processor with SSE4.1 (oneDNN's least)")


def _registered() -> set[str]:
    """Every CPU kernel in Paddle's registry, as "operator[type]"."""
    found = set()
    for name, keys in core._get_registered_phi_kernels().items():  # type: ignore[attr-defined]
        for key in keys:  # "(CPU, Undefined(AnyLayout), float32)"
            backend, _, data_type = key.strip("()").split(", ")
            if backend == "CPU":
                found.add(f"{name}[{data_type}]")
    return found
