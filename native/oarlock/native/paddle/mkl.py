"""The code path of the MKL that Paddle ships.

Paddle's CPU wheel computes its matrix products with MKLML (2019). On a processor that is not
Intel's, MKLML takes its slowest path, unless ``MKL_DEBUG_CPU_TYPE`` names another. It reads that
variable once, when it first needs to know the processor, and keeps the answer.

``mkl_serv_cpu_detect`` (an exported function) returns the path in use, choosing it first if none
has been chosen. So after setting the variable one call settles the matter: either MKL had not
chosen yet and takes our path now, or the old path comes back and we know that it is too late.
"""

import ctypes
import os
from pathlib import Path

import paddle

from oarlock.native.paddle.cpu import INTEL, Cpu, this_cpu
from oarlock.native.paddle.report import Change

VARIABLE = "MKL_DEBUG_CPU_TYPE"
NAME = "MKL code path"
_AVX2, _AVX512 = 5, 7
_PATHS = {0: "generic x86-64", 2: "SSSE3", 3: "SSE4.2", 4: "AVX", _AVX2: "AVX2", _AVX512: "AVX-512"}
# Other variables by which a user restricts MKL on purpose.
_USERS_OWN = ("MKL_CBWR", "MKL_CBWR_BRANCH", "MKL_ENABLE_INSTRUCTIONS")


def library() -> ctypes.CDLL | None:
    """The loaded MKLML, or None if this build of Paddle has none."""
    path = Path(paddle.__file__).parent / "libs" / "libmklml_intel.so"
    return ctypes.CDLL(str(path)) if path.exists() else None


def active_path(mkl: ctypes.CDLL) -> int:
    """The path MKL computes with; makes MKL choose if it has not chosen yet."""
    return mkl.mkl_serv_cpu_detect()


def describe(path: int) -> str:
    return _PATHS.get(path, f"path {path}")


def best_path(cpu: Cpu) -> int | None:
    """The fastest path that ``cpu`` can run, or None where MKL's own choice is to be left."""
    if cpu.vendor == INTEL:
        return None
    if cpu.avx512:
        return _AVX512
    return _AVX2 if cpu.avx2 else None


def choose_path() -> Change:
    """Make MKL take the fastest path this processor can run."""
    mkl = library()
    if mkl is None:
        return Change(NAME, "no MKL", "no MKL", True, "this build of Paddle does not use MKL")
    cpu = this_cpu()
    wanted = best_path(cpu)
    if wanted is None:
        own = "MKL's own choice"
        why = "right on Intel's" if cpu.vendor == INTEL else "no AVX2 and FMA"
        return Change(NAME, own, own, True, f"processor is {cpu.vendor}: {why}")
    for name in _USERS_OWN:
        if name in os.environ:
            path = describe(active_path(mkl))
            return Change(NAME, path, path, False, f"{name} is set: unset it to have this chosen")
    given = os.environ.get(VARIABLE)
    if given not in (None, str(wanted)):
        path = describe(active_path(mkl))
        reason = f"{VARIABLE}={given} is set, {wanted} would be best: unset it to have this chosen"
        return Change(NAME, path, path, False, reason)
    os.environ[VARIABLE] = str(wanted)
    active = active_path(mkl)
    if active == wanted:
        after = describe(active)
        if given is not None:
            return Change(NAME, after, after, True, "already set")
        return Change(NAME, "not chosen yet", after, True, f"{cpu.vendor}: {VARIABLE}={wanted}")
    if given is None:
        del os.environ[VARIABLE]
    reason = (
        f"too late: MKL was used before and keeps its path; call accelerate() before the first "
        f"computation, or start the process with {VARIABLE}={wanted}"
    )
    return Change(NAME, describe(active), describe(active), False, reason)
