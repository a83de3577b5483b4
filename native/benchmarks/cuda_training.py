"""Kernels of training on a GPU, timed against PyTorch's own: AdamW, attention, products in low precision.

Usage: python native/benchmarks/cuda_training.py [--out FILE] [--rounds N]

Needs PyTorch with CUDA and the libraries beside the modules (`native/README.md`, "Building"), and no Paddle. That
results are right is for `tests/test_cuda*.py`; what is timed is only looked at for numbers that are not finite. Times
are of single calls, as training makes them, medians of interleaved rounds.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from oarlock.native import _tensors, attention, cuda, lowp, masks, optim  # noqa: E402

DEVICE = "cuda"


class Clock:
    """Median seconds of a call of each arm, in interleaved rounds of ten calls."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __call__(self, arms: dict[str, Callable[[], object]]) -> dict[str, float]:
        times: dict[str, list[float]] = {name: [] for name in arms}
        for index in range(self.rounds + 2):
            for name in list(arms)[:: 1 if index % 2 else -1]:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                for _ in range(10):
                    arms[name]()
                end.record()
                end.synchronize()
                if index >= 2:
                    times[name].append(begin.elapsed_time(end) / 1e4)
        return {name: statistics.median(values) for name, values in times.items()}


def adamw(clock: Clock) -> dict[str, dict[str, float]]:
    """A model of 124 M parameters in 148 tensors, float32 throughout."""
    shapes = [(50257, 768), (1024, 768)]
    shapes += 12 * [(768, 2304), (2304,), (768, 768), (768,), (768, 3072), (3072,), (3072, 768)]
    shapes += 12 * [(768,)] * 5 + [(768,)] * 2
    params, grads, m, v = ([torch.rand(shape, device=DEVICE) for shape in shapes] for _ in range(4))
    for parameter, gradient in zip(params, grads):
        parameter.grad = gradient
    stock = torch.optim.AdamW(params, lr=1e-4, fused=True, capturable=True)
    stock.step()
    options = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
    arms = {
        "torch fused": stock.step,
        "ours": lambda: optim.adamw(params, grads, m, v, step=1, **options),
    }
    return {"AdamW, 124 M parameters": clock(arms)}


def flexible(length: int, operands: list[torch.Tensor], upstream: torch.Tensor) -> Callable:
    """PyTorch's kernels made for a mask: documents and windows as ``attend`` has them."""
    document = torch.arange(length, device=DEVICE) // (length // 4)

    def seen(batch, head, row, key):
        near = (row >= key) & (row - key < length // 8)
        return near & (document[row] == document[key])

    blocks = create_block_mask(seen, None, None, length, length, device=DEVICE)
    compiled = torch.compile(flex_attention, dynamic=False)

    def step():
        return torch.autograd.grad(compiled(*operands, block_mask=blocks), operands, upstream)

    return step


def attend(
    clock: Clock, length: int, dtype: torch.dtype, heads: int = 12, dim: int = 64
) -> dict[str, dict[str, float]]:
    """Forward and backward, causal, and causal within windows and documents."""
    found = {}
    shape = (4, length, heads, dim)
    q, k, v, g = (torch.randn(shape, device=DEVICE, dtype=dtype) for _ in range(4))
    out, *grads = (torch.empty_like(q) for _ in range(4))
    lse = torch.empty(4, heads, length, device=DEVICE)
    heads_first = [x.transpose(1, 2).contiguous().requires_grad_() for x in (q, k, v)]
    upstream = g.transpose(1, 2).contiguous()
    documents = masks.document([length // 4] * 4, window=length // 8)
    for name, mask in (("causal", masks.causal()), ("documents and windows", documents)):
        dense = torch.from_numpy(mask.to_dense(length)).to(DEVICE) if name != "causal" else None

        def stock(dense=dense):
            y = torch.nn.functional.scaled_dot_product_attention(
                *heads_first, attn_mask=dense, is_causal=dense is None
            )
            return torch.autograd.grad(y, heads_first, upstream)

        def ours(mask=mask):
            # One thread: the GPU uses none, and to ask how many there are takes 40 us where there is no Paddle.
            attention.forward(q, k, v, out, lse, mask=mask, threads=1)
            attention.backward(q, k, v, out, lse, g, *grads, mask=mask, threads=1)

        arms: dict[str, Callable[[], object]] = {"torch": stock}
        if dense is not None and dtype == torch.bfloat16:
            arms["torch flex"] = flexible(length, heads_first, upstream)
        label = f"attention, {length} {name}, heads of {dim}, {str(dtype)[6:]}"
        found[label] = clock(arms | {"ours": ours})
        assert all(torch.isfinite(x.float()).all() for x in (out, *grads)), label
    return found


def products(clock: Clock, rows: int) -> dict[str, dict[str, float]]:
    """[rows, 4096] by [4096, 4096]."""
    found = {}
    x, w = (torch.randn(n, 4096, device=DEVICE, dtype=torch.bfloat16) for n in (rows, 4096))
    out = torch.empty(rows, 4096, device=DEVICE, dtype=torch.bfloat16)
    arms = {
        "torch bf16": lambda: torch.matmul(x, w.T, out=out),
        "ours bf16": lambda: lowp.matmul(x, w, out, format="bf16", transpose_b=True),
    }
    for format in ("fp8_e4m3", "int8"):
        codes_x, codes_w = (lowp.quantize(one, format=format, axis=1) for one in (x, w))
        arms[f"ours {format}"] = lambda a=codes_x, b=codes_w, f=format: lowp.matmul(
            a, b, out, format=f, transpose_b=True
        )
    found[f"product, {rows} rows"] = clock(arms)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="cuda_training.json", help="results")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if (reason := cuda.why_not()) is not None:
        raise SystemExit(reason)
    _tensors.TensorList.stream = lambda self: torch.cuda.current_stream().cuda_stream
    torch.manual_seed(0)
    clock = Clock(arguments.rounds)
    results: dict[str, dict[str, float]] = {}
    failed = 0
    for part in (
        lambda: adamw(clock),
        lambda: attend(clock, 1024, torch.bfloat16),
        lambda: attend(clock, 4096, torch.bfloat16),
        lambda: attend(clock, 4096, torch.bfloat16, heads=8, dim=128),
        lambda: attend(clock, 1024, torch.float32),
        lambda: products(clock, 16),
        lambda: products(clock, 2048),
    ):
        try:
            results |= part()
        except Exception as error:  # one part must not cost the others, and is told
            failed += 1
            print(f"failed: {type(error).__name__}: {error}", flush=True)
    for name, arms in results.items():
        base = next(iter(arms.values()))
        for arm, seconds in arms.items():
            print(f"{name:66}{arm:16}{seconds * 1e6:12.1f} us{base / seconds:8.2f}x", flush=True)
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    found |= {"seconds": results}
    Path(arguments.out).write_text(json.dumps(found, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
