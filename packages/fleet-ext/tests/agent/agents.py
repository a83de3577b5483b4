"""A store, and agents as processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from oarlock.fleet_ext.agent.board import lines
from oarlock.fleet_ext.agent.cluster import Cluster
from oarlock.fleet_ext.rendezvous import StoreServer, TcpStore

FOLDER = Path(__file__).parent
PATHS = [str(FOLDER.parent / "elastic"), *filter(None, [os.environ.get("PYTHONPATH")])]
PATIENCE_S = 60.0


def until(condition, words):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in {PATIENCE_S:g} s: {words}"
        time.sleep(0.05)
    return found


class Agents:
    """Agents of a job on this machine, each a process."""

    def __init__(self, folder):
        self.server = StoreServer(job="job", token="token")
        self.folder, self.processes = folder, {}
        (folder / "token").write_text("token\n")
        host, port = self.server.address
        self.where = ["--store", f"{host}:{port}", "--token-file", str(folder / "token")]
        self.store = TcpStore(host, port, job="job", token="token")

    def start(self, name, *options, command=None, steps=150, seconds=0.03, operation=20.0):
        script = [
            sys.executable,
            str(FOLDER / "agent_node.py"),
            str(steps),
            str(seconds),
            str(operation),
        ]
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "agent", *self.where, "--node", name,
             "--logs", str(self.folder), *options, "--", *(command or script)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(PATHS)},
        )  # fmt: skip

    def call(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "oarlock.fleet_ext.cli.main", arguments[0], *self.where, *arguments[1:]],
            capture_output=True, text=True,
        )  # fmt: skip

    def said(self, name):
        """What the processes of a node wrote."""
        path = self.folder / f"{name}.log"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def until_step(self, name, step):
        """A node took this step, or a later one."""
        until(
            lambda: any(one.get("step", -1) >= step for one in self.said(name)), f"{name} at {step}"
        )

    def line(self, name):
        """What the agent says of itself; None where there is none."""
        return lines(self.store).get(name)

    def cluster(self):
        return Cluster.read(self.store)

    def ends(self, name):
        """Exit status and what the agent itself said."""
        out, error = self.processes[name].communicate(timeout=PATIENCE_S)
        print(name, out[-1000:], error)  # shown where a test fails
        return self.processes[name].returncode, out, error

    def close(self):
        for one in self.processes.values():
            one.kill()
            one.communicate()
        self.store.close()
        self.server.close()
