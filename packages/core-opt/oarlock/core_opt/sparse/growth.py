"""Masks that move while training: weights are dropped and others grown, SET and RigL."""

import numpy as np

from .. import _checks
from .layers import MaskedLinear
from .scheduler import MaskScheduler, block_means


class SET(MaskScheduler):
    r"""Drop the smallest weights and grow as many others at random.

    At a change the share :math:`\tfrac{\zeta}{2}(1 + \cos \pi t / T)` of what is kept goes. With
    blocks, a block's size is the mean magnitude of its weights.

    Args:
        drop: :math:`\zeta`, the share at first, in [0, 1).

    Source: Mocanu et al., 1707.04780; the decay of the share is that of RigL.
    """

    def __init__(self, layers, *, drop: float = 0.3, **options):
        self.drop = _checks.fraction("drop", drop)
        super().__init__(layers, **options)

    def update(self, index: int, layer: MaskedLinear) -> None:
        mask = layer.mask.numpy().reshape(-1)
        kept = np.flatnonzero(mask)
        free = layer.mask.size - len(kept)
        count = min(int(round(self._fraction(self.drop) * len(kept))), free)
        if count == 0:
            return
        sizes = block_means(layer.weight, layer.block)[kept]
        dropped = kept[np.argsort(sizes, kind="stable")[:count]]
        growth = self.growth(index, layer)
        growth[mask] = -np.inf  # what was there until now does not grow: neither kept nor dropped
        grown = np.argsort(-growth, kind="stable")[:count]
        mask = mask.copy()
        mask[dropped], mask[grown] = False, True
        layer.set_mask(mask.reshape(layer.mask.shape))

    def growth(self, index: int, layer: MaskedLinear) -> np.ndarray:
        """How much each block deserves to grow."""
        return self._rng(index).random(layer.mask.size)


class RigL(SET):
    r"""Drop the smallest weights and grow those whose gradients are largest.

    The gradients of all weights are computed at the steps that change masks, by a dense product.

    Source: Evci et al., 1911.11134.
    """

    dense_gradient = True

    def growth(self, index: int, layer: MaskedLinear) -> np.ndarray:
        grad = layer.weight.grad
        if grad is None or not grad.any().item():
            raise ValueError(
                f"layer {index} has no gradient, or none but zeros; call step() after backward() "
                "and before clear_grad()."
            )
        return block_means(grad, layer.block)
