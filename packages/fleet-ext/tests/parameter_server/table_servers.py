"""A store, and servers of tables as threads of this process or as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
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
from oarlock.fleet_ext.rendezvous import EtcdStore, StoreServer, TcpStore

TOKEN = "token"
LEASE_S = 2.0
PATIENCE_S = 60.0

#: Of a test: once with the built-in store and once with etcd, where there is one.
with_each_store = pytest.mark.parametrize("servers", ("built-in", "etcd"), indirect=True)


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


def store_at(where):
    """A client of a store, also in another process."""
    if "url" in where:
        return EtcdStore(where["url"], namespace=where["namespace"])
    return TcpStore("127.0.0.1", where["port"], job="job", token=TOKEN)


def sleep_until(holds, what):
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() < begin + PATIENCE_S, what
        time.sleep(0.02)


class Servers:
    """Everything that a test starts, which `close` ends; with `etcd`, the store is in that."""

    def __init__(self, layout, folder=None, etcd=None):
        self.layout, self.folder, self.etcd = layout, folder, etcd
        self.namespace = uuid.uuid4().hex
        self.store_server = StoreServer(job="job", token=TOKEN) if etcd is None else None
        self.stores, self.threads, self.processes, self.others = [], {}, {}, []
        self.watched = self.store()

    def where(self):
        if self.etcd is not None:
            return {"url": self.etcd.url, "namespace": self.namespace}
        return {"port": self.store_server.address[1]}

    def store(self):
        self.stores.append(store_at(self.where()))
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
            given = {"store": self.where(), "name": name, "lease": LEASE_S,
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
        sleep_until(lambda: holds(self.view()), what)

    def until_copied(self, *names):
        """Every shard has two copies, all on these servers, and each of them has some."""

        def holds(view):
            copies = [one for place in view.map.places for one in place.copies]
            there = {one.partition(".")[0] for one in copies}
            settled = all(one.joining is None for one in view.map.places)
            return settled and len(copies) == 2 * self.layout.shards and there == set(names)

        self.until(holds, f"copies on {names}")

    def until_at_rest(self):
        """Servers of this process know the map, and have looked at it twice without changing it."""
        maps = []
        while len(maps) < 3 or len(set(maps[-3:])) > 1:
            begun = time.monotonic()
            maps.append(self.view().map.pack())
            known = [one._membership for one in self.threads.values()]
            sleep_until(lambda: all(time.monotonic() - one.age > begun for one in known), "a look")

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
        if self.store_server is not None:
            self.store_server.close()
