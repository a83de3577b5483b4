"""Criterion 4.4.2: models put in order by evaluation, and whether its errors and tests can be believed."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: `characters` of each of up to `documents` pieces of Shakespeare; `choices` of sentences and lines; `draws` of items.
SIZES: Mapping[str, dict[str, int]] = {
    "quick": {"documents": 12, "characters": 300, "choices": 0, "draws": 200},
    "full": {"documents": 60, "characters": 1500, "choices": 140, "draws": 2000},
}
#: By what they were trained on, the best first: this text (of which LLaMA had the lower loss in training), other
#: English, nothing. What RWKV-4 was trained on is not known, and the poems' model is sure of what it never saw.
EXPECTED = (
    "LLaMA, Shakespeare",
    "GPT, Shakespeare",
    "stories260K",
    "random LLaMA",
)
#: Models that have read English, and those that have not: on choices nothing more of their order is known beforehand.
ENGLISH = ("LLaMA, Shakespeare", "GPT, Shakespeare", "stories260K")
OTHERS = ("random LLaMA", "LLaMA, Chinese poems")
POEMS = "LLaMA, Chinese poems"
#: Standard deviations of what is added to a model's weights, in those of each matrix.
NOISE = (0.0, 0.05, 0.1, 0.15, 0.2)
DISTURBED = "llama-shakespeare-bytes"
#: How far what is measured of intervals and forecasts may be from what they promise.
COVERED, COVERAGE_OFF = 0.95, 0.025
ALARMS = 0.065
POWER, POWER_OFF = 0.8, 0.1
DRAWN = (12, 100)  #: items that a forecast must ask for to be tried: fewer are too few for a t test
SEEN = 0.95  #: of pieces of text that are told right from those of training


@experiment(
    "4.4.2",
    name="ranking",
    tiers=("quick", "full"),
    title="Models in order, on text and choices that none was trained on; errors, tests and forecasts",
    minutes=8,
    data=("stories260K", "tiny_rwkv", "tinyshakespeare", "chinese_poetry"),
)
def ranking(run: Run) -> Iterator[Evidence]:
    """Evaluates several models on the parts of the corpora that `prepare` holds out, and compares all pairs.

    Both Student's test of the paired differences and the sign test must say so, each by Holm over all pairs, before a
    difference counts as sure. Then what they promise is tried on the same scores by drawing items anew.
    """
    from oarlock.accept.evaluation import held_out, subjects
    from oarlock.llm import eval
    from oarlock.llm.eval import contamination

    sizes = SIZES[run.tier]
    bits = held_out.bits(sizes["documents"], sizes["characters"])
    tasks = [bits]
    if sizes["choices"]:
        tasks.append(held_out.next_sentence(sizes["choices"]))
        tasks.append(held_out.next_line(sizes["choices"]))
    with tempfile.TemporaryDirectory() as place:
        find, find_training = held_out.write(Path(place), poems=len(tasks) > 1)
        found, disturbed = {}, {}
        models = subjects.of_tier(run.tier)
        for done, (name, make) in enumerate(models.items()):
            run.progress(done, len(models) + len(NOISE), name)
            found[name] = eval.evaluate(make(), tasks, data=find)
        if run.tier == "full":
            for done, noise in enumerate(NOISE):
                name = f"noise of {noise:.0%}"
                run.progress(len(models) + done, len(models) + len(NOISE), name)
                backend = subjects.disturbed(DISTURBED, noise, seed=run.seed)
                disturbed[name] = eval.evaluate(backend, bits, data=find)
            for form in ("int8", "int4"):
                backend = subjects.prepared(DISTURBED, form=form)
                disturbed[form] = eval.evaluate(backend, bits, data=find)
        known = contamination.overlaps(eval.build(bits, data=find), [held_out.training_text()])
        seen = contamination.overlaps(
            eval.build(bits, data=find_training), [held_out.training_text()]
        )
    yield from _order(run, found, bits.name)
    if disturbed:
        yield from _noise(run, disturbed, bits.name)
    if len(tasks) > 1:
        yield _choices(run, found, tasks[1].name)
        yield _lyrics(run, found, tasks[2].name)
    yield from _promises(run, found | disturbed, [task.name for task in tasks])
    yield _contamination(run, known, seen)


def _order(run: Run, found: Mapping[str, Any], task: str) -> Iterator[Evidence]:
    """The expected order, and each neighbour's lead."""
    from oarlock.accept.evaluation import standing

    expected = [name for name in EXPECTED if name in found]
    whole = standing.rank(found, task)
    told = "; ".join(f"{name} {whole.scores[name]:.3f}" for name in whole.order)
    unsure = [f"{p.better} and {p.worse}" for p in whole.pairs if not p.sure]
    notes = (
        f"Bits per byte, {_items(found, task)} pieces of held-out Shakespeare: {told}. Pairs that are not sure:"
        f" {', '.join(unsure) or 'none'} of {len(whole.pairs)}."
    )
    tau, low, high = standing.agreement(found, task, expected, seed=run.seed)
    yield Evidence(
        name="ranking-order",
        metric="Shakespeare: rank correlation of the measured order with the expected one",
        unit="Kendall's tau",
        direction="higher",
        baseline=1.0,
        baseline_name=f"required: {', '.join(expected)}",
        ours=tau,
        ratio=tau,
        ci=(low, high),
        n=_items(found, task),
        seeds=[run.seed],
        target=1.0,
        notes=notes,
    )
    yield _sure(run, "ranking-neighbours", "Shakespeare: neighbours", whole.adjacent(), notes)
    for pair in whole.adjacent():
        yield _lead(run, pair, whole.scores, notes)


