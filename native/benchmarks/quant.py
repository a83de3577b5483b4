"""Products with weights in few bits: share of the memory's bandwidth for one row, of the peak for many.

Usage: python native/benchmarks/quant.py [--threads N] [--rounds N] [--shape K,N]

One row reads each weight once: its bytes a second are compared with a plain sum over as much memory. Many rows
are compared with the inner loop of int8 products alone, on operands that stay in the first cache, and with
Paddle's float32 product (MKL's, after ``accelerate()``). Times are CPU time of the calling thread on one thread,
wall-clock time on more; medians of interleaved rounds.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import numpy as np
import paddle
from oarlock.native.paddle import accelerate

from oarlock import native
from oarlock.native import _library, _lowp_abi, quant

FORMATS = ("int4", "int8", "bf16", "fp32")
MANY = 512
COPIES = 6  #: of a weight, taken in turns, so that none is left in a cache


def seconds(
    arms: dict[str, Callable[[], object]], rounds: int, one_thread: bool
) -> dict[str, float]:
    clock = time.thread_time if one_thread else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(rounds + 1):
        for name, arm in arms.items():
            start = clock()
            arm()
            if index:  # the first round touches the memory
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shape", default="2048,5632")
    arguments = parser.parse_args()
    team = arguments.threads
    print(accelerate(threads=team))
    print(native.info())
    inputs, outputs = map(int, arguments.shape.split(","))
    rng = np.random.default_rng(0)
    w = rng.standard_normal((inputs, outputs), np.float32)
    x, y = rng.standard_normal((MANY, inputs), np.float32), np.empty((MANY, outputs), np.float32)
    packed = {name: [quant.Matrix.pack(w, format=name) for _ in range(COPIES)] for name in FORMATS}
    library = _library.load()
    flat = np.ones(COPIES * inputs * outputs, np.float32)
    sums, done = np.empty(len(flat) // 65536 + 1, np.float32), ctypes.c_double()

    def stream() -> None:
        pointers = [ctypes.c_void_p(one.ctypes.data) for one in (sums, flat)]
        library.call(
            "oarlock_stream_sum", *pointers, ctypes.c_int64(len(flat)), ctypes.c_float(0), team
        )

    def one_row(name: str) -> Callable[[], None]:
        def run() -> None:
            for one in packed[name]:
                quant.matmul(x[:1], one, y[:1], threads=team)

        return run

    arms: dict[str, Callable[[], object]] = {"sum": stream}
    arms |= {name: one_row(name) for name in FORMATS}
    found = seconds(arms, arguments.rounds, team == 1)
    peak = flat.nbytes / found["sum"] / 1e9
    print(f"one row of {inputs} x {outputs}; a sum over memory reads {peak:.1f} GB/s")
    for name in FORMATS:
        speed = sum(one.nbytes for one in packed[name]) / found[name] / 1e9
        print(
            f"  {name:5} {speed:6.1f} GB/s, {speed / peak:5.2f} of it; {found[name] / COPIES * 1e6:8.0f} us"
        )

    int8 = _lowp_abi.FORMATS.index("int8")
    given, weight = map(paddle.to_tensor, (x, w))
    arms = {
        "peak": lambda: library.call(
            "oarlock_lowp_peak", int8, ctypes.c_int64(20000), ctypes.byref(done)
        )
    }
    arms |= {
        name: lambda name=name: quant.matmul(x, packed[name][0], y, threads=team)  # type: ignore[misc]
        for name in FORMATS
    }
    arms["Paddle"] = lambda: paddle.matmul(given, weight)
    found = seconds(arms, arguments.rounds, team == 1)
    work = 2.0 * MANY * inputs * outputs
    top = team * done.value / found["peak"] / 1e9
    print(f"{MANY} rows; the inner loop of int8 alone does {top:.0f} GOP/s")
    for name in (*FORMATS, "Paddle"):
        speed = work / found[name] / 1e9
        print(
            f"  {name:6} {speed:6.0f} GOP/s, {speed / top:5.2f} of it; {found['Paddle'] / found[name]:5.2f} x Paddle"
        )


if __name__ == "__main__":
    main()
