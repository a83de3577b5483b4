"""The twin of `kernels/attention.py` in PyTorch: same operands, same masks.

Runs in the peer's own environment, which has PyTorch and NumPy and nothing of ours.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F

_state: dict = {}


def build(*, shape, mask, threads, seed):
    """Draw operands as the experiment draws them, and make the mask in every form.

    Args:
        shape: batch, context, heads, kv_heads, dim.
        mask: kind, lengths and parts.
    """
    _state.clear()
    torch.set_num_threads(threads)
    rng = np.random.default_rng(seed)
    sizes = [shape["heads"], shape["kv_heads"], shape["kv_heads"], shape["heads"]]
    # As projections leave them, [batch, context, heads, dim]; attention takes heads first.
    q, k, v, gradient = (
        torch.from_numpy(
            rng.standard_normal((shape["batch"], shape["context"], heads, shape["dim"]), np.float32)
        )
        for heads in sizes
    )
    for operand in (q, k, v):
        operand.requires_grad_()
    dense = _dense(mask, shape["context"])
    _state.update(operands=(q, k, v), gradient=gradient, spec=mask, context=shape["context"])
    _state.update(bools=dense[None, None], parts=_parts(mask["parts"], dense))
    _state["floats"] = torch.zeros(dense.shape).masked_fill(~dense, -torch.inf)[None, None]
    return {"torch": torch.__version__}


def _dense(mask, context):
    row, key = torch.arange(context)[:, None], torch.arange(context)
    return _seen(mask)(0, 0, row, key)


def _seen(mask):
    """Whether a row sees a key, in the form that FlexAttention compiles."""
    kind, lengths = mask["kind"], mask["lengths"]
    if kind == "causal":
        return lambda b, h, row, key: row >= key
    if kind == "window":
        size = lengths[1]
        return lambda b, h, row, key: (row >= key) & (row < key + size)
    part = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    if kind == "document":
        return lambda b, h, row, key: (row >= key) & (part[row] == part[key])
    if kind == "question":
        first = lengths[0]
        return lambda b, h, row, key: (row >= key) & ((key < first) | (part[row] == part[key]))
    raise ValueError(f"no mask of kind {kind!r}")


def _parts(parts, dense):
    found = []
    for (begin, end), keys in parts:
        seen = torch.cat([dense[begin:end, first:last] for first, last in keys], dim=1)
        options = {"is_causal": True}
        if seen.shape[0] != seen.shape[1] or not torch.equal(
            seen, seen.new_ones(seen.shape).tril()
        ):
            masked = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
            options = {"attn_mask": masked[None, None]}
        found.append((begin, end, keys, options))
    return found


def _bools(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_state["bools"], enable_gqa=True)


def _floats(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_state["floats"], enable_gqa=True)


def _by_parts(q, k, v):
    outs = []
    for begin, end, keys, options in _state["parts"]:
        some = [torch.cat([x[:, :, first:last] for first, last in keys], dim=2) for x in (k, v)]
        rows = q[:, :, begin:end]
        outs.append(F.scaled_dot_product_attention(rows, *some, enable_gqa=True, **options))
    return torch.cat(outs, dim=2)


def _flex(q, k, v):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if "flex" not in _state:
        length = _state["context"]
        _state["block_mask"] = create_block_mask(
            _seen(_state["spec"]), None, None, length, length, device="cpu"
        )
        # Without fullgraph it would fall back to plain operators where it fails, and say nothing.
        _state["flex"] = torch.compile(flex_attention, fullgraph=True)
    return _state["flex"](q, k, v, block_mask=_state["block_mask"], enable_gqa=True)


_ARMS = {"bool mask": _bools, "float mask": _floats, "by parts": _by_parts, "flex": _flex}


def _attend(arm, operands):
    out = _ARMS[arm](*(x.transpose(1, 2) for x in operands))
    return out.transpose(1, 2)


def _clear():
    for operand in _state["operands"]:
        operand.grad = None


def step(*, arm):
    """Forward and backward; wall and CPU seconds."""
    _clear()
    wall, cpu = time.perf_counter(), time.process_time()
    _attend(arm, _state["operands"]).backward(_state["gradient"])
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def forward(*, arm):
    """Forward only, without gradients; wall and CPU seconds."""
    operands = [x.detach() for x in _state["operands"]]
    with torch.no_grad():
        wall, cpu = time.perf_counter(), time.process_time()
        _attend(arm, operands)
        return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def flex_trains():
    """None if FlexAttention can take gradients here, else what it says."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = (x.transpose(1, 2)[:, :, :128] for x in _state["operands"])
    try:
        flex_attention(q, k, v, enable_gqa=True).sum().backward()
    except NotImplementedError as error:
        return str(error)
    return None


def save(*, arm, path):
    """The result and the gradients, as an .npz file."""
    _clear()
    out = _attend(arm, _state["operands"])
    out.backward(_state["gradient"])
    grads = {name: x.grad.numpy() for name, x in zip("qkv", _state["operands"])}
    np.savez(path, out=out.detach().numpy(), **grads)
