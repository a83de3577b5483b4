"""A small model and correlated data for the tests of compression."""

import types

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from oarlock.core_opt import compress
from paddle import nn

WIDTH, NEURONS, CLASSES = 16, 32, 12


class Block(nn.Layer):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH, bias_attr=False)
        self.up = nn.Linear(WIDTH, NEURONS)
        self.down = nn.Linear(NEURONS, WIDTH)

    def forward(self, x, shift):
        h = self.norm(x + shift)
        return x + self.mix(h) + self.down(F.gelu(self.up(h)))


class Model(nn.Layer):
    """Embedding, two blocks, a head: [B, T] -> [B, T, classes]."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, WIDTH)
        self.blocks = nn.LayerList([Block() for _ in range(3)])
        self.head = nn.Linear(WIDTH, CLASSES)
        rng = np.random.default_rng(seed)
        mix = rng.standard_normal((WIDTH, WIDTH)) * np.geomspace(3, 0.1, WIDTH)
        for name, parameter in self.named_parameters():
            if "norm" not in name:
                values = rng.standard_normal(parameter.shape) * 0.4
                if name == "embedding.weight":  # correlated inputs
                    values = rng.standard_normal(parameter.shape) @ mix
                parameter.set_value(values.astype("float32"))

    def forward(self, tokens):
        x, shift = self.embedding(tokens), paddle.zeros([1], self.embedding.weight.dtype)
        for block in self.blocks:
            x = block(x, shift)
        return self.head(x)


class RMSNorm(nn.Layer):
    def __init__(self):
        super().__init__()
        self.weight = self.create_parameter([WIDTH])

    def forward(self, x):
        return x * paddle.rsqrt(paddle.square(x).mean(-1, keepdim=True) + 1e-5) * self.weight


class RMSModel(Model):
    """The same with root-mean-square norms, and one before the head: rotations can be folded in."""

    def __init__(self, seed: int = 0):
        super().__init__(seed)
        self.norm = RMSNorm()
        for block in self.blocks:
            block.norm = RMSNorm()
        rng = np.random.default_rng(seed)
        for norm in [self.norm, *(block.norm for block in self.blocks)]:
            norm.weight.set_value(rng.uniform(0.5, 2, WIDTH).astype("float32"))

    def forward(self, tokens):
        x, shift = self.embedding(tokens), paddle.zeros([1], self.embedding.weight.dtype)
        for block in self.blocks:
            x = block(x, shift)
        return self.head(self.norm(x))


def batches(count: int = 4, seed: int = 1):
    """Tokens and the targets that ``Model(0)`` itself draws, so that its Fisher matrix is exact."""
    rng = np.random.default_rng(seed)
    model, found = Model(), []
    for _ in range(count):
        tokens = paddle.to_tensor(rng.integers(0, CLASSES, (8, 16)))
        with paddle.no_grad():
            logits = model(tokens).numpy()
        targets = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
        found.append((tokens, paddle.to_tensor(targets)))
    return found


def loss(model, batch):
    tokens, targets = batch
    return F.cross_entropy(model(tokens).reshape([-1, CLASSES]), targets.reshape([-1]))


def outputs(model, batch):
    return model(batch[0])


def bits_of(model):
    """All state as bytes, to compare bit by bit."""
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="session")
def toy():
    """The model, its data and what tests do with them."""
    found = batches()
    return types.SimpleNamespace(
        Model=Model,
        RMSModel=RMSModel,
        batches=found,
        more_batches=batches,
        loss=loss,
        outputs=outputs,
        data=compress.Data(batches=found, loss=loss, outputs=outputs),
        bits_of=bits_of,
    )
