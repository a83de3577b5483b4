"""A LLaMA in ONNX Runtime, served to an experiment."""

import resource
import time
from typing import Any

import numpy as np
import onnxruntime

_state: dict[str, Any] = {}


def load(*, path: str, threads: int) -> dict[str, str]:
    """Open a language model whose inputs are tokens, then a state that outputs behind the logits renew.

    A dimension of the state that has no size yet is empty at first; all others begin with zeros.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tokens, *states = session.get_inputs()
    first = {}
    for one in states:
        batch, *rest = one.shape
        shape = [batch if isinstance(batch, int) else 1]
        shape += [size if isinstance(size, int) else 0 for size in rest]
        first[one.name] = np.zeros(shape, np.float32)
    _state.update(session=session, tokens=tokens.name, first=first, one=tokens.shape[1] == 1)
    return {"library": f"onnxruntime {onnxruntime.__version__}"}


def decode(*, tokens: list[int]) -> dict[str, float]:
    """Feed tokens one by one, as generation does; wall and CPU seconds."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    _steps(tokens)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_seconds() - cpu}


def prepare(*, texts: int, positions: int) -> None:
    """Nothing to be done: the state grows with the text."""


def generate(*, prompts: list[list[int]], new: int) -> dict[str, Any]:
    """Continue all prompts, of one length, by the most probable tokens; wall-clock seconds.

    Returns:
        first_s: until every text has its first token; steps_s: of each step from then on; tokens.
    """
    session, state = _state["session"], {}
    for name, empty in _state["first"].items():
        state[name] = np.zeros((len(prompts), *empty.shape[1:]), np.float32)
    given, found, times = np.array(prompts), [], [time.perf_counter()]
    for _ in range(new):
        logits, *after = session.run(None, {_state["tokens"]: given, **state})
        given = logits[:, -1].argmax(-1)[:, None]
        state = dict(zip(state, after))
        found.append(given[:, 0])
        times.append(time.perf_counter())
    return {
        "first_s": times[1] - times[0],
        "steps_s": np.diff(times[1:]).tolist(),
        "total_s": times[-1] - times[0],
        "tokens": np.stack(found, 1).tolist(),
    }


def losses(*, tokens: list[list[int]]) -> list[list[float]]:
    """Nats of every token but the first of each text."""
    found = []
    for row in tokens:
        if _state["one"]:
            logits = np.stack(_steps(row[:-1]))
        else:
            feed = {_state["tokens"]: np.array([row[:-1]]), **_state["first"]}
            logits = _state["session"].run(None, feed)[0][0]
        logits = logits.astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        chosen = logits[np.arange(len(logits)), row[1:]]
        found.append((np.log(np.exp(logits).sum(-1)) - chosen).tolist())
    return found


def _steps(tokens: list[int]) -> list[np.ndarray]:
    """Logits after each token."""
    state, found = _state["first"], []
    for token in tokens:
        feed = {_state["tokens"]: np.array([[token]]), **state}
        logits, *after = _state["session"].run(None, feed)
        found.append(logits[0, 0])
        state = dict(zip(state, after))
    return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
