"""What the products of a model's linear layers cost in each format, measured on this machine."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import paddle

from .formats import ROLES, format_named
from .products import product

REPETITIONS = 5
LEAST_S = 0.01  #: of one repetition; short products are called several times


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """Sizes of a linear layer and how many rows it gets."""

    tokens: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        """Of one of the three products."""
        return 2 * self.tokens * self.inputs * self.outputs


@dataclass(slots=True)
class TimeTable:
    """Seconds by shape, role and format."""

    seconds: dict[tuple[Shape, str, str], float] = field(default_factory=dict)

    def of(self, shape: Shape, role: str, number_format: str) -> float:
        return self.seconds[shape, role, number_format]

    def __str__(self) -> str:
        formats = sorted({key[2] for key in self.seconds}, key=lambda name: (name != "fp32", name))
        lines = [f"{'tokens x in x out':>20} {'product':12}" + "".join(f"{n:>12}" for n in formats)]
        for shape, role in dict.fromkeys(key[:2] for key in self.seconds):
            size = f"{shape.tokens} x {shape.inputs} x {shape.outputs}"
            cells = (self.seconds.get((shape, role, name)) for name in formats)
            row = "".join(f"{'-' if s is None else f'{1e3 * s:.3f} ms':>12}" for s in cells)
            lines.append(f"{size:>20} {role:12}{row}")
        return "\n".join(lines)


def measure(
    shapes: Iterable[Shape],
    formats: Iterable[str],
    *,
    seed: int = 0,
    on_shape: Callable[[int, int], None] = lambda done, total: None,
) -> TimeTable:
    """Time every product in every format, in turns, with the rounding of operands; medians.

    Args:
        shapes: of linear layers; equal ones are measured once.
        formats: names; ``fp32`` is added.
        on_shape: is told how many shapes of how many are done.
    """
    names = dict.fromkeys(("fp32", *formats))
    for name in names:
        format_named(name, "formats:")
    paddle_generator_state = paddle.get_rng_state()
    paddle.seed(seed)
    try:
        table = TimeTable()
        distinct = sorted(set(shapes))
        for number, shape in enumerate(distinct):
            for role, call in _calls(shape).items():
                for name, seconds in _race({name: call(name) for name in names}).items():
                    table.seconds[shape, role, name] = seconds
            on_shape(number + 1, len(distinct))
    finally:
        paddle.set_rng_state(paddle_generator_state)
    return table


def _calls(shape: Shape) -> Mapping[str, Callable[[str], Callable[[], object]]]:
    x = paddle.randn([shape.tokens, shape.inputs])
    weight = paddle.randn([shape.inputs, shape.outputs])
    g = paddle.randn([shape.tokens, shape.outputs])
    operands = dict(zip(ROLES, ((x, weight), (g, weight), (x, g))))

    def call(role: str) -> Callable[[str], Callable[[], object]]:
        a, b = operands[role]
        return lambda name: lambda: product(a, b, role, format_named(name))

    return {role: call(role) for role in ROLES}


def _race(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call; they take turns, so that a slow spell hits all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    counts: dict[str, int] = {}
    with paddle.no_grad():
        for name, call in calls.items():
            call()  # the first call may allocate
            counts[name] = max(1, round(LEAST_S / max(_time(call, 1), 1e-6)))
        for _ in range(REPETITIONS):
            for name, call in calls.items():
                times[name].append(_time(call, counts[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def _time(call: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count
