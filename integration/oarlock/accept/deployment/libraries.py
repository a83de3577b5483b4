"""Libraries that run exported models, each as workers with one model each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oarlock.accept import peers
from oarlock.accept.experiment import Run
from oarlock.accept.workers import Worker

CONTEXT = 512  #: positions that llama.cpp keeps keys and values for


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One library.

    Args:
        name: in names of evidence.
        title: for people.
        kind: "gguf" or "onnx", what it reads.
        start: a worker with the model of a file, and what it said about itself.
    """

    name: str
    title: str
    kind: str
    start: Callable[[Path, int], tuple[Worker, dict[str, Any]]]


def of(run: Run) -> list[Library]:
    """The libraries of this run: llama.cpp not in the quick tier; where it is missing the log says so."""
    found = [Library(name="onnxruntime", title="ONNX Runtime", kind="onnx", start=_onnx)]
    if run.tier == "quick":
        return found
    try:
        peers.python("llama_cpp")
    except peers.PeerMissing as missing:
        run.log(f"llama.cpp is left out: {missing}")
        return found
    return [Library(name="llama-cpp", title="llama.cpp", kind="gguf", start=_llama_cpp), *found]


def _onnx(path: Path, threads: int) -> tuple[Worker, dict[str, Any]]:
    env = {"OMP_NUM_THREADS": str(threads)}
    worker = Worker.start("oarlock.accept.deployment.onnx_decode", env=env)
    return worker, worker.call("load", path=str(path), threads=threads)


def _llama_cpp(path: Path, threads: int) -> tuple[Worker, dict[str, Any]]:
    script = peers.scripts("llama_cpp") / "decode.py"
    worker = Worker.start(script, python=peers.python("llama_cpp"))
    return worker, worker.call("load", path=str(path), threads=threads, context=CONTEXT)
