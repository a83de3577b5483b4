"""What the rules of Adam's family share on Paddle's operators."""

import math

import paddle


def denominator(v: paddle.Tensor, beta2: float, step: int, epsilon: float) -> paddle.Tensor:
    r""":math:`\sqrt{v / (1 - \beta_2^t)} + \epsilon`, a new tensor of v's shape and dtype."""
    root = paddle.sqrt(v).scale_(1 / math.sqrt(1 - beta2**step))
    return root.add_(paddle.full([], epsilon, dtype=v.dtype))
