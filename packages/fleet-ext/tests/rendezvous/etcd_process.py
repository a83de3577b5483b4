"""A server of etcd as a process, for tests of whatever uses a store."""

import os
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Etcd:
    """A server of one member, in a folder of its own."""

    def __init__(self, program, folder, scheme="http", arguments=()):
        self.port, peer = free_port(), free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.command = [
            program, "--name", "one", "--data-dir", str(folder / "data"),
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"one=http://127.0.0.1:{peer}",
            "--heartbeat-interval", "50", "--election-timeout", "500", *arguments,
        ]  # fmt: skip
        self.scheme = scheme
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        until = time.monotonic() + 20.0
        while not self.healthy():
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def healthy(self):
        if self.scheme == "https":
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=1.0) as reply:
                return b'"true"' in reply.read()
        except OSError:
            return False

    def stop(self):
        self.process.kill()
        self.process.wait()


def etcd_program():
    program = os.environ.get("OARLOCK_ETCD") or shutil.which("etcd")
    if program is None:
        pytest.skip("there is no etcd: install Debian's etcd-server, or set OARLOCK_ETCD")
    return program
