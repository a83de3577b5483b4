"""Tables in Paddle's models."""

import numpy as np
import paddle
import pytest
from oarlock.fleet_ext.parameter_server import Constant, Dense, Layout, Normal, Sgd, Sparse
from oarlock.fleet_ext.parameter_server.embedding import DenseParameters, SparseEmbedding
from paddle import nn

SGD = Sgd(rate=0.5)


class Model(nn.Layer):
    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding
        self.tower = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, keys):
        return self.tower(self.embedding(keys).reshape([keys.shape[0], -1]))


def batch(step):
    rng = np.random.default_rng(step)
    return paddle.to_tensor(rng.integers(0, 10, (8, 3))), paddle.to_tensor(rng.standard_normal((8, 1)).astype("float32"))  # fmt: skip


def layout(count, initial):
    return Layout(
        shards=4,
        tables={
            "rows": Sparse(width=2, optimizer=SGD, initial=initial),
            "tower": Dense(shape=(count,), optimizer=SGD),
        },
    )


def test_training_is_that_of_paddles_embedding_and_optimizer(servers):
    paddle.seed(0)
    plain = Model(nn.Embedding(10, 2))
    count = sum(int(np.prod(one.shape)) for one in plain.tower.parameters())
    one = servers(layout(count, Normal(deviation=0.5)))
    one.start("a", "b")
    client = one.client()
    ours = Model(SparseEmbedding(client, "rows"))
    ours.tower.set_state_dict(plain.tower.state_dict())
    plain.embedding.weight.set_value(client.pull("rows", np.arange(10)).wait())
    tower = DenseParameters(client, "tower", ours.tower.parameters())
    tower.assign()
    optimizer = paddle.optimizer.SGD(0.5, plain.parameters())
    for step in range(10):
        keys, wanted = batch(step)
        losses = []
        tower.pull()
        for model in (plain, ours):
            loss = paddle.square(model(keys) - wanted).mean()
            loss.backward()
            losses.append(float(loss))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        optimizer.step()
        optimizer.clear_grad()
        tower.push()
        client.finish_step()
    client.flush()
    np.testing.assert_allclose(client.pull("rows", np.arange(10)).wait(), plain.embedding.weight.numpy(), rtol=1e-4, atol=1e-6)  # fmt: skip


def test_nothing_is_pushed_where_nothing_is_learnt(servers):
    one = servers(layout(1, Constant(value=2.0)))
    one.start("a")
    client = one.client()
    reading = SparseEmbedding(one.reader(), "rows")
    embedding = SparseEmbedding(client, "rows")
    keys = paddle.to_tensor([[1, -5], [2**62, 1]])
    assert embedding(keys).shape == reading(keys).shape == [2, 2, 2]
    assert reading(keys).stop_gradient
    embedding.eval()
    assert embedding(keys).stop_gradient
    embedding.train()
    embedding(keys).sum().backward()
    client.flush()
    np.testing.assert_array_equal(reading(keys).numpy()[:, :, 0], [[2 - 0.5 * 2, 1.5], [1.5, 1.0]])


def test_what_goes_wrong_in_the_backward_pass_is_told_at_the_end_of_the_step(servers):
    one = servers(layout(1, Constant()))
    one.start("a")
    client = one.client()
    embedding = SparseEmbedding(client, "rows")
    for told in (client.finish_step, client.flush):
        (embedding(paddle.to_tensor([[1]])) * float("nan")).sum().backward()
        with pytest.raises(ValueError, match="must be finite"):
            told()
    client.finish_step()
    client.flush()


def test_tables_must_fit(servers):
    one = servers(layout(3, Constant()))
    one.start("a")
    client = one.client()
    with pytest.raises(ValueError, match="must be a sparse one"):
        SparseEmbedding(client, "tower")
    with pytest.raises(ValueError, match=r"must be dense with shape \(12,\)"):
        DenseParameters(client, "tower", nn.Linear(3, 3).parameters())
