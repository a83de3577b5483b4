"""Workers of the lm-eval peer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from oarlock.accept import peers
from oarlock.accept.experiment import Run
from oarlock.accept.workers import Worker

T = TypeVar("T")

#: Positions that lm-eval may use of 512: the engine counts the last token of a scored text among its own.
LENGTHS: Mapping[str, int] = {
    "multiple_choice": 511,
    "loglikelihood_rolling": 511,
    "generate_until": 512,
}


def available(run: Run) -> bool:
    """Whether lm-eval takes part; where it is missing the log says so."""
    try:
        peers.python("lm_eval")
    except peers.PeerMissing as missing:
        run.log(f"lm-eval is left out: {missing}")
        return False
    return True


def start(place: Path, *, threads: int) -> Worker:
    """A worker in lm-eval's own environment, which keeps its files in ``place`` and asks no server."""
    env = {
        "OMP_NUM_THREADS": str(threads),
        "HF_HOME": str(place),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    script = peers.scripts("lm_eval") / "evaluate.py"
    return Worker.start(script, env=env, python=peers.python("lm_eval"))


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of a call, and its value."""
    begin = perf_counter()
    value = call()
    return perf_counter() - begin, value
