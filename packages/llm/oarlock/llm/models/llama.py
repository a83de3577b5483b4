"""LLaMA: the decoder-only transformer most open models descend from.

- RMS norm before each part, none after; no biases anywhere
- rotary positions on queries and keys (adjacent pairs turned, as in Meta's and llama2.c's files)
- grouped queries: several query heads share a key and value head
- SwiGLU feed-forward: down(silu(gate(x)) * up(x))
- optional: tied embeddings; biases on queries, keys and values (Qwen2); heads of any size and a
  window of what each position sees (Mistral); scaled rotary positions (Llama 3 and others)

Papers: LLaMA arXiv 2302.13971, Llama 2 arXiv 2307.09288; RMS norm arXiv 1910.07467, RoPE
arXiv 2104.09864, GQA arXiv 2305.13245, SwiGLU arXiv 2002.05202; Qwen2 arXiv 2407.10671, Mistral arXiv
2310.06825.

Shapes: B batch, T positions, D hidden_size, F intermediate_size, H num_heads, G num_kv_heads,
K head size, V vocab_size.
"""

import dataclasses

import paddle
import paddle.nn.functional as F
from paddle import nn

from oarlock.llm.models import common, rope
from oarlock.llm.models.base import Initializer, LanguageModel
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.models.rope import RopeScaling


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig(ModelConfig):
    """Sizes and choices of a LLaMA; ``None`` derives the value from the other fields.

    ``window`` is how many positions each sees, itself included; None for all before.
    """

    vocab_size: int
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 8
    num_kv_heads: int = None  # type: ignore[assignment]  # None: num_heads
    intermediate_size: int = None  # type: ignore[assignment]  # None: 8/3 width, ceiled to 32s
    max_length: int = 1024
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    tie_embeddings: bool = False
    init_std: float = 0.02
    head_size: int = None  # type: ignore[assignment]  # None: hidden_size / num_heads
    qkv_bias: bool = False
    window: int | None = None
    rope_scaling: RopeScaling | None = None

    def __post_init__(self):
        self._check_counts("vocab_size", "hidden_size", "num_layers", "num_heads", "max_length")
        self._resolve("num_kv_heads", self.num_heads)
        self._resolve("intermediate_size", -(-8 * self.hidden_size // 3 // 32) * 32)
        self._check_counts("num_kv_heads", "intermediate_size")
        name, got = "head_size", f"{self.head_size}"
        if self.head_size is None:
            self._check_multiple("hidden_size", "num_heads")
            name, got = "hidden_size / num_heads", f"{self.hidden_size} / {self.num_heads}"
            self._resolve("head_size", self.hidden_size // self.num_heads)
        self._check_counts("head_size")
        self._check_multiple("num_heads", "num_kv_heads")
        if self.head_size % 2:
            raise ValueError(f"{name} must be even for rotary positions, got {got}.")
        self._check_positive("rope_theta", "norm_epsilon", "init_std")
        self._check_flags("tie_embeddings", "qkv_bias")
        if self.window is not None:
            self._check_counts("window")
        object.__setattr__(self, "rope_scaling", rope.scaling_of(self.rope_scaling))
        # divisors that do not fit the head are named here, not when the model is built
        rope.frequencies(self.head_size, self.rope_theta, self.rope_scaling, self.max_length)


class Attention(nn.Layer):
    """Causal self-attention with rotary positions and grouped queries."""

    def __init__(self, config: LlamaConfig, index: int):
        super().__init__()
        self.index, self.config = index, config
        D, q_size = config.hidden_size, config.num_heads * config.head_size
        kv_size = config.num_kv_heads * config.head_size
        bias_attr = None if config.qkv_bias else False
        self.query = nn.Linear(D, q_size, bias_attr=bias_attr)
        self.key = nn.Linear(D, kv_size, bias_attr=bias_attr)
        self.value = nn.Linear(D, kv_size, bias_attr=bias_attr)
        self.out = nn.Linear(q_size, D, bias_attr=False)

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

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate = nn.Linear(hidden_size, intermediate_size, bias_attr=False)
        self.up = nn.Linear(hidden_size, intermediate_size, bias_attr=False)
        self.down = nn.Linear(intermediate_size, hidden_size, bias_attr=False)

    def forward(self, x_BTD):
        # F.swiglu is twice as slow on the CPU
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


class Block(nn.Layer):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: LlamaConfig, index: int):
        super().__init__()
        self.attention_norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config, index)
        self.feed_forward_norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.feed_forward = FeedForward(config.hidden_size, config.intermediate_size)

    def forward(self, x_BTD, rotations, bias, cache=None):
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotations, bias, cache)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class Llama(LanguageModel):
    """LLaMA language model: ``model(tokens [B, T]) -> logits [B, T, V]``."""

    config: LlamaConfig
    takes_masks = True

    def __init__(self, config: LlamaConfig, *, seed: int | None = 0):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.LayerList([Block(config, index) for index in range(config.num_layers)])
        self.norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.hidden_size, config.vocab_size, bias_attr=False)
        cos, sin = rope.fixed_tables(config)
        self.register_buffer("rope_cos", cos, persistable=False)
        self.register_buffer("rope_sin", sin, persistable=False)
        self.init_weights(seed)

    def init_weights(self, seed: int | None) -> None:
        """Normal weights; the maps back into the residual path are scaled by 1/sqrt(2 layers)."""
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
        if not self.config.tie_embeddings:
            init.normal(self.head.weight, std)

    def new_cache(self) -> common.KeyValueCache:
        """An empty cache for ``forward``."""
        return common.KeyValueCache(self.config.num_layers)

    def forward(self, tokens_BT, cache=None):
        B, T = common.check_tokens(tokens_BT, self.config.vocab_size)
        start = 0 if cache is None else cache.length
        common.check_length(start + T, self.config.max_length)
        x_BTD = self.embedding(tokens_BT)
        copies = B * self.config.num_heads
        rotations = rope.rotations(self.config, self.rope_cos, self.rope_sin, start, T, copies)
        for block, bias in zip(self.blocks, self.attention_biases(T, start + T, x_BTD.dtype)):
            x_BTD = block(x_BTD, rotations, bias, cache)
        x_BTD = self.norm(x_BTD)
        if self.config.tie_embeddings:
            return paddle.matmul(x_BTD, self.embedding.weight, transpose_y=True)
        return self.head(x_BTD)
