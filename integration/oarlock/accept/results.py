"""Reads the evidence files under `integration/results/<tier>/`.

Standard library only: the tables are made before anything is installed.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

LEVELS = ("measured", "emulated", "simulated")
JUDGEMENTS = ("met", "short", "info")


class ResultsCorrupt(ValueError):
    """An evidence file that cannot be read as one; the message names the file and the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement; `ratio` > 1 means that ours is better than the baseline.

    `series` holds curves: mappings with `label`, `x`, `y`, `x_label` and `y_label`.
    """

    name: str
    metric: str
    unit: str
    baseline: float | None
    baseline_name: str
    ours: float | None
    ratio: float | None
    ci: tuple[float, float] | None
    n: int
    target: float | None
    verdict: str
    level: str
    seeds: Any
    hardware: Any
    commit: Any
    versions: Any
    date: str
    command: str
    notes: str
    series: tuple[Mapping[str, Any], ...] = ()
    exclusive: bool = False  #: the target must be exceeded rather than reached


_KNOWN = {field.name for field in fields(Result)}
_REQUIRED = {field.name for field in fields(Result) if field.default is MISSING}
_NUMBERS = ("baseline", "ours", "ratio", "target")
_TEXTS = ("name", "metric", "unit", "baseline_name", "date", "command", "notes")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_series(series: Any, place: str) -> None:
    if not isinstance(series, list):
        raise ResultsCorrupt(f"{place}: series must be a list of curves")
    for number, curve in enumerate(series):
        where = f"{place}: series[{number}]"
        if not isinstance(curve, dict):
            raise ResultsCorrupt(f"{where} must be an object")
        if missing := {"label", "x", "y", "x_label", "y_label"} - set(curve):
            raise ResultsCorrupt(f"{where} lacks {', '.join(sorted(missing))}")
        for text in ("label", "x_label", "y_label"):
            if not isinstance(curve[text], str):
                raise ResultsCorrupt(f"{where}: {text} must be text, got {curve[text]!r}")
        for axis in ("x", "y"):
            values = curve[axis]
            if not isinstance(values, list) or not all(map(_is_number, values)):
                raise ResultsCorrupt(f"{where}: {axis} must be a list of numbers")
        if len(curve["x"]) != len(curve["y"]):
            lengths = f"{len(curve['x'])} x and {len(curve['y'])} y"
            raise ResultsCorrupt(f"{where}: as many x as y are needed, got {lengths}")


def judged(
    ratio: float | None,
    target: float,
    exclusive: bool,
    ci: tuple[float, float] | list[float] | None = None,
) -> str:
    """`met` if the ratio reaches the target, or with `exclusive` exceeds it; `short` without one.

    With `exclusive` ("better than"), the whole interval must exceed the target where there is one: a
    ratio of 1.001 whose interval spans 1 is no better.
    """
    if ratio is None or (exclusive and ci is not None and ci[0] <= target):
        return "short"
    return "met" if ratio > target or (ratio == target and not exclusive) else "short"


def _check_verdict(record: Mapping[str, Any], place: str) -> None:
    """Information is always allowed: times have a target in the quick tier and are not judged."""
    verdict, ratio, target = record["verdict"], record["ratio"], record["target"]
    if verdict == "info":
        return
    if target is None:
        raise ResultsCorrupt(f"{place}: verdict must be info without a target, got {verdict!r}")
    exclusive = record.get("exclusive", False)
    if verdict != (right := judged(ratio, target, exclusive, record["ci"])):
        given = "no ratio" if ratio is None else f"ratio {ratio}"
        sign = ">" if exclusive else "≥"
        raise ResultsCorrupt(
            f"{place}: verdict must be {right} (or info) with {given} and target {sign} {target},"
            f" got {verdict!r}"
        )


def _result(record: Any, place: str) -> Result:
    if not isinstance(record, dict):
        raise ResultsCorrupt(f"{place} must be an object, got {type(record).__name__}")
    if missing := _REQUIRED - set(record):
        raise ResultsCorrupt(f"{place} lacks {', '.join(sorted(missing))}")
    for key in _TEXTS:
        if not isinstance(record[key], str):
            raise ResultsCorrupt(f"{place}: {key} must be text, got {record[key]!r}")
    for key in _NUMBERS:
        if record[key] is not None and not _is_number(record[key]):
            raise ResultsCorrupt(f"{place}: {key} must be a number or null, got {record[key]!r}")
    if not _is_number(record["n"]):
        raise ResultsCorrupt(f"{place}: n must be a number, got {record['n']!r}")
    for key, allowed in (("level", LEVELS), ("verdict", JUDGEMENTS)):
        if record[key] not in allowed:
            wanted = ", ".join(allowed)
            raise ResultsCorrupt(f"{place}: {key} must be one of {wanted}, got {record[key]!r}")
    ci = record["ci"]
    if ci is not None:
        if not isinstance(ci, list) or len(ci) != 2 or not all(map(_is_number, ci)):
            raise ResultsCorrupt(f"{place}: ci must be [low, high] or null, got {ci!r}")
        ci = (ci[0], ci[1])
    if not isinstance(record.get("exclusive", False), bool):
        raise ResultsCorrupt(f"{place}: exclusive must be true or false")
    _check_verdict(record, place)
    series = record.get("series") or []
    _check_series(series, place)
    kept = {key: value for key, value in record.items() if key in _KNOWN}
    return Result(**kept | {"ci": ci, "series": tuple(series)})


def read(path: Path) -> tuple[Result, ...]:
    """The measurements in one evidence file, which is named after its criterion.

    Raises:
        ResultsCorrupt: the file does not hold evidence for the criterion in its name.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON and broken UTF-8
        raise ResultsCorrupt(
            f"{path} is not JSON ({error}); restore it from version control, or move"
            f" it away and run `oarlock-accept run {path.stem}` again"
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("evidence"), list):
        raise ResultsCorrupt(f"{path} must be an object with the keys criterion, tier, evidence")
    if record.get("criterion") != path.stem:
        raise ResultsCorrupt(
            f"{path} holds criterion {record.get('criterion')!r}; its name says {path.stem!r}"
        )
    results = [
        _result(one, f"{path}: evidence[{number}]") for number, one in enumerate(record["evidence"])
    ]
    names = [result.name for result in results]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ResultsCorrupt(f"{path}: evidence named {', '.join(twice)} appears twice")
    return tuple(results)


def read_tier(root: Path, tier: str) -> dict[str, tuple[Result, ...]]:
    """All evidence of one tier by criterion; empty where the tier was never run."""
    return {path.stem: read(path) for path in sorted((root / tier).glob("*.json"))}
