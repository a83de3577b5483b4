"""Criterion 2.4.4, second half: training that goes on when nodes, links, disks and the store fail."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

ALL = ("kill", "stop", "link", "slow", "disk", "store")
NOTICED_S, RECOVERED_S = 2.0, 1.0  #: targets
SAME = 1e-6  #: relative, between losses of the same step
REPETITIONS = 3  #: of each loss of a node, with Paddle's elastic mode and with ours
HANG_S = 240.0  #: to wait for training to go on


def _drill(name: str, kinds: Sequence[str], kept: float, *, seconds: float, every: float) -> None:
    @experiment(
        "2.4.4",
        name=f"elastic-{name}",
        tiers=("full",),  # namespaces need root, which the quick tier must not
        title=f"Three nodes and a spare in network namespaces, a fault every {every:g} s ({', '.join(kinds)}), beside the same nodes undisturbed",
        minutes=2 * seconds / 60 + 2,
    )
    def elastic(run: Run) -> Iterator[Evidence]:
        """Nodes train in network namespaces, each with a share of the processor and an agent of its own."""
        return _kept(run, name, kinds, kept, seconds, every)


def _kept(
    run: Run, name: str, kinds: Sequence[str], kept: float, seconds: float, every: float
) -> Iterator[Evidence]:
    from oarlock.fleet_ext import lab
    from oarlock.fleet_ext.drill import Drill, schedule
    from oarlock.fleet_ext.drill import run as drill

    why = lab.unavailable()
    if why is not None:
        run.log(f"no network namespaces here ({why}): nothing is measured")
        return
    faults = schedule(kinds, every, seconds, run.seed)
    with TemporaryDirectory() as folder:
        report = drill(Drill(seconds=seconds, faults=faults), Path(folder) / "drill", run.log)
    shared: dict[str, Any] = {
        "seeds": [run.seed],
        "level": "emulated",
        "notes": str(report).replace("\n", "; "),
    }
    yield Evidence(
        name=f"elastic-{name}-kept",
        metric=f"steps in {seconds:g} s with a fault every {every:g} s ({', '.join(kinds)}) and one spare node",
        unit="share",
        direction="higher",
        baseline=1.0,
        baseline_name="the same nodes, undisturbed",
        ours=report.kept,
        target=kept,
        **shared,
    )
    for what, words, allowed, value in (
        ("stands-still", "longest time without a step behind a fault: noticing it, and recovery",
         NOTICED_S, max(one.gap for one in report.faults)),
        ("recovery", "from when a failure is noticed until training goes on, median",
         RECOVERED_S, median(report.recoveries)),
    ):  # fmt: skip
        yield Evidence(
            name=f"elastic-{name}-{what}",
            metric=words,
            unit="s",
            direction="lower",
            baseline=allowed,
            baseline_name="allowed",
            ours=value,
            n=len(report.faults),
            target=1.0,
            **shared,
        )
    yield _losses(f"elastic-{name}-losses", report, shared)
    full = [one for one in report.faults if one.kind == "disk"]
    if full:
        yield Evidence(
            name=f"elastic-{name}-disk",
            metric="full disks, of which each failed checkpoint was told, and the one before was still good",
            unit="share",
            direction="higher",
            baseline=1.0,
            baseline_name="all",
            ours=sum(bool(one.sound and one.unsaved) for one in full) / len(full),
            n=len(full),
            target=1.0,
            **shared,
        )


def _losses(name: str, report: Any, shared: dict[str, Any]) -> Evidence:
    """A step that was lost or taken from two states shows in the losses behind it."""
    return Evidence(
        name=name,
        metric="losses of the same step, with faults against undisturbed: largest difference, relative"
        f" ({report.missing} steps lost, {report.twice} taken from different states)",
        unit="1",
        direction="lower",
        baseline=SAME,
        baseline_name="allowed",
        ours=max(report.apart, 1e-16) if report.missing + report.twice == 0 else 1.0,
        target=1.0,
        **shared,
    )


_drill("kills", ("kill",), 0.95, seconds=420.0, every=30.0)
_drill("mixed", ALL, 0.88, seconds=420.0, every=30.0)
_drill("rare", ALL, 0.97, seconds=840.0, every=120.0)


@experiment(
    "2.4.4",
    name="elastic-loopback",
    tiers=("quick",),
    title="Two nodes and a spare on this machine's own address, one killed and one stopped, beside the same nodes undisturbed",
)
def elastic_loopback(run: Run) -> Iterator[Evidence]:
    """Real processes with agents, without root; the processor is shared, so times say little."""
    from oarlock.fleet_ext.drill import Drill, Fault
    from oarlock.fleet_ext.drill import run as drill

    wanted = Drill(
        nodes=2, spares=1, seconds=5.0, faults=[Fault(0.3, "kill"), Fault(2.8, "stop")], cpus=None,
        loopback=True,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        report = drill(wanted, Path(folder) / "drill", run.log)
    shared: dict[str, Any] = {
        "seeds": [run.seed],
        "notes": str(report).replace("\n", "; "),
        "n": len(report.faults),
    }
    yield _losses("elastic-loopback-losses", report, shared)
    yield Evidence(
        name="elastic-loopback-stands-still",
        metric="longest time without a step behind a fault: noticing it, and recovery",
        unit="s",
        direction="lower",
        baseline=NOTICED_S,
        baseline_name="allowed",
        ours=max(one.gap for one in report.faults),
        target=1.0,
        judged=False,
        **shared,
    )


@experiment(
    "2.4.4",
    name="elastic-paddle",
    tiers=("full",),
    title="A node that is killed, and one whose process is stopped: Paddle's own elastic mode beside ours",
    minutes=20,
    peers=("paddle_elastic",),
)
def elastic_paddle(run: Run) -> Iterator[Evidence]:
    """Three nodes in network namespaces train the same small model; one is lost, and the other two go on."""
    from oarlock.accept.fleet import node_loss
    from oarlock.fleet_ext import lab

    why = lab.unavailable()
    if why is None and node_loss.etcd() is None:
        why = "etcd is not installed, which Paddle's elastic mode needs (Debian: etcd-server)"
    if why is not None:
        run.log(f"{why}: nothing is measured")
        return
    for how, words, times in (
        ("kill", "all that runs on a node is killed (SIGKILL)", REPETITIONS),
        ("stop", "the training process of a node is stopped (SIGSTOP)", REPETITIONS),
    ):
        found: dict[str, list[float]] = {"paddle": [], "ours": []}
        never = 0
        for number in range(times):
            for name, measure in (("paddle", node_loss.paddle_elastic), ("ours", node_loss.ours)):
                run.progress(number, times, f"{how}, {name}")
                key = [how, name, number]
                seconds, went_on = run.remember(key, partial(measure, how, HANG_S))
                found[name].append(seconds)
                never += not went_on
        notes = f"Paddle: {_shown(found['paddle'])} s; ours: {_shown(found['ours'])} s"
        if never:
            notes += (
                f"; in {never} runs nothing went on within {HANG_S:g} s, which is counted as that"
            )
        yield Evidence(
            name=f"elastic-paddle-{how}",
            metric=f"time without a step when {words}, of three nodes; median",
            unit="s",
            direction="lower",
            baseline=median(found["paddle"]),
            baseline_name="paddle.distributed.launch with etcd, --elastic_level 2, --elastic_timeout 8",
            ours=median(found["ours"]),
            n=times,
            target=1.0,
            exclusive=True,
            level="emulated",
            notes=notes,
        )


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in sorted(values))
