"""Runs experiments, each in a process of its own, and keeps what they find."""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import platformdirs

from oarlock.accept import child, evidence_file, experiment, peers, spawn, stamp
from oarlock.accept.experiment import Experiment
from oarlock.accept.remembered import Remembered

#: What a tier allows an experiment, in seconds, and when it is ended: slower machines get some slack.
ALLOWED_S = {"quick": 20, "full": 30 * 60, "gpu": 30 * 60}
TIMEOUT_S = {"quick": 180, "full": 2 * 60 * 60, "gpu": 2 * 60 * 60}
_PATIENCE_S = 15.0  # to close workers, write a checkpoint

State = Literal["done", "failed", "timeout", "missing", "interrupted"]


class Watcher(Protocol):
    """Shows what happens."""

    def begin(self, one: Experiment) -> None: ...
    def progress(self, done: float, total: float, text: str) -> None: ...
    def log(self, text: str) -> None: ...
    def end(self, outcome: "Outcome") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one experiment.

    `message` says why it is not done; `log` is its whole output; `kept` names evidence of earlier runs
    of the same experiment that this one did not measure, and which stays in the file.
    """

    experiment: Experiment
    state: State
    seconds: float
    records: tuple[Mapping[str, Any], ...]
    file: Path
    log: Path
    message: str = ""
    kept: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[str, ...]:
        return tuple(record["verdict"] for record in self.records)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; `outcomes` holds what there is, the interrupted experiment last."""

    def __init__(self, outcomes: Sequence[Outcome]):
        super().__init__()
        self.outcomes = tuple(outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run: `timeout_s` None means what the tier allows."""

    tier: str
    seed: int
    out: Path
    timeout_s: float | None = None
    cache: Path = field(default_factory=lambda: platformdirs.user_cache_path("oarlock") / "runs")


def reproduce(one: Experiment, settings: Settings) -> str:
    """The command that reproduces the evidence of an experiment."""
    alone = len(experiment.select([one.criterion], tier=settings.tier)) == 1
    program = "oarlock-accept" if stamp.checkout() is None else "./pants accept"
    only = "" if alone else f" --only {one.name}"
    return f"{program} run {one.criterion} --tier {settings.tier} --seed {settings.seed}{only}"


def run(
    experiments: Sequence[Experiment], settings: Settings, watcher: Watcher
) -> tuple[Outcome, ...]:
    """Runs the experiments one after another; one that fails does not keep the others from running.

    Raises:
        ResultsCorrupt: an evidence file is broken; nothing has been run.
        Interrupted: Ctrl-C.
    """
    for one in experiments:
        evidence_file.check(settings.out, settings.tier, one.criterion)
    origin = {
        "hardware": stamp.hardware(),
        "commit": stamp.commit(),
        "versions": stamp.versions(),
    }
    outcomes: list[Outcome] = []
    try:
        for one in experiments:
            command = reproduce(one, settings)
            watcher.begin(one)
            outcome = _Process(one, settings, watcher, origin | {"command": command}).run()
            watcher.end(outcome)
            outcomes.append(outcome)
            if outcome.state == "interrupted":
                raise KeyboardInterrupt
    except KeyboardInterrupt as interrupt:
        raise Interrupted(outcomes) from interrupt
    return tuple(outcomes)


class _Process:
    """One experiment on its way."""

    def __init__(
        self,
        one: Experiment,
        settings: Settings,
        watcher: Watcher,
        origin: Mapping[str, Any],
    ):
        self.one = one
        self.settings = settings
        self.watcher = watcher
        self.records: dict[str, dict[str, Any]] = {}
        self.error = ""
        self.last = ""  # what it had written when its time was over, before it was told so
        folder = f"{one.criterion}-{one.name}-{settings.tier}-seed{settings.seed}"
        self.state_folder = settings.cache / folder
        self.remembered = self.state_folder / stamp.fingerprint(one.module)
        self.log = self.state_folder / "log.txt"
        missing = [name for name in one.peers if peers.state(name) != "ready"]
        self.notes = [
            f"Peer {name} is not installed here and was not compared with:"
            f" `oarlock-accept peers install {name}`."
            for name in missing
        ]
        installed = [name for name in one.peers if name not in missing]
        peer_versions = {f"peer {name}": peers.summary(name) for name in installed}
        versions = origin["versions"] | peer_versions
        self.origin = {**origin, "versions": versions}

    def run(self) -> Outcome:
        began = time.monotonic()
        self.state_folder.mkdir(parents=True, exist_ok=True)
        timeout_s = self.settings.timeout_s or TIMEOUT_S[self.settings.tier]
        reading, writing = os.pipe()
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                spawn.command("oarlock.accept.child", self._job(writing)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C reaches it through us, once
            )
        os.close(writing)
        state: State
        try:
            with os.fdopen(reading, "rb") as pipe:
                in_time = self._listen(pipe, process, began + timeout_s)
                if not in_time:
                    self.last = spawn.tail(self.log)
            if in_time:
                code = process.wait()
                state = {0: "done", child.MISSING: "missing"}.get(code, "failed")  # type: ignore
            else:
                state = "timeout"
        except KeyboardInterrupt:
            state = "interrupted"
        finally:
            spawn.end(process, _PATIENCE_S)
        if state == "done":
            self._forget()
        return self._outcome(state, time.monotonic() - began, timeout_s, process.returncode)

    def _job(self, pipe: int) -> dict[str, Any]:
        return {
            "module": self.one.module,
            "criterion": self.one.criterion,
            "name": self.one.name,
            "tier": self.settings.tier,
            "seed": self.settings.seed,
            "remembered": str(self.remembered),
            "pipe": pipe,
        }

    def _listen(self, pipe, process: subprocess.Popen, deadline: float) -> bool:
        """Handles events until the process closes the pipe; False if the time is over before."""
        selector = selectors.DefaultSelector()
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ)
        pending = b""
        with selector:
            while time.monotonic() < deadline:
                if not selector.select(min(1.0, max(0.0, deadline - time.monotonic()))):
                    if process.poll() is not None:
                        return True  # something that it forked holds the pipe open
                    continue
                chunk = os.read(pipe.fileno(), 1 << 16)
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))
                if not chunk:
                    return True
        return False

    def _handle(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                self.watcher.progress(event["done"], event["total"], event["text"])
            case "log":
                self.watcher.log(event["text"])
            case "evidence":
                self._keep(event["record"])
            case "error":
                self.error = event["text"]
            case "done":
                peak = {"peak_memory_mb": event["peak_memory_mb"]}
                for record in self.records.values():
                    record["spent"] |= peak
                self._write()

    def _keep(self, record: dict[str, Any]) -> None:
        if record["name"] in self.records:
            self.error = f"evidence named {record['name']!r} was given twice"
        record["notes"] = " ".join([record["notes"], *self.notes]).strip()
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        stamped = {"experiment": self.one.name, **self.origin, "date": date}
        self.records[record["name"]] = record | stamped
        self._write()

    def _write(self) -> None:
        """Keeps what there is, at once: a crash later does not take it away."""
        if self.records:
            place = (self.settings.out, self.settings.tier, self.one.criterion)
            evidence_file.merge(*place, self.records.values())

    def _forget(self) -> None:
        """Removes the remembered values, those of older sources too."""
        for folder in self.state_folder.iterdir():
            if folder.is_dir():
                Remembered(folder).clear()

    def _outcome(self, state: State, seconds: float, timeout_s: float, code: int) -> Outcome:
        message = ""
        if state == "done" and (self.error or not self.records):
            state = "failed"
            message = self.error or "it gave no evidence"
        elif state == "timeout":
            message = f"ended after {timeout_s:.0f} s, the limit of this run (--timeout)"
        elif state == "missing":
            message = self.error
        elif state == "failed":
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            message = self.error or f"the process ended with {how}"
        last = self.last if state == "timeout" else spawn.tail(self.log)
        if state in ("failed", "timeout") and last:
            message += f"\n{last}"
        file = evidence_file.path(self.settings.out, self.settings.tier, self.one.criterion)
        earlier = evidence_file.names(file, self.one.name) if state == "done" else []
        return Outcome(
            experiment=self.one,
            state=state,
            seconds=seconds,
            records=tuple(self.records.values()),
            file=file,
            log=self.log,
            message=message,
            kept=tuple(name for name in earlier if name not in self.records),
        )
