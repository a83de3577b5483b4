"""Gradients before the step: gather, refuse what is not finite, clip."""

import dataclasses
import math
from typing import Any

import paddle
from paddle.nn import ClipGradByGlobalNorm

from ._checks import NonFiniteGradient

#: What the error says where all groups are looked through before any is updated.
UNCHANGED = "Nothing was changed."
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
        total += float(paddle.stack(squares).sum())
    return total


def _native(grad: paddle.Tensor) -> bool:
    able = grad.place.is_cpu_place() and not grad.is_dist()
    return able and grad.dtype in (paddle.float32, paddle.bfloat16)


@dataclasses.dataclass(slots=True)
class Cluster:
    """Gradients under one clip, and their squared norm where it is needed."""

    clip: Any
    pairs: list[tuple]
    square: float | None = None

    @property
    def global_norm(self) -> bool:
        return type(self.clip) is ClipGradByGlobalNorm and not self.clip.should_comm_on_shard_dim


def clusters(work: list[tuple], path: str | None, check: bool) -> list[Cluster]:
    """Sort ``(clip, pairs)`` by clip, so that one norm spans all groups that share it.

    One pass over the gradients gives the norms for clipping and, if ``check``, for
    ``finite``. Parameters with need_clip=False go to the cluster without a clip.
    """
    found: dict[int, Cluster] = {}
    for clip, pairs in work:
        if clip is None:
            found.setdefault(id(None), Cluster(None, [])).pairs.extend(pairs)
            continue
        for pair in pairs:
            used = clip if getattr(pair[0], "need_clip", True) is not False else None
            found.setdefault(id(used), Cluster(used, [])).pairs.append(pair)
    for cluster in found.values():
        if check or cluster.global_norm:
            cluster.square = squared_norm([grad for _, grad in cluster.pairs], path)
    return list(found.values())


def finite(found: list[Cluster]) -> bool:
    """Whether no gradient holds NaN or Inf."""
    return all(math.isfinite(_square(cluster)) for cluster in found)


def _square(cluster: Cluster) -> float:
    assert cluster.square is not None, "clusters() takes the norms that are needed"
    return cluster.square


def refuse_non_finite(found: list[Cluster], path: str | None) -> NonFiniteGradient:
    """The error that names the parameters whose gradient holds NaN or Inf."""
    pairs = [pair for cluster in found for pair in cluster.pairs]
    bad = [p.name for p, grad in pairs if not math.isfinite(squared_norm([grad], path))]
    shown = ", ".join(repr(name) for name in bad[:5]) + (", ..." if len(bad) > 5 else "")
    return NonFiniteGradient(
        f"the gradient of {len(bad)} parameter(s) is not finite: {shown}. {UNCHANGED} "
        'Lower the learning rate, clip, or pass nonfinite="skip" to leave such steps out.'
    )


def clipped(cluster: Cluster) -> tuple[list[tuple], float]:
    """The pairs after clipping, and the factor that is still to be put on their gradients.

    Paddle's global-norm clip becomes the factor ``c / max(norm, c)``, which the update applies
    on the way; other clips give new gradients, low precision in float32.
    """
    if cluster.clip is None:
        return cluster.pairs, 1.0
    if cluster.global_norm:
        limit = cluster.clip.clip_norm
        return cluster.pairs, limit / max(math.sqrt(_square(cluster)), limit)
    wide = [(p, g.astype("float32") if g.dtype in LOW_PRECISION else g) for p, g in cluster.pairs]
    return cluster.clip(wide), 1.0
