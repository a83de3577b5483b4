"""What ``cuda_decoder.py`` checks on a GPU before it times anything, against float64."""

import numpy as np
import torch

from oarlock.native import decoder_cuda, quant, quant_cuda
from oarlock.native.decoder_cuda import Batch, Heads

DEVICE = "cuda"
# A layer's sizes of Llama 3 8B.
HIDDEN, INNER = 4096, 14336
LLAMA = {
    "layers": 1,
    "heads": 32,
    "kv_heads": 8,
    "head_size": 128,
    "rotary": 128,
    "rotary_halves": True,
}
failures: list[str] = []


def expect(good: bool, what: str) -> None:
    print(f"{'ok' if good else 'FAILED':7}{what}", flush=True)
    if not good:
        failures.append(what)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, of all numbers together; NaN stays NaN."""
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def weight(
    inputs: int, outputs: int, format: str, seed: int = 0
) -> tuple[quant_cuda.Matrix, torch.Tensor]:
    """A weight arranged, and what it stands for, [inputs, outputs] float64."""
    values = np.random.default_rng(seed).standard_normal((inputs, outputs), np.float32)
    packed = quant.Matrix.pack(values, format=format)
    made = quant_cuda.Matrix.arrange(packed, torch.from_numpy(packed.packed).to(DEVICE))
    return made, torch.from_numpy(packed.dequantize().copy()).to(DEVICE).double()


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Rows as products take them, float64."""
    groups = x.float().reshape(len(x), -1, 32)
    largest = groups.abs().amax(-1, keepdim=True)
    return (torch.round(groups * (127 / largest)).double() * (largest / 127).double()).reshape(
        x.shape
    )


def check_products(sizes: list[tuple[int, int]]) -> None:
    for format in ("int4", "int8"):
        for inputs, outputs in sizes:
            made, values = weight(inputs, outputs, format)
            x = torch.randn(300, inputs, device=DEVICE)
            wanted = rounded(x) @ values
            whole = None
            for rows in (300, 1, 5, 8, 9, 16, 17, 32, 33, 128):
                outs = [torch.full((rows, outputs), torch.nan, device=DEVICE) for _ in range(2)]
                for out in outs:
                    quant_cuda.matmul(quant_cuda.encode(x[:rows].contiguous()), made, out)
                name = f"matmul {format} {rows} x {inputs} x {outputs}"
                found = error(outs[0], wanted[:rows])
                expect(found < 1e-3, f"{name}: relative error {found:.1e}")
                expect(torch.equal(*outs), f"{name}: equal bits from call to call")
                whole = outs[0] if whole is None else whole
                expect(torch.equal(outs[0], whole[:rows]), f"{name}: equal bits in any batch")


