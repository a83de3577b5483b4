"""Our engine, served to an experiment."""

import ctypes
import itertools
import time
from typing import Any

import numpy as np

from oarlock.accept.inference import shapes
from oarlock.llm.engine import engine as engines
from oarlock.llm.engine import opening
from oarlock.llm.engine.params import Request, SamplingParams
from oarlock.native import _library

_state: dict[str, Any] = {}
_numbers = itertools.count()


def load(
    *, weights: str, threads: int, path: str | None = None, shape: dict | None = None
) -> dict[str, Any]:
    """Open a file, or a model of random weights.

    Args:
        weights: "fp32", "bf16", "int8" or "int4".
        threads: of all kernels.
        path: of a file, or None.
        shape: of ``shapes.random``, in place of a file.
    """
    model = path if path is not None else shapes.random(**(shape or {}))
    opened = opening.open_engine(model, weights=weights)
    _state.update(model=opened.engine.model, threads=threads)
    return {"library": "Oarlock's engine", "read_bytes": _read_bytes()}


def prepare(*, texts: int, positions: int) -> None:
    """An empty cache for so many texts."""
    _state["engine"] = engines.Engine(
        _state["model"],
        engines.EngineConfig(
            most_texts=texts,
            cache_tokens=texts * (-(-positions // 16) * 16),
            cache_format="bf16",
            share_prefixes=False,
            threads=_state["threads"],
        ),
    )


def generate(*, prompts: list[list[int]], new: int) -> dict[str, Any]:
    """Continue all prompts by the most probable tokens; wall-clock seconds.

    Returns:
        first_s: until every text has its first token; steps_s: of each step from then on; tokens.
    """
    engine = _state["engine"]
    params = SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True)
    found: dict[str, list[int]] = {}
    start = last = time.perf_counter()
    for prompt in prompts:
        id = str(next(_numbers))
        found[id] = []
        engine.add(Request(id=id, prompt=tuple(prompt), params=params))
    first_s, steps_s = None, []
    while engine.has_work:
        for delta in engine.step():
            found[delta.request].extend(delta.tokens)
        now = time.perf_counter()
        if first_s is None:
            if all(found.values()):
                first_s = now - start
        else:
            steps_s.append(now - last)
        last = now
    return {
        "first_s": first_s,
        "steps_s": steps_s,
        "total_s": last - start,
        "tokens": list(found.values()),
    }


def bandwidth(*, steps: int) -> dict[str, list[float]]:
    """Bytes a second of weights while one text is written, and of a plain sum over as much memory, in turns."""
    count = _read_bytes() // 4
    flat = np.ones(count, np.float32)
    sums = np.empty(count // 65536 + 1, np.float32)
    pointers = [ctypes.c_void_p(one.ctypes.data) for one in (sums, flat)]
    library, threads = _library.load(), _state["threads"]
    prepare(texts=1, positions=64)
    engine, params = _state["engine"], SamplingParams(
        max_tokens=48, temperature=0.0, ignore_eos=True
    )
    found: dict[str, list[float]] = {"weights": [], "sum": []}
    while len(found["sum"]) < steps + 2:
        if not engine.has_work:
            engine.add(Request(id=str(next(_numbers)), prompt=(1,), params=params))
            engine.step()
        start = time.perf_counter()
        engine.step()
        middle = time.perf_counter()
        library.call(
            "oarlock_stream_sum", *pointers, ctypes.c_int64(count), ctypes.c_float(0), threads
        )
        found["weights"].append(4 * count / (middle - start))
        found["sum"].append(4 * count / (time.perf_counter() - middle))
    return {name: values[2:] for name, values in found.items()}


def _read_bytes() -> int:
    """Weights that a token's way through the model reads: of an embedding without a head it is one row."""
    model = _state["model"]
    matrices = [one for one in model.matrices() if one is not model.embedding or one is model.head]
    return sum(one.nbytes for one in matrices)
