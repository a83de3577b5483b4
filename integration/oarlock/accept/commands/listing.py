"""`list` and `show`: topics, criteria, experiments, and where they stand."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from oarlock.accept import criteria, experiment, results, wording
from oarlock.accept.commands.common import (
    AsJson,
    Tier,
    coloured,
    explained,
    out,
    print_json,
    results_root,
    table,
)
from oarlock.accept.criteria import Criterion, Topic
from oarlock.accept.experiment import Experiment
from oarlock.accept.standing import VERDICTS, of_criterion, weakest

Results = Annotated[
    Path | None,
    typer.Option("--results", metavar="DIR", help="Folder of evidence [integration/results]."),
]


@explained
def list_(
    tier: Annotated[Tier, typer.Option(help="Whose evidence gives the verdicts.")] = "full",
    results_dir: Results = None,
    as_json: AsJson = False,
) -> None:
    """List the topics, their experiments, and where they stand. Writes nothing."""
    evidence = results.read_tier(results_root(results_dir), tier)
    experiments = experiment.discover()
    topics = [_topic(topic, experiments, evidence) for topic in criteria.topics()]
    if as_json:
        print_json({"tier": tier, "topics": topics})
        return
    rows = table("id", "topic", "package", "verdict")
    for topic in topics:
        rows.add_row(
            topic["id"], escape(topic["title"]), topic["package"], coloured(topic["verdict"])
        )
        for one in topic["experiments"]:
            number = f"{one['criterion']} " if len(topic["criteria"]) > 1 else ""
            tiers = ", ".join(one["tiers"])
            rows.add_row("", f"  {number}[bold]{one['name']}[/] [dim]({tiers})[/]", "", "")
    console = out()
    console.print(rows)
    verdicts = [topic["verdict"] for topic in topics]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
    console.print(f"\n{len(topics)} topics in the {tier} tier: {counts}", markup=False)


def _topic(topic: Topic, experiments: tuple[Experiment, ...], evidence) -> dict[str, Any]:
    verdicts = {
        criterion.id: of_criterion(
            (one.verdict for one in evidence.get(criterion.id, ())), pending=criterion.pending
        )
        for criterion in topic.criteria
    }
    return {
        "id": topic.id,
        "title": topic.title_en,
        "title_zh": topic.title_zh,
        "package": topic.package,
        "verdict": weakest(verdicts.values()),
        "criteria": verdicts,
        "experiments": [_experiment(one) for one in experiments if one.criterion in set(verdicts)],
    }


def _experiment(one: Experiment) -> dict[str, Any]:
    return {
        "criterion": one.criterion,
        "name": one.name,
        "title": one.title,
        "tiers": list(one.tiers),
        "minutes": one.minutes,
        "peers": list(one.peers),
        "data": list(one.data),
    }


@explained
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="A chapter, topic or criterion.")],
    results_dir: Results = None,
    as_json: AsJson = False,
) -> None:
    """Show what criteria ask, what measures them, and what was measured. Writes nothing."""
    chosen = criteria.load().select(id)
    root = results_root(results_dir)
    evidence = {tier: results.read_tier(root, tier) for tier in experiment.TIERS}
    experiments = experiment.select([id])
    if as_json:
        print_json([_criterion(one, experiments, root) for one in chosen])
        return
    for criterion in chosen:
        _print(criterion, [one for one in experiments if one.criterion == criterion.id], evidence)


def _criterion(criterion: Criterion, experiments, root: Path) -> dict[str, Any]:
    files = {tier: root / tier / f"{criterion.id}.json" for tier in experiment.TIERS}
    return {
        **criterion.model_dump(),
        "conditions": list(criterion.conditions),
        "experiments": [_experiment(one) for one in experiments if one.criterion == criterion.id],
        "evidence": {
            tier: json.loads(file.read_text(encoding="utf-8"))["evidence"]
            for tier, file in files.items()
            if file.exists()
        },
    }


def _print(criterion: Criterion, experiments: list[Experiment], evidence) -> None:
    console = out()
    topic = criteria.topic(criterion.topic_id)
    console.print(f"[bold]{criterion.id}  {escape(topic.title_en)}[/]  {topic.title_zh}")
    console.print(f"\n{criterion.text_en}\n\n{criterion.text_zh}\n", markup=False)
    better = "more is better" if criterion.direction == "higher" else "less is better"
    console.print(f"metric: {criterion.metric} [{criterion.unit}], {better}", markup=False)
    if criterion.target is None:
        console.print("target: the call names no figure", markup=False)
    else:
        sign = ">" if criterion.exclusive else "≥"
        console.print(f"target: ratio {sign} {wording.number(criterion.target)}", markup=False)
    for condition in criterion.conditions:
        console.print(f"condition: {condition}", markup=False)
    console.print()
    if not experiments:
        console.print("not yet: no experiment exists\n", markup=False)
    for one in experiments:
        console.print(f"[bold]{one.name}[/]: {escape(one.title)}")
        needs = [f"tiers {', '.join(one.tiers)}"]
        needs += [f"full tier about {one.minutes:g} min"] if one.minutes else []
        needs += [f"peers {', '.join(one.peers)}"] if one.peers else []
        needs += [f"data {', '.join(one.data)}"] if one.data else []
        console.print(f"  {'; '.join(needs)}", markup=False)
        for tier in one.tiers:
            command = f"oarlock-accept run {one.criterion} --only {one.name} --tier {tier}"
            console.print(f"  $ {command}", markup=False, soft_wrap=True)
        console.print()
    for tier, found in evidence.items():
        if measured := found.get(criterion.id, ()):
            right = {name: True for name in ("baseline", "ours", "ratio")}
            rows = table(f"{tier} tier", *right, "verdict", **right)
            for one in measured:
                ratio = wording.times(one.ratio)
                rows.add_row(
                    f"{escape(one.name)} [dim]{escape(one.unit)}[/]",
                    wording.number(one.baseline),
                    wording.number(one.ours),
                    f"{ratio} ({wording.interval(one.ci)})" if one.ci else ratio,
                    coloured(one.verdict),
                )
            console.print(rows)
            console.print()
