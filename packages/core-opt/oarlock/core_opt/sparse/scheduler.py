"""Which weights to keep while training: one interface for all mask schedulers.

scheduler = RigL(model, density=0.25, total_steps=1000)
for batch in data:
    loss(batch).backward()
    scheduler.step()  # before the optimiser's step: it may change masks, weights and gradients
    optimizer.step()
    optimizer.clear_grad()
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import paddle
from paddle import nn

from .. import _checks
from .layers import MaskedLinear


class MaskScheduler:
    """Base: keeps a share ``density`` of the weights of each ``MaskedLinear``, chosen at random.

    By itself it is static sparse training. A subclass changes masks in ``update``, which is called
    at every ``every``-th step.

    Args:
        layers: a model, of which every ``MaskedLinear`` is taken, or such layers.
        density: share of the weights (of the blocks, where a layer has blocks) to keep, in (0, 1].
        total_steps: steps of the training.
        every: steps between changes.
        end: share of the steps after which masks stay.
        seed: of the random choices.

    Raises:
        ValueError: an argument is not as above.
    """

    #: whether ``update`` looks at the gradients of what is not kept
    dense_gradient: ClassVar[bool] = False

    def __init__(
        self,
        layers: nn.Layer | Iterable[MaskedLinear],
        *,
        density: float,
        total_steps: int,
        every: int = 100,
        end: float = 0.75,
        seed: int = 0,
    ):
        self.layers = masked_layers(layers)
        self.density = _checks.real("density", density, 0.0, 1.0, open_low=True)
        self.total_steps = _checks.whole("total_steps", total_steps, 1)
        self.every = _checks.whole("every", every, 1)
        self.end = _checks.real("end", end, 0.0, 1.0)
        self.seed = _checks.whole("seed", seed, 0)
        self.done = 0  # steps
        self.start()
        self._prepare()

    def start(self) -> None:
        """Set the first masks."""
        for index, layer in enumerate(self.layers):
            size = layer.mask.size
            order = self._rng(index).permutation(size)
            layer.set_mask(mask_of(layer, order[: kept_count(self.density, size)]))

    def update(self, index: int, layer: MaskedLinear) -> None:
        """Change the mask of a layer; ``layer.weight.grad`` is that of this step."""

    @paddle.no_grad()
    def step(self) -> None:
        """After ``backward`` and before the optimiser's step."""
        if self.updates_now():
            for index, layer in enumerate(self.layers):
                self.update(index, layer)
                if layer.weight.grad is not None:
                    mask = layer.element_mask().astype(layer.weight.dtype)
                    layer.weight.grad.multiply_(mask)
        self.done += 1
        self._prepare()

    def updates_now(self) -> bool:
        """Whether the step at hand changes masks."""
        return 0 < self.done < self.end * self.total_steps and self.done % self.every == 0

    def densities(self) -> list[float]:
        """Share that each layer keeps now."""
        return [layer.density for layer in self.layers]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands; masks are buffers of the model's own state."""
        return {"done": self.done}

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict()``; load the model's state as well."""
        if not isinstance(state, Mapping) or "done" not in state:
            raise ValueError(
                f"state must be a scheduler's state_dict(), got {_checks.shown(state)}."
            )
        self.done = _checks.whole('state["done"]', state["done"], 0)
        self._prepare()

    def _prepare(self) -> None:
        """Ask for dense gradients in the pass that comes, if they will be looked at."""
        for layer in self.layers:
            layer.dense_gradient = self.dense_gradient and self.updates_now()

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.done, index])

    def _fraction(self, initial: float) -> float:
        """Half a cosine from ``initial`` to 0 at the last change."""
        progress = self.done / max(self.end * self.total_steps, 1)
        return initial / 2 * (1 + math.cos(math.pi * min(progress, 1.0)))


def block_means(tensor: paddle.Tensor, block: tuple[int, int]) -> np.ndarray:
    """Mean magnitude of each block, as a vector."""
    (rows, columns), (k, n) = tensor.shape, block
    sizes = np.abs(tensor.astype("float32").numpy()).reshape(rows // k, k, columns // n, n)
    return sizes.mean((1, 3), dtype=np.float64).reshape(-1)


def kept_count(density: float, size: int) -> int:
    """How many of ``size`` to keep; one at least."""
    return max(1, int(round(density * size)))


def masked_layers(layers: nn.Layer | Iterable[MaskedLinear]) -> list[MaskedLinear]:
    """The masked layers of a model, or those given."""
    if isinstance(layers, nn.Layer):
        found = [
            one for one in layers.sublayers(include_self=True) if isinstance(one, MaskedLinear)
        ]
    else:
        found = list(layers)
    if not found or not all(isinstance(one, MaskedLinear) for one in found):
        raise ValueError(
            "layers must be a model with MaskedLinear layers, or a list of them; "
            "sparse.replace_linear(model) puts them in place of Linear."
        )
    return found


def mask_of(layer: MaskedLinear, kept: np.ndarray) -> np.ndarray:
    mask = np.zeros(layer.mask.size, dtype=bool)
    mask[kept] = True
    return mask.reshape(layer.mask.shape)
