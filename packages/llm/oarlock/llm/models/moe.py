"""Mixture-of-experts LLaMA in the form of Mixtral.

- LLaMA (see ``llama.py``) with the feed-forward replaced by E experts and a linear router
- each token goes to its k best experts, whose outputs are summed with the router's probabilities
  among the k; no capacity limit, so no token is dropped and the model stays causal
- only the chosen experts are computed: tokens are sorted by expert and cut into E pieces
- auxiliary losses of training: load balance (Switch), router z-loss (ST-MoE)

Papers: Mixtral arXiv 2401.04088; Switch Transformer arXiv 2101.03961; ST-MoE arXiv 2202.08906.

Shapes: B batch, T positions, R = B*T rows, D hidden_size, E num_experts, k experts_per_token,
V vocab_size.
"""

import dataclasses
from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import nn

from oarlock.llm.models import common, rope
from oarlock.llm.models.base import Initializer, LanguageModel, cross_entropy
from oarlock.llm.models.llama import Attention, FeedForward, LlamaConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MoEConfig(LlamaConfig):
    """A LLaMA's configuration and the experts; ``intermediate_size`` is that of one expert."""

    num_experts: int = 8
    experts_per_token: int = 2
    balance_coefficient: float = 0.01
    z_coefficient: float = 0.0

    def __post_init__(self):
        LlamaConfig.__post_init__(self)
        self._check_counts("num_experts", "experts_per_token")
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token must be at most num_experts = {self.num_experts}, "
                f"got {self.experts_per_token}."
            )
        self._check_not_negative("balance_coefficient", "z_coefficient")


class Routing(NamedTuple):
    """What the router of one layer decided for the R rows."""

    logits_RE: paddle.Tensor
    probabilities_RE: paddle.Tensor
    experts_Rk: paddle.Tensor  # chosen, best first
    gates_Rk: paddle.Tensor  # probabilities among the chosen; a row sums to 1

    def loads(self) -> paddle.Tensor:
        """Share of the choices that fell on each expert, [E]; sums to 1."""
        E = self.probabilities_RE.shape[1]
        counts = paddle.bincount(self.experts_Rk.flatten(), minlength=E)
        return counts.astype("float32") / (self.experts_Rk.shape[0] * self.experts_Rk.shape[1])

    def balance_loss(self) -> paddle.Tensor:
        """E * sum_e load_e * mean probability_e: 1 when balanced, up to E when not (2101.03961)."""
        E = self.probabilities_RE.shape[1]
        return E * paddle.sum(self.loads() * self.probabilities_RE.mean(0))

    def z_loss(self) -> paddle.Tensor:
        """mean of logsumexp(logits)^2, which keeps the router's logits small (2202.08906)."""
        return paddle.square(paddle.logsumexp(self.logits_RE, -1)).mean()


class Router(nn.Layer):
    """Linear map to the experts' logits, and the choice of the k largest."""

    def __init__(self, config: MoEConfig):
        super().__init__()
        self.k = config.experts_per_token
        self.linear = nn.Linear(config.hidden_size, config.num_experts, bias_attr=False)

    def forward(self, x_RD) -> Routing:
        logits_RE = self.linear(x_RD)
        probabilities_RE = F.softmax(logits_RE, -1)
        best_Rk, experts_Rk = paddle.topk(probabilities_RE, self.k, axis=-1)
        return Routing(
            logits_RE, probabilities_RE, experts_Rk, best_Rk / best_Rk.sum(-1, keepdim=True)
        )


class Experts(nn.Layer):
    """The experts and their router: sum over the chosen of gate * expert(x)."""

    def __init__(self, config: MoEConfig):
        super().__init__()
        self.router = Router(config)
        self.experts = nn.LayerList(
            [
                FeedForward(config.hidden_size, config.intermediate_size)
                for _ in range(config.num_experts)
            ]
        )

    def forward(self, x_BTD):
        B, T, D = x_BTD.shape
        R, k = B * T, self.router.k
        x_RD = x_BTD.reshape([R, D])
        routing = self.router(x_RD)
        # slot j*R + r is the j-th choice of row r; sorted by expert, slots become pieces
        experts_kR = routing.experts_Rk.transpose([1, 0]).reshape([k * R])
        order = paddle.argsort(experts_kR, stable=True)
        counts = paddle.bincount(experts_kR, minlength=len(self.experts))
        pieces = split_rows(paddle.gather(x_RD, order % R), counts)
        y = paddle.concat([expert(piece) for expert, piece in zip(self.experts, pieces)])
        y_kRD = paddle.gather(y, paddle.argsort(order)).reshape([k, R, D])
        gates_kR1 = routing.gates_Rk.transpose([1, 0]).reshape([k, R, 1])
        return (y_kRD * gates_kR1).sum(0).reshape([B, T, D]), routing


