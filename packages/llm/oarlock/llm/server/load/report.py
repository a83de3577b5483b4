"""What a load has shown."""

import collections
import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from oarlock.llm.server.load.plan import Kind

#: whole: all of it, and as expected. clean error: told so, in OpenAI's shape. refused as malformed: rightly.
#: cancelled: by this client. unconnected: nobody listened, so nothing was accepted.
#: mixed: another text than expected. lost: no end and no error. wrong: an answer that should not be.
Outcome = Literal[
    "whole",
    "clean error",
    "refused as malformed",
    "cancelled",
    "unconnected",
    "mixed",
    "lost",
    "wrong",
]
BAD = ("mixed", "lost", "wrong")
PERCENTILES = (50, 90, 99, 100)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: how it went, and its times in seconds (``at_s`` since the start of the load)."""

    kind: Kind
    outcome: Outcome
    status: int | None
    error: str | None
    at_s: float
    first_s: float | None
    end_s: float
    gaps_s: tuple[float, ...]
    characters: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """All requests of a load.

    Args:
        plan: what was asked for, without the key.
        seconds: that the load took.
        samples: one a request.
        unsent: arrivals that found all streams busy.
        memory: (seconds since the start, resident bytes of the server).
        exit_s: from SIGTERM to the end of the server, seconds; None if it was not ended.
    """

    plan: dict[str, Any]
    seconds: float
    samples: tuple[Sample, ...]
    unsent: int
    memory: tuple[tuple[float, int], ...]
    exit_s: float | None

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        return dict(collections.Counter(sample.outcome for sample in self.samples))

    @property
    def bad(self) -> list[Sample]:
        """Those that should not have ended so."""
        return [sample for sample in self.samples if sample.outcome in BAD]

    def percentiles(self, what: Literal["first_s", "gaps_s", "end_s"]) -> dict[str, float]:
        """Of whole answers to clients that read at once; times of streams, seconds.

        Args:
            what: time to the first text, between two pieces of text, or to the end.
        """
        read = [s for s in self.samples if s.kind == "stream" and s.outcome == "whole"]
        values: list[float] = []
        for sample in read:
            value = getattr(sample, what)
            values += value if isinstance(value, Iterable) else [value] if value is not None else []
        if not values:
            return {}
        names = [f"p{p}" if p < 100 else "max" for p in PERCENTILES]
        return dict(zip(names, map(float, np.percentile(values, PERCENTILES))))

    def memory_growth(self) -> float | None:
        """Bytes a second that the server gained in the second half of the load, by least squares."""
        late = [point for point in self.memory if point[0] > self.seconds / 2]
        if len(late) < 3:
            return None
        times, sizes = np.array(late, dtype=float).T
        return float(np.polyfit(times, sizes, 1)[0])

    def summary(self) -> dict[str, Any]:
        """The figures."""
        whole = sum(sample.outcome == "whole" for sample in self.samples)
        return {
            "seconds": self.seconds,
            "requests": len(self.samples),
            "unsent": self.unsent,
            "outcomes": self.outcomes,
            "whole_per_s": whole / self.seconds,
            "characters_per_s": sum(sample.characters for sample in self.samples) / self.seconds,
            "first_s": self.percentiles("first_s"),
            "gap_s": self.percentiles("gaps_s"),
            "end_s": self.percentiles("end_s"),
            "memory_bytes": {
                "first": self.memory[0][1] if self.memory else None,
                "most": max((size for _, size in self.memory), default=None),
                "last": self.memory[-1][1] if self.memory else None,
                "growth_per_s": self.memory_growth(),
            },
            "exit_s": self.exit_s,
        }

    def __str__(self) -> str:
        figures = self.summary()
        lines = [f"{figures['requests']} requests in {self.seconds:.1f} s; {self.unsent} not sent"]
        lines += [f"  {name}: {count}" for name, count in sorted(self.outcomes.items())]
        names = {"first_s": "first text", "gap_s": "between pieces", "end_s": "whole answer"}
        for key, name in names.items():
            times = ", ".join(f"{p} {1000 * value:.1f}" for p, value in figures[key].items())
            lines.append(f"{name}, ms: {times or 'none'}")
        memory = figures["memory_bytes"]
        if memory["first"] is not None:
            sizes = ", ".join(
                f"{key} {memory[key] / 2**20:.1f}" for key in ("first", "most", "last")
            )
            lines.append(f"memory of the server, MiB: {sizes}")
        if self.exit_s is not None:
            lines.append(f"the server ended {self.exit_s:.2f} s after SIGTERM")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike) -> None:
        """Write plan, figures, memory curve and bad requests as JSON."""
        content = {
            "plan": self.plan,
            "summary": self.summary(),
            "memory": self.memory,
            "bad": [dataclasses.asdict(sample) for sample in self.bad],
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n")

    def plot(self, path: str | os.PathLike) -> None:
        """Draw times of the answers and the memory of the server over the load."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        read = [s for s in self.samples if s.kind == "stream" and s.first_s is not None]
        above.plot([s.at_s for s in read], [s.first_s for s in read], ".", label="first text")
        above.plot([s.at_s for s in read], [s.end_s for s in read], ".", label="end")
        bad = self.bad
        if bad:
            above.plot([s.at_s for s in bad], [s.end_s for s in bad], "rx", label="bad")
        above.set_ylabel("seconds after the request")
        above.legend()
        times = [time for time, _ in self.memory]
        below.plot(times, [size / 2**20 for _, size in self.memory])
        below.set_ylabel("memory of the server, MiB")
        below.set_xlabel("seconds")
        figure.savefig(path)
