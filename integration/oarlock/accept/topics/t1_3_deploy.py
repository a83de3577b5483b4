"""Criterion 1.3: compressed models in llama.cpp and ONNX Runtime: quality, size and speed."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: `texts` of `length` tokens judge quality; `shapes` are timed, `tokens` a round. A shape with heads is a
#: LLaMA, one without an RWKV-4.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {
        "texts": 6,
        "length": 64,
        "shapes": {
            "llama-tiny": {
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
            "llama-135m": {
                "vocab_size": 32000,
                "hidden_size": 768,
                "num_layers": 12,
                "num_heads": 12,
                "num_kv_heads": 12,
                "intermediate_size": 2048,
                "max_length": 2048,
            },
            "llama-615m": {
                "vocab_size": 32000,
                "hidden_size": 2048,
                "num_layers": 11,
                "num_heads": 32,
                "num_kv_heads": 4,
                "intermediate_size": 5632,
                "max_length": 2048,
            },
            "rwkv-169m": {
                "vocab_size": 50277,
                "hidden_size": 768,
                "num_layers": 12,
                "intermediate_size": 3072,
            },
        },
        "tokens": 12,
        "rounds": 10,
        "threads": 2,
    },
}
SETTLE_S = 0.25  #: threads of an arm spin for a while after their last work
#: How far a library's perplexity may be from that of the same weights in Paddle, relative: llama.cpp keeps
#: keys and values in float16, and with rounded weights the libraries round activations too.
ALLOWED = {"f32": 5e-4, "f16": 5e-3, "bf16": 1e-2, "W8": 5e-3, "W8A8": 2e-2, "W4": 1e-2}
#: What 8 bits may cost and still be no measurable loss, relative.
UNMEASURABLE = 2e-3
FASTER, FASTER_THAN_HALF = 2.0, 1.5
COMPRESSED = ("W8", "W8A8", "W4")


@experiment(
    "1.3",
    name="deploy",
    tiers=("quick", "full"),
    title="Exported models in llama.cpp and ONNX Runtime: quality, size and speed",
    minutes=25,
    peers=("llama_cpp",),
    data=("stories260K", "tiny_rwkv"),
)
def deploy(run: Run) -> Iterator[Evidence]:
    """The same model in several formats, each run by the library that it was exported for.

    Quality is that of real weights of two families on texts that the models themselves wrote. Speed is
    that of generating token by token, from an empty cache, with random weights of the shapes of real
    models: the time of a token does not depend on the values of the weights.
    """
    from oarlock.accept.deployment import libraries

    found = libraries.of(run)
    todo: list[tuple[str, Iterator[Evidence]]] = []
    for library in found:
        todo.append((f"{library.title}: quality", _quality(run, library, "stories260k")))
        if library.kind == "onnx":
            todo.append((f"{library.title}: quality", _quality(run, library, "rwkv660k")))
    for name, shape in SIZES[run.tier]["shapes"].items():
        for library in found:
            if library.kind == "onnx" or "num_heads" in shape:
                todo.append((f"{library.title}: speed, {name}", _speed(run, library, name, shape)))
    for done, (text, part) in enumerate(todo):
        run.progress(done, len(todo), text)
        yield from part


def _quality(run: Run, library: Any, name: str) -> Iterator[Evidence]:
    """Perplexities of all formats, against the same weights in Paddle and against float32."""
    import numpy as np

    from oarlock.accept.deployment import models
    from oarlock.core_opt.compress.export import llama

    texts, length = SIZES[run.tier]["texts"], SIZES[run.tier]["length"]
    vocabulary = None
    if name == "rwkv660k":
        model: Any = models.rwkv()
    else:
        model, vocabulary = models.stories()
    begin = 1 if vocabulary else ord("\n")
    tokens = models.sampled(model, begin=begin, texts=texts, length=length, seed=run.seed)
    float32 = None
    with tempfile.TemporaryDirectory() as folder:
        if vocabulary is None:
            exports = models.rwkv_exports(model, Path(folder))
        else:
            parts = llama.from_layer(model).padded(models.BLOCK)
            exports = models.llama_exports(parts, Path(folder), library.kind, vocabulary)
        for form, export in exports.items():
            export.write()
            expected = float(models.losses(export.spelt(), tokens).mean())
            with ExitStack() as stack:
                worker, about = library.start(export.path, 1)
                stack.enter_context(worker)
                found = float(np.mean(worker.call("losses", tokens=tokens.tolist())))
                again = models.same_tokens(worker, tokens) if library.kind == "gguf" else 0
            if float32 is None:
                float32 = found
                if library.kind == "gguf":
                    yield _tokenizer(run, about["library"], again, texts)
            common: dict[str, Any] = {
                "unit": "1",
                "direction": "lower",
                "ours": math.exp(found),
                "n": texts,
                "seeds": [run.seed],
                "notes": (
                    f"{name} in {about['library']}, {texts} texts of {length} tokens that it wrote itself"
                    f" (temperature 1). File of {export.path.stat().st_size:,} bytes. Weights are"
                    " rounded to nearest, W4 and W8 in groups of 32."
                ),
            }
            key = f"{library.name}-{name}-{form.lower()}"
            yield Evidence(
                name=f"{key}-equal",
                metric=f"perplexity of {name} as {form}, larger over smaller of both libraries",
                baseline=math.exp(expected),
                baseline_name="the file's weights in Paddle, float32",
                ratio=math.exp(-abs(expected - found)),
                target=1 - ALLOWED[form],
                **common,
            )
            if form in COMPRESSED:
                yield Evidence(
                    name=f"{key}-perplexity",
                    metric=f"perplexity of {name} as {form}",
                    baseline=math.exp(float32),
                    baseline_name=f"float32 in {library.title}",
                    target=1 - UNMEASURABLE if form == "W8" else None,
                    **common,
                )


def _tokenizer(run: Run, library: str, same: int, texts: int) -> Evidence:
    """The file's tokenizer cuts texts as ours does."""
    return Evidence(
        name="llama-cpp-stories260k-tokens",
        metric="texts that the exported tokenizer cuts as ours does",
        unit="texts",
        direction="higher",
        baseline=float(texts),
        baseline_name="all texts",
        ours=float(same),
        target=1.0,
        n=texts,
        seeds=[run.seed],
        notes=f"In {library}, on texts that stories260K wrote.",
    )


