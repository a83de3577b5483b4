"""Kernels for GPUs: compiled where nvcc is, refused clearly where no GPU is, equal where one is."""

import ctypes

import numpy as np
import pytest
from native.tests.util_gpu import BFLOAT16, Gpu, needs_gpu  # pants: no-infer-dep

from oarlock.native import LibraryUnavailable, _abi, _library, attention, cuda, lowp, masks, optim
from oarlock.native._tensors import TensorList

BUILT = _library.find(cuda.LIBRARY) is not None
needs_build = pytest.mark.skipif(not BUILT, reason="built without nvcc: no liboarlock_cuda.so")
OPTIONS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "step": 3}


class OnGpu:
    """Says that its memory is on a GPU; no kernel must touch it."""

    class Tensor(ctypes.Structure):
        _fields_ = [
            ("data", ctypes.c_void_p),
            ("device", ctypes.c_int32 * 2),
            ("ndim", ctypes.c_int32),
            ("dtype", ctypes.c_uint8 * 4),
            ("shape", ctypes.POINTER(ctypes.c_int64)),
            ("strides", ctypes.c_void_p),
            ("byte_offset", ctypes.c_uint64),
            ("context_and_deleter", ctypes.c_void_p * 2),
        ]

    def __dlpack__(self):
        self.shape = (ctypes.c_int64 * 1)(4)
        self.tensor = self.Tensor(
            64, (_abi.CUDA, 0), 1, (2, 32, 1, 0), self.shape, None, 0, (None, None)
        )
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


def test_available_or_says_why_not():
    assert cuda.available() == (cuda.why_not() is None)
    if not BUILT:
        assert "build oarlock-native where nvcc is" in cuda.why_not()


@needs_build
def test_the_library_loads_without_a_driver():
    library = _library.Library(_library.find(cuda.LIBRARY))
    names = ["optim_adamw", "optim_squared_norm", "attention_forward", "attention_backward"]
    names += [f"lowp_{name}" for name in ("matmul", "quantize", "cast", "dequantize", "hadamard")]
    names += [f"cuda_quant_{name}" for name in ("arrange", "encode", "matmul")]
    names += [f"cuda_decoder_{name}" for name in ("norm", "activate", "store", "attend")]
    for name in names:
        assert hasattr(library.functions, f"oarlock_{name}")


@pytest.mark.skipif(cuda.available(), reason="a GPU is here")
def test_gpu_tensors_without_a_gpu_are_refused():
    with pytest.raises(LibraryUnavailable, match="liboarlock_cuda.so (is not in|finds no GPU)"):
        optim.squared_norm([OnGpu()])
    with pytest.raises(LibraryUnavailable, match="liboarlock_cuda.so (is not in|finds no GPU)"):
        lowp.hadamard(OnGpu(), OnGpu(), block=4)


def test_tensors_on_two_devices_are_refused():
    with pytest.raises(ValueError, match=r"tensors\[1\] is on GPU 0, but must be on the CPU"):
        optim.squared_norm([np.ones(3, np.float32), OnGpu()])


def test_a_kernel_without_cuda_version_is_told(monkeypatch):
    class Library:
        functions = object()

    monkeypatch.setattr(cuda, "load", Library)
    with pytest.raises(ValueError, match="oarlock_optim_lion has no kernel for GPUs yet"):
        cuda.library_for("oarlock_optim_lion", None)


@needs_gpu
@pytest.mark.parametrize("dtypes", [("float32",) * 2, ("bfloat16", "float32"), ("bfloat16",) * 2])
@pytest.mark.parametrize("seed", [None, 5])
def test_equals_the_cpu(dtypes, seed):
    rng = np.random.default_rng(0)
    kinds = [np.dtype(np.float32) if name == "float32" else BFLOAT16 for name in dtypes]
    kinds += [np.dtype(np.float32)] * 2
    lists = [[rng.standard_normal(n).astype(kind) for n in (1, 7, 8193, 100_003)] for kind in kinds]
    lists[3] = [np.square(v) for v in lists[3]]
    there = [[Gpu.put(x) for x in group] for group in lists]
    assert TensorList("x", there[0]).items[0].device == _abi.CUDA
    assert optim.squared_norm(there[1]) == pytest.approx(optim.squared_norm(lists[1]), rel=1e-12)
    optim.adamw(*lists, **OPTIONS, rounding_seed=seed)
    optim.adamw(*there, **OPTIONS, rounding_seed=seed)
    for group, other in zip(lists, there):
        for x, y in zip(group, other):
            assert x.tobytes() == Gpu.get(y).tobytes()


@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_is_as_on_the_cpu(dtype):
    rng = np.random.default_rng(0)
    kind = np.dtype(np.float32) if dtype == "float32" else BFLOAT16
    shapes = [(2, 100, 4, 40), (2, 100, 2, 40), (2, 100, 2, 40), (2, 100, 4, 40)]
    given = [rng.standard_normal(shape, np.float32).astype(kind) for shape in shapes]
    mask = masks.document([30, 1, 69], window=25)
    results = []
    for put, get in ((np.array, np.asarray), (Gpu.put, Gpu.get)):
        q, k, v, g = (put(x) for x in given)
        out, *grads = (put(np.zeros_like(x)) for x in (given[0], given[0], given[1], given[2]))
        lse = put(np.empty((2, 4, 100), np.float32))
        attention.forward(q, k, v, out, lse, mask=mask)
        attention.backward(q, k, v, out, lse, g, *grads, mask=mask)
        results.append([get(x).astype(np.float32) for x in (out, lse, *grads)])
    tolerance = 1e-4 if dtype == "float32" else 3e-2
    for on_cpu, on_gpu in zip(*results):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=tolerance, atol=tolerance)
