"""A small network and a batch that the tests of precision share."""

import paddle
import pytest
from paddle import nn


class Network(nn.Layer):
    """An embedding, two blocks of linear layers, a head; classifies tokens."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(17, 24)
        self.blocks = nn.LayerList(
            [nn.Sequential(nn.Linear(24, 40), nn.Silu(), nn.Linear(40, 24)) for _ in range(2)]
        )
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 17)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


def loss_of(model, batch):
    tokens, targets = batch
    return nn.functional.cross_entropy(model(tokens), targets)


@pytest.fixture(name="network")
def network_fixture():
    paddle.seed(3)
    return Network()


@pytest.fixture(name="batch")
def batch_fixture():
    paddle.seed(4)
    tokens = paddle.randint(0, 17, [6, 11])
    return tokens, (tokens * 5 + 1) % 17


@pytest.fixture(name="loss")
def loss_fixture():
    return loss_of
