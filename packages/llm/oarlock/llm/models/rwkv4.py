"""RWKV-4: a recurrent language model that trains in parallel.

- time mixing: a decaying average of values, weighted by exp(key), gated by sigmoid(receptance);
  each channel has its own decay w < 0 and its own bonus u for the current token:

      y_t = (sum_{i<t} e^{(t-1-i) w + k_i} v_i + e^{u + k_t} v_t) / (the same without v)

- channel mixing: sigmoid(receptance) * value(relu(key)^2)
- both see a blend of the current token and the one before (token shift)
- layer norm before each part, after the embedding and at the end

Sums are kept as (a, b, p), meaning a e^p over b e^p with p the largest exponent so far, so no
exponential ever overflows. ``wkv`` computes all positions, ``wkv_step`` one; they agree. Memory for
decoding does not grow with the text.

Paper: arXiv 2305.13048. Parameter names in files: ``oarlock.llm.weights.rwkv``.

Shapes, time first so that shifts along time stay contiguous: T positions, B batch, D hidden_size,
F intermediate_size, V vocab_size.
"""

import dataclasses
import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from oarlock.llm.models import common
from oarlock.llm.models.base import Initializer, LanguageModel
from oarlock.llm.models.config import ModelConfig

EMPTY = -1e30  # exponent of an empty sum


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RWKV4Config(ModelConfig):
    """Sizes and choices of an RWKV-4; ``None`` derives the value from the other fields."""

    vocab_size: int
    hidden_size: int = 256
    num_layers: int = 4
    intermediate_size: int = None  # type: ignore[assignment]  # None: 4 hidden_size
    norm_epsilon: float = 1e-5

    def __post_init__(self):
        self._check_counts("vocab_size", "hidden_size", "num_layers")
        self._resolve("intermediate_size", 4 * self.hidden_size)
        self._check_counts("intermediate_size")
        self._check_positive("norm_epsilon")
        if self.hidden_size < 2:
            raise ValueError(f"hidden_size must be at least 2, got {self.hidden_size}.")


@dataclasses.dataclass(slots=True)
class LayerState:
    """What one layer remembers of the past, each [B, D]."""

    attention_x: paddle.Tensor  # last input of the time mixing
    feed_forward_x: paddle.Tensor  # last input of the channel mixing
    a: paddle.Tensor  # weighted sum of values, over e^p
    b: paddle.Tensor  # sum of weights, over e^p
    p: paddle.Tensor  # largest exponent

    @classmethod
    def empty(cls, B: int, D: int, dtype: paddle.dtype) -> "LayerState":
        zeros = paddle.zeros([B, D], dtype)
        return cls(zeros, zeros, zeros, zeros, paddle.full([B, D], EMPTY, dtype))


class RWKVCache:
    """State of all layers; empty until the first call tells the batch size."""

    def __init__(self):
        self.layers: list[LayerState] | None = None
        self.length = 0


def wkv(w_D, u_D, k_TBD, v_TBD, a_BD, b_BD, p_BD):
    """Weighted average of the values at every position.

    Only three short recurrences go through time, p_t = max(w + p_{t-1}, k_t) and the two sums;
    all exponentials are taken for all positions at once. The result does not depend on p, which
    therefore carries no gradient.

    Args:
        w_D: decay a step, below 0.
        u_D: bonus of the current token.
        k_TBD, v_TBD: keys and values.
        a_BD, b_BD, p_BD: state before the first position.

    Returns:
        Averages [T, B, D] and the state after the last position, (a, b, p).
    """
    T, B, _ = k_TBD.shape
    exponents, p_BD, decay_D = [p_BD.detach()], p_BD.detach(), w_D.detach()
    for k_BD in paddle.unbind(k_TBD.detach()):
        p_BD = paddle.maximum(decay_D + p_BD, k_BD)
        exponents.append(p_BD)
    p = paddle.stack(exponents)  # [T + 1, B, D]: before each position and after the last
    ones = paddle.ones([T, B, 1], dtype=k_TBD.dtype)
    kept = paddle.exp(common.spread(w_D, ones) + p[:-1] - p[1:])
    added = paddle.exp(k_TBD - p[1:])
    sums_a, sums_b = [], []
    for kept_BD, added_BD, value_BD in zip(*map(paddle.unbind, (kept, added, added * v_TBD))):
        sums_a.append(a_BD)
        sums_b.append(b_BD)
        a_BD = a_BD * kept_BD + value_BD
        b_BD = b_BD * kept_BD + added_BD
    current = k_TBD + common.spread(u_D, ones)
    top = paddle.maximum(p[:-1], current.detach())
    past, present = paddle.exp(p[:-1] - top), paddle.exp(current - top)
    a, b = paddle.stack(sums_a), paddle.stack(sums_b)
    return (a * past + v_TBD * present) / (b * past + present), (a_BD, b_BD, p_BD)


