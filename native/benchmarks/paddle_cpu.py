"""What accelerate() and the bfloat16 kernels gain, next to stock Paddle in the same run.

Usage: python native/benchmarks/paddle_cpu.py [--threads N] [--rounds N]

Stock and accelerated Paddle each run in a process of their own, since MKL chooses its path once;
the processes take turns, and the best time of each counts.
"""

import argparse
import json
import subprocess
import sys
import time

from oarlock.native.paddle import accelerate, kernels

STOCK, FAST = "stock", "accelerate()"


def measure(threads: int, fast: bool) -> dict[str, float]:
    """Milliseconds of each operation in this process."""
    accelerate(threads, code_path=fast, large_blocks=fast)
    kernels.load()
    import paddle  # its import is part of no time here

    def best(function) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return 1000 * min(times)

    def step(x, weight, bias, dout) -> None:
        out = paddle.matmul(x, weight) + bias
        paddle.grad(out, [x, weight, bias], dout)

    result = {}
    for dtype in ("float32", "bfloat16"):
        x = paddle.randn([8, 128, 256]).astype(dtype)
        weight, bias = paddle.randn([256, 1024]).astype(dtype), paddle.randn([1024]).astype(dtype)
        dout = paddle.randn([8, 128, 1024]).astype(dtype)
        square, large = paddle.randn([1024, 1024]).astype(dtype), paddle.randn([4, 1 << 20])
        large = large.astype(dtype)
        result[f"matmul 1024^3 {dtype}"] = best(lambda: paddle.matmul(square, square))
        result[f"add 4 M {dtype}"] = best(lambda: large + large)
        for tensor in (x, weight, bias):
            tensor.stop_gradient = False
        result[f"linear step 1024x256x1024 {dtype}"] = best(lambda: step(x, weight, bias, dout))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=[STOCK, FAST], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.threads, arguments.child == FAST)))
        return
    best: dict[str, dict[str, float]] = {STOCK: {}, FAST: {}}
    for _ in range(arguments.rounds):
        for kind, times in best.items():
            command = [sys.executable, __file__, "--threads", str(arguments.threads)]
            done = subprocess.run(
                [*command, "--child", kind], capture_output=True, text=True, check=True
            )
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                times[name] = min(value, times.get(name, value))
    print(f"{'milliseconds, ' + str(arguments.threads) + ' threads':38}{STOCK:>10}{FAST:>14}")
    for name, value in best[STOCK].items():
        print(f"{name:38}{value:10.3f}{best[FAST][name]:14.3f}")


if __name__ == "__main__":
    main()
