"""PyTorch's AdamW steps on given parameter shapes, served to an experiment."""

import time

import numpy as np
import torch

_state: dict = {}


def build(*, shapes, threads, variant, seed, options):
    """Make parameters, gradients and the optimiser.

    Args:
        shapes: of the parameters.
        variant: "fused" or "foreach".
        seed: of parameters and gradients, drawn as the experiment draws them.
        options: lr, betas, eps, weight_decay.
    """
    torch.set_num_threads(threads)
    rng = np.random.default_rng(seed)
    parameters = []
    for shape in shapes:
        value = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        parameter = torch.nn.Parameter(value)
        parameter.grad = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32) * 0.01)
        parameters.append(parameter)
    _state["parameters"] = parameters
    _state["optimizer"] = torch.optim.AdamW(parameters, **{variant: True}, **options)
    return {"torch": torch.__version__}


def step(*, count=1):
    """Take `count` steps; wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        _state["optimizer"].step()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def sample(*, count):
    """The first values of every parameter, to compare with."""
    return [p.detach().flatten()[:count].tolist() for p in _state["parameters"]]
