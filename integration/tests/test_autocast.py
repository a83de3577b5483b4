"""Mixed precision on a CPU trains language models as float32 does."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim, precision
from oarlock.llm import models

SIZES: dict = {
    "vocab_size": 64,
    "hidden_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "max_length": 32,
}
CONFIGS = {"llama": models.llama.LlamaConfig(**SIZES), "gpt": models.gpt.GPTConfig(**SIZES)}


def losses(name, level=None, steps=20):
    model = models.create(name, CONFIGS[name], seed=1)
    if level == "O2":
        precision.decorate(model)
    optimizer = optim.create("adamw", model, learning_rate=3e-3, multi_precision=level == "O2")
    paddle.seed(0)
    tokens = paddle.randint(0, 64, [4, 1], dtype="int64") + 3 * paddle.arange(33)
    tokens, found = tokens % 64, []
    for _ in range(steps):
        with precision.autocast(enabled=level is not None, level=level or "O1"):
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        for parameter in model.parameters():
            assert parameter.grad.dtype == parameter.dtype
        optimizer.step()
        optimizer.clear_grad()
        found.append(loss.astype("float32").item())
    return np.array(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_same_loss_curve(name):
    exact = losses(name)
    assert exact[-1] < 0.7 * exact[0]
    for level, tolerance in (("O1", 0.02), ("O2", 0.04)):
        mixed = losses(name, level)
        assert 0 < np.abs(mixed - exact).max() < tolerance * exact[0]
