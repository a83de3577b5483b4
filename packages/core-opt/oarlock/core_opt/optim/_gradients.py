"""Gradients before the step: gather, refuse what is not finite, clip."""

import math

import paddle
from paddle.nn import ClipGradByGlobalNorm

from ._checks import NonFiniteGradient

LOW_PRECISION = (paddle.float16, paddle.bfloat16)


def gather(parameters: list) -> list[tuple]:
    """Pairs (parameter, gradient) of the trainable parameters that have a dense gradient.

    ``main_grad``, which Paddle's distributed utilities keep in float32, goes before ``grad``.

    Raises:
        ValueError: a gradient is sparse.
    """
    pairs = []
    for parameter in parameters:
        if parameter.stop_gradient:
            continue
        grad = getattr(parameter, "main_grad", None)
        if grad is None:
            grad = parameter._grad_ivar()
        if grad is None:
            continue
        if grad.is_selected_rows() or grad.is_sparse():
            raise ValueError(
                f"parameter {parameter.name!r} has a sparse gradient; "
                "build its layer with sparse=False."
            )
        if tuple(grad.shape) != tuple(parameter.shape):
            raise ValueError(
                f"parameter {parameter.name!r} has shape {list(parameter.shape)} "
                f"but its gradient has {list(grad.shape)}."
            )
        pairs.append((parameter, grad if grad.is_contiguous() else grad.contiguous()))
    return pairs


def squared_norm(grads: list[paddle.Tensor], path: str | None) -> float:
    """Sum of squares of all elements, in float64; NaN and Inf propagate."""
    native = [path != "paddle" and _native(grad) for grad in grads]
    total = 0.0
    if any(native):
        from oarlock.native import optim as kernels

        total = kernels.squared_norm([grad for grad, use in zip(grads, native) if use])
    plain = [grad for grad, use in zip(grads, native) if not use]
    if plain:
        squares = [paddle.square(grad.astype("float64")).sum() for grad in plain]
        total += paddle.stack(squares).sum().item()
    return total


def _native(grad: paddle.Tensor) -> bool:
    return grad.place.is_cpu_place() and grad.dtype in (paddle.float32, paddle.bfloat16)


def refuse_non_finite(pairs: list[tuple], path: str | None) -> None:
    """Raise NonFiniteGradient naming the parameters whose gradient holds NaN or Inf."""
    bad = [p.name for p, grad in pairs if not math.isfinite(squared_norm([grad], path))]
    shown = ", ".join(repr(name) for name in bad[:5]) + (", ..." if len(bad) > 5 else "")
    raise NonFiniteGradient(
        f"the gradient of {len(bad)} parameter(s) is not finite: {shown}. Nothing was changed. "
        'Lower the learning rate, clip, or pass nonfinite="skip" to leave such steps out.'
    )


def clip(work: list[tuple], path: str | None) -> list[tuple]:
    """Clip ``(clip, pairs)`` and return triples (parameter, gradient, factor on the gradient).

    A global norm is taken over all pairs that share the clip, whatever their group.
    """
    triples, shared = [], {}
    for rule, pairs in work:
        if rule is None:
            triples += [(parameter, grad, 1.0) for parameter, grad in pairs]
        else:
            shared.setdefault(id(rule), (rule, []))[1].extend(pairs)
    for rule, pairs in shared.values():
        if type(rule) is ClipGradByGlobalNorm and not rule.should_comm_on_shard_dim:
            scales = _global_norm_scales(rule, pairs, path)
            triples += [(p, grad, scale) for (p, grad), scale in zip(pairs, scales)]
        else:
            pairs = [(p, g.astype("float32") if g.dtype in LOW_PRECISION else g) for p, g in pairs]
            triples += [(parameter, grad, 1.0) for parameter, grad in rule(pairs)]
    return triples


def _global_norm_scales(rule: ClipGradByGlobalNorm, pairs: list[tuple], path) -> list[float]:
    """``c / max(norm, c)``; parameters with need_clip=False neither count nor change."""
    used = [getattr(parameter, "need_clip", True) is not False for parameter, _ in pairs]
    norm = math.sqrt(squared_norm([pair[1] for pair, use in zip(pairs, used) if use], path))
    scale = rule.clip_norm / max(norm, rule.clip_norm)
    return [scale if use else 1.0 for use in used]
