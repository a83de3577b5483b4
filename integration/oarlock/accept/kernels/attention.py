"""Attention under one mask in Paddle and in Oarlock, served to an experiment."""

import time
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from oarlock.accept.kernels.attention_masks import mask_of
from oarlock.native.paddle import accelerate
from oarlock.native.paddle.attention import masked_attention

_state: dict[str, Any] = {}


def build(*, shape: dict[str, int], mask: dict[str, Any], threads: int, seed: int) -> str:
    """Draw q, k, v and the gradient of the result; make the mask in every form.

    Args:
        shape: batch, context, heads, kv_heads, dim.
        mask: as `attention_masks` makes it.
        seed: of the operands, which a peer draws in the same way.
    """
    report = accelerate(threads=threads)
    rng = np.random.default_rng(seed)
    sizes = [shape["heads"], shape["kv_heads"], shape["kv_heads"], shape["heads"]]
    q, k, v, gradient = (
        paddle.to_tensor(
            rng.standard_normal((shape["batch"], shape["context"], heads, shape["dim"]), np.float32)
        )
        for heads in sizes
    )
    for operand in (q, k, v):
        operand.stop_gradient = False
    dense = mask_of(mask).to_dense(shape["context"])
    _state.update(operands=(q, k, v), gradient=gradient, mask=mask_of(mask))
    _state.update(dense=paddle.to_tensor(dense), parts=_parts(mask["parts"], dense[0, 0]))
    return str(report)


def _parts(parts: list[Any], dense: np.ndarray) -> list[Any]:
    """Each part with its options for the call: causal where it is just that, else its mask."""
    found = []
    for (begin, end), keys in parts:
        seen = np.concatenate([dense[begin:end, first:last] for first, last in keys], axis=1)
        if seen.shape[0] == seen.shape[1] and (seen == np.tril(np.ones_like(seen))).all():
            options: dict[str, Any] = {"is_causal": True}
        else:
            options = {"attn_mask": paddle.to_tensor(seen[None, None])}
        found.append((begin, end, keys, options))
    return found


def _oarlock(q, k, v):
    return masked_attention(q, k, v, _state["mask"])


def _whole(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_state["dense"])


def _by_parts(q, k, v):
    outs = []
    for begin, end, keys, options in _state["parts"]:
        some = [paddle.concat([x[:, first:last] for first, last in keys], axis=1) for x in (k, v)]
        outs.append(F.scaled_dot_product_attention(q[:, begin:end], *some, **options))
    return paddle.concat(outs, axis=1)


_ARMS = {"oarlock": _oarlock, "paddle": _whole, "paddle by parts": _by_parts}


def step(*, arm: str) -> dict[str, float]:
    """Forward and backward; wall and CPU seconds."""
    for operand in _state["operands"]:
        operand.clear_grad()
    wall, cpu = time.perf_counter(), time.process_time()
    out = _ARMS[arm](*_state["operands"])
    paddle.autograd.backward([out], [_state["gradient"]])
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def forward(*, arm: str) -> dict[str, float]:
    """Forward only, without gradients; wall and CPU seconds."""
    with paddle.no_grad():
        wall, cpu = time.perf_counter(), time.process_time()
        _ARMS[arm](*_state["operands"])
        return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def save(*, arm: str, path: str) -> None:
    """The result and the gradients, as an .npz file."""
    for operand in _state["operands"]:
        operand.clear_grad()
    out = _ARMS[arm](*_state["operands"])
    paddle.autograd.backward([out], [_state["gradient"]])
    grads = {name: x.grad.numpy() for name, x in zip("qkv", _state["operands"])}
    np.savez(path, out=out.numpy(), **grads)
