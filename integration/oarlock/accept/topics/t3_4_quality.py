"""Criterion 3.4: what our engine writes against the same model in Paddle, at every precision."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: `texts` prompts of `prompt` tokens are continued by `new`; `scored` texts of `length` tokens are scored.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {
        "models": ("stories260k",),
        "texts": 8,
        "prompt": 8,
        "new": 40,
        "scored": 8,
        "length": 128,
    },
    "full": {
        "models": ("stories260k", "gpt-shakespeare-bytes", "llama-shakespeare-bytes"),
        "texts": 64,
        "prompt": 16,
        "new": 200,
        "scored": 128,
        "length": 224,
    },
}
#: Formats of weights, and of keys and values.
ARMS = (
    ("fp32", "fp32"),
    ("bf16", "fp32"),
    ("int8", "fp32"),
    ("int4", "fp32"),
    ("fp32", "bf16"),
    ("fp32", "int8"),
    ("int8", "int8"),
)
#: What 16 and 8 bits may cost, of weights or of keys and values, and still be no measurable loss of perplexity,
#: relative; 4 bits are rounded to
#: nearest here, and what better methods make of them is a matter of criterion 1.3.
UNMEASURABLE = 2e-3


@experiment(
    "3.4",
    name="quality",
    tiers=("quick", "full"),
    title="Our engine against the same model in Paddle: greedy texts, perplexity, changed choices",
    minutes=6,
    data=("weights/stories260K", "llm/tinyshakespeare"),
)
def quality(run: Run) -> Iterator[Evidence]:
    """Greedy texts must be equal in float32; elsewhere perplexity and the share of changed choices."""
    sizes = SIZES[run.tier]
    for done, name in enumerate(sizes["models"]):
        run.progress(done, len(sizes["models"]), name)
        yield from _model(run, name)


def _model(run: Run, name: str) -> Iterator[Evidence]:
    import numpy as np
    import paddle
    from oarlock.accept.compression import subjects
    from oarlock.llm.engine import LLM, EngineConfig, SamplingParams

    sizes = SIZES[run.tier]
    if name == "stories260k":
        subject = subjects.stories260k(sizes["scored"], sizes["length"], run.seed)
    else:
        subject = subjects.prepared(
            name, sizes["scored"] // subjects.MORE, sizes["length"], run.seed
        )
    texts = np.concatenate([tokens.numpy() for tokens, _ in subject.held_out])[: sizes["scored"]]
    prompts = texts[: sizes["texts"], : sizes["prompt"]]
    reference = subject.model.generate(paddle.to_tensor(prompts), max_new_tokens=sizes["new"])
    expected = reference.numpy()[:, sizes["prompt"] :].tolist()
    losses: dict[tuple[str, str], np.ndarray] = {}
    choices: dict[tuple[str, str], np.ndarray] = {}
    for weights, cache in ARMS:
        llm = LLM(
            subject.model, weights=weights, config=EngineConfig(cache_format=cache, threads=1)
        )
        if (weights, cache) == ARMS[0]:
            params = SamplingParams(max_tokens=sizes["new"], temperature=0.0)
            written = llm.generate(prompts.tolist(), params)
            yield _equal(
                run, name, subject.origin, [one.completions[0].tokens for one in written], expected
            )
        scored = llm.generate(
            texts.tolist(), SamplingParams(max_tokens=0, prompt_logprobs=1, temperature=0.0)
        )
        rows = [one.prompt_logprobs for one in scored]
        losses[weights, cache] = np.array([[-token.logprob for token in row] for row in rows])
        choices[weights, cache] = np.array([[token.top[0][0] for token in row] for row in rows])
    yield _reference(run, name, subject, texts, losses[ARMS[0]])
    for arm in ARMS[1:]:
        yield from _precision(run, name, arm, losses, choices)


def _equal(
    run: Run, name: str, origin: str, written: list[Any], expected: list[list[int]]
) -> Evidence:
    same = sum(list(ours) == theirs for ours, theirs in zip(written, expected, strict=True))
    return Evidence(
        name=f"{name}-greedy",
        metric=f"{name}: greedy texts equal to the model's in Paddle, float32",
        unit="texts",
        direction="higher",
        baseline=float(len(expected)),
        baseline_name="all texts",
        ours=float(same),
        ratio=same / len(expected),
        target=1.0,
        n=len(expected),
        seeds=[run.seed],
        notes=f"{origin}. {len(expected[0])} tokens each, all texts at once in our engine.",
    )


def _reference(run: Run, name: str, subject: Any, texts: Any, ours: Any) -> Evidence:
    """Log-probabilities of our engine in float32 against Paddle's."""
    from oarlock.accept.deployment import models

    theirs = models.losses(subject.model, texts)
    apart = float(abs(ours - theirs).max())
    return Evidence(
        name=f"{name}-scores",
        metric=f"{name}: largest difference of a token's log-probability to Paddle's, float32",
        unit="nats",
        direction="lower",
        baseline=1e-3,
        baseline_name="allowed",
        ours=max(apart, 1e-9),
        target=1.0,
        n=int(theirs.size),
        seeds=[run.seed],
        notes=f"{len(texts)} texts of {texts.shape[1]} tokens.",
    )


def _precision(
    run: Run, name: str, arm: tuple[str, str], losses: Mapping[Any, Any], choices: Mapping[Any, Any]
) -> Iterator[Evidence]:
    import numpy as np
    from oarlock.accept.measure.stats import bootstrap_ratio

    weights, cache = arm
    roundings = (weights != "fp32") + (cache != "fp32")
    base, ours = losses[ARMS[0]], losses[arm]
    # exp of mean losses: the interval over texts is that of the mean difference
    ratio = bootstrap_ratio(
        np.exp(base.mean(1) - ours.mean(1)).tolist(),
        [1.0] * len(base),
        paired=True,
        statistic="mean",
        seed=run.seed,
    )
    flipped = choices[arm] != choices[ARMS[0]]
    judged = weights != "int4" and (run.tier == "full" or cache != "int8")  # few texts are noisy
    key = f"{name}-{weights}" + ("" if cache == "fp32" else f"-cache-{cache}")
    about = f"weights in {weights}, keys and values in {cache}"
    notes = (
        f"{len(base)} texts of {base.shape[1] + 1} tokens, {about}; rounded to nearest in groups of 32"
        " inputs (int8, int4), keys and values with a scale for each head and position (int8). Choices"
        f" of the most probable token that differ from float32's: {flipped.mean():.2%}."
    )
    yield Evidence(
        name=f"{key}-perplexity",
        metric=f"{name}: perplexity, {about}",
        unit="perplexity",
        direction="lower",
        baseline=math.exp(float(base.mean())),
        baseline_name="float32",
        ours=math.exp(float(ours.mean())),
        ratio=ratio.value,
        ci=ratio.ci,
        n=ratio.n,
        seeds=[run.seed],
        target=1 - UNMEASURABLE * roundings if judged else None,
        notes=notes,
    )
    yield Evidence(
        name=f"{key}-flips",
        metric=f"{name}: choices that differ from float32's, {about}",
        unit="%",
        direction="lower",
        baseline=None,
        baseline_name="none in float32",
        ours=100 * float(flipped.mean()),
        n=int(flipped.size),
        seeds=[run.seed],
        notes=notes,
    )
