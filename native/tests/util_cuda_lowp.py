"""Where CUDA kernels are tested without a GPU: compiled for the CPU by an emulator.

The emulator (``cuda_on_cpu``) runs the kernels' own source, with the threads of a block taking turns:
it shows whether they are right, and nothing about their speed.
"""

import contextlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from native.tests.util_gpu import BFLOAT16  # noqa: F401 # pants: no-infer-dep

from oarlock.native import _abi, _library, _lowp_arguments, _lowp_codes, _lowp_matmul, _tensors
from oarlock.native import cuda, lowp

NATIVE = Path(__file__).parents[1]


def compile_for_cpu(folder: Path, *families: str) -> Path:
    """The kernels of some families as a library whose GPU is this process."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler to compile the CUDA kernels for the emulator")
    here, library = NATIVE / "tests" / "cuda_on_cpu", folder / "liboarlock_cuda.so"
    shared = ["core/error.cpp", "core/tensors.cpp"]
    shared += [f"{family}/arguments.cpp" for family in families]
    found = [NATIVE / "src" / one for one in shared]
    found += [one for family in families for one in (NATIVE / "src" / family).glob("*_checks.cpp")]
    sources = [one for family in families for one in (NATIVE / "cuda" / family).glob("*.cu")]
    sources += [NATIVE / "cuda" / "core" / "device.cu", here / "emulator.cpp"]
    sources += [one for one in found if one.exists()]
    flags = "-std=c++17 -O1 -ffp-contract=off -fPIC -shared -fvisibility=hidden"
    flags += " -U_FORTIFY_SOURCE -DOARLOCK_PATH=path -x c++"  # fibers jump from stack to stack
    folders = [f"-I{folder}" for folder in (here, NATIVE / "cuda", NATIVE / "src")]
    command = [compiler, *folders, *flags.split(), *sources, "-o", library]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
    return library


def _empty(like, read_as, shape, dtype):
    """Aligned as a GPU's memory is, and filled with NaN, so that what is not written shows."""
    room = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize + 256, 0xFF, np.uint8)
    start = -room.ctypes.data % 256
    return room[start : len(room) - 256 + start].view(dtype).reshape(shape)


class Emulator:
    """NumPy arrays that say that they are on a GPU, which this library then is."""

    exact = True  # sums of tensor cores are rounded once
    get = staticmethod(np.asarray)

    @staticmethod
    def put(x):
        x = np.asarray(x)
        out = _empty(None, None, x.shape, x.dtype)
        out[...] = x
        return out

    def __init__(self, library: Path) -> None:
        self._library = _library.Library(library)

    def set(self, *, backwards: bool = False, version: int = 90) -> None:
        """Which threads go first, and for what compute capability kernels count as compiled."""
        self._library.functions.cuda_on_cpu_set(backwards, version)

    @contextlib.contextmanager
    def active(self):
        def read(item, values):
            original(item, values)
            item.device = _abi.CUDA

        original = _tensors._read_array
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_tensors, "_read_array", read)
            patch.setattr(cuda, "load", lambda: self._library)
            for module in (_lowp_codes, _lowp_arguments):
                patch.setattr(module, "empty", _empty)
            yield


def product(place, a, b, dtype=np.float32, base=False, **options):
    """The product of two operands, arrays or what ``rounded`` gave, as a NumPy array."""
    with place.active():
        x, y = (one if isinstance(one, lowp.Quantized) else place.put(one) for one in (a, b))
        rows, columns = (
            (one.codes if isinstance(one, lowp.Quantized) else one).shape[
                1 - side if options.get(f"transpose_{name}") else side
            ]
            for one, name, side in ((x, "a", 0), (y, "b", 1))
        )
        out = place.put(np.full((rows, columns), np.nan, dtype))
        if "bias" in options:
            options["bias"] = place.put(options["bias"])
        _lowp_matmul.run(x, y, out, base_instructions=base, **options)
        return place.get(out)


def rounded(place, x, **options):
    """The codes of an array, on the device."""
    with place.active():
        return lowp.quantize(place.put(x), **options)
