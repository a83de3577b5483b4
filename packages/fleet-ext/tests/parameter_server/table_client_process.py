"""A client of tables as a process: pushes every key again and again until a file is there, and says what it sees."""

import json
import sys
from pathlib import Path

import numpy as np

from oarlock.fleet_ext.parameter_server import Client, Reader
from oarlock.fleet_ext.parameter_server.membership import View
from oarlock.fleet_ext.rendezvous import TcpStore

KEYS = np.arange(64)


def say(**words):
    print(json.dumps(words), flush=True)


def shown(view, acknowledged):
    """Which servers lead shards, and which have copies that are whole."""
    places = view.map.places if view.map is not None else ()
    say(
        acknowledged=acknowledged,
        leads=sorted({one.primary.partition(".")[0] for one in places}),
        copies=sorted({copy.partition(".")[0] for one in places for copy in one.copies}),
        settled=all(one.backup is not None and one.joining is None for one in places),
    )


host, port, job, token, end = sys.argv[1:]
store = TcpStore(host, int(port), job=job, token=token)
with Client(store, job=job, token=token, timeout=60.0) as client:
    beginnings = client.layout.table("rows").initial.rows(KEYS, 2)
    acknowledged = 0
    while not Path(end).exists():
        client.push("rows", KEYS, np.ones((64, 2))).wait()
        acknowledged += 1
        shown(View.read(store), acknowledged)
    pulled = client.pull("rows", KEYS).wait()
    counts = np.round(beginnings - pulled)[:, 0].astype(int).tolist()
    read = Reader(store, job=job, token=token, timeout=60.0).read("rows", KEYS).rows
    say(acknowledged=acknowledged, counts=counts, read_as_pulled=bool((read == pulled).all()))
