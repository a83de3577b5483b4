"""Time of one AdamW step on 30 M parameters: ours against Paddle's, interleaved.

    python benchmarks/optim_step.py --threads 2 --rounds 15

Shapes are those of a small LLaMA. Both optimisers hold their own copies of the parameters and the
same gradients; rounds alternate in the order ABBA. Printed: medians in milliseconds, the ratio of
paired times with its bootstrap interval, and the bytes a second that an update which reads p, g,
m, v and writes p, m, v once would need. ``--malloc`` sets the allocator's thresholds for both
sides, as ``oarlock.native.paddle.accelerate()`` does.
"""

import argparse
import statistics
import time

import numpy as np
import paddle
from oarlock.core_opt import optim
from oarlock.native.paddle import accelerate


def shapes(width: int = 512, layers: int = 8, vocabulary: int = 8192) -> list[list[int]]:
    """Parameter shapes of a LLaMA of about 30 M parameters."""
    hidden = width * 8 // 3 // 32 * 32
    block = [[width], [width, width], [width, width], [width, width], [width, width], [width]]
    block += [[width, hidden], [width, hidden], [hidden, width]]
    return [[vocabulary, width], *(block * layers), [width], [width, vocabulary]][:-1]


def parameters(seed: int) -> list:
    rng = np.random.default_rng(seed)
    layer, found = paddle.nn.Layer(), []
    for shape in shapes():
        parameter = layer.create_parameter(shape)
        parameter.set_value(rng.standard_normal(shape, dtype="float32"))
        grad = paddle.to_tensor(rng.standard_normal(shape, dtype="float32") * 0.01)
        (parameter * grad).sum().backward()
        found.append(parameter)
    return found


def measure(arms: dict, rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each arm; the order of the arms turns round every round."""
    times = {name: [] for name in arms}
    for name, step in arms.items():
        step()
        step()
    for index in range(rounds):
        for name in list(arms)[:: 1 if index % 2 else -1]:
            start = time.perf_counter()
            arms[name]()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(base: list[float], ours: list[float], seed: int = 0) -> tuple[float, float, float]:
    """Median of paired ratios and its 95 % bootstrap interval."""
    pairs = np.array(base) / np.array(ours)
    rng = np.random.default_rng(seed)
    draws = np.median(rng.choice(pairs, [2000, len(pairs)]), axis=1)
    return float(np.median(pairs)), *(float(q) for q in np.quantile(draws, [0.025, 0.975]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-accelerate", action="store_true", help="leave Paddle as it comes")
    arguments = parser.parse_args()
    if not arguments.no_accelerate:
        print(accelerate(threads=arguments.threads))
    paddle.base.core.set_num_threads(arguments.threads)
    ours = {"learning_rate": 1e-4, "weight_decay": 0.1}
    clip = paddle.nn.ClipGradByGlobalNorm
    arms = {
        "paddle": paddle.optimizer.AdamW(parameters=parameters(0), **ours).step,
        "paddle clipped": paddle.optimizer.AdamW(
            parameters=parameters(0), grad_clip=clip(1.0), **ours
        ).step,
        "ours unchecked": optim.AdamW(parameters=parameters(0), nonfinite="propagate", **ours).step,
        "ours": optim.AdamW(parameters=parameters(0), **ours).step,
        "ours clipped": optim.AdamW(parameters=parameters(0), grad_clip=clip(1.0), **ours).step,
    }
    count = sum(int(np.prod(shape)) for shape in shapes())
    times = measure(arms, arguments.rounds)
    print(f"{count / 1e6:.1f} M parameters in {len(shapes())} tensors, {arguments.threads} threads")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:15s} {median * 1e3:8.2f} ms  {28 * count / median / 1e9:6.1f} GB/s")
    for base, name in (
        ("paddle", "ours unchecked"),
        ("paddle", "ours"),
        ("paddle clipped", "ours clipped"),
    ):
        middle, low, high = ratio(times[base], times[name])
        print(f"{base} / {name}: {middle:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
