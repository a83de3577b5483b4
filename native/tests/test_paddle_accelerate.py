"""accelerate(): each order of calls in a process of its own, since MKL chooses once a process."""

import os
import subprocess
import sys

import numpy as np
import pytest

from oarlock.native.paddle import accelerate, cpu, malloc, mkl
from oarlock.native.paddle.__main__ import BOUND
from oarlock.native.threads import physical_cores

BEST = mkl.best_path(cpu.this_cpu())
needs_choice = pytest.mark.skipif(
    BEST is None or mkl.library() is None, reason="MKL's own choice is right on this processor"
)
AVX512 = "avx512f avx512cd avx512dq avx512bw avx512vl"


def run(code: str, **variables: str) -> str:
    """Standard output of ``code`` in a fresh Python; ``variables`` are added to its environment."""
    clean = {k: v for k, v in os.environ.items() if k != mkl.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def amd(flags: str) -> cpu.Cpu:
    return cpu.parse(f"vendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 {flags}\n\nvendor_id\t: x")


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        ("", None),
        ("avx2", None),
        ("avx2 fma", 5),
        ("avx2 fma avx512f", 5),
        ("avx2 fma avx512f avx512cd avx512dq avx512bw", 5),
        (f"avx2 fma {AVX512}", 7),
    ],
)
def test_path_is_one_the_processor_has(flags, path):
    assert mkl.best_path(amd(flags)) == path


def test_intel_is_left_alone(monkeypatch):
    intel = cpu.parse(f"vendor_id : GenuineIntel\nflags : avx2 fma {AVX512}\n")
    assert mkl.best_path(intel) is None
    monkeypatch.delenv(mkl.VARIABLE, raising=False)
    monkeypatch.setattr(mkl, "this_cpu", lambda: intel)
    change = mkl.choose_path()
    assert change.applied and not change.changed and mkl.VARIABLE not in os.environ


@needs_choice
@pytest.mark.parametrize("start", ["", "import paddle\nx = paddle.ones([64])\n"])
def test_in_time_and_idempotent(start):
    """Before and after ``import paddle``, as long as nothing was computed with MKL."""
    code = """
from oarlock.native.paddle import accelerate, mkl
first, second = accelerate(threads=1), accelerate(threads=1)
import paddle
a = paddle.ones([64, 64])
b = paddle.matmul(a, a)
path = mkl.active_path(mkl.library())
change = first["MKL code path"]
print(path, first.ok, second.ok, change.changed, any(c.changed for c in second.changes))
print([c.reason for c in second.changes])
"""
    values, reasons = run(start + code).splitlines()
    assert values == f"{BEST} True True True False"
    assert reasons == str(["already set"] * 3)


@needs_choice
@pytest.mark.parametrize("use", ["paddle.matmul(x, x)", "x + x"])
def test_too_late_is_found_out(use):
    code = f"""
import os, paddle
x = paddle.ones([64, 64])
{use}
from oarlock.native.paddle import accelerate, mkl
report = accelerate()
change = report["MKL code path"]
print(mkl.active_path(mkl.library()), change.applied, report.ok, change.changed)
print(mkl.VARIABLE in os.environ, change.reason)
print("[NOT] MKL code path" in str(report), report["malloc of large blocks"].applied)
"""
    first, second, third = run(code).splitlines()
    assert first == "0 False False False"
    assert second.startswith("False too late") and f"{mkl.VARIABLE}={BEST}" in second
    assert third == "True True"


@needs_choice
def test_path_set_by_the_environment():
    code = """
from oarlock.native.paddle import accelerate
change = accelerate()["MKL code path"]
print(change.applied, change.changed, change.reason)
"""
    assert run(code, **{mkl.VARIABLE: str(BEST)}) == "True False already set"
    assert run(code, **{mkl.VARIABLE: "3"}).startswith(f"False False {mkl.VARIABLE}=3 is set")
    assert run(code, MKL_CBWR="COMPATIBLE").startswith("False False MKL_CBWR is set")


def test_results_stay_equal(tmp_path):
    """The same products with and without accelerate(), both against float64."""
    code = """
import numpy as np, paddle
rng = np.random.default_rng(1)
a, b = rng.standard_normal((65, 300)).astype("f"), rng.standard_normal((300, 129)).astype("f")
product = paddle.matmul(paddle.to_tensor(a), paddle.to_tensor(b)).numpy()
softmax = paddle.nn.functional.softmax(paddle.to_tensor(product)).numpy()
np.savez("{path}", a=a, b=b, product=product, softmax=softmax)
"""
    plain, fast = tmp_path / "plain.npz", tmp_path / "fast.npz"
    run(code.format(path=plain))
    run("from oarlock.native.paddle import accelerate\naccelerate()\n" + code.format(path=fast))
    stock, ours = np.load(plain), np.load(fast)
    a, b = ours["a"].astype(np.float64), ours["b"].astype(np.float64)
    bound = BOUND * (np.abs(a) @ np.abs(b))
    assert np.all(np.abs(ours["product"] - a @ b) <= bound)
    assert np.all(np.abs(stock["product"] - a @ b) <= bound)
    np.testing.assert_allclose(ours["softmax"], stock["softmax"], rtol=2e-4, atol=1e-7)


def test_stride_kernels_only_when_asked():
    code = """
import paddle
from oarlock.native.paddle import accelerate
def aliases():
    y = paddle.zeros([2, 3])
    y[0].add_(paddle.ones([3]))
    return bool(y.sum() == 3)
default = accelerate()
print([c.name for c in default.changes], aliases())
print(accelerate(stride_kernels=False)["stride kernels"].applied, aliases())
print(accelerate(stride_kernels=True)["stride kernels"].applied, aliases())
"""
    assert run(code).splitlines() == [
        "['MKL code path', 'malloc of large blocks', 'threads'] True",
        "True False",
        "True True",
    ]


def test_threads_are_set():
    code = """
from oarlock.native.paddle import accelerate, openmp_threads
from oarlock.native.threads import physical_cores
print(accelerate()["threads"].after == str(physical_cores()), openmp_threads())
print(accelerate(3, code_path=False, large_blocks=False).changes[0].after, openmp_threads())
"""
    first, second = run(code).splitlines()
    assert first == f"True {physical_cores()}"
    assert second == "3 3"


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.5, "2", True])
def test_bad_threads(threads):
    with pytest.raises(ValueError, match="threads must be"):
        accelerate(threads)


def test_malloc_elsewhere(monkeypatch):
    monkeypatch.setattr(os, "confstr_names", {})
    change = malloc.keep_large_blocks()
    assert not change.applied and "glibc" in change.reason


def test_command():
    done = subprocess.run(
        [sys.executable, "-m", "oarlock.native.paddle"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sgemm 512x512" in done.stdout and "[NOT]" not in done.stdout
