"""What each unusual way of writing a block saves in the training step of a LLaMA on the CPU.

The parts of ``models.common`` that are written for speed are replaced, one by one and all at once,
by the plain operators one would write first; all variants take turns, so that a busy machine
slows them alike. The gradients of all variants are compared first.

    python packages/llm/benchmarks/train_step.py [--vocab-size 256] [--rounds 15]

Prints CPU milliseconds of forward and backward on one thread, and the ratio to the models as they
are. Results: ``LOG.md``.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import paddle
import paddle.nn.functional as F
from oarlock.llm import models
from oarlock.llm.models import common
from oarlock.native.paddle import accelerate


def plain_swap_axes(x):
    return x.transpose([0, 2, 1, 3])


def plain_rms_norm(self, x):
    scale = paddle.rsqrt(paddle.square(x).mean(-1, keepdim=True) + self.epsilon)
    return x * scale * self.weight


def plain_layer_norm(self, x):
    return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)


def plain_rotate(x, rotations):
    B, H, T, K = x.shape
    turn = rotations[: B * H].reshape([B, H, T, K // 2])
    cos, sin = paddle.real(turn), paddle.imag(turn)
    even, odd = x[..., 0::2], x[..., 1::2]
    return paddle.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def plain_attention(q, k, v, bias):
    q, k, v = (x.transpose([0, 2, 1, 3]) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=bias is not None)
    return y.reshape([*y.shape[:2], -1])


PLAIN: dict[str, dict[str, Callable]] = {
    "transpose instead of channel_shuffle": {"common.swap_axes": plain_swap_axes},
    "norms with mean and broadcast": {
        "common.RMSNorm.forward": plain_rms_norm,
        "common.LayerNorm.forward": plain_layer_norm,
    },
    "rotation with even and odd slices": {"common.rotate": plain_rotate},
    "scaled_dot_product_attention": {"common.attention": plain_attention},
}


def replaced(parts):
    """A context in which the named parts are the plain ones."""
    stack = contextlib.ExitStack()
    for target, function in parts.items():
        owner, name = target.removeprefix("common.").rpartition(".")[::2]
        stack.enter_context(
            mock.patch.object(getattr(common, owner) if owner else common, name, function)
        )
    return stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=models.names(), default="llama")
    parser.add_argument("--vocab-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(accelerate(threads=1), "\n")
    config = models.config_class(options.model)(vocab_size=options.vocab_size)
    model = models.create(options.model, config)
    rng = np.random.default_rng(0)
    tokens, targets = (
        paddle.to_tensor(rng.integers(0, options.vocab_size, [8, 128])) for _ in range(2)
    )

    def step() -> None:
        model.clear_gradients()
        model.loss(tokens, targets).backward()

    everything = {key: part for parts in PLAIN.values() for key, part in parts.items()}
    variants: dict[str, dict[str, Callable]] = {"as they are": {}, **PLAIN, "all plain": everything}
    times: dict[str, list[float]] = {name: [] for name in variants}
    expected = None
    for _ in range(options.rounds):
        for name, parts in variants.items():
            with replaced(parts):
                begun = time.process_time()
                step()
                times[name].append(1e3 * (time.process_time() - begun))
            gradient = model.embedding.weight.grad.numpy()
            expected = gradient if expected is None else expected
            np.testing.assert_allclose(gradient, expected, atol=1e-5 * abs(expected).max() + 1e-7)
    ours = np.array(times["as they are"])[2:]
    print(f"{options.model}, {model.num_parameters():,} parameters, 8 x 128 tokens")
    print(f"| {'variant':38} | CPU ms, least | median | ratio of medians |")
    print("|---|---|---|---|")
    for name, values in times.items():
        taken = np.array(values)[2:]  # the first two warm up
        print(
            f"| {name:38} | {taken.min():.0f} | {np.median(taken):.0f} "
            f"| {np.median(taken / ours):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
