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
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

NATIVE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(NATIVE))

from cuda_decoder_checks import DEVICE, HIDDEN, INNER, LLAMA  # pants: no-infer-dep # noqa: E402
from cuda_decoder_checks import batch_of, check_all, failures  # pants: no-infer-dep # noqa: E402
from cuda_decoder_checks import tables, turned  # pants: no-infer-dep # noqa: E402

from oarlock.native import _library, _tensors, cuda, decoder_cuda, quant_cuda  # noqa: E402
from oarlock.native.decoder_cuda import Heads  # noqa: E402

# Inputs and outputs of a layer's products.
PRODUCTS = {
    "qkv": (HIDDEN, 6144),
    "out": (HIDDEN, HIDDEN),
    "up": (HIDDEN, 2 * INNER),
    "down": (INNER, HIDDEN),
}
CACHED = 64 << 20  # bytes that no second-level cache of today holds


def build() -> None:
    """Both libraries for this GPU, from now on those that the modules load."""
    folder = NATIVE / "build" / "cuda_decoder"
    major, minor = torch.cuda.get_device_capability()
    options = ["OARLOCK_CUDA=ON", "OARLOCK_PHI=OFF", "CMAKE_BUILD_TYPE=Release"]
    options += [f"OARLOCK_CUDA_ARCHITECTURES={major}{minor}"]
    configure = ["cmake", "-S", str(NATIVE), "-B", str(folder), "-G", "Ninja"]
    subprocess.run(configure + [f"-D{one}" for one in options], check=True)
    threads = {"NVCC_APPEND_FLAGS": "--threads 0"}
    subprocess.run(["ninja", "-C", str(folder)], check=True, env=os.environ | threads)
    libraries = {one.name: one for one in folder.rglob("liboarlock_*.so")}
    _library.find = libraries.get  # type: ignore[assignment]


def any_weight(inputs: int, outputs: int, format: str) -> quant_cuda.Matrix:
    """Codes and scales that are finite, for timing."""
    like = torch.empty(1, device=DEVICE)
    made = quant_cuda.Matrix.empty(like, inputs=inputs, outputs=outputs, format=format)
    made.bricks.random_(0, 60)
    return made


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
        packed = {
            format: [any_weight(inputs, outputs, format) for _ in range(count)]
            for format in ("int4", "int8")
        }
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
                results.append(
                    row(
                        "product",
                        f"{name} {rows} rows",
                        arm,
                        seconds,
                        found["torch bf16"],
                        moved,
                        work,
                        top,
                    )
                )
    return results


def row(kind: str, name: str, arm: str, seconds: float, base: float, moved: float, work: float,
        top: dict[str, float]) -> dict:  # fmt: skip
    """A result, printed."""
    shares = {
        "of_bytes": moved / seconds / top["bytes"],
        "of_operations": work / seconds / top["operations"],
    }
    print(f"{kind:10}{name:28}{arm:12}{seconds * 1e6:10.1f} us{base / seconds:8.2f}x"
          f"{shares['of_bytes']:9.0%} of bytes{shares['of_operations']:8.0%} of operations", flush=True)  # fmt: skip
    return {
        "kind": kind,
        "name": name,
        "arm": arm,
        "seconds": seconds,
        "to_torch": base / seconds,
        **shares,
    }


def time_attention(
    clock: Clock, cases: list[tuple[int, int, int]], top: dict[str, float]
) -> list[dict]:
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
            arms[format] = [
                lambda c=c, h=heads: decoder_cuda.attend(qkv, c, batch, h, 0, out) for c in caches
            ]
        seen = rows * before + rows * (rows + 1) / 2
        name = f"{sequences} x {rows} after {before}"
        for arm, seconds in (found := clock(arms)).items():
            moved = items * {"torch bf16": 2, "bf16": 2, "int8": 1 + 4 / 128}[arm] + 4 * out.numel()
            work = 4 * sequences * seen * 32 * 128
            results.append(
                row("attention", name, arm, seconds, found["torch bf16"], moved, work, top)
            )
    return results


def time_steps(clock: Clock, all_rows: list[int], top: dict[str, float]) -> list[dict]:
    results = []
    f = torch.nn.functional
    for rows in all_rows:
        xs = [
            torch.randn(rows, HIDDEN, device=DEVICE, dtype=torch.bfloat16)
            for _ in range(copies(rows * 2 * HIDDEN))
        ]
        ups = [
            torch.randn(rows, 2 * INNER, device=DEVICE, dtype=torch.bfloat16)
            for _ in range(copies(rows * 4 * INNER))
        ]
        gain = torch.randn(HIDDEN, device=DEVICE)
        narrow = gain.bfloat16()
        normed = quant_cuda.Rows.empty(gain, rows, HIDDEN)
        active = quant_cuda.Rows.empty(gain, rows, INNER)
        cases = {
            "norm and round": ({
                "torch bf16": [lambda x=x: f.rms_norm(x, (HIDDEN,), narrow) for x in xs],
                "ours": [lambda x=x: decoder_cuda.norm(x, gain, epsilon=1e-5, rows=normed) for x in xs],
            }, rows * HIDDEN * (2 + 9 / 8)),
            "swiglu and round": ({
                "torch bf16": [lambda x=x: f.silu(x[:, :INNER]) * x[:, INNER:] for x in ups],
                "ours": [lambda x=x: decoder_cuda.activate(x, "swiglu", rows=active) for x in ups],
            }, rows * INNER * (4 + 9 / 8)),
            "round": ({
                "torch bf16": [lambda x=x: x.clone() for x in xs],
                "ours": [lambda x=x: quant_cuda.encode(x, normed) for x in xs],
            }, rows * HIDDEN * (2 + 9 / 8)),
        }  # fmt: skip
        for name, (arms, moved) in cases.items():
            for arm, seconds in (found := clock(arms)).items():
                results.append(
                    row(
                        "step",
                        f"{name} {rows} rows",
                        arm,
                        seconds,
                        found["torch bf16"],
                        moved,
                        0,
                        top,
                    )
                )
    return results


