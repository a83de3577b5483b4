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
            layer.set_mask(_mask(layer, order[: kept_count(self.density, size)]))

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


class GradualPruning(MaskScheduler):
    r"""From dense to sparse: the smallest weights go, by a cubic schedule.

    .. math:: s_t = s_T + (s_0 - s_T) (1 - (t - t_0) / (t_1 - t_0))^3

    of sparsity from :math:`s_0 = 0` at ``begin`` to :math:`s_T` = 1 - ``density`` at ``end``.

    Args:
        begin: share of the steps before the first change, below ``end``.

    Source: Zhu & Gupta, 1710.01878.
    """

    def __init__(self, layers, *, begin: float = 0.1, **options):
        self.begin = _checks.fraction("begin", begin)
        super().__init__(layers, **options)
        if self.begin >= self.end:
            raise ValueError(f"begin must be below end = {self.end:g}, got {self.begin:g}.")

    def start(self) -> None:
        for layer in self.layers:
            layer.set_mask(np.ones(layer.mask.shape, dtype=bool))

    def updates_now(self) -> bool:
        last = int(self.end * self.total_steps)
        first = int(self.begin * self.total_steps)
        return first <= self.done <= last and (
            (self.done - first) % self.every == 0 or self.done == last
        )

    def target(self) -> float:
        """Density that the schedule wants at the step at hand."""
        first, last = int(self.begin * self.total_steps), int(self.end * self.total_steps)
        left = 1 - min(max((self.done - first) / max(last - first, 1), 0.0), 1.0)
        return 1 - (1 - self.density) * (1 - left**3)

    def update(self, index: int, layer: MaskedLinear) -> None:
        mask = layer.mask.numpy().reshape(-1)
        count = min(kept_count(self.target(), mask.size), int(mask.sum()))
        sizes = block_means(layer.weight, layer.block)
        sizes[~mask] = -np.inf  # what is gone stays so
        layer.set_mask(_mask(layer, np.argsort(-sizes, kind="stable")[:count]))


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
            square = float(paddle.sum(paddle.square(soft)).item())
            product = float(paddle.sum(weight * soft).item())
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
            shares.append(float((weight != 0).astype("float32").mean().item()))
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


class DenseTail:
    """Another scheduler's training, made dense for the last steps.

    Everything that was dropped comes back as zeros and is trained.

    Args:
        scheduler: what to do before.
        share: of the total steps that are dense, in (0, 1).

    Source: the dense last part of sparse pretraining, 2602.06183.
    """

    def __init__(self, scheduler: MaskScheduler, *, share: float = 0.1):
        if not isinstance(scheduler, MaskScheduler):
            raise ValueError(f"scheduler must be a mask scheduler, got {_checks.shown(scheduler)}.")
        self.share = _checks.real("share", share, 0.0, 1.0, open_low=True, open_high=True)
        self.scheduler = scheduler

    @property
    def layers(self) -> list[MaskedLinear]:
        return self.scheduler.layers

    @property
    def done(self) -> int:
        return self.scheduler.done

    @property
    def is_dense(self) -> bool:
        """Whether the tail has begun."""
        return self.done >= (1 - self.share) * self.scheduler.total_steps

    def densities(self) -> list[float]:
        """Share that each layer keeps now."""
        return self.scheduler.densities()

    def step(self) -> None:
        """After ``backward`` and before the optimiser's step."""
        if self.is_dense:
            self.scheduler.done += 1
            return
        self.scheduler.step()
        if self.is_dense:
            self._open()

    def _open(self) -> None:
        if isinstance(self.scheduler, SSTE):
            self.scheduler.finish()
        for layer in self.layers:
            layer.dense_gradient = False
            layer.set_mask(np.ones(layer.mask.shape, dtype=bool))

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict()``; load the model's state as well."""
        self.scheduler.set_state_dict(state)
        if self.is_dense:
            for layer in self.layers:
                layer.dense_gradient, layer.projection = False, None


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


def _mask(layer: MaskedLinear, kept: np.ndarray) -> np.ndarray:
    mask = np.zeros(layer.mask.size, dtype=bool)
    mask[kept] = True
    return mask.reshape(layer.mask.shape)
