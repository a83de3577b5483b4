"""A serving fleet of real language models, clients that compare each answer, and faults."""

import io
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from oarlock.accept import data
from oarlock.fleet_ext.children import Lines
from oarlock.fleet_ext.rendezvous import StoreServer, TcpStore
from oarlock.fleet_ext.serving import Agent, Command, Fleet, Replica, Router, Server
from oarlock.fleet_ext.transport import new_token

JOB, MODEL = "serving", "stories"
BEGINNINGS = (
    "Once upon a time", "One day, a little boy", "Lily had a big red ball", "The dog was sad",
    "There was a small cat", "Tom and his mom went", "A bird saw a shiny", "In the park, they",
)  # fmt: skip
PATIENCE_S = 120.0  #: of a client, and for what a fault should bring about


def command() -> Command:
    """stories260K behind OpenAI's interface."""
    model, words = data.path("stories260K", "stories260K.bin"), data.path("stories260K", "tok512.bin")  # fmt: skip
    argv = (sys.executable, "-m", "oarlock.llm.cli", "serve", str(model), "--tokenizer", str(words), "--weights",
            "fp32", "--name", MODEL, "--port", "{port}", "--threads", "1", "--no-access-log", "--no-page")  # fmt: skip
    return Command(argv=argv, threads=1)


@dataclass(slots=True)
class Seen:
    """What clients saw.

    Args:
        seconds: of each request, until its end.
        failed: what was wrong with those without an answer.
        differing: answers that are others than those of one undisturbed replica.
    """

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


class Clients:
    """Threads that ask for one text after the other, whole and as a stream in turns.

    Args:
        url: of the router.
        expected: texts by beginning.
        tokens: of a text.
    """

    def __init__(self, url: str, expected: dict[str, str], tokens: int, count: int) -> None:
        self.seen = Seen()
        self._url, self._expected, self._tokens = url, expected, tokens
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_all, args=(one,)) for one in range(count)]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def close(self) -> Seen:
        """Behind the requests that run."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.seen

    def _ask_all(self, name: int) -> None:
        draw = random.Random(name)
        with httpx.Client(timeout=PATIENCE_S) as client:
            streams = bool(name % 2)
            while not self._over.is_set():
                beginning, streams = draw.choice(BEGINNINGS), not streams
                begun = time.perf_counter()
                try:
                    text = (streamed if streams else whole)(client, self._url, beginning, self._tokens)  # fmt: skip
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.seen.failed.append(f"{type(error).__name__}: {error}")
                else:
                    if text != self._expected[beginning]:
                        self.seen.differing.append(text)
                self.seen.seconds.append(time.perf_counter() - begun)


def whole(client: httpx.Client, url: str, beginning: str, tokens: int) -> str:
    answer = client.post(f"{url}/v1/completions", json=_asked(beginning, tokens))
    answer.raise_for_status()
    return answer.json()["choices"][0]["text"]


def streamed(client: httpx.Client, url: str, beginning: str, tokens: int) -> str:
    """
    Raises:
        ValueError: the stream is not whole, or of several runs.
    """
    text, names, ended = "", set(), False
    asked = {**_asked(beginning, tokens), "stream": True}
    with client.stream("POST", f"{url}/v1/completions", json=asked) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data:"):
                continue
            said = line.removeprefix("data:").strip()
            if said == "[DONE]":
                ended = True
                continue
            event = json.loads(said)
            if "error" in event:
                raise ValueError(event["error"]["message"])
            names.add(event["id"])
            text += event["choices"][0]["text"]
    if not ended or len(names) != 1:
        raise ValueError(f"a stream of {len(names)} runs{'' if ended else ', without its end'}")
    return text


class Stage:
    """A fleet on this machine, to which things happen.

    Attributes:
        url: of its router.
    """

    def __init__(self, store: TcpStore, replicas: int, most: int) -> None:
        self.fleet = Fleet(store)
        self.agent = Agent(store, command(), node="here", replicas=replicas, spares=1, capacity=most,
                           lines=Lines(io.StringIO()))  # fmt: skip
        self.server = Server(Router(store)).start()
        self.url = self.server.url

    def ready(self) -> list[Replica]:
        return [one for one in self.fleet.view().replicas.values() if one.state == "ready"]

    def settled(self) -> None:
        """As many answer as are wanted, one is warm, and nothing is drained."""
        self._until(self._is_settled, "a fleet that is whole")

    def suffer(self, fault: str | int, draw: random.Random) -> None:
        """Something happens to a replica that has requests, or a number of replicas is wanted; returns when it shows."""
        if isinstance(fault, int):
            self.fleet.rescale(fault)
            self._until(lambda: len(self.ready()) == fault, f"{fault} replicas")
            return
        victim = draw.choice(self._until(self._busy, "a replica with requests"))
        if fault == "drain":
            self.fleet.drain(victim.id)
        else:
            os.kill(self.agent.pids[victim.id], signal.SIGKILL if fault == "kill" else signal.SIGSTOP)  # fmt: skip
        self._until(lambda: victim.id not in self.fleet.view().replicas, f"the end of {victim.id}")

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/router/metrics").text
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))  # fmt: skip

    def close(self) -> None:
        self.server.close()
        self.agent.close(drain=False)

    def _busy(self) -> list[Replica]:
        view = self.fleet.view()
        return [one for id, one in view.replicas.items() if one.state == "ready" and
                any(id in report.uses and report.uses[id].running for report in view.routers.values())]  # fmt: skip

    def _is_settled(self) -> bool:
        states = [one.state for one in self.fleet.view().replicas.values()]
        counted = states.count("ready") == self.fleet.view().wanted and "spare" in states
        return counted and "draining" not in states

    def _until(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            if self.agent.failure is not None:
                raise RuntimeError(f"the agent gave up: {self.agent.failure}")
            if time.monotonic() > end:
                raise RuntimeError(f"{what} did not come within {PATIENCE_S:g} s")
            time.sleep(0.01)
        return found


@contextmanager
def stage(replicas: int, most: int) -> Iterator[Stage]:
    """
    Args:
        replicas: that answer at the beginning.
        most: that may.
    """
    token = new_token()
    server = StoreServer(job=JOB, token=token)
    try:
        with TcpStore(*server.address, job=JOB, token=token) as store:
            made = Stage(store, replicas, most)
            try:
                made.settled()
                yield made
            finally:
                made.close()
    finally:
        server.close()


def _asked(beginning: str, tokens: int) -> dict[str, Any]:
    return {"model": MODEL, "prompt": beginning, "max_tokens": tokens, "temperature": 0}