def wkv_step(w_D, u_D, k_BD, v_BD, a_BD, b_BD, p_BD):
    """One position of ``wkv``: the recurrent form."""
    current = u_D + k_BD
    top = paddle.maximum(p_BD, current)
    past, present = paddle.exp(p_BD - top), paddle.exp(current - top)
    y_BD = (a_BD * past + v_BD * present) / (b_BD * past + present)
    decayed = w_D + p_BD
    top = paddle.maximum(decayed, k_BD)
    past, present = paddle.exp(decayed - top), paddle.exp(k_BD - top)
    return y_BD, (a_BD * past + v_BD * present, b_BD * past + present, top)


def shifted(x_TBD, last_BD):
    """The input one position earlier, ``last_BD`` at the first."""
    return paddle.concat([last_BD.unsqueeze(0), x_TBD[:-1]])


class Mixing(nn.Layer):
    """Parts of both mixings: blends of the current and the former token."""

    def _mix(self, name: str, size: int) -> None:
        setattr(self, name, self.create_parameter([size], default_initializer=_zeros()))

    @staticmethod
    def blend(x_TBD, before_TBD, mix_D):
        """x * mix + before * (1 - mix)."""
        return before_TBD + (x_TBD - before_TBD) * common.spread(
            mix_D, paddle.ones([*x_TBD.shape[:2], 1], dtype=x_TBD.dtype)
        )


class TimeMixing(Mixing):
    """out(sigmoid(receptance) * wkv(key, value))."""

    def __init__(self, config: RWKV4Config):
        super().__init__()
        D = config.hidden_size
        for name in ("mix_key", "mix_value", "mix_receptance"):
            self._mix(name, D)
        self.log_decay = self.create_parameter([D], default_initializer=_zeros())  # w = -exp
        self.bonus = self.create_parameter([D], default_initializer=_zeros())
        self.key = nn.Linear(D, D, bias_attr=False)
        self.value = nn.Linear(D, D, bias_attr=False)
        self.receptance = nn.Linear(D, D, bias_attr=False)
        self.out = nn.Linear(D, D, bias_attr=False)

    def forward(self, x_TBD, state: LayerState):
        before = shifted(x_TBD, state.attention_x)
        k_TBD = self.key(self.blend(x_TBD, before, self.mix_key))
        v_TBD = self.value(self.blend(x_TBD, before, self.mix_value))
        r_TBD = F.sigmoid(self.receptance(self.blend(x_TBD, before, self.mix_receptance)))
        w_D = -paddle.exp(self.log_decay)
        if x_TBD.shape[0] == 1:
            y_BD, sums = wkv_step(w_D, self.bonus, k_TBD[0], v_TBD[0], state.a, state.b, state.p)
            y_TBD = y_BD.unsqueeze(0)
        else:
            y_TBD, sums = wkv(w_D, self.bonus, k_TBD, v_TBD, state.a, state.b, state.p)
        return self.out(r_TBD * y_TBD), sums


class ChannelMixing(Mixing):
    """sigmoid(receptance) * value(relu(key)^2)."""

    def __init__(self, config: RWKV4Config):
        super().__init__()
        D = config.hidden_size
        for name in ("mix_key", "mix_receptance"):
            self._mix(name, D)
        self.key = nn.Linear(D, config.intermediate_size, bias_attr=False)
        self.receptance = nn.Linear(D, D, bias_attr=False)
        self.value = nn.Linear(config.intermediate_size, D, bias_attr=False)

    def forward(self, x_TBD, last_BD):
        before = shifted(x_TBD, last_BD)
        k_TBF = paddle.square(F.relu(self.key(self.blend(x_TBD, before, self.mix_key))))
        r_TBD = F.sigmoid(self.receptance(self.blend(x_TBD, before, self.mix_receptance)))
        return r_TBD * self.value(k_TBF)


