"""Criterion 2.3.1, for information: training with sparse weights against dense and narrower models.

Theory: `docs/topics/2.3.md`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from oarlock.accept.convergence.settings import DATA
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.convergence import reports
from oarlock.accept.convergence.reports import Race
from oarlock.accept.measure.stats import bootstrap_ratio
from oarlock.accept.sparse_training.settings import BLOCK, WEIGHTS, Weights

RIVALS = {"dense": "dense", "narrow": "dense, narrower"}


@experiment(
    "2.3.1",
    name="weights",
    tiers=("full",),
    title="Blocks of weights that RigL chooses against dense models: loss and time of as many steps",
    minutes=15,
    data=(DATA,),
)
def weights(run: Run) -> Iterator[Evidence]:
    """What training with sparse feed-forward weights costs in loss and saves in time.

    All arms train as many steps on the same batches in turns. The sparse model keeps a share of the
    blocks of each feed-forward weight, moved by RigL, and trains all of them in the last steps. The
    narrower model is dense and has at least as many weights, in the mean over the steps.
    """
    from oarlock.accept.convergence.race import race
    from oarlock.native.paddle import accelerate

    run.log(str(accelerate()))
    one = WEIGHTS[run.tier]
    text, origin = reports.text_of(run)
    seeds = [run.seed + number for number in range(one.task.seeds)]

    def train(number: int) -> dict[str, Any]:
        def on_turn(done: int, total: int) -> None:
            run.progress(number * total + done, len(seeds) * total, f"seed {seeds[number]}")

        found = race(
            one.task,
            {arm: (one.setting, one.task.steps) for arm in ("dense", "sparse", "narrow")},
            text,
            seed=seeds[number],
            prepare={"sparse": partial(sparsify, one=one)},
            tasks={"narrow": one.rival},
            on_turn=on_turn,
        )
        return {arm: asdict(done) for arm, done in found.items()}

    races: list[Race] = [
        run.remember(["race", seed], partial(train, number)) for number, seed in enumerate(seeds)
    ]
    yield from _evidence(one, races, seeds, origin)


def sparsify(model: Any, *, one: Weights) -> Any:
    """Put masks on the feed-forward weights; returns what moves them."""
    from oarlock.core_opt import sparse

    sparse.replace_linear(model, block=BLOCK, where="feed_forward")
    masks = sparse.RigL(model, density=one.kept, total_steps=one.task.steps, every=one.every)
    return sparse.DenseTail(masks, share=one.tail)


def _evidence(
    one: Weights, races: Sequence[Race], seeds: Sequence[int], origin: str
) -> Iterator[Evidence]:
    task = one.task
    ours, theirs = one.parameters()
    notes = (
        f"LLaMA of width {task.hidden_size}, {task.num_layers} layers, {task.tokens_a_step} tokens a step,"
        f" {task.steps} steps of AdamW at the dense model's rates; text: {origin}. Kept: {one.kept:.0%} of the"
        f" {BLOCK[0]} x {BLOCK[1]} blocks of feed-forward weights, all of them in the last"
        f" {one.tail:.0%} of the steps. Weights a layer, mean over the steps: {ours / 1e6:.2f} million;"
        f" narrower model, width {one.narrow}: {theirs / 1e6:.2f} million."
    )
    shared: dict[str, Any] = {
        "n": len(seeds),
        "seeds": list(seeds),
        "level": "measured",
        "notes": notes,
    }
    for rival, words in RIVALS.items():
        for what, metric, unit in (
            ("loss", "validation loss after as many steps", "nats/byte"),
            ("time", "training time of as many steps", "s"),
        ):
            found = {arm: _numbers(races, arm, what) for arm in (rival, "sparse")}
            ratio = bootstrap_ratio(found[rival], found["sparse"], paired=True, statistic="mean")
            yield Evidence(
                name=f"sparse-weights-{rival}-{what}",
                metric=f"sparse weights: {metric}",
                unit=unit,
                direction="lower",
                baseline=reports.mean(found[rival]),
                baseline_name=words,
                ours=reports.mean(found["sparse"]),
                ratio=ratio.value,
                ci=ratio.ci if len(races) > 1 else None,
                series=[reports.curve(races, arm) for arm in races[0]] if what == "loss" else [],
                **shared,
            )


def _numbers(races: Sequence[Race], arm: str, what: str) -> list[float]:
    return reports.ends(races, arm) if what == "loss" else [one[arm]["wall_s"] for one in races]
