"""Times of several arms, taken in turns so that what disturbs the machine disturbs all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any, Literal

from oarlock.accept.measure.stats import Ratio, bootstrap_ratio

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds of each arm in each round, by the clock on the wall and by CPU time."""

    wall: Mapping[str, tuple[float, ...]]
    cpu: Mapping[str, tuple[float, ...]]

    def _of(self, name: str, clock: Clock) -> tuple[float, ...]:
        if clock not in ("wall", "cpu"):
            raise ValueError(f"clock must be 'wall' or 'cpu', got {clock!r}")
        times = self.wall if clock == "wall" else self.cpu
        if name not in times:
            raise ValueError(f"no arm {name!r}; arms are: {', '.join(times)}")
        return times[name]

    def median(self, name: str, clock: Clock = "wall") -> float:
        """The median of an arm, in seconds."""
        return median(self._of(name, clock))

    def ratio(self, base: str, ours: str, clock: Clock = "wall", *, seed: int = 0) -> Ratio:
        """The median over the rounds of seconds of `base` / seconds of `ours`, with its interval.

        Above 1 ours is faster. The interval is of 95 %, by bootstrap over the rounds.
        """
        pairs = self._of(base, clock), self._of(ours, clock)
        return bootstrap_ratio(*pairs, paired=True, statistic="median", seed=seed)


def paired(
    arms: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 2,
    settle_s: float = 0.0,
    on_round: Callable[[int, int], None] | None = None,
) -> Timings:
    """Times all arms once a round, in an order that reverses each round: A B, B A, A B, …

    Args:
        arms: what to time, by name. An arm that does its work in another process returns
            `{"wall_s": …, "cpu_s": …}`, which is then taken instead of what is measured here.
        rounds: rounds that count; an even number gives each arm each place equally often.
        warmup: rounds before, in the same order, that do not count.
        settle_s: pause before each call, so that threads of the arm before, which wait spinning for
            more work, are quiet.
        on_round: called with (rounds done, rounds in all), warm-up included.
    Returns:
        the seconds per call; CPU time is that of all threads of this process.
    """
    if not arms:
        raise ValueError("arms must name at least one function")
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds must be at least 1 and warmup at least 0, got {rounds}, {warmup}")
    wall: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(warmup + rounds):
        order = list(arms) if (number - warmup) % 2 == 0 else list(arms)[::-1]
        for name in order:
            if settle_s:
                sleep(settle_s)
            wall_s, cpu_s = _time(arms[name])
            if number >= warmup:
                wall[name].append(wall_s)
                cpu[name].append(cpu_s)
        if on_round is not None:
            on_round(number + 1, warmup + rounds)
    return Timings(
        wall={name: tuple(values) for name, values in wall.items()},
        cpu={name: tuple(values) for name, values in cpu.items()},
    )


def _time(arm: Callable[[], Any]) -> tuple[float, float]:
    cpu_before, before = process_time(), perf_counter()
    given = arm()
    after, cpu_after = perf_counter(), process_time()
    if isinstance(given, Mapping) and {"wall_s", "cpu_s"} <= set(given):
        return float(given["wall_s"]), float(given["cpu_s"])
    return after - before, cpu_after - cpu_before
