"""Shampoo's statistics of a matrix and their slowly turning eigenbases, kept as state."""

import dataclasses
from collections.abc import Mapping

import paddle

from . import _roots
from ._matrices import extents, parted, stacked

SIDES = ("left", "right")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Eigenbases:
    r"""The bases in which SOAP and SOAP-Muon run Adam.

    For a gradient :math:`G` [rows, columns], :math:`L` averages :math:`GG^\top` and :math:`R`
    :math:`G^\top G`; their eigenbases :math:`Q_L, Q_R` come from an eigendecomposition at first and
    from one power iteration with QR at every refresh. A side longer than ``limit`` keeps the
    coordinates it has.

    Args:
        layout: of the parameter, as in ``MatrixRule``.
        beta: decay of the averages.
        limit: longest side that gets a basis.
    """

    layout: str
    beta: float
    limit: int

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the state tensors for a parameter of this shape."""
        lead, rows, columns = extents(self.layout, shape)
        found = {}
        for side, size in zip(SIDES, (rows, columns)):
            if size <= self.limit:
                found[side] = found[f"{side}_basis"] = (*lead, size, size)
        return found

    def observe(self, states: Mapping, members: list[int], grads: paddle.Tensor) -> None:
        """Take the gradients [n, rows, columns] of the members into their statistics."""
        for side in self._sides(states):
            left = side == "left"
            found = paddle.matmul(grads, grads, transpose_x=not left, transpose_y=left)
            tensors = [states[side][index] for index in members]
            for tensor, part in zip(tensors, parted(found, tensors)):
                tensor.lerp_(part, 1 - self.beta)

    def begin(self, states: Mapping, members: list[int]) -> None:
        """Set the bases from the statistics."""
        for side in self._sides(states):
            self._set(states, members, side, _roots.eigenbasis(stacked(states[side], members)))

    def bases(self, states: Mapping, members: list[int]) -> dict[str, paddle.Tensor]:
        """Bases of the members, [n, size, size] for each side that has one."""
        return {side: stacked(states[f"{side}_basis"], members) for side in self._sides(states)}

    def refresh(self, states: Mapping, members: list[int]) -> dict[str, paddle.Tensor]:
        """Turn the bases towards the statistics; return the order of the old columns by side."""
        orders = {}
        for side, bases in self.bases(states, members).items():
            found, orders[side] = _roots.refreshed(stacked(states[side], members), bases)
            self._set(states, members, side, found)
        return orders

    def _sides(self, states: Mapping) -> list[str]:
        return [side for side in SIDES if side in states]

    def _set(self, states: Mapping, members: list[int], side: str, bases: paddle.Tensor) -> None:
        tensors = [states[f"{side}_basis"][index] for index in members]
        for tensor, part in zip(tensors, parted(bases, tensors)):
            paddle.assign(part, output=tensor)


def into(stack: paddle.Tensor, bases: Mapping[str, paddle.Tensor]) -> paddle.Tensor:
    r"""Coordinates :math:`Q_L^\top X Q_R` of matrices [n, rows, columns]."""
    if "left" in bases:
        stack = paddle.matmul(bases["left"], stack, transpose_x=True)
    return paddle.matmul(stack, bases["right"]) if "right" in bases else stack


def back(stack: paddle.Tensor, bases: Mapping[str, paddle.Tensor]) -> paddle.Tensor:
    r"""Matrices :math:`Q_L Y Q_R^\top` of coordinates [n, rows, columns]."""
    if "left" in bases:
        stack = paddle.matmul(bases["left"], stack)
    if "right" in bases:
        stack = paddle.matmul(stack, bases["right"], transpose_y=True)
    return stack


def reordered(stack: paddle.Tensor, orders: Mapping[str, paddle.Tensor]) -> paddle.Tensor:
    """Coordinates in the order that ``refresh`` gave the columns of the bases."""
    if "left" in orders:
        stack = paddle.take_along_axis(stack, orders["left"].unsqueeze(-1), axis=-2)
    if "right" in orders:
        stack = paddle.take_along_axis(stack, orders["right"].unsqueeze(-2), axis=-1)
    return stack
