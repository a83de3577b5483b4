"""Stores to test: the built-in one, the same after a restart from its journal, and etcd; and a proxy that cuts lines."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from etcd_process import Etcd, etcd_program
from oarlock.fleet_ext.rendezvous import EtcdStore, StoreServer, TcpStore

TOKEN = "correct horse battery staple"


@pytest.fixture
def start_etcd(tmp_path):
    """Starts a server of one's own."""
    started = []

    def start(**options):
        started.append(Etcd(etcd_program(), tmp_path, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Proxy:
    """Passes bytes on, until it cuts lines; `losing` is the chance that an answer is lost with its line."""

    def __init__(self, port, losing=0.0, seed=0):
        self.target, self.losing, self.chance = port, losing, random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lines, self.lost = [], 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self.lines.append((near, far))
            threading.Thread(target=self.serve, args=(near, far), daemon=True).start()

    def serve(self, near, far):
        with near, far:
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            there = threading.Thread(target=self.pass_on, args=(near, far, 0.0), daemon=True)
            there.start()
            self.pass_on(far, near, self.losing)
            there.join()

    def pass_on(self, source, sink, losing):
        try:
            while data := source.recv(1 << 16):
                if losing and self.chance.random() < losing:
                    self.lost += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        self.cut_line(source, sink)

    def cut_line(self, *ends):
        for one in ends:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        lines, self.lines = self.lines, []
        for line in lines:
            self.cut_line(*line)

    def close(self):
        self.cut_line(self.listener)
        self.listener.close()
        self.cut()


class Builtin:
    """The built-in store."""

    shortest = 0.4  #: seconds of a lease

    def __init__(self, folder, kind):
        self.folder, self.kind, self.port = folder, kind, 0
        self.stores, self.proxies = [], []
        self.start()
        if kind == "journal":
            with self.store() as store:
                store.set("before", b"the restart")
                store.delete("before")
            self.restart()

    def start(self):
        journal = self.folder / "journal" if self.kind == "journal" else None
        self.server = StoreServer(job="test", token=TOKEN, port=self.port, journal=journal)
        self.port = self.server.address[1]

    def store(self, port=None, **options):
        store = TcpStore("127.0.0.1", port or self.port, job="test", token=TOKEN, **options)
        self.stores.append(store)
        return store

    def proxy(self, **options):
        self.proxies.append(Proxy(self.port, **options))
        return self.proxies[-1]

    def stop(self):
        self.server.close()

    def restart(self):
        self.stop()
        self.start()

    def close(self):
        for one in [*self.stores, *self.proxies]:
            one.close()
        self.stop()


class InEtcd(Builtin):
    shortest = 1.0

    def __init__(self, server):
        self.server, self.kind, self.port = server, "etcd", server.port
        self.stores, self.proxies = [], []
        self.namespace = uuid.uuid4().hex

    def start(self):
        self.server.start()

    def store(self, port=None, **options):
        url = f"http://127.0.0.1:{port or self.port}"
        store = EtcdStore(url, namespace=self.namespace, **options)
        self.stores.append(store)
        return store

    def stop(self):
        self.server.stop()

    def close(self):
        for one in [*self.stores, *self.proxies]:
            one.close()


@pytest.fixture(params=["memory", "journal", "etcd"])
def backend(request, tmp_path):
    """A store's server; `store()` makes a client of it."""
    if request.param == "etcd":
        made = InEtcd(request.getfixturevalue("etcd"))
    else:
        made = Builtin(tmp_path, request.param)
    yield made
    made.close()


@pytest.fixture
def store(backend):
    return backend.store()


class ServerProcess:
    """`python -m oarlock.fleet_ext.rendezvous`."""

    def __init__(self, *arguments, token=TOKEN):
        environment = {**os.environ, "OARLOCK_STORE_TOKEN": token}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oarlock.fleet_ext.rendezvous", "--job", "test", *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said = self.process.stdout.readline()
        self.port = int(self.said.rpartition(":")[2] or 0)

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.process.wait(10.0)


@pytest.fixture
def start_process():
    """Starts a server as a process of its own."""
    started = []

    def start(*arguments, **options):
        started.append(ServerProcess(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.process.stdout.close()
        one.process.stderr.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """PEM files: an authority, and one member's certificate and key signed by it; another authority's too."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ours", "theirs"):
        _sign(folder, name)
    return folder


def _sign(folder: Path, name: str):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}-authority.key", "-out", f"{name}-authority.pem",
            "-subj", f"/CN={name}", "-days", "2")  # fmt: skip
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=localhost")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{name}-authority.pem",
            "-CAkey", f"{name}-authority.key", "-CAcreateserial", "-out", f"{name}.pem",
            "-days", "2", "-extfile", "names")  # fmt: skip