def time_layer(clock: Clock, cases: list[tuple[int, int]], top: dict[str, float]) -> list[dict]:
    """A layer for one new token of each of some sequences, after so many positions."""
    results = []
    f = torch.nn.functional
    for sequences, before in cases:
        length, pages = before + 1, sequences * -(-(before + 1) // 16)
        batch, table = batch_of([(before, 1)] * sequences, pages), tables(length)
        new = {"device": DEVICE, "dtype": torch.bfloat16}
        x, gain = torch.randn(sequences, HIDDEN, **new), torch.ones(HIDDEN, device=DEVICE)
        narrow, arms = gain.bfloat16(), {}
        dense = [
            {name: torch.randn(size, **new) for name, size in PRODUCTS.items()} for _ in range(2)
        ]
        kept = torch.randn(2, sequences, 8, length, 128, **new)

        def by_torch(w):
            qkv = (f.rms_norm(x, (HIDDEN,), narrow) @ w["qkv"]).view(sequences, 48, 128)
            here = batch.starts.long()
            q, k = turned(qkv[:, :32], here, table).to(x.dtype), turned(qkv[:, 32:40], here, table)
            kept[0, :, :, before], kept[1, :, :, before] = k.to(x.dtype), qkv[:, 40:]
            out = f.scaled_dot_product_attention(q[:, :, None], kept[0], kept[1], enable_gqa=True)
            y = x + out.reshape(sequences, HIDDEN) @ w["out"]
            up = f.rms_norm(y, (HIDDEN,), narrow) @ w["up"]
            return y + (f.silu(up[:, :INNER]) * up[:, INNER:]) @ w["down"]

        arms["torch bf16"] = [lambda w=w: by_torch(w) for w in dense]
        bytes_of = {"torch bf16": 2.0 * sum(a * b for a, b in PRODUCTS.values())}
        for format, cache_format in (("int4", "int8"), ("int8", "bf16")):
            heads = Heads(**LLAMA, cache_format=cache_format)
            cache = torch.randint(
                0, 60, (pages, heads.page_bytes()), dtype=torch.uint8, device=DEVICE
            )
            made = [
                {name: any_weight(*size, format) for name, size in PRODUCTS.items()}
                for _ in range(2)
            ]
            hidden = torch.randn(sequences, HIDDEN, device=DEVICE)
            qkv, up = (torch.empty(sequences, PRODUCTS[name][1], **new) for name in ("qkv", "up"))
            out = torch.empty(sequences, HIDDEN, **new)
            normed, active = (quant_cuda.Rows.empty(hidden, sequences, n) for n in (HIDDEN, INNER))

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

            arms[f"{format} {cache_format}"] = [lambda w=w, ours=ours: ours(w) for w in made]
            bits = 4.5 if format == "int4" else 8.5
            bytes_of[f"{format} {cache_format}"] = bits / 8 * bytes_of["torch bf16"] / 2
        items = sequences * length * 8 * 128 * 2
        for arm, seconds in (found := clock(arms)).items():
            moved = bytes_of[arm] + items * (1 + 4 / 128 if arm.endswith("int8") else 2)
            name = f"{sequences} after {before}"
            results.append(row("layer", name, arm, seconds, found["torch bf16"], moved, 0, top))
    return results


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
    print(
        f"{gpu}: {top['bytes'] / 1e12:.2f} TB/s, {top['operations'] / 1e12:.0f} TFLOP/s", flush=True
    )
    results: list[dict] = []
    found = {
        "gpu": gpu,
        "torch": torch.__version__,
        "ceilings": top,
        "failures": failures,
        "results": results,
    }
    few, many = [1, 4, 8, 16, 32], [64, 256, 2048]
    decoding = [(1, 1, 1023), (1, 1, 8191), (8, 1, 4095), (32, 1, 2047)]
    prompts = [(1, 2048, 0), (1, 512, 3584), (8, 512, 0)]
    for part in (
        lambda: time_products(clock, [1, 32, 256] if quick else few + many, top),
        lambda: time_attention(
            clock, decoding[1:2] + prompts[:1] if quick else decoding + prompts, top
        ),
        lambda: time_steps(clock, [1] if quick else [1, 32, 2048], top),
        lambda: time_layer(
            clock, [(1, 2047)] if quick else [(1, 2047), (8, 2047), (32, 2047)], top
        ),
    ):
        results += part()
        torch.cuda.empty_cache()
        Path(arguments.out).write_text(json.dumps(found, indent=1))
    print(f"{len(failures)} checks failed; results in {arguments.out}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
