"""GLM in the form of ChatGLM2, with the prefix attention of the first GLM as an option.

As in ChatGLM2-6B and ChatGLM3-6B:

- RMS norm before each part and at the end (pre-norm, unlike the first GLM's DeepNorm)
- rotary positions on the first half of each head only, adjacent pairs turned
- grouped queries; a bias on queries, keys and values, none elsewhere
- SwiGLU feed-forward; the head is not tied to the embedding

As in the first GLM (blank infilling), when ``context_lengths`` are given: the first tokens of a
row (part A, the corrupted text) see each other in both directions, the rest (part B, the spans)
sees part A and what came before. Without them the model is causal, as ChatGLM2 is used. The first
GLM's two-dimensional positions are not here: ChatGLM2 gave them up.

Papers: GLM arXiv 2103.10360; GLM-130B arXiv 2210.02414; ChatGLM family arXiv 2406.12793.

Shapes: B batch, T positions of the queries, S of the keys, D hidden_size, F intermediate_size,
H num_heads, G num_kv_heads, K head size, V vocab_size.
"""

import dataclasses

import paddle
import paddle.nn.functional as F
from paddle import nn

from oarlock.llm.models import common
from oarlock.llm.models.base import Initializer, LanguageModel, cross_entropy
from oarlock.llm.models.config import ModelConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GLMConfig(ModelConfig):
    """Sizes and choices of a GLM; ``None`` derives the value from the other fields."""

    vocab_size: int
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 8
    num_kv_heads: int = 2
    intermediate_size: int = None  # type: ignore[assignment]  # None: 8/3 width, ceiled to 32s
    max_length: int = 1024
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    init_std: float = 0.02

    def __post_init__(self):
        self._check_counts("vocab_size", "hidden_size", "num_layers", "num_heads", "max_length")
        self._resolve("intermediate_size", -(-8 * self.hidden_size // 3 // 32) * 32)
        self._check_counts("num_kv_heads", "intermediate_size")
        self._check_multiple("hidden_size", "num_heads")
        self._check_multiple("num_heads", "num_kv_heads")
        if self.head_size % 4:
            raise ValueError(
                "hidden_size / num_heads must be a multiple of 4 to turn half of it, "
                f"got {self.hidden_size} / {self.num_heads}."
            )
        self._check_positive("rope_theta", "norm_epsilon", "init_std")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


def half_rope_tables(
    length: int, head_size: int, theta: float
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Cosine and sine, each [length, head_size/2]: the second half of the head turns by 0."""
    cos, sin = common.rope_tables(length, head_size // 2, theta)
    return paddle.concat([cos, paddle.ones_like(cos)], 1), paddle.concat(
        [sin, paddle.zeros_like(sin)], 1
    )


def prefix_bias(
    T: int, S: int, context_lengths_B: paddle.Tensor, dtype: paddle.dtype = paddle.float32
) -> paddle.Tensor:
    """Bias [B, 1, T, S]: all see the first ``context_lengths`` keys, and otherwise earlier ones."""
    keys_S = paddle.arange(S, dtype="int64")
    queries_T1 = paddle.arange(S - T, S, dtype="int64").unsqueeze(1)
    in_context = keys_S < context_lengths_B.astype("int64").reshape([-1, 1, 1, 1])
    hidden = paddle.logical_not(paddle.logical_or(in_context, keys_S <= queries_T1))
    return hidden.astype(dtype) * common.MASKED


class Attention(nn.Layer):
    """Self-attention with half-rotary positions, grouped queries and biases on q, k, v."""

    def __init__(self, config: GLMConfig, index: int):
        super().__init__()
        self.index, self.config = index, config
        D, kv_size = config.hidden_size, config.num_kv_heads * config.head_size
        self.query = nn.Linear(D, D)
        self.key = nn.Linear(D, kv_size)
        self.value = nn.Linear(D, kv_size)
        self.out = nn.Linear(D, D, bias_attr=False)

    def forward(self, x_BTD, rotations, bias, cache=None):
        q_BHTK = common.split_heads(self.query(x_BTD), self.config.num_heads)
        k_BGTK = common.split_heads(self.key(x_BTD), self.config.num_kv_heads)
        v_BGTK = common.split_heads(self.value(x_BTD), self.config.num_kv_heads)
        q_BHTK, k_BGTK = common.rotate(q_BHTK, rotations), common.rotate(k_BGTK, rotations)
        if cache is not None:
            k_BGTK, v_BGTK = cache.append(self.index, k_BGTK, v_BGTK)
        return self.out(common.attention(q_BHTK, k_BGTK, v_BGTK, bias))


class FeedForward(nn.Layer):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        D, intermediate = config.hidden_size, config.intermediate_size
        self.gate = nn.Linear(D, intermediate, bias_attr=False)
        self.up = nn.Linear(D, intermediate, bias_attr=False)
        self.down = nn.Linear(intermediate, D, bias_attr=False)

    def forward(self, x_BTD):
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


class Block(nn.Layer):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: GLMConfig, index: int):
        super().__init__()
        self.attention_norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config, index)
        self.feed_forward_norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BTD, rotations, bias, cache=None):
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotations, bias, cache)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class GLM(LanguageModel):
    """GLM language model: ``model(tokens [B, T]) -> logits [B, T, V]``."""

    config: GLMConfig
    takes_masks = True

    def __init__(self, config: GLMConfig, *, seed: int | None = 0):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.LayerList([Block(config, index) for index in range(config.num_layers)])
        self.norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias_attr=False)
        cos, sin = half_rope_tables(config.max_length, config.head_size, config.rope_theta)
        self.register_buffer("rope_cos", cos, persistable=False)
        self.register_buffer("rope_sin", sin, persistable=False)
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
            init.normal(block.feed_forward.gate.weight, std)
            init.normal(block.feed_forward.up.weight, std)
            init.normal(block.feed_forward.down.weight, residual_std)
        init.normal(self.head.weight, std)

    def new_cache(self) -> common.KeyValueCache:
        """An empty cache for ``forward``."""
        return common.KeyValueCache(self.config.num_layers)

    def forward(self, tokens_BT, cache=None, context_lengths_B=None):
        """Logits; ``context_lengths_B`` [B] int64 opens the first tokens of each row to all.

        With a cache, the whole context belongs into the first call.
        """
        B, T = common.check_tokens(tokens_BT, self.config.vocab_size)
        start = 0 if cache is None else cache.length
        common.check_length(start + T, self.config.max_length)
        x_BTD = self.embedding(tokens_BT)
        copies = B * self.config.num_heads
        rotations = common.rope_rotations(self.rope_cos, self.rope_sin, start, T, copies)
        biases = self.attention_biases(T, start + T, x_BTD.dtype)
        if context_lengths_B is not None:
            if self.attention_masks is not None:
                raise ValueError(
                    "context_lengths cannot be given to a model with masks: attend(None)."
                )
            biases = [prefix_bias(T, start + T, context_lengths_B, x_BTD.dtype)] * len(self.blocks)
        for block, bias in zip(self.blocks, biases):
            x_BTD = block(x_BTD, rotations, bias, cache)
        return self.head(self.norm(x_BTD))

    def loss(self, tokens, targets, context_lengths=None):
        """Mean cross-entropy in nats; see ``LanguageModel.loss`` and ``forward``.

        For blank infilling set the targets inside the context to -100.
        """
        return cross_entropy(self(tokens, None, context_lengths), targets)
