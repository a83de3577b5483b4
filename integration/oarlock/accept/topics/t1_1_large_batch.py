"""Criterion 1.1: what eight times the batch costs in tokens, with Muon and with tuned AdamW.

Theory: `docs/topics/1.1.md`, "How many tokens a step".
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from oarlock.accept.convergence.lengths import length_to
from oarlock.accept.convergence.settings import DATA, TASKS
from oarlock.accept.convergence.settings import best as best_settings
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure.stats import bootstrap_ratio

BASE, LARGE = "base-batch", "large-batch"
OPTIMIZERS = ("adamw", "muon")
#: Lengths at the large batch, chosen to enclose the loss of the base batch.
LENGTHS = {"adamw": (220, 320), "muon": (220, 300)}
SEEDS = 5
KEPT = 0.8  #: share of token efficiency, required

#: Loss at the end by arm: the optimiser at the base batch, "optimiser steps" at the large one.
Losses = dict[str, float]


@experiment(
    "1.1",
    name="large-batch",
    tiers=("full",),
    title="Eight times the batch: share of token efficiency that Muon and tuned AdamW keep",
    minutes=22,
    data=(DATA,),
)
def large_batch(run: Run) -> Iterator[Evidence]:
    """Tokens to the same loss at a batch and at eight times as large a one.

    Both optimisers are tuned at both batches by the same search. For each seed an optimiser trains
    once at the base batch; at the large batch it trains at two lengths, each to the end of its own
    schedule, and the length that would end at the same loss is interpolated. Tokens at the base
    batch over those tokens is the share of token efficiency that is kept.
    """
    from oarlock.accept import data
    from oarlock.accept.convergence.race import race
    from oarlock.native.paddle import accelerate

    run.log(str(accelerate()))
    tasks = TASKS[run.tier]
    best = {size: best_settings(run.tier, size) for size in (BASE, LARGE)}
    text, origin = data.load_text(DATA), data.origin(DATA)
    seeds = [run.seed + number for number in range(SEEDS)]
    arms: dict[str, dict[str, tuple]] = {
        BASE: {name: (best[BASE][name], tasks[BASE].steps) for name in OPTIMIZERS},
        LARGE: {
            f"{name} {steps}": (best[LARGE][name], steps)
            for name in OPTIMIZERS
            for steps in LENGTHS[name]
        },
    }

    def train(number: int, size: str) -> dict[str, Any]:
        def on_turn(done: int, total: int) -> None:
            part = (2 * number + (size == LARGE)) * total + done
            run.progress(part, 2 * len(seeds) * total, f"seed {seeds[number]}, {size}")

        found = race(tasks[size], arms[size], text, seed=seeds[number], on_turn=on_turn)
        return {name: asdict(one) for name, one in found.items()}

    losses: list[Losses] = []
    for number, seed in enumerate(seeds):
        ends: Losses = {}
        for size in (BASE, LARGE):
            trained = run.remember([size, seed], partial(train, number, size))
            ends |= {name: one["curve"][-1][1] for name, one in trained.items()}
        losses.append(ends)
    yield from _evidence(losses, seeds, origin)


def share_kept(losses: Losses, optimizer: str, base_tokens: int, tokens_a_step: int) -> float:
    """Tokens to the base run's loss at the base batch, over those at the large batch."""
    steps = length_to(_ends(losses, optimizer), losses[optimizer])
    return base_tokens / (steps * tokens_a_step)


def _evidence(losses: list[Losses], seeds: Sequence[int], origin: str) -> Iterator[Evidence]:
    base, large = TASKS["full"][BASE], TASKS["full"][LARGE]
    tokens = base.steps * base.tokens_a_step
    shares = {
        name: [share_kept(one, name, tokens, large.tokens_a_step) for one in losses]
        for name in OPTIMIZERS
    }
    means = {name: sum(values) / len(values) for name, values in shares.items()}
    ends = {name: sum(one[name] for one in losses) / len(losses) for name in losses[0]}
    inside = {
        name: sum(one[f"{name} {LENGTHS[name][-1]}"] <= one[name] for one in losses)
        - sum(one[f"{name} {LENGTHS[name][0]}"] <= one[name] for one in losses)
        for name in OPTIMIZERS
    }
    notes = (
        f"From {base.tokens_a_step} to {large.tokens_a_step} tokens a step; LLaMA of width"
        f" {base.hidden_size}, {base.num_layers} layers; text: {origin}. {base.steps} steps at the"
        f" base batch, {LENGTHS} at the large one. Loss at the end, mean over seeds: "
        + "; ".join(f"{name} {value:.4f}" for name, value in ends.items())
        + f". The lengths run enclose the one needed for {inside['adamw']} (AdamW) and"
        f" {inside['muon']} (Muon) of {len(losses)} seeds; the others are extrapolated."
    )
    # A share that is mostly extrapolated is not judged: choose LENGTHS that enclose it.
    judged = all(2 * count > len(losses) for count in inside.values())
    shared: dict[str, Any] = {
        "n": len(seeds),
        "seeds": list(seeds),
        "level": "measured",
        "judged": judged,
    }
    required = bootstrap_ratio(
        [1 / KEPT] * len(seeds),
        [1 / share for share in shares["muon"]],
        paired=True,
        statistic="mean",
    )
    yield Evidence(
        name="large-batch-kept",
        metric="share of token efficiency that Muon keeps at eight times the batch",
        unit="1",
        direction="higher",
        baseline=KEPT,
        baseline_name="required",
        ours=means["muon"],
        ratio=required.value,
        ci=required.ci,
        target=1.0,
        notes=notes,
        **shared,
    )
    against = bootstrap_ratio(
        [1 / share for share in shares["adamw"]],
        [1 / share for share in shares["muon"]],
        paired=True,
        statistic="mean",
    )
    yield Evidence(
        name="large-batch-against-adamw",
        metric="share of token efficiency kept at eight times the batch",
        unit="1",
        direction="higher",
        baseline=means["adamw"],
        baseline_name="AdamW, tuned at both batches",
        ours=means["muon"],
        ratio=against.value,
        ci=against.ci,
        target=1.0,
        exclusive=True,
        notes=notes,
        **shared,
    )
    needed = {
        name: [large.tokens_a_step * length_to(_ends(one, name), one["adamw"]) for one in losses]
        for name in OPTIMIZERS
    }
    fewer = bootstrap_ratio(needed["adamw"], needed["muon"], paired=True, statistic="mean")
    yield Evidence(
        name="large-batch-tokens",
        metric="tokens at eight times the batch to the loss of AdamW at the base batch",
        unit="tokens",
        direction="lower",
        baseline=sum(needed["adamw"]) / len(seeds),
        baseline_name="AdamW, tuned at both batches",
        ours=sum(needed["muon"]) / len(seeds),
        ratio=fewer.value,
        ci=fewer.ci,
        notes=f"Where a length lies outside those run it is extrapolated. {notes}",
        **shared,
    )


def _ends(losses: Losses, optimizer: str) -> list[tuple[int, float]]:
    return [(steps, losses[f"{optimizer} {steps}"]) for steps in LENGTHS[optimizer]]