def batch_of(parts: list[tuple[int, int]], pages: int) -> Batch:
    """Of (start, rows) of each sequence, whose pages are scattered among `pages`."""
    starts, counts = [one[0] for one in parts], [one[1] for one in parts]
    longest = max(start + count for start, count in parts)
    most = -(-longest // 16)
    numbers = np.random.default_rng(0).permutation(pages)[: len(parts) * most].reshape(-1, most)
    owners = np.repeat(np.arange(len(parts)), counts)
    arrays = (numbers, starts, counts, np.cumsum([0, *counts[:-1]]), owners)
    tensors = (torch.from_numpy(np.int32(one)).to(DEVICE) for one in arrays)
    fields = dict(zip(("pages", "starts", "counts", "offsets", "owners"), tensors))
    return Batch(**fields, least_rows=min(counts), most_rows=max(counts), most_length=longest)


def tables(length: int) -> dict[str, torch.Tensor]:
    angles = torch.outer(torch.arange(length), 5e5 ** -torch.linspace(0, 1, 64)).to(DEVICE)
    return {"cos": angles.cos().contiguous(), "sin": angles.sin().contiguous()}


def turned(
    x: torch.Tensor, positions: torch.Tensor, table: dict[str, torch.Tensor]
) -> torch.Tensor:
    """x [rows, heads, 128], pairs half a head apart."""
    cos, sin = (table[name][positions][:, None] for name in ("cos", "sin"))
    a, b = x[..., :64], x[..., 64:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def check_attention(lengths: list[int], rows: int) -> None:
    """Prompts in parts and then tokens one by one, against float64 from what was given."""
    limits = {"fp32": 1e-5, "bf16": 1e-2, "int8": 3e-2}
    for format, limit in limits.items():
        heads = Heads(**LLAMA, cache_format=format)
        pages = len(lengths) * -(-max(lengths) // 16) + 64
        cache = torch.zeros(pages, heads.page_bytes(), dtype=torch.uint8, device=DEVICE)
        whole = [torch.randn(length, 48 * 128, device=DEVICE) for length in lengths]
        table = tables(max(lengths))
        places = batch_of([(0, length) for length in lengths], pages)
        found = [torch.full((length, 4096), torch.nan, device=DEVICE) for length in lengths]
        again = [one.clone() for one in found]
        last = [length - 3 for length in lengths]
        for step in (*range(0, max(lengths), rows), -3, -2, -1):
            if step >= 0:
                parts = [(i, step, min(rows, n - step)) for i, n in enumerate(last) if step < n]
            else:
                parts = [(i, length + step, 1) for i, length in enumerate(lengths)]
            if not parts:
                continue
            of = batch_of([(start, count) for _, start, count in parts], pages)
            index = [i for i, _, _ in parts]
            some = Batch(
                pages=places.pages[index].contiguous(), starts=of.starts, counts=of.counts,
                offsets=of.offsets, owners=of.owners, least_rows=of.least_rows,
                most_rows=of.most_rows, most_length=of.most_length,
            )  # fmt: skip
            qkv = torch.cat([whole[i][start : start + count] for i, start, count in parts])
            decoder_cuda.store(qkv, cache, some, heads, 0, **table)
            for results in (found, again):
                out = torch.full((len(qkv), 4096), torch.nan, device=DEVICE)
                decoder_cuda.attend(qkv, cache, some, heads, 0, out)
                at = 0
                for i, start, count in parts:
                    results[i][start : start + count] = out[at : at + count]
                    at += count
        for i, length in enumerate(lengths):
            x = whole[i].view(length, 48, 128).double()
            here = torch.arange(length, device=DEVICE)
            q, k = turned(x[:, :32], here, table), turned(x[:, 32:40], here, table)
            k, v = (y.repeat_interleave(4, 1).transpose(0, 1) for y in (k, x[:, 40:]))
            scores = q.transpose(0, 1) @ k.transpose(1, 2) * 128**-0.5
            hidden = here[None] > here[:, None]
            p = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            wanted = (p @ v).transpose(0, 1).reshape(length, -1)
            for name, part in (("prompts", slice(0, -3)), ("tokens", slice(-3, None))):
                wrong = error(found[i][part], wanted[part])
                expect(
                    wrong < limit, f"attention {format} {length} {name}: relative error {wrong:.1e}"
                )
            expect(torch.equal(found[i], again[i]), f"attention {format} {length}: equal bits")


def check_steps() -> None:
    x, gain = torch.randn(9, 4096, device=DEVICE), torch.randn(4096, device=DEVICE)
    out, rows = torch.empty_like(x), quant_cuda.Rows.empty(x, 9, 4096)
    decoder_cuda.norm(x, gain, epsilon=1e-5, out=out, rows=rows)
    y = x.double()
    wanted = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain
    expect(error(out, wanted) < 1e-6, f"norm: relative error {error(out, wanted):.1e}")
    expect(torch.equal(rows.bricks, quant_cuda.encode(out).bricks), "norm: the same rows rounded")
    half, rows = torch.empty(9, 2048, device=DEVICE), quant_cuda.Rows.empty(x, 9, 2048)
    decoder_cuda.activate(x, "swiglu", out=half, rows=rows)
    wanted = torch.nn.functional.silu(y[:, :2048]) * y[:, 2048:]
    expect(error(half, wanted) < 1e-6, f"swiglu: relative error {error(half, wanted):.1e}")
    expect(
        torch.equal(rows.bricks, quant_cuda.encode(half).bricks), "swiglu: the same rows rounded"
    )


def check_all(quick: bool) -> None:
    check_products(
        [(HIDDEN, HIDDEN), (416, 200)] if quick else [(HIDDEN, HIDDEN), (INNER, HIDDEN), (416, 200)]
    )
    check_attention([700, 35] if quick else [2100, 700, 35], rows=256)
    check_steps()
