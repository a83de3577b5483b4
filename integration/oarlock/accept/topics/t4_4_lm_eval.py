"""Criterion 4.4.2: tasks and weights as in lm-eval: what both score, and how long it takes them."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: Choices with and without examples, prompts that do not fit (lsat_rc, svamp), texts that are written, whole texts.
TASKS = (
    "coin_flip",
    "commonsense_qa",
    "strategy_qa",
    "bbh_web_of_lies",
    "gaokao_history",
    "lsat_rc",
    "next_sentence_medium",
    "arithmetic_sums_easy",
    "last_letters_2",
    "svamp",
    "shakespeare_bits",
    "wikitext2_bits",
)
ITEMS = 12  #: of each task
BATCHES = (1, 16)  #: of lm-eval, whose results are compared bit by bit
#: Largest difference of a score, relative.
ALLOWED = 1e-5
#: Tasks whose time is taken, by what a model is asked for.
TIMED: Mapping[str, tuple[str, ...]] = {
    "choices": ("commonsense_qa", "strategy_qa", "bbh_web_of_lies", "gaokao_history"),
    "written texts": ("arithmetic_sums_easy", "last_letters_2"),
    "whole texts": ("shakespeare_bits",),
}
#: Of a LLaMA with random weights: the time of a token does not depend on their values.
LARGER = {
    "hidden_size": 384,
    "num_layers": 8,
    "num_heads": 6,
    "num_kv_heads": 6,
    "intermediate_size": 1024,
    "max_length": 512,
}
MODELS: Mapping[str, dict[str, int]] = {"stories260k": {}, "llama-14m": LARGER}
TIMED_ITEMS = {"stories260k": 6, "llama-14m": 2}
ROUNDS = 6
TRIED = (1, 8, 32)  #: batch sizes of lm-eval, of which the fastest is the baseline
DATA = ("stories260K", "tinyshakespeare", "wikitext2")
SPOKEN = "lm-eval's 'hf' model"


@experiment(
    "4.4.2",
    name="parity",
    tiers=("quick", "full"),
    title="The same weights and tasks in lm-eval: items and scores",
    minutes=10,
    peers=("lm_eval",),
    data=DATA,
)
def parity(run: Run) -> Iterator[Evidence]:
    """stories260K in our engine and in lm-eval on transformers, from one Hugging Face folder.

    lm-eval gets the rows and templates of our tasks and does all else by itself. In the quick tier its part was
    recorded: importing it alone takes eight seconds.
    """
    from oarlock.accept.evaluation import agreement, hugging_face, lm_eval_peer, lm_eval_tasks, ours

    live = run.tier == "full" and lm_eval_peer.available(run)
    recorded = json.loads(
        (files("oarlock.accept.evaluation") / "recorded.json").read_text(encoding="utf-8")
    )
    names = TASKS if live else tuple(recorded["tasks"])
    items = ITEMS if live else recorded["items"]
    tasks = lm_eval_tasks.tasks_of(names)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        hugging_face.write(*hugging_face.stories(), folder)
        ours.load(folder=str(folder), threads=1)
        ours.evaluate(tasks=list(names), limit=items)
        found = ours.results()
        if live:
            library, by_batch = _lm_eval(run, tasks, items, folder, Path(place))
            theirs = by_batch[BATCHES[0]]
            ours.load(folder=str(folder), threads=1, most_rows=64, most_texts=1)
            ours.evaluate(tasks=list(names), limit=items, portion=1)
            again = ours.results()
        else:
            library, theirs = recorded["library"], recorded["tasks"]
    how = ", ".join(f"{key} {value}" for key, value in library.items())
    suffix = "" if live else "-recorded"
    common: dict[str, Any] = {"n": items, "seeds": [run.seed]}
    worst, told = 0.0, []
    for task in tasks:
        one = agreement.compare(task, found[task.name], theirs[task.name])
        scores = "; ".join(f"{name} {a:.6g} and {b:.6g}" for name, a, b in one.scores)
        worst = max([worst, *(abs(a - b) / max(abs(b), 1e-9) for _, a, b in one.scores)])
        told.append(f"{task.name} {scores}" if scores else f"{task.name} texts only")
        few = f"{task.few_shot.count} examples" if task.few_shot else "no examples"
        cut = f", {found[task.name]['truncated']} prompts cut to fit"
        yield Evidence(
            name=f"parity-{task.name.replace('_', '-')}{suffix}",
            metric=f"{task.name}: items on which both find the same up to rounding",
            unit="items",
            direction="higher",
            baseline=float(one.items),
            baseline_name=f"all items of {SPOKEN}{', recorded' if not live else ''}",
            ours=float(one.same),
            ratio=one.same / one.items,
            target=1.0,
            notes=(
                f"stories260K; {task.output}, {few}{cut}. Largest difference in units of rounding"
                f" ({agreement.ROUNDING:g} relative and {agreement.DECIMALS:g} nats): {one.difference:.2g}."
                f" Scores, ours and theirs: {scores or 'not compared, only the texts'}. {how}."
            ),
            **common,
        )
    yield Evidence(
        name=f"parity-scores{suffix}",
        metric="largest relative difference of a task's score",
        unit="1",
        direction="lower",
        baseline=ALLOWED,
        baseline_name="allowed for rounding",
        ours=max(worst, 1e-12),
        target=1.0,
        notes=f"{'; '.join(told)}. {how}.",
        **common,
    )
    if live:
        yield from _bits(found, again, by_batch, how, common)


def _lm_eval(
    run: Run, tasks: Sequence[Any], items: int, folder: Path, place: Path
) -> tuple[dict[str, str], dict[int, dict[str, Any]]]:
    """Versions, and results by batch size."""
    from oarlock.accept.evaluation import lm_eval_peer, lm_eval_tasks

    spelt = [lm_eval_tasks.spell(task, items, place) for task in tasks]
    with lm_eval_peer.start(place, threads=1) as worker:
        library = worker.call("load", folder=str(folder), threads=1, lengths=lm_eval_peer.LENGTHS)
        worker.call("prepare", tasks=spelt)
        found = {}
        for done, batch in enumerate(BATCHES):
            run.progress(done, len(BATCHES), f"lm-eval, batches of {batch}")
            worker.call("evaluate", batch_size=batch)
            found[batch] = worker.call("results")
    return library, found


def _bits(
    ours: Mapping[str, Any],
    again: Mapping[str, Any],
    theirs: Mapping[int, Mapping[str, Any]],
    how: str,
    common: Mapping[str, Any],
) -> Iterator[Evidence]:
    """Whether results depend on what else is computed at the same time."""

    def share(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> float:
        pairs = [p for name in first for p in zip(first[name][key], second[name][key])]
        return sum(a == b for a, b in pairs) / len(pairs)

    one, other = (theirs[batch] for batch in BATCHES)
    kept, lost = share(ours, again, "exact"), share(one, other, "items")
    told = (
        f"{sum(len(task['items']) for task in ours.values())} items of {len(ours)} tasks. Ours: 512 tokens a step of up to"
        " 64 texts, portions of 64 requests, against 64 tokens a step of one text, portions of 1."
        f" lm-eval: batches of {BATCHES[0]} against {BATCHES[1]}. {how}."
    )
    yield Evidence(
        name="batch-bits",
        metric="items with the same result to the last bit, whatever the batch",
        unit="share",
        direction="higher",
        baseline=1.0,
        baseline_name="required",
        ours=kept,
        ratio=kept,
        target=1.0,
        notes=told,
        **common,
    )
    yield Evidence(
        name="batch-bits-lm-eval",
        metric="items with the same result to the last bit, whatever the batch",
        unit="share",
        direction="higher",
        baseline=lost,
        baseline_name=SPOKEN,
        ours=kept,
        ratio=kept / lost if lost else None,
        notes=told,
        **common,
    )


@experiment(
    "4.4.2",
    name="time",
    tiers=("full",),
    title="The same weights and tasks in lm-eval: time of the evaluation",
    minutes=20,
    peers=("lm_eval",),
    data=DATA,
)
def time(run: Run) -> Iterator[Evidence]:
    """Evaluation in our engine and in lm-eval on transformers, on one thread each, in turns.

    lm-eval has its rows in memory and the fastest of several batch sizes; ours reads the data sets anew each
    time, in an engine that remembers no earlier round. Starting processes and reading the model is apart.
    """
    for name, shape in MODELS.items():
        yield from _race(run, name, shape)


def _race(run: Run, name: str, shape: Mapping[str, int]) -> Iterator[Evidence]:
    from oarlock.accept.evaluation import hugging_face, lm_eval_peer, lm_eval_tasks
    from oarlock.accept.measure.timing import paired
    from oarlock.accept.workers import Worker

    every = [task for tasks in TIMED.values() for task in tasks]
    items = TIMED_ITEMS[name]
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place) / "model"
        parameters = hugging_face.write_shape(shape, folder, seed=run.seed)
        spelt = [
            lm_eval_tasks.spell(task, items, Path(place)) for task in lm_eval_tasks.tasks_of(every)
        ]
        starts, peer, ours = {}, None, None

        def open_peer() -> dict[str, str]:
            nonlocal peer
            peer = stack.enter_context(lm_eval_peer.start(Path(place), threads=1))
            return peer.call("load", folder=str(folder), threads=1, lengths=lm_eval_peer.LENGTHS)

        def open_ours() -> None:
            nonlocal ours
            env = {"OMP_NUM_THREADS": "1"}
            ours = stack.enter_context(Worker.start("oarlock.accept.evaluation.ours", env=env))
            ours.call("load", folder=str(folder), threads=1)

        starts["lm-eval"], library = lm_eval_peer.timed(open_peer)
        starts["ours"], _ = lm_eval_peer.timed(open_ours)
        assert peer is not None and ours is not None
        peer.call("prepare", tasks=spelt)
        batch = {
            kind: min(
                TRIED,
                key=lambda size: peer.call("evaluate", batch_size=size, tasks=tasks)["cpu_s"],
            )
            for kind, tasks in TIMED.items()
        }
        arms = {}
        for kind, tasks in TIMED.items():
            arms["lm-eval", kind] = partial(
                peer.call, "evaluate", batch_size=batch[kind], tasks=tasks
            )
            arms["ours", kind] = partial(ours.call, "evaluate", tasks=list(tasks), limit=items)
        timings = paired(
            {" ".join(key): arm for key, arm in arms.items()},
            rounds=ROUNDS,
            warmup=1,
            on_round=lambda done, total: run.progress(done, total, name),
        )
    how = ", ".join(f"{key} {value}" for key, value in library.items())
    notes = (
        f"LLaMA of {parameters:,} weights in float32, one thread each, {items} items of each of {', '.join(every)}."
        f" Batches of lm-eval, the fastest of {TRIED}: "
        + ", ".join(f"{kind} {size}" for kind, size in batch.items())
        + f". From starting a process to a model that is ready: lm-eval {starts['lm-eval']:.1f} s, ours"
        f" {starts['ours']:.1f} s, once. {how}. Other processes ran on the machine: the seconds of the one thread's"
        " own work are compared, not those of the clock."
    )
    yield from _times(run, name, timings, notes)


def _times(run: Run, name: str, timings: Any, notes: str) -> Iterator[Evidence]:
    from oarlock.accept.measure.timing import Timings

    def whole(clock: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
        return {
            one: tuple(map(sum, zip(*(clock[f"{one} {kind}"] for kind in TIMED))))
            for one in ("lm-eval", "ours")
        }

    together = Timings(wall=whole(timings.wall), cpu=whole(timings.cpu))
    rows: list[tuple[str, str, Any, tuple[str, str], Any]] = [
        ("", "all tasks", together, ("lm-eval", "ours"), "cpu"),
        ("-clock", "all tasks, by the clock", together, ("lm-eval", "ours"), "wall"),
    ]
    for kind in TIMED:
        key = "-" + kind.replace(" ", "-")
        rows.append((key, kind, timings, (f"lm-eval {kind}", f"ours {kind}"), "cpu"))
    for suffix, words, measured, arms, clock in rows:
        ratio = measured.ratio(*arms, clock)
        yield Evidence(
            name=f"time-{name}{suffix}",
            metric=f"{name}: time of an evaluation, {words}",
            unit="s",
            direction="lower",
            baseline=measured.median(arms[0], clock),
            baseline_name=f"{SPOKEN}, fastest batch size",
            ours=measured.median(arms[1], clock),
            ratio=ratio.value,
            ci=ratio.ci,
            n=ratio.n,
            seeds=[run.seed],
            target=1.0 if not suffix else None,
            exclusive=not suffix,
            notes=notes,
        )
