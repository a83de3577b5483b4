"""A model small enough to be trained in a test, whole and in parts that ranks have."""

import numpy as np
import paddle
from paddle import nn
from paddle.distributed.fleet.meta_parallel import (
    ColumnParallelLinear,
    LayerDesc,
    ParallelCrossEntropy,
    PipelineLayer,
    RowParallelLinear,
    VocabParallelEmbedding,
)

WORDS, WIDTH, HIDDEN, BATCH, LENGTH, STEPS = 12, 8, 16, 8, 4, 6


def full(seed, shape):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.4).astype(np.float32)


def fill(parameter, seed, *, axis=None, rank=0, parts=1):
    """Sets a parameter, or this rank's part of it, to numbers of the seed."""
    shape = list(parameter.shape)
    if axis is not None:
        shape[axis] *= parts
        parameter.set_value(np.split(full(seed, shape), parts, axis)[rank])
    else:
        parameter.set_value(full(seed, shape))


def batch(step):
    rng = np.random.default_rng(1000 + step)
    words = rng.integers(0, WORDS, (BATCH, LENGTH + 1))
    return words[:, :-1], words[:, 1:]


def part(array, rank, parts):
    return paddle.to_tensor(np.split(array, parts)[rank])


class Whole(nn.Layer):
    """Embedding, two hidden layers with a residual connection, logits of the next word."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.first = nn.Linear(WIDTH, HIDDEN)
        self.second = nn.Linear(HIDDEN, WIDTH)
        self.third = nn.Linear(WIDTH, HIDDEN)
        self.fourth = nn.Linear(HIDDEN, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias_attr=False)
        for seed, one in enumerate(self.parameters()):
            fill(one, seed)

    def forward(self, words):
        x = self.embedding(words)
        x = x + self.second(nn.functional.gelu(self.first(x)))
        x = x + self.fourth(nn.functional.gelu(self.third(x)))
        return self.head(self.norm(x))

    def loss(self, words, targets):
        return nn.functional.cross_entropy(self(words), targets)


class TensorParallel(Whole):
    """The same, with matrices split over ranks in every way that fleet has."""

    def __init__(self, group):
        nn.Layer.__init__(self)
        self.embedding = VocabParallelEmbedding(WORDS, WIDTH, mp_group=group)
        self.first = ColumnParallelLinear(
            WIDTH, HIDDEN, gather_output=False, has_bias=True, mp_group=group
        )
        self.second = RowParallelLinear(HIDDEN, WIDTH, input_is_parallel=True, mp_group=group)
        self.third = ColumnParallelLinear(
            WIDTH, HIDDEN, gather_output=True, has_bias=True, mp_group=group
        )
        self.fourth = RowParallelLinear(HIDDEN, WIDTH, input_is_parallel=False, mp_group=group)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = ColumnParallelLinear(
            WIDTH, WORDS, gather_output=False, has_bias=False, mp_group=group
        )
        self.entropy = ParallelCrossEntropy(mp_group=group)
        for seed, one in enumerate(self.parameters()):
            fill(one, seed, axis=split_axis(one), rank=group.rank, parts=group.nranks)

    def loss(self, words, targets):
        return self.entropy(self(words), targets.unsqueeze(-1)).mean()


def split_axis(parameter):
    return parameter.split_axis if parameter.is_distributed else None


class Piece(nn.Layer):
    """A layer of a pipeline: one hidden layer with a residual connection."""

    def __init__(self, seed):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        for index, one in enumerate(self.parameters()):
            fill(one, 100 * seed + index)

    def forward(self, x):
        return x + nn.functional.gelu(self.inner(x))


class Words(nn.Layer):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        fill(self.embedding.weight, 7)

    def forward(self, words):
        return self.embedding(words)


class Logits(nn.Layer):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WORDS)
        for index, one in enumerate(self.parameters()):
            fill(one, 50 + index)

    def forward(self, x):
        return self.inner(x)


def mean_entropy(logits, targets):
    return nn.functional.cross_entropy(logits, targets)


def pipeline(topology, pieces, chunks):
    """Words, pieces, logits, in as many chunks on each stage."""
    layers = [LayerDesc(Words), *(LayerDesc(Piece, seed) for seed in range(pieces)), LayerDesc(Logits)]  # fmt: skip
    return PipelineLayer(
        layers=layers, topology=topology, loss_fn=mean_entropy,
        num_virtual_pipeline_stages=chunks if chunks > 1 else None,
        seg_method="uniform" if chunks == 1 else "layer:Words|Piece|Logits",
    )  # fmt: skip


class Pipelined(nn.Layer):
    """All stages of `pipeline` in one process."""

    def __init__(self, pieces):
        super().__init__()
        self.layers = nn.Sequential(Words(), *map(Piece, range(pieces)), Logits())

    def loss(self, words, targets):
        return mean_entropy(self.layers(words), targets)
