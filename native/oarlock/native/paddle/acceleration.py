"""Make stock CPU Paddle as fast as the machine allows."""

import ctypes
from pathlib import Path

import paddle

from oarlock.native.paddle import malloc, mkl
from oarlock.native.paddle.report import Change, Report
from oarlock.native.threads import MAX_THREADS, physical_cores

THREADS, STRIDE = "threads", "stride kernels"


def accelerate(
    threads: int | None = None,
    *,
    code_path: bool = True,
    large_blocks: bool = True,
    stride_kernels: bool | None = None,
) -> Report:
    """Make stock CPU Paddle fast in this process: MKL's code path, malloc, threads.

    Call it before the first computation, before or after ``import paddle``; a second call changes
    nothing. Results stay the same up to rounding. The settings hold for the whole process:

    - the code path of MKL, chosen by what the processor can run (``MKL_DEBUG_CPU_TYPE``; nothing
      is done on Intel's processors, where MKL chooses well by itself);
    - the thresholds of glibc's malloc, so that freed temporaries are used again;
    - the number of threads of Paddle's operators. OpenMP keeps it per thread: operators called
      from another Python thread than this one use that thread's own number.

    Args:
        threads: number of threads, 1 to 1024; None for the physical cores this process may use.
        code_path: False leaves MKL alone.
        large_blocks: False leaves malloc alone.
        stride_kernels: None leaves Paddle's ``FLAGS_use_stride_kernel`` as it is. False turns it
            off, which saves up to half of the time of an attention block, BUT THEN A VIEW NO
            LONGER SHARES MEMORY WITH ITS TENSOR: ``z = y[0]; z.add_(1)`` leaves ``y`` as it was.
            Only for programs that never write through a view. True turns it on.

    Returns:
        What was found and changed, and what could not be changed and why.

    Raises:
        ValueError: ``threads`` is not a positive integer.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int)):
        raise ValueError(f"threads must be a positive integer or None, not {threads!r}")
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads must be between 1 and {MAX_THREADS}, not {threads}")
    changes = []
    if code_path:
        changes.append(mkl.choose_path())
    if large_blocks:
        changes.append(malloc.keep_large_blocks())
    changes.append(_set_threads(threads))
    if stride_kernels is not None:
        changes.append(_set_stride_kernels(stride_kernels))
    return Report(tuple(changes))


def openmp_threads() -> int:
    """The number of threads Paddle's operators use when called from this thread."""
    path = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    openmp = ctypes.CDLL(str(path) if path.exists() else "libgomp.so.1")
    return openmp.omp_get_max_threads()


def _set_threads(threads: int | None) -> Change:
    wanted = physical_cores() if threads is None else threads
    source = "physical cores of this process" if threads is None else "as asked"
    before = openmp_threads()
    if before == wanted:
        return Change(THREADS, str(before), str(before), True, "already set")
    paddle.base.core.set_num_threads(wanted)
    after = openmp_threads()
    if after != wanted:
        reason = f"the OpenMP runtime would not take {wanted} (OMP_THREAD_LIMIT?)"
        return Change(THREADS, str(before), str(after), False, reason)
    return Change(THREADS, str(before), str(after), True, source)


def _set_stride_kernels(on: bool) -> Change:
    flag = "FLAGS_use_stride_kernel"
    before = bool(paddle.get_flags([flag])[flag])
    words = {True: "on", False: "off"}
    if before == on:
        return Change(STRIDE, words[on], words[on], True, "already set")
    paddle.set_flags({flag: on})
    reason = "views share memory" if on else "views no longer share memory with their tensor"
    return Change(STRIDE, words[before], words[on], True, reason)