def _noise(run: Run, disturbed: Mapping[str, Any], task: str) -> Iterator[Evidence]:
    """One model with more and more noise in its weights: the order is known by construction."""
    from oarlock.accept.evaluation import standing

    expected = [name for name in disturbed if name.startswith("noise")]
    only = {name: disturbed[name] for name in expected}
    whole = standing.rank(only, task)
    notes = (
        f"{DISTURBED}, normal noise in every matrix, in standard deviations of its weights; bits per byte, {_items(only, task)}"
        f" pieces: {'; '.join(f'{name} {score:.4f}' for name, score in whole.scores.items())}."
    )
    tau, low, high = standing.agreement(only, task, expected, seed=run.seed)
    yield Evidence(
        name="ranking-noise-order",
        metric="one model with more and more noise: rank correlation with the order of the noise",
        unit="Kendall's tau",
        direction="higher",
        baseline=1.0,
        baseline_name="required",
        ours=tau,
        ratio=tau,
        ci=(low, high),
        n=_items(only, task),
        seeds=[run.seed],
        target=1.0,
        notes=notes,
    )
    yield _sure(run, "ranking-noise-neighbours", "more noise: neighbours", whole.adjacent(), notes)
    forms = {"fp32": disturbed[expected[0]]} | {k: disturbed[k] for k in ("int8", "int4")}
    rounded = standing.rank(forms, task)
    for form in ("int8", "int4"):
        pair = rounded.pair("fp32", form)
        lead = pair.comparison.difference * (1 if pair.better == "fp32" else -1)
        error = pair.comparison.standard_error
        yield Evidence(
            name=f"ranking-{form}",
            metric=f"{DISTURBED}: bits per byte of held-out Shakespeare with {form} weights",
            unit="bits/byte",
            direction="lower",
            baseline=rounded.scores["fp32"],
            baseline_name="float32",
            ours=rounded.scores[form],
            n=pair.comparison.n,
            seeds=[run.seed],
            notes=(
                f"{lead:.5f} more, standard error {error:.5f}; Holm's p {pair.p_value:.2g}, of the sign test"
                f" {pair.sign_p_value:.2g}."
            ),
        )


