"""Two of four by a soft projection of a dense weight."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from .. import _checks
from .scheduler import MaskScheduler


class SSTE(MaskScheduler):
    r"""Continuous 2:4 training: products use a soft projection of a dense weight.

    In every column each group of four rows :math:`w` is projected to

    .. math:: S(w) = \beta \, \mathrm{sign}(w) \max(|w| - t, 0)

    with :math:`t` the third largest magnitude, so that two are left, and no jump where two change
    places. :math:`\beta` is the least-squares scale of each layer at the start, and stays. The
    gradient passes straight through. ``finish()`` puts the projection in the weight's place.

    Layers have no blocks, and ``density`` is 1/2.

    Source: Hu et al. (S-STE), 2409.09099.
    """

    def __init__(self, layers, *, total_steps: int, density: float = 0.5, **options):
        if density != 0.5:
            raise ValueError(f"density must be 0.5, two of four, got {_checks.shown(density)}.")
        super().__init__(layers, density=density, total_steps=total_steps, **options)

    def start(self) -> None:
        self.scales: list[float] = []
        for layer in self.layers:
            if layer.block != (1, 1) or layer.weight.shape[0] % 4:
                raise ValueError(
                    f"layers must have no blocks and a multiple of 4 inputs for 2:4, got {layer}."
                )
        for layer in self.layers:
            layer.set_mask(np.ones(layer.mask.shape, dtype=bool))
            weight = layer.weight.detach()
            soft = soft_two_of_four(weight)
            square = paddle.sum(paddle.square(soft)).numpy().item()
            product = paddle.sum(weight * soft).numpy().item()
            self.scales.append(product / square if square > 0 else 1.0)
        self._project()

    def _project(self) -> None:
        for layer, scale in zip(self.layers, self.scales):
            layer.projection = _Projection(scale)

    def updates_now(self) -> bool:
        return False

    def densities(self) -> list[float]:
        shares = []
        for layer in self.layers:
            weight = layer.weight if layer.projection is None else layer.projection(layer.weight)
            shares.append(float((weight.numpy() != 0).mean()))
        return shares

    @paddle.no_grad()
    def finish(self) -> None:
        """Make the projection the weight, and its two of four the mask."""
        for layer in self.layers:
            if layer.projection is None:
                continue
            projected = layer.projection(layer.weight)
            layer.projection = None
            layer.weight.set_value(projected)
            layer.set_mask(projected.numpy() != 0)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"scales": list(self.scales)}

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        super().set_state_dict(state)
        if len(state.get("scales", ())) != len(self.layers):
            raise ValueError(
                f'state["scales"] must have one number for each of {len(self.layers)} layers, got '
                f"{_checks.shown(state.get('scales'))}."
            )
        self.scales = [float(scale) for scale in state["scales"]]
        self._project()


class _Projection:
    """``soft_two_of_four`` times a scale, with the gradient straight through."""

    def __init__(self, scale: float):
        self.scale = scale

    def __call__(self, weight: paddle.Tensor) -> paddle.Tensor:
        soft = soft_two_of_four(weight.detach()) * self.scale
        return weight + (soft - weight).detach()


def soft_two_of_four(weight: paddle.Tensor) -> paddle.Tensor:
    """Each group of four rows of every column less its third largest magnitude, towards zero."""
    rows, columns = weight.shape
    groups = paddle.abs(weight).reshape([rows // 4, 4, columns])
    third = paddle.sort(groups, axis=1)[:, 1:2]
    soft = paddle.nn.functional.relu(groups - third).reshape([rows, columns])
    return paddle.sign(weight) * soft
