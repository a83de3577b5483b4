"""GPT-2: the decoder-only transformer with learned positions.

- learned position embeddings, added to the token embeddings
- layer norm before each part, biases everywhere
- GELU feed-forward of four times the width (tanh form, as OpenAI trained it)
- the head is the token embedding, transposed

Papers: GPT-2, Radford et al. 2019, "Language Models are Unsupervised Multitask Learners";
GELU arXiv 1606.08415.

Shapes: B batch, T positions, D hidden_size, H num_heads, K head size, V vocab_size.
"""

import dataclasses

import paddle
import paddle.nn.functional as F
from paddle import nn

from oarlock.llm.models import common
from oarlock.llm.models.base import Initializer, LanguageModel
from oarlock.llm.models.config import ModelConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig(ModelConfig):
    """Sizes and choices of a GPT; ``None`` derives the value from the other fields."""

    vocab_size: int
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 8
    intermediate_size: int = None  # type: ignore[assignment]  # None: 4 hidden_size
    max_length: int = 1024
    norm_epsilon: float = 1e-5
    init_std: float = 0.02

    def __post_init__(self):
        self._check_counts("vocab_size", "hidden_size", "num_layers", "num_heads", "max_length")
        self._resolve("intermediate_size", 4 * self.hidden_size)
        self._check_counts("intermediate_size")
        self._check_multiple("hidden_size", "num_heads")
        self._check_positive("norm_epsilon", "init_std")


class Attention(nn.Layer):
    """Causal self-attention."""

    def __init__(self, config: GPTConfig, index: int):
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

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD):
        return self.down(F.gelu(self.up(x_BTD), approximate=True))


class Block(nn.Layer):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: GPTConfig, index: int):
        super().__init__()
        self.attention_norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config, index)
        self.feed_forward_norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BTD, bias, cache=None):
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), bias, cache)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class GPT(LanguageModel):
    """GPT-2 language model: ``model(tokens [B, T]) -> logits [B, T, V]``."""

    config: GPTConfig
    takes_masks = True

    def __init__(self, config: GPTConfig, *, seed: int | None = 0):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_length, config.hidden_size)
        self.blocks = nn.LayerList([Block(config, index) for index in range(config.num_layers)])
        self.norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.init_weights(seed)

    def init_weights(self, seed: int | None) -> None:
        """Normal weights, biases 0; maps back into the residual path scaled by 1/sqrt(2 layers)."""
        init, std = Initializer(seed), self.config.init_std
        residual_std = std / (2 * self.config.num_layers) ** 0.5
        init.normal(self.embedding.weight, std)
        init.normal(self.position_embedding.weight, std / 2)  # 0.01, as in OpenAI's GPT-2 code
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
        start = 0 if cache is None else cache.length
        common.check_length(start + T, self.config.max_length)
        positions_T = paddle.arange(start, start + T, dtype="int64")
        x_BTD = self.embedding(tokens_BT) + self.position_embedding(positions_T)
        for block, bias in zip(self.blocks, self.attention_biases(T, start + T, x_BTD.dtype)):
            x_BTD = block(x_BTD, bias, cache)
        return paddle.matmul(self.norm(x_BTD), self.embedding.weight, transpose_y=True)
