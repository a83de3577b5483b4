"""Norms of whole tensors, summed in float64 as the native kernels do."""

import paddle


def norm(tensor: paddle.Tensor) -> paddle.Tensor:
    """Euclidean norm over all elements, a float64 scalar on the tensor's device."""
    return paddle.sqrt(paddle.square(tensor.astype("float64")).sum())


def trust_ratio(weight: paddle.Tensor, update: paddle.Tensor) -> paddle.Tensor:
    """``weight / update`` of two norms, 1 where either of the norms is 0.

    Args:
        weight: norm of the parameter.
        update: norm of what is to be scaled to it.
    """
    both = paddle.logical_and(weight > 0, update > 0)
    return paddle.where(both, weight / update, paddle.ones_like(weight))
