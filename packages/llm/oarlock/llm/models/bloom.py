"""BLOOM: the multilingual decoder-only transformer without position embeddings.

- ALiBi: each head lowers the score of a key by its slope times the distance
- a layer norm right after the embedding, which keeps large models stable
- layer norm before each part, biases everywhere, GELU (tanh form) of four times the width
- the head is the token embedding, transposed; no limit on the length

Papers: BLOOM arXiv 2211.05100; ALiBi arXiv 2108.12409.

Shapes: B batch, T positions of the queries, S of the keys, D hidden_size, H num_heads,
K head size, V vocab_size.
"""

import dataclasses

import paddle
import paddle.nn.functional as F
from paddle import nn

from oarlock.llm.models import common
from oarlock.llm.models.base import Initializer, LanguageModel
from oarlock.llm.models.config import ModelConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BloomConfig(ModelConfig):
    """Sizes and choices of a BLOOM; ``None`` derives the value from the other fields."""

    vocab_size: int
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 8
    intermediate_size: int = None  # type: ignore[assignment]  # None: 4 hidden_size
    norm_epsilon: float = 1e-5
    init_std: float = 0.02

    def __post_init__(self):
        self._check_counts("vocab_size", "hidden_size", "num_layers", "num_heads")
        self._resolve("intermediate_size", 4 * self.hidden_size)
        self._check_counts("intermediate_size")
        self._check_multiple("hidden_size", "num_heads")
        self._check_positive("norm_epsilon", "init_std")


def alibi_slopes(num_heads: int) -> list[float]:
    """Slopes 2^(-8 i / n) of ALiBi for n heads, n a power of two.

    Another number of heads takes those of the next lower power of two, then every other one of
    the next higher.
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2 ** (-4 * i / power) for i in range(1, 2 * power + 1, 2)]
    return slopes + between[: num_heads - power]


def alibi_bias(num_heads: int, T: int, S: int, dtype: paddle.dtype) -> paddle.Tensor:
    """Causal bias of ALiBi for the last T of S positions, [H, T, S].

    The slope multiplies the key's position instead of minus the distance: softmax does not see a
    constant a row.
    """
    slopes_H11 = paddle.to_tensor(alibi_slopes(num_heads), dtype="float32").reshape([-1, 1, 1])
    # The newest key is 0, so that the bias stays small for the keys that count.
    positions_S = paddle.arange(1 - S, 1, dtype="float32")
    bias = (slopes_H11 * positions_S).astype(dtype)
    causal = common.causal_bias(T, S, dtype)
    return bias if causal is None else bias + causal


class Attention(nn.Layer):
    """Causal self-attention; the positions come with the bias."""

    def __init__(self, config: BloomConfig, index: int):
        super().__init__()
        self.index, self.num_heads = index, config.num_heads
        D = config.hidden_size
        self.query, self.key, self.value = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.out = nn.Linear(D, D)

    def forward(self, x_BTD, bias, cache=None):
        q_BHTK = common.split_heads(self.query(x_BTD), self.num_heads)
        k_BHTK = common.split_heads(self.key(x_BTD), self.num_heads)
        v_BHTK = common.split_heads(self.value(x_BTD), self.num_heads)
        if cache is not None:
            k_BHTK, v_BHTK = cache.append(self.index, k_BHTK, v_BHTK)
        return self.out(common.attention(q_BHTK, k_BHTK, v_BHTK, bias))


class FeedForward(nn.Layer):
    """down(gelu(up(x)))."""

    def __init__(self, config: BloomConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD):
        return self.down(F.gelu(self.up(x_BTD), approximate=True))


class Block(nn.Layer):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: BloomConfig, index: int):
        super().__init__()
        self.attention_norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config, index)
        self.feed_forward_norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BTD, bias, cache=None):
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), bias, cache)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class Bloom(LanguageModel):
    """BLOOM language model: ``model(tokens [B, T]) -> logits [B, T, V]``."""

    config: BloomConfig

    def __init__(self, config: BloomConfig, *, seed: int | None = 0):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embedding_norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.blocks = nn.LayerList([Block(config, index) for index in range(config.num_layers)])
        self.norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.init_weights(seed)

    def init_weights(self, seed: int | None) -> None:
        """Normal weights, biases 0; maps back into the residual path scaled by 1/sqrt(2 layers)."""
        init, std = Initializer(seed), self.config.init_std
        residual_std = std / (2 * self.config.num_layers) ** 0.5
        init.normal(self.embedding.weight, std)
        for block in self.blocks:
            for linear in (block.attention.query, block.attention.key, block.attention.value):
                init.normal(linear.weight, std)
            init.normal(block.attention.out.weight, residual_std)
            init.normal(block.feed_forward.up.weight, std)
            init.normal(block.feed_forward.down.weight, residual_std)

    def new_cache(self) -> common.KeyValueCache:
        """An empty cache for ``forward``."""
        return common.KeyValueCache(self.config.num_layers)

    def forward(self, tokens_BT, cache=None):
        _, T = common.check_tokens(tokens_BT, self.config.vocab_size)
        S = T if cache is None else cache.length + T
        x_BTD = self.embedding_norm(self.embedding(tokens_BT))
        bias_HTS = alibi_bias(self.config.num_heads, T, S, x_BTD.dtype)
        for block in self.blocks:
            x_BTD = block(x_BTD, bias_HTS, cache)
        return paddle.matmul(self.norm(x_BTD), self.embedding.weight, transpose_y=True)
