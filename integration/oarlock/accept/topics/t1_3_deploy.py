"""Criterion 1.3: compressed LLaMAs in llama.cpp and ONNX Runtime: quality, size and speed."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: `texts` of `length` tokens judge quality; `shapes` are timed, `tokens` a round.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {
        "texts": 6,
        "length": 64,
        "shapes": {
            "tiny": {
                "vocab_size": 512,
                "hidden_size": 128,
                "num_layers": 2,
                "num_heads": 4,
                "num_kv_heads": 2,
                "intermediate_size": 352,
                "max_length": 512,
            }
        },
        "tokens": 4,
        "rounds": 2,
        "threads": 1,
    },
    "full": {
        "texts": 64,
        "length": 256,
        "shapes": {
            "135m": {
                "vocab_size": 32000,
                "hidden_size": 768,
                "num_layers": 12,
                "num_heads": 12,
                "num_kv_heads": 12,
                "intermediate_size": 2048,
                "max_length": 2048,
            },
            "615m": {
                "vocab_size": 32000,
                "hidden_size": 2048,
                "num_layers": 11,
                "num_heads": 32,
                "num_kv_heads": 4,
                "intermediate_size": 5632,
                "max_length": 2048,
            },
        },
        "tokens": 12,
        "rounds": 10,
        "threads": 2,
    },
}
SETTLE_S = 0.25  #: threads of an arm spin for a while after their last work
#: How far a library's perplexity may be from that of the same weights in Paddle, relative: with rounded
#: weights the libraries round activations too.
ALLOWED = {"f32": 1e-4, "f16": 5e-3, "bf16": 1e-2, "W8": 5e-3, "W8A8": 2e-2, "W4": 1e-2}
#: What 8 bits may cost and still be no measurable loss, relative.
UNMEASURABLE = 2e-3
FASTER, FASTER_THAN_HALF = 2.0, 1.5
COMPRESSED = ("W8", "W8A8", "W4")


@experiment(
    "1.3",
    name="deploy",
    tiers=("quick", "full"),
    title="Exported models in llama.cpp and ONNX Runtime: quality, size and speed",
    minutes=20,
    peers=("llama_cpp",),
    data=("stories260K",),
)
def deploy(run: Run) -> Iterator[Evidence]:
    """The same model in several formats, each run by the library that it was exported for.

    Quality is that of real weights (stories260K) on texts that the model itself wrote. Speed is that of
    generating token by token, from an empty cache, with random weights of the shapes of real models:
    the time of a token does not depend on the values of the weights.
    """
    from oarlock.accept.deployment import libraries

    found = libraries.of(run)
    steps = len(found) * (1 + len(SIZES[run.tier]["shapes"]))
    done = 0
    for library in found:
        run.progress(done, steps, f"{library.title}: quality")
        yield from _quality(run, library)
        done += 1
    for name, shape in SIZES[run.tier]["shapes"].items():
        for library in found:
            run.progress(done, steps, f"{library.title}: speed of {name}")
            yield from _speed(run, library, name, shape)
            done += 1


def _quality(run: Run, library: Any) -> Iterator[Evidence]:
    """Perplexities of all formats, against the same weights in Paddle and against float32."""
    import numpy as np

    from oarlock.accept.deployment import models
    from oarlock.core_opt.compress.export import llama

    sizes = SIZES[run.tier]
    model, vocabulary = models.stories()
    texts, length = sizes["texts"], sizes["length"]
    tokens = models.sampled(model, texts=texts, length=length, seed=run.seed)
    parts = llama.from_layer(model).padded(models.BLOCK)
    mean: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = models.writers(parts, Path(folder), library.kind, vocabulary)
        for name, (path, write) in files.items():
            write()
            spelt = models.spelt_out(parts, name, path, library.kind)
            expected = models.losses(models.in_paddle(spelt), tokens).mean()
            with ExitStack() as stack:
                worker, about = library.start(path, 1)
                stack.enter_context(worker)
                mean[name] = float(np.mean(worker.call("losses", tokens=tokens.tolist())))
            notes = (
                f"stories260K in {about['library']}, {texts} texts of {length} tokens that it wrote"
                f" itself (temperature 1). File of {path.stat().st_size:,} bytes."
            )
            yield Evidence(
                name=f"{library.name}-{name.lower()}-equal",
                metric=f"perplexity of stories260K as {name}, the same as in Paddle",
                unit="1",
                direction="lower",
                baseline=float(np.exp(expected)),
                baseline_name="the file's weights in Paddle, float32",
                ours=float(np.exp(mean[name])),
                ratio=float(np.exp(-abs(expected - mean[name]))),
                target=1 - ALLOWED[name],
                n=texts,
                seeds=[run.seed],
                notes=f"{notes} The ratio is that of the larger to the smaller perplexity, turned over.",
            )
            if name in COMPRESSED:
                yield Evidence(
                    name=f"{library.name}-{name.lower()}-perplexity",
                    metric=f"perplexity of stories260K as {name}",
                    unit="1",
                    direction="lower",
                    baseline=float(np.exp(mean["f32"])),
                    baseline_name=f"float32 in {library.title}",
                    ours=float(np.exp(mean[name])),
                    target=1 - UNMEASURABLE if name == "W8" else None,
                    n=texts,
                    seeds=[run.seed],
                    notes=f"{notes} Weights are rounded to nearest, in groups of 32.",
                )


def _speed(run: Run, library: Any, label: str, shape: Mapping[str, int]) -> Iterator[Evidence]:
    """Generation speed of all formats, interleaved."""
    from oarlock.accept.deployment import models
    from oarlock.accept.measure.timing import paired

    sizes = SIZES[run.tier]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        parts = models.of_shape(shape, run.seed)
        count = sum(math.prod(part.shape) for part in parts.parts.values())
        files = models.writers(parts, Path(folder), library.kind)
        for _, write in files.values():
            write()
        del parts, write
        size = {name: _bytes(path) for name, (path, _) in files.items()}
        arms, about = {}, {}
        tokens = [(7 * i + 1) % shape["vocab_size"] for i in range(sizes["tokens"])]
        for name, (path, _) in files.items():
            worker, about = library.start(path, sizes["threads"])
            stack.enter_context(worker)
            arms[name] = partial(worker.call, "decode", tokens=tokens)
        timings = paired(
            arms,
            rounds=sizes["rounds"],
            settle_s=0.0 if run.tier == "quick" else SETTLE_S,
        )
    rate = {name: len(tokens) / timings.median(name) for name in arms}
    notes = (
        f"LLaMA of {count / 1e6:.0f} M random weights, {dict(shape)}, in {about['library']},"
        f" {sizes['threads']} threads, {len(tokens)} tokens a round from an empty cache. Tokens/s:"
        f" {', '.join(f'{name} {value:.1f}' for name, value in rate.items())}."
        f" {about.get('system', '')}"
    )
    halves = [name for name in ("f16", "bf16") if name in arms]
    baselines = [("f32", FASTER, "")]
    if halves:
        fastest = min(halves, key=timings.median)
        baselines.append((fastest, FASTER_THAN_HALF, "-half"))
    for name in (one for one in COMPRESSED if one in arms):
        for base, target, suffix in baselines:
            ratio = timings.ratio(base, name)
            yield Evidence(
                name=f"{library.name}-{label}-{name.lower()}-speed{suffix}",
                metric=f"generation speed of a {label} LLaMA as {name}",
                unit="tokens/s",
                direction="higher",
                baseline=rate[base],
                baseline_name=f"{base} in {library.title}",
                ours=rate[name],
                ratio=ratio.value,
                ci=ratio.ci,
                n=ratio.n,
                seeds=[run.seed],
                target=target,
                judged=run.tier == "full",
                notes=notes,
            )
        yield Evidence(
            name=f"{library.name}-{label}-{name.lower()}-size",
            metric=f"size of a {label} LLaMA as {name}",
            unit="MB",
            direction="lower",
            baseline=size["f32"] / 1e6,
            baseline_name=f"f32 for {library.title}",
            ours=size[name] / 1e6,
            seeds=[run.seed],
            notes=notes,
        )


def _bytes(path: Path) -> int:
    """Size of a file, and of what lies beside it under its name."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))
