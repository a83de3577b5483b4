"""Bandwidth of the optimisers' kernels as a share of this machine's measured peak.

Usage: python native/benchmarks/optim.py [--threads N] [--millions N] [--rounds N] [--path NAME]

Each kernel moves its operands once: AdamW on float32 reads p, g, m, v and writes p, m, v, 28 bytes an
element; of kernels in two passes the bytes of both count. The peak is the better of two loops over
arrays as large that do nothing else, measured in the same rounds: y += a x (12 bytes) and
z = x + a y (16 bytes, as z is read before it is written).
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from oarlock import native
from oarlock.native import _library, optim, threads

ADAM: dict[str, Any] = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1}
TENSORS = 74  # as many as a small language model has


def arms(count: int, team: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Bytes an element, and a call, for each kernel; the peak's loops first."""
    rng = np.random.default_rng(0)
    sizes = [count // TENSORS] * TENSORS

    def arrays(dtype=np.float32) -> list[np.ndarray]:
        return [rng.standard_normal(n, dtype=np.float32).astype(dtype) for n in sizes]

    p, g, m, v = arrays(), arrays(), arrays(), [np.square(a) for a in arrays()]
    previous, z = arrays(), arrays()
    p16, g16 = arrays(ml_dtypes.bfloat16), arrays(ml_dtypes.bfloat16)
    flat = [np.ones(sum(sizes), np.float32) for _ in range(3)]
    library, n = _library.load(), ctypes.c_int64(sum(sizes))
    side = int(sizes[0] ** 0.5)
    matrices = [array[: side * side].reshape(side, side) for array in g]
    rows, columns = ([np.ones(side, np.float32) for _ in sizes] for _ in range(2))
    weights = [array[: side * side].reshape(side, side) for array in p]
    blocks = [np.ones(max(d for d in range(1, 513) if n % d == 0), np.float32) for n in sizes]

    def stream(name: str, *operands: np.ndarray) -> None:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in operands]
        library.call(f"oarlock_stream_{name}", *pointers, n, ctypes.c_float(1e-6), team)

    adam = ADAM | {"step": 3, "threads": team}
    lion: dict[str, Any] = {
        "lr": 1e-4,
        "beta1": 0.9,
        "beta2": 0.99,
        "weight_decay": 0.1,
        "threads": team,
    }
    sgd: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 0.1, "threads": team}
    sophia: dict[str, Any] = {
        "lr": 1e-4,
        "beta1": 0.9,
        "gamma": 0.05,
        "eps": 1e-12,
        "weight_decay": 0.1,
        "threads": team,
    }
    lars: dict[str, Any] = sgd | {"trust_coefficient": 1e-3, "eps": 0.0}
    adafactor: dict[str, Any] = {
        "lr": 1e-4,
        "clip_threshold": 1.0,
        "eps_scale": 1e-3,
        "relative": True,
        "weight_decay": 0.1,
        "threads": team,
    }

    def second_moments() -> None:
        optim.row_column_mean_squares(matrices, rows, columns, decay=0.9, threads=team)

    return {
        "peak: y += a x": (12, lambda: stream("axpy", *flat[:2])),
        "peak: z = x + a y": (16, lambda: stream("triad", *flat)),
        "adamw f32": (28, lambda: optim.adamw(p, g, m, v, **adam)),
        "adamw bf16": (22, lambda: optim.adamw(p16, g16, m, v, **adam)),
        "adamw bf16 stochastic": (
            22,
            lambda: optim.adamw(p16, g16, m, v, rounding_seed=1, **adam),
        ),
        "lion f32": (20, lambda: optim.lion(p, g, m, **lion)),
        "sgd f32": (20, lambda: optim.sgd(p, g, m, **sgd)),
        "lamb f32, two passes": (44, lambda: optim.lamb(p, g, m, v, **adam)),
        "lars f32, two passes": (28, lambda: optim.lars(p, g, m, **lars)),
        "mars adamw f32, two passes": (
            44,
            lambda: optim.mars_adamw(p, g, previous, m, v, gamma=0.025, **adam),
        ),
        "sophia f32": (24, lambda: optim.sophia(p, g, m, v, **sophia)),
        "sophia hessian f32": (
            12,
            lambda: optim.sophia_hessian(g, v, beta2=0.9, scale=1.0, threads=team),
        ),
        "schedule-free adamw f32": (
            28,
            lambda: optim.schedule_free_adamw(p, g, z, v, average_weight=0.1, **adam),
        ),
        "adafactor f32, two passes": (
            20,
            lambda: optim.adafactor(weights, matrices, rows, columns, **adafactor),
        ),
        "adam mini f32, two passes": (24, lambda: optim.adam_mini(p, g, m, blocks, **adam)),
        "squared norm f32": (4, lambda: optim.squared_norm(g, threads=team)),
        "row, column squares f32": (4, second_moments),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=threads.count(None))
    parser.add_argument("--millions", type=float, default=30.0, help="elements")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--path", default=native.info().path, help="code path")
    arguments = parser.parse_args()
    count = int(arguments.millions * 1e6) // TENSORS * TENSORS
    found = arms(count, arguments.threads)
    times: dict[str, list[float]] = {name: [] for name in found}
    with native.forced_path(arguments.path):
        print(native.info())
        for index in range(arguments.rounds + 1):
            for name in list(found)[:: 1 if index % 2 else -1]:
                start = time.perf_counter()
                found[name][1]()
                if index:  # the first round touches the memory
                    times[name].append(time.perf_counter() - start)
    speed = {
        name: found[name][0] * count / statistics.median(values) / 1e9
        for name, values in times.items()
    }
    peak = max(value for name, value in speed.items() if name.startswith("peak"))
    print(f"\n{count / 1e6:.1f} M elements, {arguments.threads} threads, median of rounds")
    print(f"{'':27}{'ms':>9}{'GB/s':>8}{'of peak':>9}")
    for name, value in speed.items():
        milliseconds = 1e3 * statistics.median(times[name])
        print(f"{name:27}{milliseconds:9.2f}{value:8.1f}{value / peak:9.0%}")


if __name__ == "__main__":
    main()
