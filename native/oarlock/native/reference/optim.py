"""Oracle of ``oarlock.native.optim``: one array at a time, float64 unless said otherwise.

Arguments and formulas are those of the kernels; state and parameter are returned, not changed.
"""

import ml_dtypes
import numpy as np

Array = np.ndarray
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _wide(*arrays: Array) -> list[Array]:
    return [np.asarray(array).astype(np.float64) for array in arrays]


def adamw(p, g, m, v, *, lr, beta1, beta2, eps, weight_decay, step, grad_scale=1.0):
    """Returns p, m, v."""
    p, g, m, v = _wide(p, g, m, v)
    g = g * grad_scale
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    direction = m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return (1 - lr * weight_decay) * p - lr * direction, m, v


def lion(p, g, m, *, lr, beta1, beta2, weight_decay, grad_scale=1.0):
    """Returns p, m."""
    p, g, m = _wide(p, g, m)
    g = g * grad_scale
    sign = np.sign(beta1 * m + (1 - beta1) * g)
    return (1 - lr * weight_decay) * p - lr * sign, beta2 * m + (1 - beta2) * g


def sgd(
    p, g, b, *, lr, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0, grad_scale=1.0
):
    """Returns p, b; without momentum ``b`` is None."""
    p, g = _wide(p, g)
    g = update = g * grad_scale
    if b is not None:
        b = momentum * _wide(b)[0] + (1 - dampening) * g
        update = g + momentum * b if nesterov else b
    return (1 - lr * weight_decay) * p - lr * update, b


def lamb(
    p, g, m, v, *, lr, beta1, beta2, eps, weight_decay, step, max_trust_ratio=None, grad_scale=1.0
):
    """Returns p, m, v and the trust ratio."""
    p, g, m, v = _wide(p, g, m, v)
    g = g * grad_scale
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    direction = m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps) + weight_decay * p
    norm, size = np.linalg.norm(p), np.linalg.norm(direction)
    ratio = norm / size if norm > 0 and size > 0 else 1.0
    ratio = ratio if max_trust_ratio is None else min(ratio, max_trust_ratio)
    return p - lr * ratio * direction, m, v, ratio


def sophia(p, g, m, h, *, lr, beta1, gamma, eps, weight_decay, grad_scale=1.0):
    """Returns p, m."""
    p, g, m, h = _wide(p, g, m, h)
    m = beta1 * m + (1 - beta1) * grad_scale * g
    direction = np.clip(m / np.maximum(gamma * h, eps), -1, 1)
    return (1 - lr * weight_decay) * p - lr * direction, m


def sophia_hessian(g, h, *, beta2, scale, grad_scale=1.0):
    """Returns h."""
    g, h = _wide(g, h)
    return beta2 * h + (1 - beta2) * scale * (grad_scale * g) ** 2


def schedule_free_adamw(
    y, g, z, v, *, lr, beta1, beta2, eps, weight_decay, step, average_weight, grad_scale=1.0
):
    """Returns y, z, v."""
    y, g, z, v = _wide(y, g, z, v)
    g = g * grad_scale
    v = beta2 * v + (1 - beta2) * g**2
    update = g / (np.sqrt(v / (1 - beta2**step)) + eps) + weight_decay * y
    c = average_weight
    return y + c * (z - y) + lr * (beta1 * (1 - c) - 1) * update, z - lr * update, v


def lars(
    p,
    g,
    b,
    *,
    lr,
    momentum,
    weight_decay,
    trust_coefficient,
    eps,
    nesterov=False,
    grad_scale=1.0,
):
    """Returns p, b and the trust ratio."""
    p, g, b = _wide(p, g, b)
    g = g * grad_scale
    weight, grad = np.linalg.norm(p), np.linalg.norm(g)
    ratio = 1.0
    if weight != 0 and grad != 0:
        ratio = trust_coefficient * weight / (grad + weight_decay * weight + eps)
    step = lr * ratio * (g + weight_decay * p)
    b = momentum * b + step
    return p - (step + momentum * b if nesterov else b), b, ratio


def mars_adamw(
    p,
    g,
    previous,
    m,
    v,
    *,
    gamma,
    beta1,
    step,
    max_norm=1.0,
    grad_scale=1.0,
    **adam,
):
    """Returns p, previous, m, v."""
    p, g, previous, m, v = _wide(p, g, previous, m, v)
    g = g * grad_scale
    corrected = g if step == 1 else g + gamma * beta1 / (1 - beta1) * (g - previous)
    norm = np.linalg.norm(corrected)
    if max_norm is not None and norm != 0:
        corrected = corrected * np.minimum(1, max_norm / norm)
    p, m, v = adamw(p, corrected, m, v, beta1=beta1, step=step, **adam)
    return p, g, m, v


def adafactor(
    p, g, rows, columns, *, lr, clip_threshold, eps_scale, relative, weight_decay, grad_scale=1.0
):
    """Returns p."""
    p, g, rows, columns = _wide(p, g, rows, columns)
    if not p.size:
        return (p,)
    g = g * grad_scale
    product = np.outer(rows, columns)
    moment = np.divide(product, rows.mean(), out=np.zeros_like(product), where=product != 0)
    update = g * np.divide(1, np.sqrt(moment), out=np.zeros_like(g), where=moment != 0)
    if clip_threshold is not None:
        update = update / np.maximum(1, np.sqrt(np.mean(update**2)) / clip_threshold)
    size = np.maximum(eps_scale, np.sqrt(np.mean(p**2))) if relative else 1
    return ((1 - lr * weight_decay) * p - lr * size * update,)


def adam_mini(p, g, m, v, *, lr, beta1, beta2, eps, weight_decay, step, grad_scale=1.0):
    """Returns p, m, v."""
    p, g, m, v = _wide(p, g, m, v)
    if not p.size:
        return p, m, v
    g = g * grad_scale
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * np.mean(g.reshape(v.size, -1) ** 2, axis=1)
    denominator = np.sqrt(v / (1 - beta2**step)) + eps
    shared = np.repeat(denominator, p.size // v.size).reshape(p.shape)
    return (1 - lr * weight_decay) * p - lr * m / (1 - beta1**step) / shared, m, v


def squared_norm(arrays) -> float:
    return float(sum(np.sum(np.square(array)) for array in _wide(*arrays)))


def row_column_mean_squares(g, rows, columns, *, decay, eps=0.0, grad_scale=1.0):
    """Returns rows, columns."""
    g, rows, columns = _wide(g, rows, columns)
    squares = (g * grad_scale) ** 2 + eps
    rows = decay * rows + (1 - decay) * squares.mean(axis=1)
    return rows, decay * columns + (1 - decay) * squares.mean(axis=0)


def random16(seed: int, tensor: int, count: int) -> Array:
    """The 16 random bits of each element of a tensor of fewer than 2^32, uint32 [count]."""

    def mix(x: int) -> int:  # splitmix64
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    key = mix(mix(mix(seed) ^ tensor))
    h: Array = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(key % 2**32)
    h = (h ^ h >> 16) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> 13) + np.uint32(key >> 32)
    h = (h ^ h >> 15) * np.uint32(0xC2B2AE35)
    return h >> 16


def round_randomly(x: Array, random: Array) -> Array:
    """Float32 to bfloat16: up with the probability ``random`` / 2^16 exceeds; Inf, NaN stay."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((bits + random) >> 16).astype(np.uint16).view(BFLOAT16)
    return np.where(np.isfinite(x), rounded, x.astype(BFLOAT16))
