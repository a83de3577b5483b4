"""Training steps of a LLaMA in Paddle, served to an experiment; stock or accelerated."""

import resource
import time
from typing import Any

import numpy as np
import paddle

from oarlock.core_opt import optim
from oarlock.llm import models
from oarlock.native.paddle import accelerate

_state: dict[str, Any] = {}


def build(
    *,
    shape: dict[str, int],
    batch: int,
    context: int,
    threads: int,
    accelerated: bool,
    optimizer: str,
    learning_rate: float,
    save_to: str | None = None,
) -> dict[str, Any]:
    """Make model, optimiser and one batch.

    Args:
        shape: arguments of `LlamaConfig`.
        accelerated: call `accelerate()`; otherwise only the number of threads is set.
        optimizer: "paddle" for Paddle's own AdamW, "oarlock" for the fused one.
        save_to: an .npz file for weights and batch, from which a peer builds its twin.
    """
    report = ""
    if accelerated:
        report = str(accelerate(threads=threads))
    else:
        paddle.base.core.set_num_threads(threads)
    model = models.create("llama", models.llama.LlamaConfig.from_dict(shape), seed=0)
    rng = np.random.default_rng(0)
    row = rng.integers(0, shape["vocab_size"], (batch, context + 1))
    make = {"paddle": paddle.optimizer.AdamW, "oarlock": optim.AdamW}[optimizer]
    _state.update(
        model=model,
        tokens=paddle.to_tensor(row[:, :-1]),
        targets=paddle.to_tensor(row[:, 1:]),
        optimizer=make(
            learning_rate=learning_rate, parameters=model.parameters(), weight_decay=0.1
        ),
    )
    if save_to is not None:
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        np.savez(save_to, _row=row, **weights)
    return {"parameters": model.num_parameters(), "accelerate": report}


def step(*, count: int = 1) -> dict[str, float]:
    """Train `count` steps; wall and CPU seconds, and the loss of the last."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    for _ in range(count):
        loss = _state["model"].loss(_state["tokens"], _state["targets"])
        loss.backward()
        _state["optimizer"].step()
        _state["optimizer"].clear_grad()
    value = float(loss)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": _cpu_seconds() - cpu,
        "loss": value,
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