def _choices(run: Run, found: Mapping[str, Any], task: str) -> Evidence:
    """Sentences of Shakespeare as they are, or with two words exchanged: who has read English leads who has not."""
    from oarlock.accept.evaluation import standing

    whole = standing.rank(found, task)
    told = "; ".join(f"{name} {whole.scores[name]:.3f}" for name in whole.order)
    wanted = {(a, b) for a in ENGLISH for b in OTHERS}
    pairs = [pair for pair in whole.pairs if (pair.better, pair.worse) in wanted]
    unsure = [f"{p.better} and {p.worse}" for p in whole.pairs if not p.sure]
    notes = (
        f"Share of right choices of four, {_items(found, task)} sentences: {told}. Of all {len(whole.pairs)} pairs these are"
        f" not sure: {', '.join(unsure) or 'none'}."
    )
    words = "choices: leads of models that have read English over those that have not"
    return _sure(run, "ranking-choices", words, pairs, notes, of=len(wanted))


def _lyrics(run: Run, found: Mapping[str, Any], task: str) -> Evidence:
    """The one model that has read poems, on choices of lines of lyrics."""
    from oarlock.accept.evaluation import standing

    whole = standing.rank(found, task)
    told = "; ".join(f"{name} {whole.scores[name]:.3f}" for name in whole.order)
    sure = [f"{p.better} over {p.worse}" for p in whole.pairs if p.sure]
    second = next(name for name in whole.order if name != POEMS)
    return Evidence(
        name="ranking-lyrics",
        metric=f"lines of lyrics: share of right choices, {POEMS} and the best other, {second}",
        unit="share",
        direction="higher",
        baseline=whole.scores[second],
        baseline_name=second,
        ours=whole.scores[POEMS],
        n=_items(found, task),
        seeds=[run.seed],
        notes=(
            f"{_items(found, task)} lyrics of the held-out part, four lines to choose from: {told}. Sure of all"
            f" {len(whole.pairs)} pairs: {', '.join(sure) or 'none'}."
        ),
    )


def _sure(
    run: Run, name: str, words: str, pairs: Sequence[Any], notes: str, *, of: int | None = None
) -> Evidence:
    of = len(pairs) if of is None else of
    sure = sum(pair.sure for pair in pairs)
    return Evidence(
        name=name,
        metric=f"{words} whose difference is sure",
        unit="pairs",
        direction="higher",
        baseline=float(of),
        baseline_name="all of them",
        ours=float(sure),
        ratio=sure / of,
        n=of,
        seeds=[run.seed],
        target=1.0,
        judged=run.tier == "full",
        notes=(
            "p by Holm over all pairs, Student's and sign test: "
            + "; ".join(
                f"{p.better} over {p.worse} {p.p_value:.2g}, {p.sign_p_value:.2g}" for p in pairs
            )
            + f". {notes}"
        ),
    )


def _lead(run: Run, pair: Any, scores: Mapping[str, float], notes: str) -> Evidence:
    low, high = pair.comparison.low, pair.comparison.high
    best = scores[pair.better]
    key = "-".join(pair.worse.lower().replace(",", "").replace(".", "").split())
    return Evidence(
        name=f"ranking-before-{key}",
        metric=f"Shakespeare: bits per byte, {pair.better} and the next, {pair.worse}",
        unit="bits/byte",
        direction="lower",
        baseline=scores[pair.worse],
        baseline_name=pair.worse,
        ours=best,
        ci=(1 + low / best, 1 + high / best),
        n=pair.comparison.n,
        seeds=[run.seed],
        target=1.0,
        exclusive=True,
        judged=run.tier == "full",
        notes=f"Difference {pair.comparison.difference:.3f} ({low:.3f} to {high:.3f}). {notes}",
    )