class Block(nn.Layer):
    """Time and channel mixing, each behind a norm and beside a residual path."""

    def __init__(self, config: RWKV4Config):
        super().__init__()
        self.attention_norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.attention = TimeMixing(config)
        self.feed_forward_norm = common.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.feed_forward = ChannelMixing(config)

    def forward(self, x_TBD, state: LayerState):
        h_TBD = self.attention_norm(x_TBD)
        mixed, sums = self.attention(h_TBD, state)
        x_TBD = x_TBD + mixed
        g_TBD = self.feed_forward_norm(x_TBD)
        x_TBD = x_TBD + self.feed_forward(g_TBD, state.feed_forward_x)
        return x_TBD, LayerState(h_TBD[-1], g_TBD[-1], *sums)


class RWKV4(LanguageModel):
    """RWKV-4 language model: ``model(tokens [B, T]) -> logits [B, T, V]``."""

    config: RWKV4Config

    def __init__(self, config: RWKV4Config, *, seed: int | None = 0):
        super().__init__(config)
        D, V = config.hidden_size, config.vocab_size
        self.embedding = nn.Embedding(V, D)
        self.embedding_norm = common.LayerNorm(D, config.norm_epsilon)
        self.blocks = nn.LayerList([Block(config) for _ in range(config.num_layers)])
        self.norm = common.LayerNorm(D, config.norm_epsilon)
        self.head = nn.Linear(D, V, bias_attr=False)
        self.init_weights(seed)

    def init_weights(self, seed: int | None) -> None:
        """The authors' scheme, with normal matrices where they take orthogonal ones.

        Tiny embeddings (the norm behind them makes them learn fast); mixing and decay graded over
        channels and layers; zero maps where a part starts as the identity.
        """
        init = Initializer(seed)
        D, num_layers = self.config.hidden_size, self.config.num_layers
        zeros, channel = np.zeros([D, D], np.float32), np.arange(D)
        init.uniform(self.embedding.weight, 1e-4)
        for index, block in enumerate(self.blocks):
            up = index / max(num_layers - 1, 1)  # 0 to 1
            down = 1 - index / num_layers  # 1 to almost 0
            graded = (channel / D) ** down
            time, channels = block.attention, block.feed_forward
            _fill(time.log_decay, -5 + 8 * (channel / (D - 1)) ** (0.7 + 1.3 * up))
            _fill(time.bonus, math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1))
            _fill(time.mix_key, graded)
            _fill(time.mix_value, graded + 0.3 * up)
            _fill(time.mix_receptance, (channel / D) ** (0.5 * down))
            _fill(channels.mix_key, graded)
            _fill(channels.mix_receptance, graded)
            for linear in (time.key, time.receptance, time.out, channels.receptance):
                linear.weight.set_value(zeros)
            channels.value.weight.set_value(np.zeros(channels.value.weight.shape, np.float32))
            init.normal(time.value.weight, D**-0.5)
            init.normal(channels.key.weight, D**-0.5)
        init.normal(self.head.weight, 0.5 * D**-0.5)

    def new_cache(self) -> RWKVCache:
        """An empty cache for ``forward``."""
        return RWKVCache()

    def forward(self, tokens_BT, cache=None):
        B, T = common.check_tokens(tokens_BT, self.config.vocab_size)
        x_TBD = self.embedding_norm(self.embedding(tokens_BT.transpose([1, 0])))
        states = None if cache is None else cache.layers
        if states is None:
            empty = LayerState.empty(B, self.config.hidden_size, x_TBD.dtype)
            states = [empty] * self.config.num_layers
        after = []
        for block, state in zip(self.blocks, states):
            x_TBD, state = block(x_TBD, state)
            after.append(state)
        if cache is not None:
            cache.layers, cache.length = after, cache.length + T
        x_BTD = common.swap_axes(self.norm(x_TBD).unsqueeze(0)).squeeze(0)
        return self.head(x_BTD)


def _zeros() -> nn.initializer.Initializer:
    return nn.initializer.Constant(0)


def _fill(parameter: paddle.Tensor, values: np.ndarray) -> None:
    parameter.set_value(values.astype(np.float32))
