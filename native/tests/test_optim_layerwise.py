"""Steps scaled by norms of whole tensors: what happens at zero, without limits and with NaN."""

import numpy as np

from oarlock.native import optim

FLOAT32 = np.dtype(np.float32)
LAMB = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0, "step": 3}


def zeros(count=9):
    return np.zeros(count, FLOAT32)


def ones(count=9):
    return np.ones(count, FLOAT32)


def test_lamb_without_weights_or_gradient_takes_ratio_one():
    lists = [[zeros(), ones()], [ones(), zeros()], [zeros(), zeros()], [zeros(), zeros()]]
    assert optim.lamb(*lists, **LAMB).tolist() == [1.0, 1.0]
