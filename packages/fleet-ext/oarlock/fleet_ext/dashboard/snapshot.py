"""What a job's store says, as one JSON object for the page."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from oarlock.fleet_ext.elastic import Epoch
from oarlock.fleet_ext.rendezvous import Store
from oarlock.fleet_ext.serving.records import ALL as SERVING
from oarlock.fleet_ext.serving.records import View
from oarlock.fleet_ext.telemetry.events import Event, read_events
from oarlock.fleet_ext.telemetry.publishing import NODES, SERIES

_log = logging.getLogger(__name__)
_ELASTIC, _TELEMETRY = "elastic/", "telemetry/"
BINS = 240  #: of a curve
EVENTS = 100


def snapshot(store: Store) -> dict[str, Any]:
    """
    Returns:
        time, training (None where nobody trains), events, and serving (None where nothing is served).

    Raises:
        StoreError: the store cannot be read.
    """
    values: dict[str, bytes] = {}
    for prefix in (_ELASTIC, _TELEMETRY, SERVING):
        values |= store.read(prefix)[1]
    return {
        "time": time.time(),
        "training": training(values),
        "events": told(read_events(values))[-EVENTS:],
        "serving": serving(values),
    }  # fmt: skip


def told(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Events as objects; an epoch says which nodes of the one before it lacks."""
    found: list[dict[str, Any]] = []
    before: tuple[str, ...] = ()
    for one in events:
        lost: list[str] = []
        if one.nodes is not None:
            lost, before = [name for name in before if name not in one.nodes], one.nodes
        found.append({**asdict(one), "lost": lost})
    return found


def training(values: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Nodes with their states, the epoch, and the curve of all."""
    there = _names(values, _ELASTIC + "nodes/")
    lost = _names(values, _ELASTIC + "lost/")
    said = {name: _json(values, NODES + name, dict) for name in _names(values, NODES)}
    raw = values.get(_ELASTIC + "epoch")
    epoch = Epoch.unpack(raw) if raw is not None else None
    if not there and not said and epoch is None:
        return None
    ranks = {} if epoch is None else {name: rank for rank, name in enumerate(epoch.nodes)}
    nodes = []
    for name in sorted({*there, *said, *ranks}, key=lambda one: (ranks.get(one, 1 << 30), one)):
        here = name in there and name not in lost
        state = ("training" if name in ranks else "spare") if here else "lost"
        known = said.get(name) or {}
        nodes.append({"node": name, "rank": ranks.get(name), "state": state,
                      **{key: known.get(key) for key in ("step", "rate", "loss", "time")}})  # fmt: skip
    series = {name: _json(values, SERIES + name, list) or [] for name in said}
    return {
        "epoch": None if epoch is None else epoch.number,
        "done": _ELASTIC + "done" in values,
        "size": _json(values, _ELASTIC + "size", dict),
        "nodes": nodes,
        "curve": curve(series, said),
    }


def curve(
    series: Mapping[str, list[Any]], latest: Mapping[str, dict[str, Any] | None]
) -> list[list[float | None]]:
    """Steps a second and loss of the job over time: nodes take the same steps, so the fastest one's counts.

    Args:
        series: points of each node: seconds since 1970, steps a second, loss or None.
        latest: what each node said last.

    Returns:
        at most `BINS` points.
    """
    points = []
    for name, given in series.items():
        points += [_point(one) for one in given]
        now = latest.get(name) or {}
        points.append(_point([now.get("time"), now.get("rate"), now.get("loss")]))
    good = sorted((one for one in points if one is not None), key=lambda one: one[0])
    if not good:
        return []
    begin, width = good[0][0], max(1.0, (good[-1][0] - good[0][0]) / BINS * (1 + 1e-9))
    bins: dict[int, list[float | None]] = {}
    for at, rate, loss in good:
        one = bins.setdefault(int((at - begin) / width), [at, rate, loss])
        one[0], one[1] = at, max(one[1] or 0.0, rate)
        one[2] = loss if loss is not None else one[2]
    return list(bins.values())


def serving(values: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Replicas with what runs there, and routers."""
    view = View.of(values)
    if view.wanted is None and not view.replicas:
        return None
    running = {
        id: sum(one.uses[id].running for one in view.routers.values() if id in one.uses)
        for id in view.replicas
    }
    return {
        "wanted": view.wanted,
        "replicas": [
            {"id": id, "node": one.node, "state": one.state, "slot": one.slot, "running": running[id],
             "address": f"{one.host}:{one.port}"}
            for id, one in sorted(view.replicas.items(), key=lambda item: (item[1].slot is None, item[1].slot or 0, item[0]))
        ],
        "routers": [
            {"id": id, "address": one.address, "waiting": one.waiting, "answered": one.answered,
             "failed": one.failed}
            for id, one in sorted(view.routers.items())
        ],
    }  # fmt: skip


def _names(values: Mapping[str, bytes], prefix: str) -> set[str]:
    return {key.removeprefix(prefix) for key in values if key.startswith(prefix)}


def _json(values: Mapping[str, bytes], key: str, kind: type) -> Any:
    """None where it is not there, or is something else, which the log is told."""
    if key not in values:
        return None
    try:
        found = json.loads(values[key], parse_constant=str)  # JSON has no NaN
    except ValueError:
        found = None
    if not isinstance(found, kind):
        _log.warning("the store's %s is no %s: %.80r", key, kind.__name__, values[key])
        return None
    return found


def _point(given: Any) -> tuple[float, float, float | None] | None:
    match given:
        case [int() | float() as at, int() | float() as rate, int() | float() | None as loss]:
            return at, rate, loss
        case [int() | float() as at, int() | float() as rate, str()]:  # a loss that is not finite
            return at, rate, None
        case _:
            return None
