"""Criterion 2.4.4, second half: training that goes on when nodes are killed, stopped and cut off."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: Seconds of training without and with faults, and between two faults.
SECONDS, EVERY_S = 420.0, 30.0
NOTICED_S, RECOVERED_S = 2.0, 1.0  #: targets
SAME = 1e-6  #: relative, between losses of the same step


def _drill(name: str, kinds: Sequence[str], kept: float) -> None:
    @experiment(
        "2.4.4",
        name=f"elastic-{name}",
        tiers=("full",),  # namespaces need root, which the quick tier must not
        title=f"Three nodes and a spare in network namespaces: {', '.join(kinds)}, beside the same nodes undisturbed",
        minutes=16,
    )
    def elastic(run: Run) -> Iterator[Evidence]:
        """Nodes train in network namespaces, each with a share of the processor of its own."""
        return _kept(run, name, kinds, kept)


def _kept(run: Run, name: str, kinds: Sequence[str], kept: float) -> Iterator[Evidence]:
    from oarlock.fleet_ext import lab
    from oarlock.fleet_ext.drill import Drill, schedule
    from oarlock.fleet_ext.drill import run as drill

    why = lab.unavailable()
    if why is not None:
        run.log(f"no network namespaces here ({why}): nothing is measured")
        return
    faults = schedule(kinds, EVERY_S, SECONDS, run.seed)
    with TemporaryDirectory() as folder:
        report = drill(Drill(seconds=SECONDS, faults=faults), Path(folder) / "drill", run.log)
    shared: dict[str, Any] = {
        "seeds": [run.seed],
        "level": "emulated",
        "notes": str(report).replace("\n", "; "),
    }
    yield Evidence(
        name=f"elastic-{name}-kept",
        metric=f"steps in {SECONDS:g} s with a fault every {EVERY_S:g} s ({', '.join(kinds)}) and one spare node",
        unit="share",
        direction="higher",
        baseline=1.0,
        baseline_name="the same nodes, undisturbed",
        ours=report.kept,
        target=kept,
        **shared,
    )
    for what, allowed, value in (
        ("stands-still", NOTICED_S, max(gap for _, gap in report.faults)),
        ("recovery", RECOVERED_S, median(report.recoveries)),
    ):
        words = {
            "stands-still": "longest time without a step behind a fault: noticing it, and recovery",
            "recovery": "from when a failure is noticed until training goes on, median",
        }
        yield Evidence(
            name=f"elastic-{name}-{what}",
            metric=words[what],
            unit="s",
            direction="lower",
            baseline=allowed,
            baseline_name="allowed",
            ours=value,
            n=len(report.faults),
            target=1.0,
            **shared,
        )
    # A step that was lost or taken from two states shows in the losses behind it.
    yield Evidence(
        name=f"elastic-{name}-losses",
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


_drill("kills", ("kill",), 0.95)
_drill("mixed", ("kill", "stop", "link"), 0.88)
