"""`run`: experiments, each in its own process, and a verdict for each measurement."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from oarlock.accept import criteria, evidence_file, experiment, peers, runner, wording
from oarlock.accept.commands.common import (
    OK,
    SHORT,
    USAGE,
    AsJson,
    Tier,
    coloured,
    err,
    explained,
    fail,
    out,
    print_json,
    results_root,
    table,
)
from oarlock.accept.display import Display

INTERRUPTED = 130


@explained
def run(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Chapters (2), topics (2.4), criteria (2.4.1)."),
    ] = None,
    tier: Annotated[Tier, typer.Option(help="Sizes, and what is judged.")] = "quick",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of evidence [integration/results]."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this experiment; may be repeated."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds after which an experiment is ended [180; full 7200]."),
    ] = None,
    install_peers: Annotated[
        bool,
        typer.Option("--install-peers", help="First install the peers (not in the quick tier)."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run experiments: baseline beside ours, a verdict for each.

    Writes DIR/<tier>/<criterion>.json, merging by name. What an interrupted experiment has finished is
    kept in the user's cache; the same command goes on from there.

    Exit code: 0 if all that ran met its targets; 1 if something fell short, failed or took too long; else
    2 if data, a model or a peer that an experiment cannot do without must be got first, and 2 before
    anything runs for wrong usage, evidence that is broken or a folder that cannot be written; 130 if it
    was interrupted. Any other peer that is not installed stops nothing: the log and the evidence name it.
    """
    ids = ids or []
    chosen = experiment.select(ids, tier=tier, only=only or ())
    if not chosen:
        raise fail(_nothing(ids, tier))
    settings = runner.Settings(tier=tier, seed=seed, out=results_root(out_dir), timeout_s=timeout)
    evidence_file.check_writable(settings.out, tier)
    if install_peers:
        _install({name for one in chosen for name in one.peers}, tier)
    with _terminable(), Display(err()) as display:
        try:
            outcomes, stopped = runner.run(chosen, settings, display), False
        except runner.Interrupted as interrupted:
            outcomes, stopped = interrupted.outcomes, True
    code = INTERRUPTED if stopped else exit_code(outcomes)
    if as_json:
        print_json(_as_json(outcomes, settings, code))
    else:
        _print(outcomes, settings, _without(ids, tier))
    if stopped:
        err().print(
            "interrupted; what was finished is kept, and the same command goes on from there",
            markup=False,
        )
    raise typer.Exit(code)


def exit_code(outcomes: Sequence[runner.Outcome]) -> int:
    """1 if anything fell short or failed, else 2 if something was missing, else 0."""
    states = {outcome.state for outcome in outcomes}
    if "short" in {verdict for outcome in outcomes for verdict in outcome.verdicts}:
        return SHORT
    if states - {"done", "missing"}:
        return SHORT
    return USAGE if "missing" in states else OK


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM do what Ctrl-C does: end the child processes and keep what is finished."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _install(names: set[str], tier: str) -> None:
    if tier == "quick":
        raise ValueError("--install-peers: the quick tier installs nothing; use --tier full")
    for name in sorted(names):
        if peers.state(name) != "ready":
            err().print(f"installing peer {name} ({peers.find(name).size_mb} MB)", markup=False)
            peers.install(name)


def _without(ids: Sequence[str], tier: str) -> list[str]:
    """The criteria asked for that have no experiment in this tier."""
    loaded = criteria.load()
    wanted = [one.id for id in ids for one in loaded.select(id)] or [c.id for c in loaded.criteria]
    have = {one.criterion for one in experiment.select(ids, tier=tier)}
    return [id for id in dict.fromkeys(wanted) if id not in have]


def _nothing(ids: Sequence[str], tier: str) -> str:
    others = [one for one in experiment.select(ids) if tier not in one.tiers]
    asked = ", ".join(ids) or "any topic"
    if others:
        have = ", ".join(f"{one.id} ({', '.join(one.tiers)})" for one in others)
        return f"no experiment of {asked} has the tier {tier}; there are: {have}"
    return f"not yet: no experiment exists for {asked}; `oarlock-accept list` shows what there is"


def _print(
    outcomes: Sequence[runner.Outcome], settings: runner.Settings, without: list[str]
) -> None:
    console = out()
    for outcome in outcomes:
        one = outcome.experiment
        console.print(f"[bold]{one.id}[/]  {escape(one.title)}")
        if outcome.records:
            console.print(_table(outcome.records))
        if outcome.state != "done":
            console.print(f"[red]{outcome.state}[/], see below")
        console.print()
    for outcome in outcomes:
        if outcome.state not in ("done", "interrupted"):
            console.print(
                f"{outcome.experiment.id} {outcome.state}: {outcome.message}\nits output: {outcome.log}",
                markup=False,
                soft_wrap=True,
            )
        elif outcome.seconds > (allowed := runner.ALLOWED_S[settings.tier]):
            took = f"took {outcome.seconds:.0f} s; the {settings.tier} tier allows {allowed} s"
            console.print(f"{outcome.experiment.id} {took}", markup=False)
        if outcome.kept:
            names = ", ".join(outcome.kept)
            console.print(
                f"{outcome.experiment.id}: kept from an earlier run: {names}", markup=False
            )
    for file in dict.fromkeys(outcome.file for outcome in outcomes if outcome.records):
        console.print(f"evidence: {file}", markup=False, soft_wrap=True)
    if without:
        console.print(f"not yet in the {settings.tier} tier: {len(without)} criteria", markup=False)
    verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
    counts = [f"{verdicts.count(name)} {name}" for name in ("met", "short", "info")]
    broken = sum(outcome.state != "done" for outcome in outcomes)
    console.print(", ".join([*counts, f"{broken} not finished"]), markup=False)


def _table(records: Sequence[Mapping[str, Any]]) -> Table:
    right = {name: True for name in ("baseline", "ours", "ratio", "target")}
    rows = table("measurement", *right, "verdict", **right)
    rows.columns[0].min_width = 16
    for column, width in zip(rows.columns[1:], (8, 8, 17, 6, 7), strict=True):
        column.min_width = width  # so that the tables of several experiments line up
        column.no_wrap = True
    for record in records:
        unit = f" [dim]{escape(record['unit'])}[/]" if record["unit"] not in ("", "1") else ""
        rows.add_row(
            escape(record["name"]) + unit,
            wording.number(record["baseline"], 3),
            wording.number(record["ours"], 3),
            _ratio(record),
            wording.target(record["target"], record.get("exclusive", False)),
            coloured(record["verdict"]),
        )
    return rows


def _ratio(record) -> str:
    text = wording.times(record["ratio"])
    return f"{text} ({wording.interval(record['ci'])})" if record["ci"] else text


def _as_json(
    outcomes: Sequence[runner.Outcome], settings: runner.Settings, code: int
) -> dict[str, Any]:
    return {
        "tier": settings.tier,
        "seed": settings.seed,
        "exit_code": code,
        "experiments": [
            {
                "criterion": outcome.experiment.criterion,
                "name": outcome.experiment.name,
                "state": outcome.state,
                "seconds": round(outcome.seconds, 1),
                "message": outcome.message,
                "file": str(outcome.file),
                "log": str(outcome.log),
                "kept": list(outcome.kept),
                "evidence": list(outcome.records),
            }
            for outcome in outcomes
        ],
    }
