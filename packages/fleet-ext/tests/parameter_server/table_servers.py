"""A store, and servers of tables as threads of this process or as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from oarlock.fleet_ext.parameter_server import (
    Client,
    Dense,
    Layout,
    Reader,
    Sgd,
    Sparse,
    TableServer,
)
from oarlock.fleet_ext.parameter_server.membership import View
from oarlock.fleet_ext.rendezvous import StoreServer, TcpStore

TOKEN = "token"
LEASE_S = 2.0
PATIENCE_S = 60.0


def counting(shards=8, replicas=2, **options):
    """Tables whose values count what was pushed: each row is less by the sum of its gradients."""
    ones = Sgd(rate=1.0)
    return Layout(
        shards=shards,
        replicas=replicas,
        tables={
            "rows": Sparse(width=2, optimizer=ones, **options),
            "array": Dense(shape=(3, 5), optimizer=ones),
        },
    )


class Servers:
    """Everything that a test starts, which `close` ends."""

    def __init__(self, layout, folder=None):
        self.layout, self.folder = layout, folder
        self.store_server = StoreServer(job="job", token=TOKEN)
        self.stores, self.threads, self.processes, self.others = [], {}, {}, []
        self.watched = self.store()

    def store(self):
        self.stores.append(
            TcpStore("127.0.0.1", self.store_server.address[1], job="job", token=TOKEN)
        )
        return self.stores[-1]

    def start(self, *names, **options):
        """Servers in this process."""
        for name in names:
            if self.folder is not None:
                options["folder"] = self.folder / name
            self.threads[name] = TableServer(
                self.store(), layout=self.layout, token=TOKEN, name=name, lease=LEASE_S, **options
            )
        return self.threads[names[0]]

    def spawn(self, *names, kills=""):
        """Servers as processes; with `kills` one kills itself at that moment of its work."""
        for name in names:
            given = {"store": self.store_server.address[1], "name": name, "lease": LEASE_S,
                     "layout": self.layout.pack().decode(), "kills": kills}  # fmt: skip
            script = Path(__file__).with_name("table_server_process.py")
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(script), json.dumps(given)], stdout=subprocess.PIPE, text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        for name in names:
            assert self.processes[name].stdout.readline() == "ready\n"

    def kill(self, name, number=signal.SIGKILL):
        self.processes[name].send_signal(number)

    def view(self):
        return View.read(self.watched)

    def until(self, holds, what):
        begin = time.monotonic()
        while not holds(self.view()):
            assert time.monotonic() < begin + PATIENCE_S, what
            time.sleep(0.02)

    def until_copied(self, *names):
        """Every shard has two copies, all on these servers, and each of them has some."""

        def holds(view):
            copies = [one for place in view.map.places for one in place.copies]
            there = {one.partition(".")[0] for one in copies}
            settled = all(one.joining is None for one in view.map.places)
            return settled and len(copies) == 2 * self.layout.shards and there == set(names)

        self.until(holds, f"copies on {names}")

    def led_by(self, name):
        """Shards."""
        places = self.view().map.places
        return [shard for shard, one in enumerate(places) if one.primary.partition(".")[0] == name]

    def client(self, **options):
        self.others.append(Client(self.store(), token=TOKEN, **{"timeout": PATIENCE_S} | options))
        return self.others[-1]

    def reader(self, **options):
        self.others.append(Reader(self.store(), token=TOKEN, **options))
        return self.others[-1]

    def close(self):
        for one in self.processes.values():
            one.send_signal(signal.SIGCONT)
        for one in [*self.others, *self.threads.values()]:
            one.close()
        for one in self.processes.values():
            one.kill()
            one.wait()
            one.stdout.close()
        for one in self.stores:
            one.close()
        self.store_server.close()
