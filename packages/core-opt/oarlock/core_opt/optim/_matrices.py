"""What the matrix optimisers share: layouts, stacks of equal shapes, and rules by role."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import paddle

from . import _checks
from ._roles import Role
from ._rule import Batch, Rule, refuse_shard
from .adamw import AdamWRule

# Matrices of one shape go through an operator in stacks of at most this many elements: products
# of small matrices are up to five times faster together, and memory stays bounded.
STACK = 2**22
AXES = {"matrix": (2,), "experts": (3,), "conv": (3, 4, 5)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRule(Rule):
    """A rule for whole matrices: a subclass gives the update, this applies it.

    ``layout`` says how the parameter holds matrices: ``matrix`` [in, out], ``experts``
    [experts, in, out], or ``conv`` [out, in, ...], read as the matrix [out, in * ...].
    """

    title: ClassVar[str]  # of the optimiser, for messages

    layout: str = "matrix"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.choice("layout", self.layout, tuple(AXES))

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        refuse_shard(name, parameter)
        axes = AXES[self.layout]
        if parameter.ndim in axes:
            return
        wanted = " or ".join(str(count) for count in axes)
        remedy = "Give it the role vector, so that AdamW updates it."
        if parameter.ndim == 1 and self.layout != "conv":
            remedy = "If it is a flattened shard of a matrix, gather the matrix first. " + remedy
        elif parameter.ndim == 3:
            remedy = "If it is a stack of expert matrices, give it the role experts."
        raise ValueError(
            f"{self.title} needs {wanted} axes for a parameter of layout {self.layout!r}, but "
            f"{name!r} has shape {list(parameter.shape)}. {remedy}"
        )

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        updates = self.updates(batch, native=True)
        kernels.sgd(
            batch.parameters,
            updates,
            None,
            lr=batch.lr,
            momentum=0.0,
            weight_decay=self.weight_decay,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        for parameter, update in zip(batch.parameters, self.updates(batch, native=False)):
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_(update.scale_(batch.lr))

    def updates(self, batch: Batch, native: bool) -> list[paddle.Tensor]:
        """Update of each parameter, in its shape; state changes here, parameters do not."""
        raise NotImplementedError


def gradients(batch: Batch, state: str) -> list[paddle.Tensor]:
    """Gradients in the dtype of a state, with the factor of clipping."""
    found = []
    for grad, tensor in zip(batch.grads, batch.states[state]):
        if grad.dtype != tensor.dtype:
            grad = grad.astype(tensor.dtype)
        if batch.grad_scale != 1.0:
            grad = grad * batch.grad_scale
        found.append(grad)
    return found


def extents(layout: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """Axes before the matrix (of experts, or none), and its rows and columns."""
    if layout == "conv":
        return (), shape[0], math.prod(shape[1:])
    return tuple(shape[:-2]), shape[-2], shape[-1]


def matrices(layout: str, tensors: Iterable[paddle.Tensor]) -> list[paddle.Tensor]:
    """Tensors as [..., rows, columns]; only convolutions change their shape."""
    if layout != "conv":
        return list(tensors)
    return [tensor.reshape([tensor.shape[0], -1]) for tensor in tensors]


def alike(tensors: list[paddle.Tensor]) -> Iterable[list[int]]:
    """Indices of tensors of one shape, at most ``STACK`` elements together."""
    shapes: dict[tuple, list[int]] = {}
    for index, tensor in enumerate(tensors):
        shapes.setdefault(tuple(tensor.shape), []).append(index)
    for shape, indices in shapes.items():
        width = max(1, STACK // math.prod(shape))
        for start in range(0, len(indices), width):
            yield indices[start : start + width]


def stacked(tensors: list[paddle.Tensor], members: list[int] | None = None) -> paddle.Tensor:
    """The members, or all, as one stack [matrices, rows, columns]; experts count as matrices."""
    stack = paddle.stack(tensors if members is None else [tensors[index] for index in members])
    return stack.reshape([-1, *stack.shape[-2:]])


def parted(stack: paddle.Tensor, like: list[paddle.Tensor]) -> list[paddle.Tensor]:
    """The parts of a stack in the shapes of ``like``: the way back from ``stacked``."""
    parts = paddle.chunk(stack, len(like))
    return [part.reshape(tensor.shape).contiguous() for part, tensor in zip(parts, like)]


def by_role(
    matrix: MatrixRule, rest: AdamWRule, lr_scale: float | Mapping[Role | str, float]
) -> dict[Role, Rule]:
    """The matrix rule for hidden matrices, experts and convolutions; AdamW for other roles.

    Args:
        matrix: rule of the matrices.
        rest: rule of embeddings, heads and vectors.
        lr_scale: learning rate of the rest over that of the matrices, one or one for each role.
    """
    roles = (Role.EMBEDDING, Role.HEAD, Role.VECTOR)
    if isinstance(lr_scale, Mapping):
        scales = {Role.parse(role): scale for role, scale in lr_scale.items()}
        if set(scales) != set(roles):
            names = sorted(role.value for role in scales)
            raise ValueError(
                f"adamw_lr_scale must have the roles embedding, head and vector, got {names}."
            )
    else:
        scales = dict.fromkeys(roles, lr_scale)
    return {
        Role.HIDDEN_MATRIX: matrix,
        Role.EXPERTS: dataclasses.replace(matrix, layout="experts"),
        Role.CONV: dataclasses.replace(matrix, layout="conv"),
        **{role: dataclasses.replace(rest, lr_scale=scale) for role, scale in scales.items()},
    }
