"""Where the CUDA kernels of lowp are tested: on a GPU, and compiled for the CPU by an emulator.

The emulator (``cuda_on_cpu``) runs the kernels' own source, with the threads of a block taking turns:
it shows whether they are right, and nothing about their speed.
"""

import contextlib
import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from oarlock.native import _abi, _library, _lowp_codes, _lowp_matmul, _tensors, cuda, lowp

NATIVE = Path(__file__).parents[1]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def compile_for_cpu(folder: Path) -> Path:
    """The kernels of lowp as a library whose GPU is this process."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler to compile the CUDA kernels for the emulator")
    here, library = NATIVE / "tests" / "cuda_on_cpu", folder / "liboarlock_cuda.so"
    shared = ["core/error.cpp", "core/tensors.cpp", "lowp/arguments.cpp"]
    sources = [*(NATIVE / "cuda" / "lowp").glob("*.cu"), NATIVE / "cuda" / "core" / "device.cu"]
    sources += [here / "emulator.cpp", *(NATIVE / "src" / one for one in shared)]
    flags = "-std=c++17 -O1 -ffp-contract=off -fPIC -shared -fvisibility=hidden"
    flags += " -U_FORTIFY_SOURCE -DOARLOCK_PATH=path -x c++"  # fibers jump from stack to stack
    folders = [f"-I{folder}" for folder in (here, NATIVE / "cuda", NATIVE / "src")]
    command = [compiler, *folders, *flags.split(), *sources, "-o", library]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[:4000]
    return library


class Emulator:
    """NumPy arrays that say that they are on a GPU, which this library then is."""

    exact = True  # sums of tensor cores are rounded once
    put = staticmethod(np.array)
    get = staticmethod(np.asarray)

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
            patch.setattr(
                _lowp_codes, "empty", lambda like, read_as, shape, dtype: np.empty(shape, dtype)
            )
            yield


class Gpu:
    """Paddle's tensors on the first GPU."""

    exact = False

    def __init__(self) -> None:
        import paddle

        self._paddle = paddle

    def put(self, x):
        place = self._paddle.CUDAPlace(0)
        if x.dtype == BFLOAT16:
            return self._paddle.to_tensor(x.astype(np.float32), place=place).astype("bfloat16")
        return self._paddle.to_tensor(x, place=place)

    def get(self, x):
        from oarlock.native.paddle import as_numpy

        return as_numpy(x.cpu()).copy()

    active = staticmethod(contextlib.nullcontext)


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
