"""Runs a plan."""

import asyncio
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import psutil

from oarlock.llm.server.load.exchange import Exchange, exchange
from oarlock.llm.server.load.plan import KINDS, Kind, LoadPlan
from oarlock.llm.server.load.report import LoadReport, Outcome, Sample

MEMORY_STEP_S = 0.25
EXIT_S = 120.0  # for a server that was asked to stop


def run(plan: LoadPlan, *, progress: Callable[[int, float], None] | None = None) -> LoadReport:
    """Put the load on the server; every answer is judged.

    Args:
        plan: what to send.
        progress: called four times a second with the requests ended and the seconds since the start.

    Raises:
        ValueError: the server does not answer the plan's prompts before the load, or its process
            is not there.
    """
    return asyncio.run(_Run(plan, progress).all())


class _Run:
    def __init__(self, plan: LoadPlan, progress: Callable[[int, float], None] | None):
        self._plan, self._progress = plan, progress
        self._rng = np.random.default_rng([plan.seed, 0])
        self._prompts = plan.prompt_texts()
        self._expected: list[str] = []
        self._outcomes: list[Sample] = []
        self._memory: list[tuple[float, int]] = []
        self._unsent = 0
        self._process: psutil.Process | None = None
        if plan.pid is not None:
            try:
                self._process = psutil.Process(plan.pid)
            except psutil.NoSuchProcess as error:
                raise ValueError(f"pid must be that of the server, got {plan.pid}.") from error

    async def all(self) -> LoadReport:
        if self._plan.check_texts:
            await self._ask_alone()
        began = time.perf_counter()
        watch = asyncio.create_task(self._watch(began))
        end = self._terminate() if self._plan.terminate_after_s is not None else None
        ending = asyncio.create_task(end) if end is not None else None
        try:
            if self._plan.rate is None:
                await self._closed(began)
            else:
                await self._open(began, self._plan.rate)
            seconds = time.perf_counter() - began
            exit_s = await ending if ending is not None else None
        finally:
            watch.cancel()
            if ending is not None:
                ending.cancel()
        plan = {k: v for k, v in dataclasses.asdict(self._plan).items() if k != "key"}
        return LoadReport(
            plan=plan,
            seconds=seconds,
            samples=tuple(self._outcomes),
            unsent=self._unsent,
            memory=tuple(self._memory),
            exit_s=exit_s,
        )

    async def _ask_alone(self) -> None:
        for number, prompt in enumerate(self._prompts):
            found = await self._send("whole", number)
            if not found.done:
                raise ValueError(
                    f"url must be that of a server which answers: {self._plan.url} gave status "
                    f"{found.status}, error {found.error}, {found.broke or 'no text'} for a prompt of "
                    f"{len(prompt)} characters."
                )
            self._expected.append(found.text)

    async def _closed(self, began: float) -> None:
        async def work() -> None:
            while time.perf_counter() - began < self._plan.duration_s:
                sample = await self._one(began)
                if sample.outcome == "unconnected":
                    await asyncio.sleep(0.05)  # nobody listens any more: do not spin

        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.streams):
                group.create_task(work())

    async def _open(self, began: float, rate: float) -> None:
        running: set[asyncio.Task[Sample]] = set()
        due = began
        while True:
            due += self._rng.exponential(1 / rate)
            if due - began >= self._plan.duration_s:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if len(running) >= self._plan.streams:
                self._unsent += 1
                continue
            task = asyncio.create_task(self._one(began))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _one(self, began: float) -> Sample:
        shares = self._plan.shares()
        kind: Kind = KINDS[self._rng.choice(len(KINDS), p=[shares[name] for name in KINDS])]
        number = int(self._rng.integers(len(self._prompts)))
        at = time.perf_counter() - began
        found = await self._send(kind, number)
        sample = Sample(
            kind=kind,
            outcome=self._judge(kind, number, found),
            status=found.status,
            error=found.error or found.broke,
            at_s=at,
            first_s=found.first_s,
            end_s=found.end_s,
            gaps_s=tuple(np.diff(found.pieces)) if kind == "stream" else (),
            characters=len(found.text),
        )
        self._outcomes.append(sample)
        return sample

    async def _send(self, kind: Kind, number: int) -> Exchange:
        plan = self._plan
        body: dict = {
            "model": plan.model,
            "prompt": self._prompts[number],
            "max_tokens": plan.max_tokens,
            "temperature": 0,
            "stream": kind not in ("whole", "malformed"),
        }
        data = json.dumps(body).encode()
        if kind == "malformed":
            wrong = [data[:-1], json.dumps(body | {"temperature": "hot"}).encode()]
            wrong += [json.dumps(body | {"model": "no such"}).encode(), b"\xff" * 100, b"[]"]
            data = wrong[int(self._rng.integers(len(wrong)))]
        return await exchange(
            plan.url,
            data,
            key=plan.key,
            limit_s=plan.request_s,
            close_after=int(self._rng.integers(1, 9)) if kind == "cancel" else None,
            pause_s=plan.pause_s if kind == "slow" else None,
        )

    def _judge(self, kind: Kind, number: int, found: Exchange) -> Outcome:
        if not found.connected:
            return "unconnected"
        if found.error is not None and found.status not in (None, 200):
            by_design = kind == "malformed" and found.status < 500  # type: ignore[operator]
            return "refused as malformed" if by_design else "clean error"
        if found.status is None:
            return "lost"
        if kind == "malformed" or found.status != 200:
            return "wrong"
        expected = self._expected[number] if self._expected else found.text
        if not expected.startswith(found.text) or found.done and found.text != expected:
            return "mixed"
        if found.error is not None:
            return "clean error"
        if found.done:
            return "whole"
        went_away = kind == "cancel" and found.pieces and found.broke is None
        return "cancelled" if went_away else "lost"

    async def _watch(self, began: float) -> None:
        while True:
            seconds = time.perf_counter() - began
            if self._process is not None:
                try:
                    self._memory.append((seconds, self._process.memory_info().rss))
                except psutil.NoSuchProcess:
                    self._process = None
            if self._progress is not None:
                self._progress(len(self._outcomes), seconds)
            await asyncio.sleep(MEMORY_STEP_S)

    async def _terminate(self) -> float:
        """End the server; seconds until its process was gone."""
        assert self._plan.pid is not None and self._plan.terminate_after_s is not None
        process = psutil.Process(self._plan.pid)
        await asyncio.sleep(self._plan.terminate_after_s)
        os.kill(self._plan.pid, signal.SIGTERM)
        began = time.perf_counter()
        while _alive(process):
            if time.perf_counter() - began > EXIT_S:
                return float("inf")
            await asyncio.sleep(0.02)
        return time.perf_counter() - began


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
