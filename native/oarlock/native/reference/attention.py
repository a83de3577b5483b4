"""Oracle of ``oarlock.native.attention``: dense float64, with the mask as a matrix."""

import numpy as np


def _scores(q, k, seen, scale):
    """Scaled scores [batch, heads, rows, keys], minus infinity where not seen."""
    scores = scale * np.einsum("bihd,bjhd->bhij", q, k)
    return scores if seen is None else np.where(seen, scores, -np.inf)


def _wide(q, *others):
    """float64, heads of keys repeated for the heads of queries that they serve."""
    q = np.asarray(q).astype(np.float64)
    times = q.shape[2]
    return q, *(
        np.repeat(np.asarray(x).astype(np.float64), times // x.shape[2], axis=2) for x in others
    )


def forward(q, k, v, *, mask=None, scale=None):
    """Returns out and lse."""
    scale = 1 / np.sqrt(q.shape[3]) if scale is None else scale
    seen = _seen(mask, q, k)
    q, k, v = _wide(q, k, v)
    scores = _scores(q, k, seen, scale)
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - np.where(np.isneginf(largest), 0, largest))
    sums = powers.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (largest + np.log(sums))[..., 0]
    p = powers / np.where(sums == 0, 1, sums)
    return np.einsum("bhij,bjhd->bihd", p, v), lse


def backward(q, k, v, out_grad, *, mask=None, scale=None):
    """Returns q_grad, k_grad and v_grad."""
    scale = 1 / np.sqrt(q.shape[3]) if scale is None else scale
    kv_heads, seen = k.shape[2], _seen(mask, q, k)
    out, lse = forward(q, k, v, mask=mask, scale=scale)
    q, k, v, g = _wide(q, k, v, out_grad)
    scores = _scores(q, k, seen, scale)
    p = np.exp(scores - np.where(np.isneginf(lse), 0, lse)[..., None])
    delta = np.einsum("bihd,bihd->bhi", g, out)
    ds = p * (np.einsum("bihd,bjhd->bhij", g, v) - delta[..., None])
    k_grad = scale * np.einsum("bhij,bihd->bjhd", ds, q)
    v_grad = np.einsum("bhij,bihd->bjhd", p, g)

    def of_groups(x):
        return x.reshape(*x.shape[:2], kv_heads, -1, x.shape[3]).sum(axis=3)

    return scale * np.einsum("bhij,bjhd->bihd", ds, k), of_groups(k_grad), of_groups(v_grad)


def _seen(mask, q, k):
    """bool, to be broadcast to [batch, heads, rows, keys]; None for all."""
    if mask is None:
        return None
    dense = mask.to_dense(q.shape[1], k.shape[1])
    return dense if dense.shape[1] == 1 else np.repeat(dense, q.shape[2] // dense.shape[1], axis=1)