def _promises(run: Run, found: Mapping[str, Any], tasks: Sequence[str]) -> Iterator[Evidence]:
    """Coverage of intervals, false alarms of tests, and forecasts of power, on these scores."""
    from itertools import combinations

    from oarlock.accept.evaluation import credibility

    draws = SIZES[run.tier]["draws"]
    scored = {(m, t): r.tasks[t] for m, r in found.items() for t in tasks if t in r.tasks}
    spread = {key: task for key, task in scored.items() if _varies(task)}
    held = {
        key: credibility.coverage(task, draws=draws, seed=run.seed) for key, task in spread.items()
    }
    worst = max(abs(share - COVERED) for share in held.values())
    yield _off(
        run,
        "coverage",
        "intervals of 95 %: largest deviation of the share that holds the truth",
        COVERAGE_OFF,
        worst,
        len(held),
        f"{draws} samples each, drawn from the items with replacement: "
        + "; ".join(f"{m}, {t} {share:.3f}" for (m, t), share in held.items()),
    )
    pairs = [(a, b) for a, b in combinations(spread, 2) if a[1] == b[1]]
    alarms = [
        credibility.false_alarms(spread[a], spread[b], draws=draws // 4, seed=run.seed + i)
        for i, (a, b) in enumerate(pairs)
    ]
    share = sum(alarms) / len(alarms)
    yield Evidence(
        name="false-alarms",
        metric="differences found, p < 0.05, between models whose answers were swapped at random",
        unit="share",
        direction="lower",
        baseline=ALARMS,
        baseline_name="allowed",
        ours=max(share, 1e-6),
        n=len(pairs) * (draws // 4),
        seeds=[run.seed],
        target=1.0,
        judged=run.tier == "full",
        notes=f"{draws // 4} swaps of each of {len(pairs)} pairs; the largest share of a pair is {max(alarms):.3f}.",
    )
    tried = {}
    for i, (a, b) in enumerate(pairs):
        n = credibility.forecast(spread[a], spread[b])
        if n is not None and DRAWN[0] <= n <= DRAWN[1]:
            seen = credibility.power(spread[a], spread[b], n, draws=draws // 4, seed=run.seed + i)
            tried[f"{a[0]} and {b[0]}, {a[1]}"] = (n, seen)
    if tried:
        yield _off(
            run,
            "power",
            "forecasts of items needed: largest deviation from 80 % of samples that show the difference",
            POWER_OFF,
            max(abs(seen - POWER) for _, seen in tried.values()),
            len(tried),
            f"{draws // 4} samples of as many items as the forecast says, for pairs that need {DRAWN[0]} to {DRAWN[1]}: "
            + "; ".join(f"{k}: {n} items, {seen:.3f}" for k, (n, seen) in tried.items()),
        )


def _varies(task: Any) -> bool:
    return len({item.values[task.primary][0] for item in task.items}) > 1


def _off(
    run: Run, name: str, metric: str, allowed: float, found: float, n: int, notes: str
) -> Evidence:
    return Evidence(
        name=name,
        metric=metric,
        unit="share",
        direction="lower",
        baseline=allowed,
        baseline_name="allowed",
        ours=max(found, 1e-6),
        n=n,
        seeds=[run.seed],
        target=1.0,
        judged=run.tier == "full",
        notes=f"{notes}.",
    )


def _contamination(run: Run, held_out: Sequence[Any], training: Sequence[Any]) -> Evidence:
    right = sum(not one.dirty for one in held_out) + sum(one.dirty for one in training)
    count = len(held_out) + len(training)
    return Evidence(
        name="contamination",
        metric="pieces of text rightly told to be in the training text or not",
        unit="share",
        direction="higher",
        baseline=SEEN,
        baseline_name="required",
        ours=max(right / count, 1e-6),
        n=count,
        seeds=[run.seed],
        target=1.0,
        notes=(
            f"13-grams of words. {sum(one.dirty for one in training)} of {len(training)} pieces of training text found,"
            f" {sum(one.dirty for one in held_out)} of {len(held_out)} held-out pieces taken for such."
        ),
    )


def _items(found: Mapping[str, Any], task: str) -> int:
    return len(next(iter(found.values())).tasks[task].items)
