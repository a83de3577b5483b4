"""A LLaMA in ONNX Runtime, served to an experiment."""

import resource
import time
from typing import Any

import numpy as np
import onnxruntime

_state: dict[str, Any] = {}


def load(*, path: str, threads: int) -> dict[str, str]:
    """Open a model that `export.onnx.write_llama` wrote."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {one.name: one.shape for one in session.get_inputs()}
    empty = {
        name: np.zeros((1, shape[1], 0, shape[3]), np.float32)
        for name, shape in inputs.items()
        if name != "tokens"
    }
    names = [one.name for one in session.get_outputs()]
    _state.update(session=session, empty=empty, names=names)
    return {"library": f"onnxruntime {onnxruntime.__version__}"}


def decode(*, tokens: list[int]) -> dict[str, float]:
    """Feed tokens one by one, as generation does; wall and CPU seconds."""
    past, session = _state["empty"], _state["session"]
    wall, cpu = time.perf_counter(), _cpu_seconds()
    for token in tokens:
        out = session.run(None, {"tokens": np.array([[token]]), **past})
        past = {f"past_{name}": value for name, value in zip(_state["names"][1:], out[1:])}
    return {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_seconds() - cpu}


def losses(*, tokens: list[list[int]]) -> list[list[float]]:
    """Nats of every token but the first of each text."""
    found = []
    for row in tokens:
        text = np.array([row])
        logits = _state["session"].run(["logits"], {"tokens": text[:, :-1], **_state["empty"]})[0]
        logits = logits[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, text[0, 1:, None], axis=-1)[:, 0]
        found.append((np.log(np.exp(logits).sum(-1)) - chosen).tolist())
    return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
