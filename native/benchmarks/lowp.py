"""Products in low precision: share of the measured peak, and speed against Paddle's float32.

Usage: python native/benchmarks/lowp.py [--threads N] [--rounds N] [--path NAME] [--shapes M,K,N ...]

Of a linear layer x [M, K] w [K, N]: y = x w, dx = dy w^T and dw = x^T dy, each with float32 operands
and result, so that rounding and packing count. The peak of a format is its inner loop alone, on
operands that stay in the first cache. With Paddle, its matmul (MKL's sgemm, after ``accelerate()``)
and oneDNN's int8 product (of codes, to int32 without scales) run in the same rounds, the latter
against our product of codes. Times are CPU time of the calling thread, medians of interleaved
rounds; with more threads wall-clock time.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import numpy as np

from oarlock import native
from oarlock.native import _library, _lowp_abi, lowp, threads

SHAPES = ["2048,512,512", "4096,1024,1024", "8192,512,2048"]
FORMATS: list[tuple[str, int | None]] = [
    ("int8", None),
    ("int8", 256),
    ("int16", None),
    ("bf16", None),
    ("fp32", None),
    ("fp8_e4m3", None),
]
Arms = dict[str, tuple[str, float, Callable[[], object]]]


def peak(format: str) -> Callable[[], float]:
    """A call that gives the operations it did in a few milliseconds."""
    library, done = _library.load(), ctypes.c_double()
    index = _lowp_abi.FORMATS.index(format)

    def run() -> float:
        library.call("oarlock_lowp_peak", index, ctypes.c_int64(20000), ctypes.byref(done))
        return done.value

    return run


def layer(m: int, k: int, n: int, team: int) -> tuple[Arms, dict[str, np.ndarray]]:
    """By arm: format, operations, a call. Paddle's arms are added by ``paddle_arms``."""
    rng = np.random.default_rng(0)
    sizes = {"x": (m, k), "w": (k, n), "dy": (m, n), "y": (m, n), "dx": (m, k), "dw": (k, n)}
    t = {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}
    found: Arms = {}
    for format, block in FORMATS:
        name = f"{format}{f' block {block}' if block else ''}"
        options = {"format": format, "block": block, "threads": team}
        found[f"{name} y"] = (format, 2.0 * m * k * n, _call(t["x"], t["w"], t["y"], options))
        found[f"{name} dx"] = (
            format,
            2.0 * m * k * n,
            _call(t["dy"], t["w"], t["dx"], options | {"transpose_b": True}),
        )
        found[f"{name} dw"] = (
            format,
            2.0 * m * k * n,
            _call(t["x"], t["dy"], t["dw"], options | {"transpose_a": True}),
        )
    codes = [
        lowp.quantize(t[name], format="int8", axis=axis) for name, axis in (("x", 1), ("w", 0))
    ]
    options = {"format": "int8", "threads": team}
    found["int8 codes y"] = ("int8", 2.0 * m * k * n, _call(*codes, t["y"], options))
    return found, t


def _call(a, b, out, options) -> Callable[[], object]:
    return lambda: lowp.matmul(a, b, out, **options)


def paddle_arms(t: dict[str, np.ndarray]) -> Arms:
    """Paddle's float32 products, and oneDNN's of int8 codes."""
    import paddle

    (m, k), n = t["x"].shape, t["w"].shape[1]
    work = 2.0 * m * k * n
    x, w, dy = (paddle.to_tensor(t[name]) for name in ("x", "w", "dy"))
    found: Arms = {
        "paddle fp32 y": ("fp32", work, lambda: paddle.matmul(x, w)),
        "paddle fp32 dx": ("fp32", work, lambda: paddle.matmul(dy, w, transpose_y=True)),
        "paddle fp32 dw": ("fp32", work, lambda: paddle.matmul(x, dy, transpose_x=True)),
    }
    a, b = np.ones((m, k), np.int8), np.ones((k, n), np.int8)
    c, offset, one = np.empty((m, n), np.int32), np.zeros(1, np.int32), ctypes.c_float
    size, byte, letter = ctypes.c_int64, ctypes.c_int8, ctypes.c_char
    gemm = ctypes.CDLL("libdnnl.so.3").dnnl_gemm_s8s8s32  # which Paddle has loaded

    def onednn() -> None:
        status = gemm(
            *(letter(b"N"), letter(b"N"), letter(b"F"), size(m), size(n), size(k), one(1)),
            *(ctypes.c_void_p(a.ctypes.data), size(k), byte(0)),
            *(ctypes.c_void_p(b.ctypes.data), size(n), byte(0), one(0)),
            *(ctypes.c_void_p(c.ctypes.data), size(n), ctypes.c_void_p(offset.ctypes.data)),
        )
        assert status == 0

    onednn()
    assert (c == k).all()
    return found | {"onednn int8 codes y": ("int8", work, onednn)}


def measure(arms: Arms, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each arm, and the best operations a second of each format's inner loop."""
    peaks = {format: peak(format) for format in dict.fromkeys(a[0] for a in arms.values())}
    times: dict[str, list[float]] = {name: [] for name in arms}
    best = dict.fromkeys(peaks, 0.0)
    for index in range(rounds + 1):
        for format, run in peaks.items():
            start = clock()
            done = run()
            best[format] = max(best[format], done / (clock() - start))
        for name in list(arms)[:: 1 if index % 2 else -1]:
            start = clock()
            arms[name][2]()
            if index:  # the first round touches the memory
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()} | {
        f"peak {format}": value for format, value in best.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--path", default=native.info().path, help="code path")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="M,K,N")
    arguments = parser.parse_args()
    try:
        from oarlock.native.paddle import accelerate

        print(accelerate(threads=arguments.threads))
        with_paddle = True
    except ImportError:
        print("without Paddle: no comparison with it")
        with_paddle = False
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    with native.forced_path(arguments.path):
        print(native.info())
        for shape in arguments.shapes:
            report(shape, with_paddle, arguments.rounds, threads.count(arguments.threads), clock)


def report(shape: str, with_paddle: bool, rounds: int, team: int, clock) -> None:
    m, k, n = map(int, shape.split(","))
    arms, tensors = layer(m, k, n, team)
    if with_paddle:
        arms = paddle_arms(tensors) | arms
    found = measure(arms, rounds, clock)
    print(f"\nM {m}, K {k}, N {n}; {team} threads; median of {rounds}")
    print(f"{'':24}{'ms':>9}{'GOP/s':>8}{'of peak':>9}{'to paddle':>11}")
    for name, (format, work, _) in arms.items():
        seconds = found[name]
        share = work / seconds / found[f"peak {format}"] / team
        base = found.get(f"paddle fp32 {name.split()[-1]}")
        ratio = f"{base / seconds:10.2f}x" if base else ""
        print(f"{name:24}{seconds * 1e3:9.2f}{work / seconds / 1e9:8.0f}{share:9.0%}{ratio}")
    for name, value in found.items():
        if name.startswith("peak"):
            print(f"{name + ', one thread':24}{'':9}{value / 1e9:8.0f}")


if __name__ == "__main__":
    main()
