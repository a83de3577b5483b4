"""What an experiment is, what it may use while it runs, and the evidence that it gives.

>>> from oarlock.accept.experiment import Evidence, Run, experiment
>>> @experiment("1.1", name="muon-llama", tiers=("quick", "full"), title="Muon against AdamW")
... def muon_llama(run: Run):
...     seconds = run.remember(["adamw", 0], lambda: train("adamw", seed=0))
...     yield Evidence(name="time-to-loss", ...)

An experiment is a plain function in a module of `oarlock.accept.topics`. It runs in a process of its
own (see `runner.py`), so importing its module must be cheap: Paddle is imported inside.
"""

import difflib
import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from oarlock.accept import criteria, topics
from oarlock.accept.remembered import Remembered
from oarlock.accept.results import LEVELS, judged

TIERS = ("quick", "full", "gpu")
#: The package whose modules hold the experiments.
TOPICS = topics.__name__


def _finite(what: str, value: Any) -> float:
    if isinstance(value, str | bool) or not math.isfinite(number := float(value)):
        raise ValueError(f"{what} must be a finite number, got {value!r}; None says that it is not")
    return number


def _curve(name: str, curve: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("label", "x", "y", "x_label", "y_label")
    if set(curve) != set(keys):
        raise ValueError(f"{name}: a curve of series has {', '.join(keys)}; got {sorted(curve)}")
    x, y = ([_finite(f"{name}: series {axis}", v) for v in curve[axis]] for axis in "xy")
    if len(x) != len(y):
        raise ValueError(f"{name}: a curve needs as many x as y, got {len(x)} and {len(y)}")
    return {**curve, "x": x, "y": y}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One measurement; numbers are finite or None.

    Args:
        name: short, unique within the criterion: lower-case words joined by hyphens.
        metric, unit, direction: what was measured, and whether "lower" or "higher" is better.
        baseline, baseline_name, ours: the two values in `unit`, and what the baseline is.
        ratio: above 1 ours is better; None computes it from the values and the direction, where
            both are there.
        ci: (low, high) of the ratio, 95 % unless the notes say otherwise.
        n, seeds: repetitions, and the seeds that were used.
        target: the ratio to reach, or with `exclusive` to exceed, by the whole interval if there is one.
        judged: False makes the verdict `info` (times in the quick tier).
        level: "measured", "emulated" or "simulated".
        series: curves: mappings with label, x, y, x_label, y_label.
    """

    name: str
    metric: str
    unit: str
    direction: Literal["lower", "higher"]
    baseline: float | None
    baseline_name: str
    ours: float | None
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    n: int = 1
    seeds: Sequence[int] = ()
    target: float | None = None
    exclusive: bool = False
    judged: bool = True
    level: str = "measured"
    notes: str = ""
    series: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self):
        def put(field: str, value: Any) -> None:
            object.__setattr__(self, field, value)

        for field in ("name", "metric", "unit", "baseline_name", "notes"):
            if not isinstance(getattr(self, field), str):
                raise ValueError(f"{field} must be text, got {getattr(self, field)!r}")
        if not self.name or self.name != self.name.strip():
            raise ValueError(f"name must be a short text without blanks around, got {self.name!r}")
        for field, allowed in (("direction", ("lower", "higher")), ("level", LEVELS)):
            if getattr(self, field) not in allowed:
                given = getattr(self, field)
                raise ValueError(f"{self.name}: {field} must be one of {allowed}, got {given!r}")
        for field in ("baseline", "ours", "ratio", "target"):
            if getattr(self, field) is not None:
                put(field, _finite(f"{self.name}: {field}", getattr(self, field)))
        if self.ci is not None:
            low, high = (_finite(f"{self.name}: ci", end) for end in self.ci)
            if low > high:
                raise ValueError(f"{self.name}: ci must be (low, high), got {self.ci}")
            put("ci", (low, high))
        put("n", int(self.n))
        put("seeds", [int(seed) for seed in self.seeds])
        put("series", [_curve(self.name, curve) for curve in self.series])
        if self.ratio is None and self.baseline is not None and self.ours is not None:
            put("ratio", self._ratio(self.baseline, self.ours))

    def _ratio(self, baseline: float, ours: float) -> float:
        if baseline <= 0 or ours <= 0:
            raise ValueError(
                f"{self.name}: no ratio follows from baseline {baseline} and ours {ours};"
                " give ratio, or values above 0"
            )
        return baseline / ours if self.direction == "lower" else ours / baseline

    @property
    def verdict(self) -> str:
        """`met`, `short` or `info`; a judged target without a ratio is missed."""
        if self.target is None or not self.judged:
            return "info"
        return judged(self.ratio, self.target, self.exclusive, self.ci)

    def as_dict(self) -> dict[str, Any]:
        """The keys of an evidence file that the experiment itself knows."""
        record = asdict(self) | {"verdict": self.verdict, "ci": list(self.ci) if self.ci else None}
        record["series"] = list(record["series"])
        del record["judged"]
        if not self.exclusive:
            del record["exclusive"]
        return record


class Run:
    """What an experiment sees of the run: tier, seed, a progress display, memory over restarts.

    `Run(tier="quick", seed=0)` is enough to call an experiment from a test.
    """

    def __init__(
        self,
        *,
        tier: str,
        seed: int,
        emit: Callable[[dict[str, Any]], None] = lambda event: None,
        remembered: Remembered | None = None,
    ):
        self.tier = tier
        self.seed = seed
        self._emit = emit
        self._remembered = remembered or Remembered(None)

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Shows how far it is; `text` says what is going on: "seed 2, AdamW"."""
        self._emit({"event": "progress", "done": done, "total": total, "text": text})

    def log(self, text: str) -> None:
        """Shows a line, and keeps it in the log of the experiment."""
        self._emit({"event": "log", "text": str(text)})

    def remember(self, key: Any, compute: Callable[[], Any]) -> Any:
        """The value of `compute`, kept on disk so that an interrupted run need not repeat it.

        The value is forgotten when the experiment finishes, and is not used for another tier, seed
        or state of the sources. Tuples come back as lists, as JSON has it.

        Args:
            key: any JSON value, unique within the experiment.
            compute: gives a JSON value; called once.
        """
        return self._remembered.get(key, compute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A registered experiment. `minutes` is what the full tier takes on two cores."""

    criterion: str
    name: str
    title: str
    function: Callable[[Run], Iterable[Evidence]]
    tiers: tuple[str, ...]
    minutes: float | None
    peers: tuple[str, ...]
    data: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.criterion}/{self.name}"

    @property
    def module(self) -> str:
        return self.function.__module__


_registry: dict[tuple[str, str], Experiment] = {}


def experiment(
    criterion: str,
    *,
    name: str,
    tiers: Sequence[str],
    title: str,
    minutes: float | None = None,
    peers: Sequence[str] = (),
    data: Sequence[str] = (),
) -> Callable[[Callable[[Run], Iterable[Evidence]]], Callable[[Run], Iterable[Evidence]]]:
    """Registers a function as an experiment of a criterion.

    Args:
        criterion: an id of `criteria.toml`.
        name: unique within the criterion; a file name.
        tiers: the tiers that it has: "quick", "full", "gpu".
        title: what it compares, for people.
        minutes: how long the full tier takes on two cores.
        peers: other environments that it uses, names of `peers.toml`.
        data: data sets that it uses, as "family/name".
    """
    criteria.criterion(criterion)
    if unknown := set(tiers) - set(TIERS):
        raise ValueError(f"{name}: tiers are {', '.join(TIERS)}; got {', '.join(sorted(unknown))}")
    if not tiers:
        raise ValueError(f"{name}: name at least one of the tiers {', '.join(TIERS)}")
    if not name or not all(part.isalnum() for part in name.split("-")) or name != name.lower():
        raise ValueError(f"name must be lower-case words joined by hyphens, got {name!r}")

    def register(function: Callable[[Run], Iterable[Evidence]]):
        one = Experiment(
            criterion=criterion,
            name=name,
            title=title,
            function=function,
            tiers=tuple(tier for tier in TIERS if tier in tiers),
            minutes=minutes,
            peers=tuple(peers),
            data=tuple(data),
        )
        other = _registry.get((criterion, name))
        if other is not None and other.module != one.module:
            raise ValueError(f"experiment {one.id} is in {other.module} and in {one.module}")
        _registry[criterion, name] = one
        return function

    return register


def discover() -> tuple[Experiment, ...]:
    """All experiments of the modules of `TOPICS`, in the order of the criteria, then by name."""
    package = importlib.import_module(TOPICS)
    modules = {
        f"{TOPICS}.{module.name}"
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg
    }
    for module in sorted(modules):
        importlib.import_module(module)
    order = {criterion.id: place for place, criterion in enumerate(criteria.load().criteria)}
    found = [one for one in _registry.values() if one.module in modules]
    return tuple(sorted(found, key=lambda one: (order[one.criterion], one.name)))


def find(module: str, criterion: str, name: str) -> Experiment:
    """The experiment of a module, criterion and name."""
    importlib.import_module(module)
    try:
        return _registry[criterion, name]
    except KeyError:
        raise ValueError(f"module {module} registers no experiment {criterion}/{name}") from None


def select(
    ids: Sequence[str], *, tier: str | None = None, only: Sequence[str] = ()
) -> tuple[Experiment, ...]:
    """The experiments of chapters, topics and criteria; of all, where `ids` is empty.

    Args:
        ids: ids of `criteria.toml`.
        tier: leave out what does not have this tier.
        only: names of experiments.
    Raises:
        ValueError: no such id, tier or name; near ones are proposed.
    """
    if tier is not None and tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
    loaded = criteria.load()
    wanted = {one.id for id in ids for one in loaded.select(id)}
    found = [one for one in discover() if not ids or one.criterion in wanted]
    known = {one.name for one in found}
    for name in only:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
            hint = f"did you mean {', '.join(near)}?" if near else "there are none"
            raise ValueError(f"no experiment {name!r} among those asked for; {hint}")
    chosen = [one for one in found if not only or one.name in only]
    return tuple(one for one in chosen if tier is None or tier in one.tiers)
