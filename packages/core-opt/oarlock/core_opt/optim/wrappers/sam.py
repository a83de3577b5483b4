"""Sharpness-aware minimisation: the gradient at the worst point nearby."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import paddle
from paddle.amp.auto_cast import AMP_LEVEL
from paddle.base import framework

from .. import _checks, _gradients
from .._base import Optimizer, forget_overflow
from ._wrapper import Wrapper, chain, copy


class SAM(Wrapper):
    r"""SAM, or ASAM, around any optimiser; a step needs two gradients of the same batch.

    With the gradient :math:`g` at the weights :math:`w` (norms over all parameters),

    .. math::
        \hat\epsilon = \rho\, \frac{g}{\lVert g \rVert}, \qquad
        \text{or, adaptive,}\quad
        \hat\epsilon = \rho\, \frac{T^2 g}{\lVert T g \rVert}, \; T = |w| + \eta

    the optimiser steps from :math:`w` with the gradient at :math:`w + \hat\epsilon`. The weights
    come back bit for bit before it does. The ascent takes gradients as they are, before clipping.

    Three ways to use it::

        loss(model(x), y).backward()      # in a loop of your own
        sam.first_step(); sam.clear_grad()
        loss(model(x), y).backward()
        sam.second_step(); sam.clear_grad()

        sam.step(closure)                 # closure: forward, backward, return the loss

        loss = sam.remember(network, loss)  # in a trainer, which calls step() or minimize()

    Args:
        optimizer: the optimiser that steps, of this package or Paddle's.
        rho: radius, a number > 0.
        adaptive: ASAM, whose radius is relative to the weights; its authors use a ``rho`` ten
            times as large.
        eta: added to the weights' size in ASAM, a number >= 0; 0.01 as its authors' code.

    A bfloat16 or float16 parameter takes the perturbation as far as its precision goes. Layers
    with running statistics update them in both passes.

    Source: Foret et al., 2010.01412; Kwon et al. (ASAM), 2102.11600.
    """

    own: ClassVar[frozenset[str]] = Wrapper.own | {
        "rho",
        "adaptive",
        "eta",
        "_before",
        "_remembered",
    }
    outermost: ClassVar[bool] = True

    def __init__(
        self,
        optimizer: paddle.optimizer.Optimizer,
        rho: float = 0.05,
        *,
        adaptive: bool = False,
        eta: float = 0.01,
    ):
        self.rho = _checks.real("rho", rho, 0.0, math.inf, open_low=True, open_high=True)
        self.adaptive = _checks.flag("adaptive", adaptive)
        self.eta = _checks.non_negative("eta", eta)
        super().__init__(optimizer)
        self._before: list[tuple] | None = None
        self._remembered: _Remembered | None = None

    # Two gradients ------------------------------------------------------------------------------

    @paddle.no_grad()
    def first_step(self) -> None:
        """Go from the weights to the worst point nearby; ``second_step`` comes back.

        Raises:
            NonFiniteGradient: a gradient holds NaN or Inf; nothing has changed. An optimiser built
                with another ``nonfinite`` than ``"raise"`` stays at the weights instead.
            ValueError: the weights are at such a point already.
        """
        if self._before is not None:
            raise ValueError("first_step() was called twice; call second_step() in between.")
        pairs = _gradients.gather(self.members())
        square = _gradients.squared_norm([grad for _, grad in pairs], None)
        if not math.isfinite(square):
            if getattr(chain(self)[-1], "_nonfinite", "raise") == "raise":
                raise _gradients.refuse_non_finite([_gradients.Cluster(None, pairs)], None)
            pairs = []
        if self.adaptive:
            sizes = [copy(parameter).abs_() for parameter, _ in pairs]
            for size in sizes:
                size.add_(paddle.full([], self.eta, dtype=size.dtype))
            scaled = [size * grad.astype(size.dtype) for size, (_, grad) in zip(sizes, pairs)]
            square = _gradients.squared_norm(scaled, None)
            directions = [size * grad for size, grad in zip(sizes, scaled)]
        else:
            directions = [copy(grad) for _, grad in pairs]
        scale = self.rho / math.sqrt(square) if square else 0.0
        self._before = [(parameter, parameter.detach().clone()) for parameter, _ in pairs]
        for (parameter, before), direction in zip(self._before, directions):
            moved = before.astype(direction.dtype) + direction * scale
            paddle.assign(moved.astype(parameter.dtype), output=parameter)

    @paddle.no_grad()
    def second_step(self) -> None:
        """Come back to the weights and let the optimiser step with the gradient found there.

        Raises:
            NonFiniteGradient: that gradient holds NaN or Inf; the weights are what they were.
            ValueError: there was no ``first_step()``.
        """
        self._finish(self.optimizer.step)

    def _finish(self, take, *arguments):
        self.restore()
        inside = chain(self)[-1]
        if not isinstance(inside, Optimizer):  # Paddle's do not look
            pairs = _gradients.gather(self.members())
            if not math.isfinite(_gradients.squared_norm([grad for _, grad in pairs], None)):
                raise _gradients.refuse_non_finite([_gradients.Cluster(None, pairs)], None)
        return take(*arguments)

    @paddle.no_grad()
    def restore(self) -> None:
        """Come back to the weights without a step, after an error in the second pass."""
        if self._before is None:
            raise ValueError(
                "second_step() needs first_step() before it: the gradient of the loss at the "
                "weights, first_step(), clear_grad(), the gradient there, second_step()."
            )
        for parameter, before in self._before:
            paddle.assign(before, output=parameter)
        self._before = None

    # One call -----------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None):
        """Take a whole step.

        Args:
            closure: computes the loss of one batch, calls ``backward()`` on it and returns it;
                called twice, with cleared gradients. None in a trainer, where ``remember`` has seen
                the batch and the gradients at the weights are there.

        Returns:
            What the closure's first call returns.

        Raises:
            ValueError: no closure, and nothing remembered.
        """
        if closure is None:
            forget_overflow(self.optimizer)
            return self._trainer_step(self.optimizer.step)
        if not callable(closure):
            raise ValueError(f"closure must be a function, got {_checks.shown(closure)}.")
        self.clear_grad()
        with paddle.enable_grad():
            loss = closure()
        self._second_half(closure, self.optimizer.step)
        return loss

    def step_inside(self, take, *arguments, last: bool = True):
        return self._trainer_step(take, *arguments)

    def _apply_optimize(self, loss, startup_program, params_grads, param_group_idx=0):
        raise ValueError(
            "SAM cannot step with gradients that another wrapper has prepared, since it takes a "
            "second gradient; put SAM outside of it, or use it without."
        )

    def remember(self, network: paddle.nn.Layer, loss: Callable, *, accumulation_steps: int = 1):
        """Watch the batches of a trainer, so that its ``step()`` can compute their loss again.

        Hand the returned loss to ``paddle.Model.prepare`` or as a trainer's criterion. It keeps
        inputs and labels of the batches since the last step while ``network`` is in training mode,
        and runs them again under the bfloat16 ``auto_cast`` that they ran under. Gradients of
        float16 need a loss scale, which is not known here: under a float16 ``auto_cast`` the second
        pass is float32, and float16 parameters are refused.

        Args:
            network: the layer that the trainer calls on its inputs.
            loss: called as ``loss(outputs, labels)``, returns a scalar.
            accumulation_steps: number by which the trainer divides the loss of each micro-batch.

        Returns:
            A function that computes the same loss.
        """
        if not isinstance(network, paddle.nn.Layer):
            raise ValueError(f"network must be a paddle.nn.Layer, got {_checks.shown(network)}.")
        if not callable(loss):
            raise ValueError(f"loss must be a function or layer, got {_checks.shown(loss)}.")
        steps = _checks.whole("accumulation_steps", accumulation_steps, 1)
        if self._remembered is not None:
            self._remembered.hook.remove()
        self._remembered = _Remembered(network, loss, steps)
        return self._remembered.record

    def _trainer_step(self, take, *arguments):
        try:
            if self.overflow():  # the optimiser inside leaves this step out
                return take(*arguments)
            if self._remembered is None or not self._remembered.batches:
                raise ValueError(
                    "SAM needs the gradient of the same batch twice: pass a closure, "
                    "sam.step(closure), call first_step() and second_step(), or let it watch the "
                    "trainer's batches with loss = sam.remember(network, loss)."
                )
            return self._second_half(self._remembered.closure, take, *arguments)
        finally:  # after an error too: the next step has batches of its own
            if self._remembered is not None:
                self._remembered.batches.clear()

    def _second_half(self, closure, take, *arguments):
        self.first_step()
        try:
            self.clear_grad()
            with paddle.enable_grad():
                closure()
        except BaseException:
            self.restore()
            raise
        return self._finish(take, *arguments)


class _Remembered:
    """Batches of a trainer since the last step."""

    def __init__(self, network, loss, accumulation_steps: int):
        self.network, self.loss, self.accumulation_steps = network, loss, accumulation_steps
        self.batches: list[tuple] = []
        self.inputs: tuple | None = None
        self.hook = network.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, layer, inputs, named):
        self.inputs = (inputs, named, _casting())

    def record(self, outputs, *labels):
        if self.network.training and self.inputs is not None:
            self._refuse_float16()
            self.batches.append((*self.inputs, labels, _casting()))
        self.inputs = None
        return self.loss(outputs, *labels)

    def closure(self):
        for inputs, named, casting, labels, casting_of_loss in list(self.batches):
            with paddle.amp.auto_cast(**casting):
                outputs = self.network(*inputs, **named)
            with paddle.amp.auto_cast(**casting_of_loss):
                loss = self.loss(outputs, *labels)
            (loss / self.accumulation_steps).backward()
        self.inputs = None

    def _refuse_float16(self) -> None:
        for parameter in self.network.parameters():
            if parameter.dtype == paddle.float16 and not parameter.stop_gradient:
                raise ValueError(
                    f"network must not be float16, as its parameter {parameter.name!r} is: SAM "
                    "takes the second gradient without the trainer's loss scale, and float16 "
                    "gradients underflow. Use bfloat16, or a loop of your own that scales both "
                    "losses, with first_step() and second_step()."
                )


def _casting() -> dict:
    """The mixed precision that is on now, as arguments of ``paddle.amp.auto_cast``.

    Float16 counts as none: its gradients need a loss scale, which the second pass does not have.
    """
    tracer = framework._dygraph_tracer()
    if tracer._amp_level == AMP_LEVEL.O0 or tracer._amp_dtype == "float16":
        return {"enable": False}
    white, black = tracer._get_amp_op_list()
    return {
        "custom_white_list": white,
        "custom_black_list": black,
        "level": tracer._amp_level.name,
        "dtype": tracer._amp_dtype,
        "use_promote": tracer._use_promote,
    }