def split_rows(x_ND: paddle.Tensor, counts_E: paddle.Tensor) -> list[paddle.Tensor]:
    """Cut the rows into consecutive pieces of ``counts_E`` rows."""
    if paddle.in_dynamic_mode():
        return paddle.split(x_ND, list(counts_E.numpy()))
    ends_E = paddle.cumsum(counts_E)  # a traced program learns the sizes only when it runs
    starts_E = ends_E - counts_E
    return [paddle.slice(x_ND, [0], [starts_E[e]], [ends_E[e]]) for e in range(counts_E.shape[0])]


class Block(nn.Layer):
    """Attention and experts, each behind a norm and beside a residual path."""

    def __init__(self, config: MoEConfig, index: int):
        super().__init__()
        self.attention_norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config, index)
        self.feed_forward_norm = common.RMSNorm(config.hidden_size, config.norm_epsilon)
        self.feed_forward = Experts(config)

    def forward(self, x_BTD, rotations, bias, cache=None):
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotations, bias, cache)
        y_BTD, routing = self.feed_forward(self.feed_forward_norm(x_BTD))
        return x_BTD + y_BTD, routing


class MoE(LanguageModel):
    """Mixture-of-experts language model: ``model(tokens [B, T]) -> logits [B, T, V]``."""

    config: MoEConfig
    takes_masks = True

    def __init__(self, config: MoEConfig, *, seed: int | None = 0):
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
            init.normal(block.feed_forward.router.linear.weight, std)
            for expert in block.feed_forward.experts:
                init.normal(expert.gate.weight, std)
                init.normal(expert.up.weight, std)
                init.normal(expert.down.weight, residual_std)
        if not self.config.tie_embeddings:
            init.normal(self.head.weight, std)

    def new_cache(self) -> common.KeyValueCache:
        """An empty cache for ``forward``."""
        return common.KeyValueCache(self.config.num_layers)

    def forward(self, tokens_BT, cache=None):
        return self.route(tokens_BT, cache)[0]

    def route(self, tokens_BT, cache=None):
        """Logits and the ``Routing`` of each layer."""
        B, T = common.check_tokens(tokens_BT, self.config.vocab_size)
        start = 0 if cache is None else cache.length
        common.check_length(start + T, self.config.max_length)
        x_BTD = self.embedding(tokens_BT)
        copies = B * self.config.num_heads
        rotations = rope.rotations(self.config, self.rope_cos, self.rope_sin, start, T, copies)
        routings = []
        for block, bias in zip(self.blocks, self.attention_biases(T, start + T, x_BTD.dtype)):
            x_BTD, routing = block(x_BTD, rotations, bias, cache)
            routings.append(routing)
        x_BTD = self.norm(x_BTD)
        if self.config.tie_embeddings:
            logits = paddle.matmul(x_BTD, self.embedding.weight, transpose_y=True)
        else:
            logits = self.head(x_BTD)
        return logits, routings

    def loss(self, tokens, targets):
        """Mean cross-entropy in nats; in training mode plus the auxiliary losses.

        cross-entropy + balance_coefficient * balance + z_coefficient * z, the last two averaged
        over the layers. After ``model.eval()`` it is the cross-entropy alone.
        """
        logits, routings = self.route(tokens)
        loss = cross_entropy(logits, targets)
        if self.training and self.config.balance_coefficient:
            balance = sum(routing.balance_loss() for routing in routings) / len(routings)
            loss = loss + self.config.balance_coefficient * balance
        if self.training and self.config.z_coefficient:
            z = sum(routing.z_loss() for routing in routings) / len(routings)
            loss = loss + self.config.z_coefficient * z
        return loss

    def num_active_parameters(self) -> int:
        """Number of parameters that one token uses."""
        expert = sum(p.size for p in self.blocks[0].feed_forward.experts[0].parameters())
        idle = self.config.num_experts - self.config.experts_per_token
        return self.num_parameters() - self.config.num_layers * idle * expert
