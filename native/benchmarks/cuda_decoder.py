"""Kernels of language models' inference on a GPU: built, checked, and timed against PyTorch's own.

Usage: python native/benchmarks/cuda_decoder.py [--out FILE] [--rounds N] [--quick] [--built]

Needs PyTorch with CUDA, nvcc, CMake and Ninja, and no Paddle. The libraries are built for this GPU into
native/build/cuda_decoder and used from there (``--built``: those beside the modules are used as they are). Sizes are
Llama 3 8B's: products with int4 and int8 weights against bfloat16 products, attention over pages against
``scaled_dot_product_attention`` over keys in one piece, norms, activations and rotation, and a whole layer as
an engine calls it. Before anything is timed it is checked against float64, for equal bits from call to call, and for a
row's bits in batches of other sizes; a failed check ends the program with status 1, but the rest is still checked.

Times are of CUDA graphs of several calls, medians of interleaved rounds; each call of a graph has operands of its own, as
many as the second-level cache cannot hold. Shares are of a device-to-device copy, measured in the same run, and the rate of
PyTorch's bfloat16 products of 8192 x 8192.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

NATIVE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(NATIVE))

from oarlock.native import _tensors, cuda, decoder_cuda, quant, quant_cuda  # noqa: E402
from oarlock.native.decoder_cuda import Batch, Heads  # noqa: E402

DEVICE = "cuda"
# Inputs and outputs of a layer's products, and its heads.
PRODUCTS = {"qkv": (4096, 6144), "out": (4096, 4096), "up": (4096, 28672), "down": (14336, 4096)}
LLAMA = {"layers": 1, "heads": 32, "kv_heads": 8, "head_size": 128, "rotary": 128, "rotary_halves": True}  # fmt: skip
CACHED = 64 << 20  # bytes that no second-level cache of today holds
failures: list[str] = []


def build() -> None:
    """Both libraries for this GPU, put beside the modules."""
    folder = NATIVE / "build" / "cuda_decoder"
    major, minor = torch.cuda.get_device_capability()
    options = ["OARLOCK_CUDA=ON", "OARLOCK_PHI=OFF", "CMAKE_BUILD_TYPE=Release"]
    options += [f"OARLOCK_CUDA_ARCHITECTURES={major}{minor}"]
    configure = ["cmake", "-S", str(NATIVE), "-B", str(folder), "-G", "Ninja"]
    subprocess.run(configure + [f"-D{one}" for one in options], check=True)
    threads = {"NVCC_APPEND_FLAGS": "--threads 0"}
    subprocess.run(["ninja", "-C", str(folder)], check=True, env=os.environ | threads)
    for library in (folder / "liboarlock_native.so", folder / "cuda" / "liboarlock_cuda.so"):
        shutil.copy(library, NATIVE / "oarlock" / "native" / library.name)


def expect(good: bool, what: str) -> None:
    print(f"{'ok' if good else 'FAILED':7}{what}", flush=True)
    if not good:
        failures.append(what)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, of all numbers together; NaN stays NaN."""
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def weight(inputs: int, outputs: int, format: str, seed: int = 0) -> tuple[quant_cuda.Matrix, torch.Tensor]:
    """A weight arranged, and what it stands for, [inputs, outputs] float64."""
    values = np.random.default_rng(seed).standard_normal((inputs, outputs), np.float32)
    packed = quant.Matrix.pack(values, format=format)
    made = quant_cuda.Matrix.arrange(packed, torch.from_numpy(packed.packed).to(DEVICE))
    return made, torch.from_numpy(packed.dequantize().copy()).to(DEVICE).double()


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Rows as products take them, float64."""
    groups = x.float().reshape(len(x), -1, 32)
    largest = groups.abs().amax(-1, keepdim=True)
    return (torch.round(groups * (127 / largest)).double() * (largest / 127).double()).reshape(x.shape)


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


def turned(x: torch.Tensor, positions: torch.Tensor, table: dict[str, torch.Tensor]) -> torch.Tensor:
    """x [rows, heads, 128], pairs half a head apart."""
    cos, sin = (table[name][positions][:, None] for name in ("cos", "sin"))
    a, b = x[..., :64], x[..., 64:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def check_attention(lengths: list[int], rows: int) -> None:
    """Prompts in parts and then tokens one by one, against float64 from what was given."""
    limits = {"fp32": 1e-5, "bf16": 1e-2, "int8": 3e-2}
    for format, limit in limits.items():
        heads = Heads(**LLAMA, cache_format=format)
        pages = sum(-(-length // 16) for length in lengths) + 64 * len(lengths)
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
                expect(wrong < limit, f"attention {format} {length} {name}: relative error {wrong:.1e}")
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
    expect(torch.equal(rows.bricks, quant_cuda.encode(half).bricks), "swiglu: the same rows rounded")


class Clock:
    """Times of CUDA graphs, each of some calls, in rounds; one graph of each arm at a time."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __call__(self, arms: dict[str, list[Callable[[], object]]]) -> dict[str, float]:
        """Median seconds of a call of each arm; an arm's calls have different operands."""
        graphs = {}
        for name, calls in arms.items():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for call in calls:
                    call()
            torch.cuda.current_stream().wait_stream(stream)
            graphs[name] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[name]):
                for call in calls:
                    call()
        times: dict[str, list[float]] = {name: [] for name in arms}
        for index in range(self.rounds + 2):
            for name in list(arms)[:: 1 if index % 2 else -1]:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                graphs[name].replay()
                end.record()
                end.synchronize()
                if index >= 2:
                    times[name].append(begin.elapsed_time(end) / 1e3 / len(arms[name]))
        return {name: statistics.median(values) for name, values in times.items()}


