"""Criterion 2.4.4, inference: replicas that are killed, stopped, drained and rescaled under constant load."""

import random
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: Replicas, most of them, clients, tokens of a text, seconds of load at least, seconds between faults, and what happens,
#: in turn: a number rescales to so many.
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"replicas": 2, "most": 2, "clients": 3, "tokens": 160, "seconds": 7.0, "every": 1.0,
              "faults": ("kill", "stop", 1, 2, "drain")},
    "full": {"replicas": 2, "most": 4, "clients": 4, "tokens": 240, "seconds": 180.0, "every": 20.0,
             "faults": ("kill", "stop", "drain", 4, "kill", 1, "stop", 2)},
}  # fmt: skip
LONGEST_S = 5.0  #: that a request may take when its replica is lost
PAIRS = {"quick": 60, "full": 400}


@experiment(
    "2.4.4",
    name="serving",
    tiers=("quick", "full"),
    title="A router and replicas of a language model: killed, stopped, drained and rescaled under load, against one undisturbed",
    minutes=4,
    data=("weights/stories260K",),
)
def serving(run: Run) -> Iterator[Evidence]:
    """Clients ask for stories by greedy decoding, whole and as streams, and know what each must be."""
    import httpx

    from oarlock.accept.fleet.stories import BEGINNINGS, Clients, stage, whole

    size, draw = SIZES[run.tier], random.Random(run.seed)
    with stage(size["replicas"], size["most"]) as fleet, httpx.Client(timeout=60.0) as client:
        alone = fleet.ready()[0]
        direct = f"http://{alone.host}:{alone.port}"
        expected = {one: whole(client, direct, one, size["tokens"]) for one in BEGINNINGS}
        plain, routed = _latencies(client, direct, fleet.url, PAIRS[run.tier])
        clients = Clients(fleet.url, expected, size["tokens"], size["clients"])
        begun, happened, faults = time.monotonic(), 0, size["faults"]
        try:
            while (now := time.monotonic() - begun) < size["seconds"] or happened < len(faults):
                if now >= size["every"] * (happened + 1):
                    fault = faults[happened % len(faults)]
                    run.log(
                        f"{now:6.1f} s: {fault if isinstance(fault, str) else f'{fault} replicas'}"
                    )
                    fleet.suffer(fault, draw)
                    happened += 1
                run.progress(now, size["seconds"], f"{len(clients.seen.seconds)} requests")
                time.sleep(0.05)
        finally:
            seen = clients.close()
        lost, resumed = (fleet.metric(f"oarlock_router_{name}_total") for name in ("lost_attempts", "resumed_answers"))  # fmt: skip
    if not lost:
        raise RuntimeError("no request was at a replica when it was lost: nothing is shown")
    asked = len(seen.seconds)
    shared: dict[str, Any] = {
        "n": asked,
        "seeds": [run.seed],
        "notes": f"{asked} requests of {size['clients']} clients in {now:.0f} s, stories260K in float32; {happened} times, in turn: {', '.join(map(str, faults))};"
        f" {lost:.0f} attempts were lost with their replica, {resumed:.0f} streams went on from another one"
        + "".join(f"; {one:.300}" for one in (seen.failed + seen.differing)[:3]),
    }
    yield Evidence(
        name="serving-answered",
        metric="requests answered while replicas are lost, drained and rescaled",
        unit="share",
        direction="higher",
        baseline=1.0,
        baseline_name="all",
        ours=1 - len(seen.failed) / asked,
        target=1.0,
        **shared,
    )
    yield Evidence(
        name="serving-same",
        metric="answers that are those of one undisturbed replica, to the letter, of those answered",
        unit="share",
        direction="higher",
        baseline=1.0,
        baseline_name="one undisturbed replica",
        ours=1 - len(seen.differing) / max(1, asked - len(seen.failed)),
        target=1.0,
        **shared,
    )
    yield Evidence(
        name="serving-longest",
        metric="longest time of a request, from its first byte to the answer's last, whatever happens to its replica",
        unit="s",
        direction="lower",
        baseline=LONGEST_S,
        baseline_name="allowed",
        ours=max(seen.seconds),
        target=1.0,
        judged=run.tier != "quick",
        **{**shared, "notes": f"{shared['notes']}; median {1e3 * median(seen.seconds):.0f} ms"},
    )
    yield Evidence(
        name="serving-latency",
        metric="a request for one token through the router, median, against the same replica without it, in turns",
        unit="s",
        direction="lower",
        baseline=median(plain),
        baseline_name="straight to the replica",
        ours=median(routed),
        n=len(plain),
        seeds=[run.seed],
        judged=False,
        notes="the router adds" f" {1e3 * (median(routed) - median(plain)):.2f} ms; client and router are one process",
    )  # fmt: skip


def _latencies(client: Any, direct: str, routed: str, pairs: int) -> tuple[list[float], list[float]]:  # fmt: skip
    from oarlock.accept.fleet.stories import BEGINNINGS, whole

    found: dict[str, list[float]] = {direct: [], routed: []}
    for number in range(pairs + 5):
        for url, seconds in found.items():
            begun = time.perf_counter()
            whole(client, url, BEGINNINGS[0], 1)
            if number >= 5:
                seconds.append(time.perf_counter() - begun)
    return found[direct], found[routed]
