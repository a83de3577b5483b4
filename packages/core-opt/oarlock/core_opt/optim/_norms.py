"""Norms of whole tensors, summed in float64 as the native kernels do."""

import paddle


def norm(tensor: paddle.Tensor) -> paddle.Tensor:
    """Euclidean norm over all elements, a float64 scalar on the tensor's device."""
    return paddle.sqrt(paddle.square(tensor.astype("float64")).sum())


def trust_ratio(
    parameter: paddle.Tensor,
    update: paddle.Tensor,
    weight_decay: float = 0.0,
    coefficient: float = 1.0,
) -> paddle.Tensor:
    """``coefficient |p| / (|u| + weight_decay |p|)``, 1 where a norm is 0; a float64 scalar."""
    weight, other = norm(parameter), norm(update)
    both = paddle.logical_and(weight > 0, other > 0)
    ratio = weight * coefficient / (other + weight * weight_decay)
    return paddle.where(both, ratio, paddle.ones_like(weight))
