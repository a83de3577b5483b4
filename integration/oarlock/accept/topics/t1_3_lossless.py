"""Criterion 1.3: bfloat16 weights without loss in fewer bits, against the entropy bound and zlib."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: Normal weights of this number and the standard deviation of a width of 2048, for speed.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {"weights": 1 << 20, "rounds": 2, "threads": (1,)},
    "full": {"weights": 1 << 26, "rounds": 10, "threads": (1, 2)},
}
STD = 2048**-0.5
#: Share of the bound's bits to the file's: whole bits for each code cost a little.
NEAR = 0.98
SMALL = 1.4  #: a third less


@experiment(
    "1.3",
    name="lossless",
    tiers=("quick", "full"),
    title="Entropy-coded bfloat16: size on real weights, and speed",
    minutes=4,
    data=("stories260K", "tiny_rwkv"),
)
def lossless(run: Run) -> Iterator[Evidence]:
    """Real weights of two families, rounded to bfloat16 once, then stored without any further loss."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        for name, state in _models().items():
            yield from _sizes(run, name, state, Path(folder) / name)
    sizes = SIZES[run.tier]
    values = np.random.default_rng(run.seed).standard_normal(sizes["weights"], np.float32)
    bits = ((values * np.float32(STD)).view(np.uint32) >> 16).astype(np.uint16)
    yield from _speed(run, bits)


def _models() -> dict[str, Mapping[str, Any]]:
    from oarlock.accept import data
    from oarlock.llm import weights

    models = {
        "stories260k": weights.load_llama2c(data.path("stories260K", "stories260K.bin")),
        "rwkv660k": weights.load_rwkv_cpp(data.path("tiny_rwkv", "tiny-rwkv-4v0-660K-FP32.bin")),
    }
    return {
        name: {key: tensor.astype("bfloat16") for key, tensor in model.state_dict().items()}
        for name, model in models.items()
    }


def _sizes(run: Run, name: str, state: Mapping[str, Any], path: Path) -> Iterator[Evidence]:
    """What a file of these weights takes, and what the entropy of their exponents allows."""
    import numpy as np

    from oarlock.core_opt.compress import lossless as codec

    about = codec.save(state, path)
    again = codec.load(path)
    changed = sum(
        int((again[key].numpy() != tensor.numpy()).sum()) for key, tensor in state.items()
    )
    numbers = [tensor.numpy().reshape(-1) for tensor in state.values()]
    count = sum(map(len, numbers))
    bound = sum(len(one) * (8 + codec.entropy(one)) for one in numbers) / count
    pooled = 8 + codec.entropy(np.concatenate(numbers))
    coded = sum(min(codec.compress(one).num_bytes, one.nbytes) for one in numbers) * 8 / count
    notes = (
        f"{count:,} weights of {name} in {len(state)} tensors. Entropy bound {bound:.3f} bits with the"
        f" exponents of each tensor by themselves, {pooled:.3f} with all together; coded {coded:.3f};"
        f" the file, with its description, {about['bits_per_weight']:.3f}."
    )
    yield Evidence(
        name=f"lossless-{name}-exact",
        metric=f"weights of {name} that come back bit for bit",
        unit="weights",
        direction="higher",
        baseline=float(count),
        baseline_name="all weights",
        ours=float(count - changed),
        target=1.0,
        seeds=[run.seed],
        notes=notes,
    )
    yield Evidence(
        name=f"lossless-{name}-size",
        metric=f"bits of a weight of {name} in bfloat16, coded",
        unit="bits",
        direction="lower",
        baseline=16.0,
        baseline_name="bfloat16",
        ours=coded,
        target=SMALL,
        seeds=[run.seed],
        notes=notes,
    )
    yield Evidence(
        name=f"lossless-{name}-bound",
        metric=f"bits of a weight of {name} against the entropy bound",
        unit="bits",
        direction="lower",
        baseline=bound,
        baseline_name="entropy bound",
        ours=coded,
        target=NEAR,
        seeds=[run.seed],
        notes=notes,
    )


def _speed(run: Run, bits: Any) -> Iterator[Evidence]:
    """Reading speed, against zlib, which finds the same redundancy with less knowledge."""
    import zlib

    from oarlock.accept.measure.timing import paired
    from oarlock.core_opt.compress import lossless as codec

    sizes = SIZES[run.tier]
    begun = time.perf_counter()
    coded = codec.compress(bits)
    writing = bits.nbytes / (time.perf_counter() - begun) / 1e6
    other = zlib.compress(bits.tobytes(), 6)
    arms: dict[str, Callable[[], Any]] = {"zlib": lambda: zlib.decompress(other)}
    for threads in sizes["threads"]:
        arms[f"ours-{threads}t"] = partial(codec.decompress, coded, threads=threads)
    timings = paired(
        arms,
        rounds=sizes["rounds"],
        on_round=lambda done, total: run.progress(done, total, "reading"),
    )
    bound = 8 + codec.entropy(bits)
    notes = (
        f"{bits.size:,} normal weights of standard deviation {STD:.4f}:"
        f" {8 * coded.num_bytes / bits.size:.3f} bits of 16 (bound {bound:.3f}; zlib at level 6"
        f" {8 * len(other) / bits.size:.3f}). Written at {writing:.0f} MB/s. In NumPy, without a"
        " compiled kernel."
    )
    rate = {name: bits.nbytes / timings.median(name) / 1e6 for name in arms}
    for threads in sizes["threads"]:
        ratio = timings.ratio("zlib", f"ours-{threads}t")
        yield Evidence(
            name=f"lossless-speed-{threads}t",
            metric=f"reading speed of coded bfloat16, {threads} threads",
            unit="MB/s",
            direction="higher",
            baseline=rate["zlib"],
            baseline_name="zlib, 1 thread",
            ours=rate[f"ours-{threads}t"],
            ratio=ratio.value,
            ci=ratio.ci,
            n=ratio.n,
            seeds=[run.seed],
            notes=notes,
        )
