"""What the optimiser tests share."""

import numpy as np
import paddle
import pytest

NAMES_AND_SHAPES = {
    "matrix": ("hidden_matrix", [7, 5]),
    "tall": ("hidden_matrix", [12, 3]),
    "wide": ("hidden_matrix", [3, 10]),
    "table": ("embedding", [11, 4]),
    "head": ("head", [4, 11]),
    "gain": ("vector", [6]),
    "scalar": ("vector", [1]),
}


class Problem(paddle.nn.Layer):
    """Parameters of every role, whose gradients a test sets as it likes."""

    def __init__(self, dtype: str = "float32", seed: int = 0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.role = {}  # by tensor name
        for key, (role, shape) in NAMES_AND_SHAPES.items():
            value = rng.standard_normal(shape).astype("float32")
            value = paddle.to_tensor(value).astype("bfloat16").astype("float32")
            parameter = self.create_parameter(shape, dtype="float32")
            parameter.set_value(value)
            self.add_parameter(key, parameter)
            self.role[parameter.name] = role
        if dtype != "float32":
            self.to(dtype=dtype)


@pytest.fixture
def problem():
    def build(dtype="float32", seed=0):
        with paddle.utils.unique_name.guard():
            return Problem(dtype, seed)

    return build


@pytest.fixture
def gradients():
    """Seeded gradients that bfloat16 holds exactly, one array for each parameter and step."""

    def build(model, steps, seed=1, scale=1.0):
        rng = np.random.default_rng(seed)
        out = []
        for _ in range(steps):
            step = {}
            for name, parameter in model.named_parameters():
                value = (rng.standard_normal(parameter.shape) * scale).astype("float32")
                step[name] = paddle.to_tensor(value).astype("bfloat16").astype("float32").numpy()
            out.append(step)
        return out

    return build


def backward(model, grads):
    """Set the gradients of ``model`` to ``grads`` (absent names get none)."""
    for name, parameter in model.named_parameters():
        parameter.clear_gradient(False)
        if name in grads:
            wide = "float64" if parameter.dtype == paddle.float64 else "float32"
            grad = paddle.to_tensor(np.asarray(grads[name]), dtype=wide)
            (parameter.astype(wide) * grad).sum().backward()


@pytest.fixture(name="backward")
def backward_fixture():
    return backward
