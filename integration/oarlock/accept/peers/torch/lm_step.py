"""The twin of `convergence/lm_step.py` in PyTorch: same weights, same batch, same AdamW.

Runs in the peer's own environment, which has PyTorch and NumPy and nothing of ours.
"""

import resource
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_state: dict = {}


class Block(nn.Module):
    """Attention and SwiGLU behind RMS norms, as LLaMA has them; no biases."""

    def __init__(self, D, heads, kv_heads, hidden, epsilon):
        super().__init__()
        self.heads, self.kv_heads, self.epsilon = heads, kv_heads, epsilon
        kv_size = D // heads * kv_heads
        self.attention_gain = nn.Parameter(torch.empty(D))
        self.feed_forward_gain = nn.Parameter(torch.empty(D))
        self.query = nn.Linear(D, D, bias=False)
        self.key = nn.Linear(D, kv_size, bias=False)
        self.value = nn.Linear(D, kv_size, bias=False)
        self.out = nn.Linear(D, D, bias=False)
        self.gate = nn.Linear(D, hidden, bias=False)
        self.up = nn.Linear(D, hidden, bias=False)
        self.down = nn.Linear(hidden, D, bias=False)

    def forward(self, x_BTD, cos, sin):
        B, T, D = x_BTD.shape
        h = F.rms_norm(x_BTD, (D,), self.attention_gain, self.epsilon)
        q = self.query(h).view(B, T, self.heads, -1).transpose(1, 2)
        k = self.key(h).view(B, T, self.kv_heads, -1).transpose(1, 2)
        v = self.value(h).view(B, T, self.kv_heads, -1).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            rotate(q, cos, sin),
            rotate(k, cos, sin),
            v,
            is_causal=True,
            enable_gqa=self.heads != self.kv_heads,
        )
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).reshape(B, T, D))
        h = F.rms_norm(x_BTD, (D,), self.feed_forward_gain, self.epsilon)
        return x_BTD + self.down(F.silu(self.gate(h)) * self.up(h))


def rotate(x, cos, sin):
    """Rotary positions on halves, the form Hugging Face uses; see `_halves`."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _halves(weight, heads):
    """Reorder the outputs of a query or key map, so that adjacent pairs become halves."""
    size = weight.shape[0] // heads
    order = np.concatenate([np.arange(0, size, 2), np.arange(1, size, 2)])
    return weight.reshape(heads, size, -1)[:, order].reshape(weight.shape)


class Llama(nn.Module):
    def __init__(self, shape, hidden):
        super().__init__()
        D, heads = shape["hidden_size"], shape["num_heads"]
        kv_heads = shape.get("num_kv_heads") or heads
        self.epsilon = shape.get("norm_epsilon", 1e-5)
        self.embedding = nn.Embedding(shape["vocab_size"], D)
        self.blocks = nn.ModuleList(
            Block(D, heads, kv_heads, hidden, self.epsilon) for _ in range(shape["num_layers"])
        )
        self.gain = nn.Parameter(torch.empty(D))
        self.head = nn.Linear(D, shape["vocab_size"], bias=False)
        self.size = D // heads

    def loss(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(F.rms_norm(x, (x.shape[-1],), self.gain, self.epsilon))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def make_tables(self, length, theta):
        frequencies = theta ** (-np.arange(0, self.size, 2) / self.size)
        angles = np.tile(np.outer(np.arange(length), frequencies), 2)
        self.cos = torch.tensor(np.cos(angles), dtype=torch.float32)
        self.sin = torch.tensor(np.sin(angles), dtype=torch.float32)


def build(*, shape, batch, context, threads, learning_rate, weights):
    """Make the twin from the file that the Paddle worker wrote.

    Args:
        weights: .npz file with weights (Paddle's layout, [in, out]) and the row of tokens.
    """
    torch.set_num_threads(threads)
    with np.load(weights) as found:
        arrays = {name: found[name] for name in found.files}
    row = torch.from_numpy(arrays.pop("_row"))
    heads = shape["num_heads"]
    kv_heads = shape.get("num_kv_heads") or heads
    model = Llama(shape, arrays["blocks.0.feed_forward.up.weight"].shape[1])
    model.make_tables(context, shape.get("rope_theta", 10000.0))
    values = {
        "embedding.weight": arrays.pop("embedding.weight"),
        "gain": arrays.pop("norm.weight"),
        "head.weight": arrays.pop("head.weight").T,
    }
    for index in range(shape["num_layers"]):
        prefix = f"blocks.{index}."
        for part in ("query", "key", "value", "out"):
            weight = arrays.pop(f"{prefix}attention.{part}.weight").T
            if part in ("query", "key"):
                weight = _halves(weight, heads if part == "query" else kv_heads)
            values[f"{prefix}{part}.weight"] = weight
        for part in ("gate", "up", "down"):
            values[f"{prefix}{part}.weight"] = arrays.pop(f"{prefix}feed_forward.{part}.weight").T
        for part in ("attention", "feed_forward"):
            values[f"{prefix}{part}_gain"] = arrays.pop(f"{prefix}{part}_norm.weight")
    if arrays:
        raise ValueError(f"weights that the twin does not know: {sorted(arrays)}")
    model.load_state_dict(
        {name: torch.tensor(np.ascontiguousarray(value)) for name, value in values.items()}
    )
    _state.update(
        model=model,
        tokens=row[:, :-1].contiguous(),
        targets=row[:, 1:].contiguous(),
        optimizer=torch.optim.AdamW(
            model.parameters(), lr=learning_rate, weight_decay=0.1, fused=True
        ),
    )
    return {"parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__}


def step(*, count=1):
    """Train `count` steps; wall and CPU seconds, and the loss of the last."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    for _ in range(count):
        loss = _state["model"].loss(_state["tokens"], _state["targets"])
        loss.backward()
        _state["optimizer"].step()
        _state["optimizer"].zero_grad()
    value = loss.item()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_seconds() - cpu, "loss": value}


def _cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