def _speed(run: Run, library: Any, label: str, shape: Mapping[str, int]) -> Iterator[Evidence]:
    """Generation speed of all formats, interleaved."""
    from oarlock.accept.deployment import models
    from oarlock.accept.measure.timing import paired

    sizes = SIZES[run.tier]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if "num_heads" in shape:
            parts = models.llama_of(shape, run.seed)
            count = sum(math.prod(part.shape) for part in parts.parts.values())
            exports = models.llama_exports(parts, Path(folder), library.kind)
            del parts
        else:
            model = models.rwkv_of(shape, run.seed)
            count = model.num_parameters()
            exports = models.rwkv_exports(model, Path(folder))
            del model
        files = {}
        for form in list(exports):  # each holds the weights, which are not needed any more then
            export = exports.pop(form)
            export.write()
            files[form] = export.path
            del export
        size = {form: _bytes(path) for form, path in files.items()}
        arms, about = {}, {}
        tokens = [(7 * i + 1) % shape["vocab_size"] for i in range(sizes["tokens"])]
        for form, path in files.items():
            worker, about = library.start(path, sizes["threads"])
            stack.enter_context(worker)
            arms[form] = partial(worker.call, "decode", tokens=tokens)
        timings = paired(
            arms,
            rounds=sizes["rounds"],
            settle_s=0.0 if run.tier == "quick" else SETTLE_S,
        )
    rate = {form: len(tokens) / timings.median(form) for form in arms}
    notes = (
        f"{count / 1e6:.0f} M random weights, {dict(shape)}, in {about['library']},"
        f" {sizes['threads']} threads, {len(tokens)} tokens a round from an empty cache. Tokens/s:"
        f" {', '.join(f'{form} {value:.1f}' for form, value in rate.items())}."
        f" {about.get('system', '')}"
    ).strip()
    baselines = [("f32", FASTER, "")]
    if halves := [form for form in ("f16", "bf16") if form in arms]:
        baselines.append((min(halves, key=timings.median), FASTER_THAN_HALF, "-half"))
    for form in (one for one in COMPRESSED if one in arms):
        key = f"{library.name}-{label}-{form.lower()}"
        for base, target, suffix in baselines:
            ratio = timings.ratio(base, form)
            yield Evidence(
                name=f"{key}-speed{suffix}",
                metric=f"generation speed of {label} as {form}",
                unit="tokens/s",
                direction="higher",
                baseline=rate[base],
                baseline_name=f"{base} in {library.title}",
                ours=rate[form],
                ratio=ratio.value,
                ci=ratio.ci,
                n=ratio.n,
                seeds=[run.seed],
                target=target,
                judged=run.tier == "full",
                notes=notes,
            )
        yield Evidence(
            name=f"{key}-size",
            metric=f"size of {label} as {form}",
            unit="MB",
            direction="lower",
            baseline=size["f32"] / 1e6,
            baseline_name=f"f32 for {library.title}",
            ours=size[form] / 1e6,
            seeds=[run.seed],
            notes=notes,
        )


def _bytes(path: Path) -> int:
    """Size of a file, and of what lies beside it under its name."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))
