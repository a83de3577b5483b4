"""A store, nodes and a router in this process, and replicas and clients beside them."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx
import pytest
from oarlock.fleet_ext.children import Lines
from oarlock.fleet_ext.rendezvous import EtcdStore, StoreServer, TcpStore
from oarlock.fleet_ext.serving import Agent, Command, Fleet, Replica, Router, Routing, Server
from oarlock.fleet_ext.serving.process import ReplicaProcess
from oarlock.fleet_ext.serving.records import REPLICAS, pack
from small_replica import words_of

SCRIPT = str(Path(__file__).with_name("small_replica.py"))
LONG_S = 60.0  #: within which anything happens, also on a machine that stands still now and then
#: Of a test: once with the built-in store and once with etcd, where there is one.
with_each_store = pytest.mark.parametrize("place", ("built-in", "etcd"), indirect=True)


def until(condition, what="it"):
    end = time.monotonic() + LONG_S
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {LONG_S} s"
        time.sleep(0.02)
    return found


def command(**options):
    return Command(argv=(sys.executable, SCRIPT, "{port}"), **options)


def metric(url, name):
    """Of a router."""
    text = httpx.get(url + "/router/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines()
               if line.startswith((name + " ", name + "{")))  # fmt: skip


class Place:
    """What one test uses; `close` ends all of it. With `etcd`, the store is in that."""

    def __init__(self, etcd=None):
        self.etcd, self.namespace = etcd, uuid.uuid4().hex
        self.store_server = StoreServer(job="test", token="token") if etcd is None else None
        self.store = self.client()
        self.fleet = Fleet(self.store)
        self.agents, self.servers, self.processes = {}, [], {}

    def client(self):
        if self.etcd is not None:
            return EtcdStore(self.etcd.url, namespace=self.namespace)
        port = self.store_server.address[1]
        return TcpStore("127.0.0.1", port, job="test", token="token")

    def restart_store(self):
        """The built-in one, without its keys."""
        port = self.store_server.address[1]
        self.store_server.close()
        self.store_server = StoreServer(job="test", token="token", port=port)

    def agent(self, node, replicas, command=command(), **options):
        self.agents[node] = Agent(
            self.client(), command, node=node, replicas=replicas, lines=Lines(io.StringIO()), **options
        )  # fmt: skip
        return self.agents[node]

    def router(self, admin_token=None, **routing):
        router = Router(self.client(), routing=Routing(**routing), admin_token=admin_token)
        self.servers.append(Server(router).start())
        return self.servers[-1]

    def replica(self, id, state="ready"):
        """A process without an agent, registered by hand."""
        process = self.processes[id] = ReplicaProcess(command(), id, Lines(io.StringIO()))
        until(lambda: process.answers, "a replica's first answer")
        self.register(id, process.port, state)
        return process

    def register(self, id, port, state="ready"):
        replica = Replica(id=id, node="by hand", host="127.0.0.1", port=port, state=state)
        self.store.set(REPLICAS + id, pack(replica))

    def ready(self):
        return [one for one in self.fleet.view().replicas.values() if one.state == "ready"]

    def until_ready(self, count):
        until(lambda: len(self.ready()) == count, f"{count} replicas, ready,")

    def until_routed(self, server, count):
        """The router knows so many that are ready."""
        until(
            lambda: httpx.get(server.url + "/router/health").json()["replicas"] == count,
            f"a router with {count} replicas",
        )

    def signal(self, id, number):
        for agent in self.agents.values():
            if id in agent.pids:
                os.kill(agent.pids[id], number)

    def metric(self, server, name):
        return metric(server.url, name)

    def close(self):
        for server in self.servers:
            server.close()
        for agent in self.agents.values():
            agent.close(drain=False)
        for process in self.processes.values():
            process.close()
        self.store.close()
        if self.store_server is not None:
            self.store_server.close()


class Clients:
    """Threads that ask one thing after the other, and look at each answer: plain ones and streams in turn."""

    def __init__(self, url, count=4):
        self.url, self.asked, self.wrong, self._over = url, 0, [], threading.Event()
        self._threads = [threading.Thread(target=self._ask_all, args=(k,)) for k in range(count)]
        for thread in self._threads:
            thread.start()

    def until_asked(self, more):
        wanted = self.asked + more
        until(lambda: self.asked >= wanted, f"{more} more requests")

    def close(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask_all(self, name):
        with httpx.Client(timeout=LONG_S) as client:
            number = 0
            while not self._over.is_set():
                seed, number = f"{name} {number}", number + 1
                try:
                    said = (ask, stream)[number % 2](client, self.url, seed)
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    said = repr(error)
                if said is not None:
                    self.wrong.append(said)
                self.asked += 1


def ask(client, url, seed, words=3, pause=0.01):
    """What is wrong with a plain answer, or None."""
    answer = client.post(url + "/answer", json={"seed": seed, "words": words, "pause": pause})
    well = answer.status_code == 200 and answer.json()["words"] == words_of(seed, words)
    return None if well else f"{answer.status_code} {answer.text}"


def events_of(client, url, given, path="/stream"):
    with client.stream("POST", url + path, json=given) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data:"):
                said = line.removeprefix("data:").strip()
                yield said if said == "[DONE]" else json.loads(said)


def stream(client, url, seed, words=20, pause=0.02):
    """What is wrong with a stream, or None."""
    found = list(events_of(client, url, {"seed": seed, "words": words, "pause": pause}))
    if found[-1] != "[DONE]" or [one.get("word") for one in found[:-1]] != words_of(seed, words):
        return f"stream: {found}"
    names = {(one["id"], one["number"] - number) for number, one in enumerate(found[:-1])}
    return None if len(names) == 1 else f"stream of {len(names)} runs"


def app_of(name, *arguments):
    """A command of `oarlock-fleet` as a process."""
    app = (f"import typer; from oarlock.fleet_ext.cli.serve import {name}; app = typer.Typer(); app.command("
           f"context_settings={{'allow_extra_args': True, 'allow_interspersed_args': False}})({name}); app()")  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", app, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip


STOP, KILL, TERM = signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM
