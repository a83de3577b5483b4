"""Criterion 1.1: what delay costs, and what is won by discarding gradients that come too late.

Theory: `docs/topics/1.1.md`, "Asynchrony: what delay costs".
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure.stats import bootstrap_ratio

DATA = "tabular/uci_ctr"
SPREAD = ("square root", "linear", "log-normal")  #: distributions in which workers differ
VARIATION = 1.5  #: allowed between them, of the time over the bound
ERROR = 0.1  #: allowed of the simulation against real processes
OPPONENTS = {
    "synchronous": ("synchronous SGD, tuned", 1.0),
    "asynchronous": ("plain asynchronous SGD, tuned", 1.0),
    "fastest": ("synchronous SGD of the best number of fastest workers, tuned", None),
    "rennala": ("Rennala SGD, tuned", None),
    "compensated": ("delay-compensated SGD, tuned", None),
}

#: For each distribution, then each strategy: step, seconds of each seed, the bound in seconds.
Times = dict[str, dict[str, dict[str, Any]]]


@experiment(
    "1.1",
    name="asynchrony",
    tiers=("quick", "full"),
    title="Ringmaster against synchronous and asynchronous SGD, over speeds of workers",
    minutes=10,
    data=(DATA,),
)
def asynchrony(run: Run) -> Iterator[Evidence]:
    """Time to the same gradient norm, each strategy at its best step size of one grid.

    Thresholds and numbers of gradients are those of theory, not tuned; the step size is, on a seed
    that is not used again. Workers are simulated, their gradients are computed. The simulation is
    checked against real processes that wait out their delays.
    """
    from oarlock.accept.convergence import async_sgd

    quick = run.tier == "quick"
    seeds = [run.seed + number for number in range(2 if quick else 10)]
    workers = 128 if quick else 500
    size: dict[str, Any] = (
        {"dimension": 20, "target": 2e-3} if quick else {"dimension": 50, "target": 1e-3}
    )
    chain = async_sgd.chain_task(noise_ratio=16, **size)
    given = {"chain": (chain, "the quadratic of the lower bounds")}
    if not quick:
        from oarlock.accept import data

        census = async_sgd.census_task(data.path(DATA), batch=32, target=1e-4)
        given["census"] = (census, f"logistic regression, {data.origin(DATA)}")
    for name, (task, words) in given.items():
        found = _race(run, name, task, workers, seeds, quick)
        shared: dict[str, Any] = {"n": len(seeds), "seeds": seeds, "level": "simulated"}
        about = (
            f"{words}; {workers} simulated workers, threshold {task.threshold} from theory, step"
            f" sizes tuned on a seed of their own. Level simulated: see async-simulation-error."
        )
        if name == "chain":
            yield _variation(found, about, shared)
        for opponent in OPPONENTS:
            if opponent in found["linear"]:
                yield _against(name, opponent, found, about, shared)
    yield from _processes(run, quick)


def _race(run: Run, name: str, task: Any, workers: int, seeds: Sequence[int], quick: bool) -> Times:
    """All strategies on all distributions; in the quick tier the opponents on one."""
    from oarlock.accept.convergence import async_sgd

    speeds = async_sgd.speeds(workers)
    found: Times = {}
    if quick:
        del speeds["equal"]
    for place, (speed, seconds) in enumerate(speeds.items()):
        builds = async_sgd.arms(task, seconds)
        if quick:
            keep = ("ringmaster", "synchronous", "asynchronous")
            builds = {arm: builds[arm] for arm in (keep if speed == "linear" else keep[:1])}
        found[speed] = {}
        bound = task.lower_bound(seconds)
        for number, (arm, build) in enumerate(builds.items()):
            run.progress(place + number / len(builds), len(speeds), f"{name}, {speed}, {arm}")

            patience = (0.7 if quick else 5) * bound  # Ringmaster needs about 0.1
            if arm == "synchronous":  # its rounds are few and slow
                patience = max(patience, 300 * max(seconds))

            def measure(build=build, seconds=seconds, bound=bound, patience=patience):
                tuned = async_sgd.tune(task, build, seconds, patience=patience)
                if not math.isfinite(tuned.seconds):
                    raise RuntimeError(f"no step size of {arm} reaches the target")  # noqa: B023
                return {
                    "step": tuned.step,
                    "seconds": async_sgd.times(task, build, seconds, tuned, list(seeds)),
                    "bound": bound,
                }

            found[speed][arm] = run.remember([name, speed, arm], measure)
    return found


def _over_bound(one: dict[str, Any]) -> list[float]:
    return [seconds / one["bound"] for seconds in one["seconds"]]


def _variation(found: Times, about: str, shared: dict[str, Any]) -> Evidence:
    by_speed = {speed: _over_bound(found[speed]["ringmaster"]) for speed in found}
    variations = [
        max(ratios) / min(ratios) for ratios in zip(*(by_speed[speed] for speed in SPREAD))
    ]
    ratio = bootstrap_ratio([VARIATION] * len(variations), variations, paired=True)
    means = ", ".join(f"{speed} {_mean(values):.3f}" for speed, values in by_speed.items())
    return Evidence(
        name="async-bound-variation",
        metric="largest over smallest of Ringmaster's time over the bound, three distributions",
        unit="1",
        direction="lower",
        baseline=VARIATION,
        baseline_name="allowed",
        ours=_mean(variations),
        ratio=ratio.value,
        ci=ratio.ci,
        target=1.0,
        notes=f"Time over the bound, mean over seeds: {means}. Judged: {', '.join(SPREAD)}. {about}",
        **shared,
    )


def _against(
    name: str, opponent: str, found: Times, about: str, shared: dict[str, Any]
) -> Evidence:
    """Over the distributions in which workers differ, the geometric mean of times over the bound."""
    speeds = [speed for speed in SPREAD if opponent in found[speed]]

    def means(arm: str) -> list[float]:
        columns = zip(*(_over_bound(found[speed][arm]) for speed in speeds))
        return [math.exp(_mean([math.log(value) for value in column])) for column in columns]

    base, ours = means(opponent), means("ringmaster")
    ratio = bootstrap_ratio(base, ours, paired=True, statistic="mean")
    words, target = OPPONENTS[opponent]
    each = []
    for speed, arms in found.items():
        if opponent in arms:
            quotient = _mean(arms[opponent]["seconds"]) / _mean(arms["ringmaster"]["seconds"])
            each.append(f"{speed} {quotient:.2f}")
    return Evidence(
        name=f"async-{name}-{opponent}",
        metric="simulated time to the gradient norm, over the bound; mean of distributions",
        unit="1",
        direction="lower",
        baseline=_mean(base),
        baseline_name=words,
        ours=_mean(ours),
        ratio=ratio.value,
        ci=ratio.ci,
        target=target,
        exclusive=target is not None,
        notes=(
            f"Its time over Ringmaster's: {', '.join(each)}. Geometric mean of {', '.join(speeds)};"
            f" equal workers are no part of it. {about}"
        ),
        **shared,
    )


def _processes(run: Run, quick: bool) -> Iterator[Evidence]:
    """Real processes with emulated delays, and what the simulation says of the same."""
    import numpy as np
    from oarlock.accept.convergence import async_sgd

    seconds = np.array([0.005, 0.025] if quick else [0.03, 0.06, 0.12, 0.6])
    task = async_sgd.chain_task(
        dimension=10 if quick else 20, target=4e-3 if quick else 1e-3, noise_ratio=len(seconds)
    )
    seeds = [run.seed + number for number in range(1 if quick else 5)]
    builds = async_sgd.arms(task, seconds)
    names = (
        ("ringmaster", "synchronous") if quick else ("ringmaster", "synchronous", "asynchronous")
    )
    real: dict[str, list[float]] = {}
    errors = []
    for arm in names:
        tuned = async_sgd.tune(task, builds[arm], seconds, patience=60.0)
        real[arm] = []
        for seed in seeds:
            measure = partial(
                async_sgd.over_processes, task, builds[arm], seconds, step=tuned.step, seed=seed
            )
            took, expected = run.remember(["processes", arm, seed], measure)
            if took is None or expected is None:
                raise RuntimeError(f"{arm} did not reach the target in 60 s")
            real[arm].append(took)
            errors.append(abs(took / expected - 1))
    shared: dict[str, Any] = {
        "n": len(seeds),
        "seeds": seeds,
        "level": "emulated",
        "judged": not quick,
    }
    about = (
        f"{len(seconds)} processes with delays of {', '.join(f'{s:g}' for s in seconds)} s on this"
        " machine; the quadratic of the lower bounds; step sizes tuned on the simulation."
    )
    for opponent in names[1:]:
        ratio = bootstrap_ratio(real[opponent], real["ringmaster"], paired=True, statistic="mean")
        yield Evidence(
            name=f"async-processes-{opponent}",
            metric="wall time to the gradient norm over real processes",
            unit="s",
            direction="lower",
            baseline=_mean(real[opponent]),
            baseline_name=OPPONENTS[opponent][0],
            ours=_mean(real["ringmaster"]),
            ratio=ratio.value,
            ci=ratio.ci,
            target=1.0 if opponent == "synchronous" else None,
            exclusive=opponent == "synchronous",
            notes=about,
            **shared,
        )
    yield Evidence(
        name="async-simulation-error",
        metric="relative difference of simulated and real time to the gradient norm, mean",
        unit="1",
        direction="lower",
        baseline=ERROR,
        baseline_name="allowed",
        ours=max(_mean(errors), 1e-6),
        target=1.0,
        notes=f"Largest {max(errors):.3f}, over {len(errors)} runs of {', '.join(names)}. {about}",
        **shared,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
