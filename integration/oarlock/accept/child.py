"""The process of one experiment: runs its function and tells the runner what happens, line by line.

Events are JSON objects on a pipe of their own; whatever is printed goes to the experiment's log.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from oarlock.accept import experiment
from oarlock.accept.data import DataCorrupt, DataMissing
from oarlock.accept.measure import resources
from oarlock.accept.peers import PeerMissing
from oarlock.accept.remembered import Remembered

_PR_SET_PDEATHSIG = 1
#: Exit codes that the runner understands.
FAILED, MISSING, INTERRUPTED = 1, 3, 130


def _missing() -> tuple[type[Exception], ...]:
    """The errors that say what must be got first, in a message with the remedy."""
    found: list[type[Exception]] = [DataMissing, DataCorrupt, PeerMissing]
    prepare = sys.modules.get("oarlock.accept.prepare")  # imported only by those that need models
    if prepare is not None:
        found += [prepare.ModelMissing, prepare.ModelCorrupt]
    return tuple(found)


def main(job: dict[str, Any]) -> None:
    """Runs the experiment that `job` names; see `runner._job`."""
    os.set_inheritable(job["pipe"], False)
    for one in (signal.SIGINT, signal.SIGTERM):  # a shell's background ignores the first
        signal.signal(
            one, signal.default_int_handler
        )  # so that what an experiment started ends too
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)  # not outlive the runner
    code = INTERRUPTED
    with suppress(BrokenPipeError), os.fdopen(job["pipe"], "w", encoding="utf-8") as pipe:

        def emit(event: dict[str, Any]) -> None:
            try:
                pipe.write(json.dumps(event) + "\n")
                pipe.flush()
            except BrokenPipeError:  # nobody listens any more: the runner is ending this process
                raise KeyboardInterrupt from None
            if event["event"] == "log":
                print(event["text"], file=sys.stderr, flush=True)

        with suppress(KeyboardInterrupt):
            code = _run(job, emit)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries that hang or crash in their clean-up change nothing any more


def _run(job: dict[str, Any], emit) -> int:
    began = time.perf_counter()
    remembered = Remembered(Path(job["remembered"]))
    try:
        one = experiment.find(job["module"], job["criterion"], job["name"])
        run = experiment.Run(tier=job["tier"], seed=job["seed"], emit=emit, remembered=remembered)
        for evidence in one.function(run):
            if not isinstance(evidence, experiment.Evidence):
                raise TypeError(f"an experiment gives Evidence, got {type(evidence).__name__}")
            spent = {
                "seconds": round(time.perf_counter() - began, 1),
                "cpu_seconds": round(resources.cpu_seconds(), 1),
                "peak_memory_mb": round(resources.peak_memory() / 1e6),
            }
            emit({"event": "evidence", "record": evidence.as_dict() | {"spent": spent}})
    except Exception as error:
        traceback.print_exc()
        expected = isinstance(error, _missing())
        summary = str(error) if expected else f"{type(error).__name__}: {error}"
        emit({"event": "error", "text": summary})
        return MISSING if expected else FAILED
    emit({"event": "done", "peak_memory_mb": round(resources.peak_memory() / 1e6)})
    return 0
