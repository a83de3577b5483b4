"""Tables on disk: a file of each shard, and a list of them with checksums, written last.

>>> save(client, Path("tables-000100"))      # while others train: each shard is of one moment
>>> restore(client, Path("tables-000100"))   # into new tables, on any number of servers and shards
"""

import hashlib
import json
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oarlock.fleet_ext.checkpoints.agreement import CheckpointError
from oarlock.fleet_ext.checkpoints.checking import check_file
from oarlock.fleet_ext.checkpoints.files import (
    Request,
    Sum,
    read_tensors,
    sync_folder,
    write_bytes,
    write_tensors,
)
from oarlock.fleet_ext.parameter_server.client import Client
from oarlock.fleet_ext.parameter_server.errors import Unavailable
from oarlock.fleet_ext.parameter_server.layout import Layout
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.routes import FAILURES, PAUSE_S, Routes

NAME = "tables.json"
_VERSION = 1
_ANSWER_S = 30.0
_TOGETHER = 1 << 16  #: rows that are loaded at a time


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a snapshot.

    Args:
        sum: its bytes and checksum.
        rows: of each table.
    """

    sum: Sum
    rows: dict[str, int]


def save(client: Client, folder: Path) -> None:
    """Writes all tables, as they are on the primaries: rows and what their optimisers remember.

    Args:
        folder: must not be there; it appears when all is on the disk.

    Raises:
        FileExistsError: it is there.
        Unavailable: a shard did not answer in time.
        OSError: the disk is full, or fails.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already")
    client.flush()
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    part.mkdir(parents=True)
    routes = client.routes.another()
    try:
        files = {}
        for shard in range(client.layout.shards):
            tensors, rows = _shard(routes, shard)
            name = f"shard-{shard:05d}.safetensors"
            files[name] = Stored(write_tensors(part / name, tensors, lambda count: None), rows)
    finally:
        routes.close()
    write_bytes(part / NAME, _packed(client.layout, files))
    sync_folder(part)
    part.rename(folder)
    sync_folder(folder.parent)


def restore(client: Client, folder: Path) -> None:
    """Loads a snapshot. Rows that it does not have stay as they are, so begin with new tables.

    Raises:
        CheckpointError: a file is missing or damaged.
        ValueError: the layout has other tables.
    """
    layout, files = _read(folder)
    for name, spec in layout.tables.items():
        mine = client.layout.tables.get(name)
        if mine is None or (mine.kind, mine.width, mine.optimizer.kind) != (spec.kind, spec.width, spec.optimizer.kind):  # fmt: skip
            raise ValueError(
                f"layout must have table {name!r}: {spec.kind}, width {spec.width}, optimizer {spec.optimizer.kind}"
            )
    for name, one in files.items():
        check_file(folder / name, one.sum, contents=True)
    for name, one in files.items():
        for table, count in one.rows.items():
            keys = np.empty(count, np.int64)
            records = np.empty((count, layout.tables[table].record), np.float32)
            read_tensors(folder / name, [Request(f"{table}.keys", (), keys), Request(f"{table}.records", (), records)])  # fmt: skip
            for begin in range(0, count, _TOGETHER):
                part = slice(begin, begin + _TOGETHER)
                client.load(table, keys[part], records[part]).wait()


def _shard(routes: Routes, shard: int) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """All records of a shard, from whoever leads it."""
    until, why = time.monotonic() + routes.timeout, ""
    while time.monotonic() < until:
        place = routes.place(shard)
        server = "" if place is None else place.primary
        try:
            found = _streamed(routes, server, shard)
        except FAILURES as error:
            routes.drop(server)
            why = f"server {server}: {error}"
            time.sleep(PAUSE_S)
            routes.refresh()
            continue
        rows = {name: sum(len(keys) for keys, _ in chunks) for name, chunks in found.items()}
        tensors = {}
        for name, chunks in found.items():
            if rows[name]:
                tensors[f"{name}.keys"] = np.concatenate([keys for keys, _ in chunks])
                tensors[f"{name}.records"] = np.concatenate([records for _, records in chunks])
        return tensors, {name: count for name, count in rows.items() if count}
    raise Unavailable(f"shard {shard} could not be saved within {routes.timeout:g} s: {why}", shard)


def _streamed(
    routes: Routes, server: str, shard: int
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    found = defaultdict(list)
    routes.send(server, Message({"op": "image", "shard": shard}))
    answer = routes.receive(server, _ANSWER_S, lambda: True)
    while "end" not in answer.names:
        if "error" in answer.names:
            raise ConnectionError(answer.names["error"])
        if "table" in answer.names:
            found[answer.names["table"]].append((answer.arrays[0], answer.arrays[1]))
        answer = routes.receive(server, _ANSWER_S, lambda: True)
    return found


def _packed(layout: Layout, files: dict[str, Stored]) -> bytes:
    said: dict[str, Any] = {
        "layout": json.loads(layout.pack()),
        "files": {name: [one.sum.bytes, one.sum.sha256, one.rows] for name, one in files.items()},
    }
    body = json.dumps(said, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"format": "oarlock tables", "version": _VERSION, "sha256": digest, "snapshot": body}).encode()  # fmt: skip


def _read(folder: Path) -> tuple[Layout, dict[str, Stored]]:
    try:
        said = json.loads((folder / NAME).read_bytes())
        body = said["snapshot"]
        whole = hashlib.sha256(body.encode()).hexdigest() == said["sha256"]
        if said["format"] != "oarlock tables" or said["version"] != _VERSION or not whole:
            raise CheckpointError(f"{folder / NAME} is damaged, or of another version")
        found = json.loads(body)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {NAME}: it is no snapshot, or not a whole one") from None  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / NAME} is damaged: {error}") from error
    files = {
        name: Stored(Sum(size, digest), rows)
        for name, (size, digest, rows) in found["files"].items()
    }
    return Layout.of(found["layout"]), files
