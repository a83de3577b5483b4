"""Momentum before the code, in place of that behind it.

Error feedback sends a gradient late, and a momentum optimizer behind it then does not know how late: what was left for
hundreds of steps comes as if it were of this one. So each rank keeps the velocity itself, and what is added up until a code
has room for it are velocities (deep gradient compression).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from oarlock.native import codec as kernels

from oarlock.fleet_ext.compress.averaging import ADDED, PIECE, Averaging, Layout
from oarlock.fleet_ext.compress.codecs import Codec, Sparse

_STAGE = 0.25  #: of the elements of a stage of the warm-up, the next one sends
_OPTIMIZERS = {"_momentum": "momentum", "_beta1": "beta1"}  #: what Paddle's call theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumCorrection:
    r"""What is sent of velocities that each rank keeps.

    With the gradient g of rank k, its velocity u and what it has not sent, v:

    .. math:: u \leftarrow m u + g, \quad v \leftarrow v + u, \quad \text{send}\ v_i\ \text{for}\ i \in S, \quad
        u_i, v_i \leftarrow 0\ \text{for}\ i \in S

    What is sent has momentum, so the optimizer behind it must have none (`paddle.optimizer.SGD`). That the velocity of what was sent begins
    anew (momentum factor masking) keeps directions that are late from going on.

    Args:
        momentum: m, from above 0 to below 1.
        clip: largest 2-norm of a tensor's mean gradient, with each rank's N-th part of it cut to clip / sqrt(N): independent
            parts add up to such a norm. Of each tensor by itself, since buckets are sent before all gradients are known. None for no limit.
        warm_up: steps of each stage of a beginning in which more is sent: 25 %, 6.25 %, 1.56 %, 0.39 %, ... of the elements,
            until it is the code's own share (an epoch each in the paper). 0 for none.

    Source: Deep gradient compression, 1712.01887.
    """

    momentum: float = 0.9
    clip: float | None = None
    warm_up: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum must be above 0 and below 1, not {self.momentum}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be above 0, or None, not {self.clip}")
        if self.warm_up < 0:
            raise ValueError(f"warm_up must not be negative, as {self.warm_up} is")

    def codec_at(self, codec: Sparse, step: int) -> Sparse:
        """The code of a step, which has more elements during the warm-up."""
        if not self.warm_up:
            return codec
        return codec.at_least(_STAGE ** (min(step // self.warm_up, 64) + 1))

    def advance(
        self, gradients: Sequence[np.ndarray | None], velocity: np.ndarray, acc: np.ndarray,
        layout: Layout, size: int,
    ) -> None:  # fmt: skip
        """Adds gradients to the velocity, and that to what is not sent.

        Args:
            gradients: of one axis, float32 or bfloat16; None counts as 0.
            velocity, acc: u and v, float32 [n].
            layout: of the tensors in them.
            size: ranks.
        """
        scales = [self._scale(one, size) for one in gradients]
        for begin in range(0, layout.count, PIECE):
            span = slice(begin, min(begin + PIECE, layout.count))
            for number, inside, place in layout.within(span):
                gradient = gradients[number]
                if gradient is None:
                    velocity[place] *= np.float32(self.momentum)
                    continue
                part = gradient[inside]
                if part.dtype not in ADDED:
                    part = part.astype(np.float32)
                kernels.accumulate(velocity[place], part, scales[number], self.momentum)
            kernels.accumulate(acc[span], velocity[span])

    def _scale(self, gradient: np.ndarray | None, size: int) -> float:
        if self.clip is None or gradient is None:
            return 1.0
        square = 0.0
        for begin in range(0, gradient.size, PIECE):
            piece = gradient[begin : begin + PIECE].astype(np.float64)
            square += float(piece @ piece)
        norm, limit = sqrt(square), self.clip * sqrt(size)
        return limit / norm if norm > limit else 1.0


def check_codec(codec: Codec, error_feedback: bool) -> Sparse:
    """The code, if velocities can be sent in it.

    Raises:
        ValueError: it is not one of whole elements, or what it does not send is not kept.
    """
    if not isinstance(codec, Sparse):
        raise ValueError(
            f"correction is for codes of some elements (TopK, RandomK, ChunkTopK), not for {codec.name}: leave it out,"
            " and give the optimizer the momentum"
        )
    if not error_feedback:
        raise ValueError(
            "error_feedback must be on with a correction, which adds up what is not sent"
        )
    return codec


def check_optimizer(averaging: Averaging, optimizer: Any) -> None:
    """
    Raises:
        ValueError: the means have momentum, and the optimizer has some of its own.
    """
    if not averaging.momentum:
        return
    for attribute, name in _OPTIMIZERS.items():
        own = float(getattr(optimizer, attribute, 0.0) or 0.0)
        if own:
            raise ValueError(
                f"optimizer must have no momentum where gradients have it already (momentum {averaging.momentum:g} of"
                f" {averaging.name}): {type(optimizer).__name__} has {name}={own:g}. Take paddle.optimizer.SGD, or leave the"
                " correction out"
            )
