"""Initial weights for PyTorch, served to an experiment."""

import numpy as np

from oarlock.llm import models


def write(*, shape: dict[str, int], seed: int, path: str) -> None:
    """Writes what `peers/torch/lm_step.py` reads."""
    model = models.create("llama", models.llama.LlamaConfig.from_dict(shape), seed=seed)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    np.savez(path, _row=np.zeros((1, 2), np.int64), **weights)
