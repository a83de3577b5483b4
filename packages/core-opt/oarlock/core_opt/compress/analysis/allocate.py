"""Bits for each layer under a budget: reverse water-filling on the foretold loss increases."""

import dataclasses
import heapq
from collections.abc import Mapping

from ... import _checks
from .report import Choice, Report


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A choice of bits for each layer.

    Args:
        bits: by name of the layer; what quantisers take as ``layer_bits``.
        bits_per_weight: mean over all weights, scales included.
        increase: foretold increase of the loss.
    """

    bits: Mapping[str, int]
    bits_per_weight: float
    increase: float


def allocate(report: Report, bits_per_weight: float, *, group: int | None = None) -> Allocation:
    """Bits that are foretold to cost least within a mean size.

    Each layer starts at the fewest bits; the next bits go where they save most loss for each bit of
    size, along the lower convex hull of each layer's increases, as long as the budget lasts. For
    increases c 2^(-2b) this is reverse water-filling, in whole bits.

    Args:
        report: of ``analyse``.
        bits_per_weight: mean over the weights of the layers, scales included.
        group: of the choices to take.

    Raises:
        ValueError: the report has no such choices, or the fewest bits exceed the budget.
    """
    budget = _checks.real("bits_per_weight", bits_per_weight, 0.0, 64.0, open_low=True)
    sizes = {one.name: one.in_features * one.out_features for one in report.layers}
    hulls = {name: _hull(_choices(report, name, group)) for name in sizes}
    spent = sum(_size(hulls[name][0]) * size for name, size in sizes.items())
    total = sum(sizes.values())
    if spent > budget * total * (1 + 1e-12):
        raise ValueError(
            f"bits_per_weight must be at least {spent / total:.3f} for the fewest bits of this "
            f"report, got {budget:g}."
        )
    place = dict.fromkeys(sizes, 0)
    waiting = [step for name in sizes if (step := _step(name, hulls[name], 0, sizes[name]))]
    heapq.heapify(waiting)
    while waiting:
        _, name, cost = heapq.heappop(waiting)
        if spent + cost > budget * total * (1 + 1e-12):
            continue  # a smaller step of another layer may still fit
        spent += cost
        place[name] += 1
        if step := _step(name, hulls[name], place[name], sizes[name]):
            heapq.heappush(waiting, step)
    chosen = {name: hulls[name][place[name]] for name in sizes}
    return Allocation(
        bits={name: int(choice.setting.partition("g")[0]) for name, choice in chosen.items()},
        bits_per_weight=spent / total,
        increase=sum(choice.increase for choice in chosen.values()),
    )


def _choices(report: Report, name: str, group: int | None) -> list[Choice]:
    wanted = "" if group is None else str(group)
    found = [choice for choice in report.of("bits", name) if _group(choice) == wanted]
    if not found:
        raise ValueError(
            f"the report has no bits of {name!r} with group {group}; analyse with groups={[group]}."
        )
    return sorted(found, key=_size)


def _size(choice: Choice) -> float:
    """Bits of a weight, which every choice of kind "bits" has."""
    assert choice.bits_per_weight is not None
    return choice.bits_per_weight


def _group(choice: Choice) -> str:
    return choice.setting.partition("g")[2]


def _hull(choices: list[Choice]) -> list[Choice]:
    """Choices on the lower convex hull of increase over size, from the smallest size on."""
    hull: list[Choice] = []
    for choice in choices:
        if hull and choice.increase >= hull[-1].increase:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _slope(left: Choice, right: Choice) -> float:
    return (right.increase - left.increase) / (_size(right) - _size(left))


def _step(name: str, hull: list[Choice], place: int, size: int) -> tuple[float, str, float] | None:
    """Loss saved for each bit of size by the next choice (negated), the layer, and the bits."""
    if place + 1 == len(hull):
        return None
    left, right = hull[place], hull[place + 1]
    cost = (_size(right) - _size(left)) * size
    return (right.increase - left.increase) / cost, name, cost
