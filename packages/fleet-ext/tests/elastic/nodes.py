"""Nodes as processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from oarlock.fleet_ext.rendezvous import StoreServer, TcpStore


class Nodes:
    """A store, and nodes that share it."""

    def __init__(self, least, most, steps, more=0.02, script="elastic_node.py"):
        self.server = StoreServer(job="test", token="token")
        self.options = [str(one) for one in (least, most, steps, more)]
        self.script = Path(__file__).with_name(script)
        self.processes = {}

    def start(self, *names):
        for name in names:
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(self.script), str(self.server.address[1]), name, *self.options],
                stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def until(self, name, step):
        for line in self.processes[name].stdout:
            if line == f"step {step}\n":
                return
        raise AssertionError(f"{name} ended before step {step}")

    def store(self):
        return TcpStore("127.0.0.1", self.server.address[1], job="test", token="token")

    def until_there(self, count):
        """So many nodes train or are ready."""
        store, until = self.store(), time.monotonic() + 30.0
        while len(store.keys("elastic/nodes/")) < count:
            assert time.monotonic() < until
            time.sleep(0.02)
        store.close()

    def ends(self, *names):
        """What they say at the end."""
        found = {}
        for name in names:
            out, _ = self.processes[name].communicate(timeout=60)
            found[name] = json.loads(out.splitlines()[-1])
        print({name: one["recoveries"] for name, one in found.items()})  # shown where a test fails
        return found

    def close(self):
        for one in self.processes.values():
            one.kill()
            one.wait()
            one.stdout.close()
        self.server.close()