def copies(of_bytes: float) -> int:
    """So many operands that a call does not find its own in the cache."""
    return int(min(24, max(4, -(-2 * CACHED // max(1, of_bytes)))))


def ceilings(clock: Clock) -> dict[str, float]:
    """Bytes a second of a copy, read and written, and operations a second of bfloat16 products."""
    size = 1 << 30
    a, b = (torch.empty(size, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    x, y = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    found = clock({"copy": [lambda: b.copy_(a)], "product": [lambda: x @ y]})
    return {"bytes": 2 * size / found["copy"], "operations": 2 * 8192**3 / found["product"]}


def time_products(clock: Clock, all_rows: list[int], top: dict[str, float]) -> list[dict]:
    results = []
    for name, (inputs, outputs) in PRODUCTS.items():
        dense = inputs * outputs * 2
        count = copies(dense / 4)
        narrow = [torch.randn(inputs, outputs, device=DEVICE, dtype=torch.bfloat16)
                  for _ in range(copies(dense))]  # fmt: skip
        packed = {}
        for format in ("int4", "int8"):
            made, _ = weight(inputs, outputs, format)
            packed[format] = [
                quant_cuda.Matrix(made.bricks.clone(), inputs, outputs, format) for _ in range(count)
            ]
        for rows in all_rows:
            x = torch.randn(rows, inputs, device=DEVICE, dtype=torch.bfloat16)
            out = torch.empty(rows, outputs, device=DEVICE, dtype=torch.bfloat16)
            given = quant_cuda.encode(x)
            arms = {"torch bf16": [lambda w=w: torch.matmul(x, w, out=out) for w in narrow]}
            for format, made in packed.items():
                arms[format] = [lambda w=w: quant_cuda.matmul(given, w, out) for w in made]
            bits = {"torch bf16": 16.0, "int4": 4.5, "int8": 8.5}
            for arm, seconds in (found := clock(arms)).items():
                moved = inputs * outputs * bits[arm] / 8 + rows * (2 * outputs + inputs * 9 / 8)
                work = 2 * rows * inputs * outputs
                results.append(row("product", f"{name} {rows} rows", arm, seconds, found["torch bf16"], moved, work, top))
    return results


def row(kind: str, name: str, arm: str, seconds: float, base: float, moved: float, work: float,
        top: dict[str, float]) -> dict:  # fmt: skip
    """A result, printed."""
    shares = {"of_bytes": moved / seconds / top["bytes"], "of_operations": work / seconds / top["operations"]}
    print(f"{kind:10}{name:28}{arm:12}{seconds * 1e6:10.1f} us{base / seconds:8.2f}x"
          f"{shares['of_bytes']:9.0%} of bytes{shares['of_operations']:8.0%} of operations", flush=True)  # fmt: skip
    return {"kind": kind, "name": name, "arm": arm, "seconds": seconds, "to_torch": base / seconds, **shares}


def time_attention(clock: Clock, cases: list[tuple[int, int, int]], top: dict[str, float]) -> list[dict]:
    """Of (sequences, rows of each, positions before them)."""
    results = []
    attend = torch.nn.functional.scaled_dot_product_attention
    for sequences, rows, before in cases:
        length = before + rows
        pages = sequences * -(-length // 16)
        items = sequences * length * 8 * 128 * 2  # of keys and values
        count = copies(items)
        qkv = torch.randn(sequences * rows, 48 * 128, device=DEVICE, dtype=torch.bfloat16)
        out = torch.empty(sequences * rows, 4096, device=DEVICE, dtype=torch.bfloat16)
        q = torch.randn(sequences, 32, rows, 128, device=DEVICE, dtype=torch.bfloat16)
        kv = [torch.randn(2, sequences, 8, length, 128, device=DEVICE, dtype=torch.bfloat16)
              for _ in range(copies(2 * items))]  # fmt: skip
        mask = None
        if 1 < rows < length:
            mask = torch.ones(rows, length, dtype=torch.bool, device=DEVICE).tril(length - rows)
        causal = rows == length
        arms = {
            "torch bf16": [
                lambda k=k, v=v: attend(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
                for k, v in kv
            ]
        }
        batch = batch_of([(before, rows)] * sequences, pages)
        for format in ("bf16", "int8"):
            heads = Heads(**LLAMA, cache_format=format)
            caches = [torch.randint(0, 60, (pages, heads.page_bytes()), dtype=torch.uint8, device=DEVICE)
                      for _ in range(count)]  # small numbers in both formats # fmt: skip
            arms[format] = [lambda c=c, h=heads: decoder_cuda.attend(qkv, c, batch, h, 0, out) for c in caches]
        seen = rows * before + rows * (rows + 1) / 2
        name = f"{sequences} x {rows} after {before}"
        for arm, seconds in (found := clock(arms)).items():
            moved = items * {"torch bf16": 2, "bf16": 2, "int8": 1 + 4 / 128}[arm] + 4 * out.numel()
            work = 4 * sequences * seen * 32 * 128
            results.append(row("attention", name, arm, seconds, found["torch bf16"], moved, work, top))
    return results


def time_steps(clock: Clock, all_rows: list[int], top: dict[str, float]) -> list[dict]:
    results = []
    f = torch.nn.functional
    for rows in all_rows:
        xs = [torch.randn(rows, 4096, device=DEVICE, dtype=torch.bfloat16) for _ in range(copies(rows * 8192))]
        ups = [torch.randn(rows, 28672, device=DEVICE, dtype=torch.bfloat16) for _ in range(copies(rows * 57344))]
        gain = torch.randn(4096, device=DEVICE)
        narrow = gain.bfloat16()
        normed = quant_cuda.Rows.empty(gain, rows, 4096)
        active = quant_cuda.Rows.empty(gain, rows, 14336)
        cases = {
            "norm and round": ({
                "torch bf16": [lambda x=x: f.rms_norm(x, (4096,), narrow) for x in xs],
                "ours": [lambda x=x: decoder_cuda.norm(x, gain, epsilon=1e-5, rows=normed) for x in xs],
            }, rows * 4096 * (2 + 9 / 8)),
            "swiglu and round": ({
                "torch bf16": [lambda x=x: f.silu(x[:, :14336]) * x[:, 14336:] for x in ups],
                "ours": [lambda x=x: decoder_cuda.activate(x, "swiglu", rows=active) for x in ups],
            }, rows * 14336 * (4 + 9 / 8)),
            "round": ({
                "torch bf16": [lambda x=x: x.clone() for x in xs],
                "ours": [lambda x=x: quant_cuda.encode(x, normed) for x in xs],
            }, rows * 4096 * (2 + 9 / 8)),
        }  # fmt: skip
        for name, (arms, moved) in cases.items():
            for arm, seconds in (found := clock(arms)).items():
                results.append(row("step", f"{name} {rows} rows", arm, seconds, found["torch bf16"], moved, 0, top))
    return results


def time_layer(clock: Clock, cases: list[tuple[int, int]], top: dict[str, float]) -> list[dict]:
    """A layer for one new token of each of some sequences, after so many positions."""
    results = []
    f = torch.nn.functional
    for sequences, before in cases:
        length, pages = before + 1, sequences * -(-(before + 1) // 16)
        batch, table = batch_of([(before, 1)] * sequences, pages), tables(length)
        new = {"device": DEVICE, "dtype": torch.bfloat16}
        x, gain = torch.randn(sequences, 4096, **new), torch.ones(4096, device=DEVICE)
        narrow, arms = gain.bfloat16(), {}
        dense = [{name: torch.randn(size, **new) for name, size in PRODUCTS.items()} for _ in range(2)]
        kept = torch.randn(2, sequences, 8, length, 128, **new)

        def by_torch(w):
            qkv = (f.rms_norm(x, (4096,), narrow) @ w["qkv"]).view(sequences, 48, 128)
            here = batch.starts.long()
            q, k = turned(qkv[:, :32], here, table).to(x.dtype), turned(qkv[:, 32:40], here, table)
            kept[0, :, :, before], kept[1, :, :, before] = k.to(x.dtype), qkv[:, 40:]
            out = f.scaled_dot_product_attention(q[:, :, None], kept[0], kept[1], enable_gqa=True)
            y = x + out.reshape(sequences, 4096) @ w["out"]
            up = f.rms_norm(y, (4096,), narrow) @ w["up"]
            return y + (f.silu(up[:, :14336]) * up[:, 14336:]) @ w["down"]

        arms["torch bf16"] = [lambda w=w: by_torch(w) for w in dense]
        bytes_of = {"torch bf16": 2.0 * sum(a * b for a, b in PRODUCTS.values())}
        for format, cache_format in (("int4", "int8"), ("int8", "bf16")):
            heads = Heads(**LLAMA, cache_format=cache_format)
            cache = torch.randint(0, 60, (pages, heads.page_bytes()), dtype=torch.uint8, device=DEVICE)
            made = {name: weight(*size, format)[0] for name, size in PRODUCTS.items()}
            more = {n: quant_cuda.Matrix(w.bricks.clone(), w.inputs, w.outputs, format) for n, w in made.items()}
            hidden = torch.randn(sequences, 4096, device=DEVICE)
            qkv, up = (torch.empty(sequences, PRODUCTS[name][1], **new) for name in ("qkv", "up"))
            out = torch.empty(sequences, 4096, **new)
            normed, active = (quant_cuda.Rows.empty(hidden, sequences, n) for n in (4096, 14336))

            def ours(w, heads=heads, cache=cache, hidden=hidden, qkv=qkv, up=up, out=out, normed=normed, active=active):  # fmt: skip
                decoder_cuda.norm(hidden, gain, epsilon=1e-5, rows=normed)
                quant_cuda.matmul(normed, w["qkv"], qkv)
                decoder_cuda.store(qkv, cache, batch, heads, 0, **table)
                decoder_cuda.attend(qkv, cache, batch, heads, 0, out)
                quant_cuda.matmul(quant_cuda.encode(out, normed), w["out"], hidden, accumulate=True)
                decoder_cuda.norm(hidden, gain, epsilon=1e-5, rows=normed)
                quant_cuda.matmul(normed, w["up"], up)
                decoder_cuda.activate(up, "swiglu", rows=active)
                quant_cuda.matmul(active, w["down"], hidden, accumulate=True)

            arms[f"{format} {cache_format}"] = [lambda w=w, ours=ours: ours(w) for w in (made, more)]
            bits = 4.5 if format == "int4" else 8.5
            bytes_of[f"{format} {cache_format}"] = bits / 8 * bytes_of["torch bf16"] / 2
        items = sequences * length * 8 * 128 * 2
        for arm, seconds in (found := clock(arms)).items():
            moved = bytes_of[arm] + items * (1 + 4 / 128 if arm.endswith("int8") else 2)
            name = f"{sequences} after {before}"
            results.append(row("layer", name, arm, seconds, found["torch bf16"], moved, 0, top))
    return results


def check_all(quick: bool) -> None:
    check_products([(4096, 4096), (416, 200)] if quick else [*PRODUCTS.values(), (416, 200)])
    check_attention([700, 35] if quick else [2100, 700, 35], rows=256)
    check_steps()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="cuda_decoder.json", help="results")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    parser.add_argument("--built", action="store_true", help="do not build")
    arguments = parser.parse_args()
    if not arguments.built:
        build()
    if (reason := cuda.why_not()) is not None:
        raise SystemExit(reason)
    # Torch's stream, whatever its version exports.
    _tensors.TensorList.stream = lambda self: torch.cuda.current_stream().cuda_stream
    torch.manual_seed(0)
    check_all(arguments.quick)
    quick, clock = arguments.quick, Clock(arguments.rounds)
    top = ceilings(clock)
    gpu = torch.cuda.get_device_name()
    print(f"{gpu}: {top['bytes'] / 1e12:.2f} TB/s, {top['operations'] / 1e12:.0f} TFLOP/s", flush=True)
    results: list[dict] = []
    found = {"gpu": gpu, "torch": torch.__version__, "ceilings": top, "failures": failures, "results": results}
    few, many = [1, 4, 8, 16, 32], [64, 256, 2048]
    decoding = [(1, 1, 1023), (1, 1, 8191), (8, 1, 4095), (32, 1, 2047)]
    prompts = [(1, 2048, 0), (1, 512, 3584), (8, 512, 0)]
    for part in (
        lambda: time_products(clock, [1, 32, 256] if quick else few + many, top),
        lambda: time_attention(clock, decoding[1:2] + prompts[:1] if quick else decoding + prompts, top),
        lambda: time_steps(clock, [1] if quick else [1, 32, 2048], top),
        lambda: time_layer(clock, [(1, 2047)] if quick else [(1, 2047), (8, 2047), (32, 2047)], top),
    ):
        results += part()
        torch.cuda.empty_cache()
        Path(arguments.out).write_text(json.dumps(found, indent=1))
    print(f"{len(failures)} checks failed; results in {arguments.out}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
