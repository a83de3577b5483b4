"""Attention under masks: share of this machine's measured peak, and Paddle's own beside it.

Usage: python native/benchmarks/attention.py [--threads N] [--lengths N ...] [--dims N ...] [--heads N]
       [--rounds N] [--clock wall|cpu] [--path NAME] [--paddle]

Useful work is counted: 4 dim operations for each pair of row and key that the mask lets see (forward),
10 dim (backward); what is computed in vain at the edges of blocks lowers the share. The peak is
multiplications with addition in registers, measured before each arm in the same rounds. With `--paddle`
Paddle's scaled_dot_product_attention runs in turn, on a dense mask, after `accelerate()`; its backward
pass is timed as forward and backward together. `--clock cpu` counts the time of the processor, which
bears a machine that others use.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import numpy as np

from oarlock import native
from oarlock.native import _library, attention, masks, threads

PEAK_ROUNDS = 500_000


def masks_of(length: int) -> dict[str, masks.Mask]:
    eighth = length // 8
    return {
        "full": masks.full(),
        "causal": masks.causal(),
        "document": masks.document([eighth, 2 * eighth, eighth, length - 4 * eighth]),
        "window": masks.sliding_window(length, max(length // 8, 1)),
        "question": masks.shared_question(length // 2, [eighth] * 3 + [length // 2 - 3 * eighth]),
    }


def peak(team: int) -> Callable[[], float]:
    """Operations of a call."""
    library = _library.load()

    def call() -> float:
        count = ctypes.c_int64(0)
        rounds = ctypes.c_int64(PEAK_ROUNDS)
        library.call("oarlock_attention_peak", rounds, ctypes.byref(count), team)
        return 2.0 * count.value

    return call


def arms(length: int, dim: int, heads: int, mask: masks.Mask, team: int):
    """A call for each pass and the operations it is good for."""
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((1, length, heads, dim), np.float32) for _ in range(4))
    out, lse = np.empty_like(q), np.empty((1, heads, length), np.float32)
    grads = [np.empty_like(x) for x in (q, k, v)]
    pairs = heads * length * length * mask.seen(length)

    def forward() -> float:
        attention.forward(q, k, v, out, lse, mask=mask, threads=team)
        return 4.0 * dim * pairs

    def backward() -> float:
        attention.backward(q, k, v, out, lse, g, *grads, mask=mask, threads=team)
        return 10.0 * dim * pairs

    return {"forward": forward, "backward": backward}


def paddle_arm(length: int, dim: int, heads: int, mask: masks.Mask):
    """Forward and backward together by Paddle's operator."""
    import paddle
    import paddle.nn.functional as F

    q, k, v = (paddle.randn([1, length, heads, dim]) for _ in range(3))
    for x in (q, k, v):
        x.stop_gradient = False
    seen = None if mask.bounds is None else paddle.to_tensor(mask.to_dense(length))
    causal = mask.causal and seen is None

    def both() -> float:
        F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal).sum().backward()
        return 14.0 * dim * heads * length * length * mask.seen(length)

    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=threads.count(None))
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--path", default=native.info().path, help="code path")
    parser.add_argument("--paddle", action="store_true")
    given = parser.parse_args()
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    if given.paddle:
        from oarlock.native.paddle import accelerate

        print(accelerate(threads=given.threads))
    print(native.info())
    print(f"\n{given.heads} heads, {given.threads} threads, {given.clock} time, median of rounds")
    print(
        f"{'mask':10}{'length':>8}{'dim':>5}{'seen':>6}  {'pass':14}{'ms':>9}{'Gop/s':>8} of peak"
    )
    for length in given.lengths:
        for dim in given.dims:
            for name, mask in masks_of(length).items():
                calls = arms(length, dim, given.heads, mask, given.threads)
                if given.paddle:
                    calls["paddle, both"] = paddle_arm(length, dim, given.heads, mask)
                row = f"{name:10}{length:8}{dim:5}{mask.seen(length):6.2f}"
                _measure(row, calls, peak(given.threads), given, clock)


def _measure(row: str, calls: dict, top: Callable[[], float], given, clock) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    rates: dict[str, list[float]] = {name: [] for name in calls}
    shares: dict[str, list[float]] = {name: [] for name in calls}
    with native.forced_path(given.path):
        for index in range(given.rounds + 1):
            for name, call in calls.items():
                begin = clock()
                done = top()
                between = clock()
                useful = call()
                end = clock()
                if index:  # the first round touches the memory
                    seconds[name].append(end - between)
                    rates[name].append(useful / (end - between))
                    shares[name].append(rates[name][-1] / (done / (between - begin)))
    for name in calls:
        middle = statistics.median
        print(
            f"{row}  {name:14}{1e3 * middle(seconds[name]):9.2f}{middle(rates[name]) / 1e9:8.1f}"
            f"{middle(shares[name]):8.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
