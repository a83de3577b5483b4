r"""What rounding a product of one layer does to the loss and to the gradients, from a short probe.

Two numbers for each layer, product and format (theory: ``docs/topics/1.2.md``):

- **loss increase**, of forward products. An error :math:`E` of the output :math:`Y` whose gradient is
  :math:`G = \partial L/\partial Y` raises the loss, in expectation over errors of random sign, by the
  second-order term with the empirical Fisher matrix of each token for the Hessian:
  :math:`\Delta L \approx \tfrac{N}{2} \sum_i (G_i \cdot E_i)^2`, rows :math:`i` of :math:`N` tokens.
- **gradient error**, of all products: :math:`\|\delta g\|^2 / \|g\|^2` of each parameter, in the mean
  over parameters weighted by their size. It acts like a smaller batch: to first order it is the share
  of further steps that training needs. Errors of different products add up, being independent.

Forward and input-gradient products act on the gradients of many parameters: for each of them one
forward and backward pass is run with the coarsest format, and other formats are scaled from it by the
squared error of the product itself. Idea of both divergences: SNIP (ASPLOS 2026); the
expressions here are our own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from .apply import only
from .formats import FORMATS, ROLES, format_named
from .linear import column_sums, linears
from .products import product
from .timing import Shape

Loss = Callable[[nn.Layer, Any], paddle.Tensor]


@dataclass(frozen=True, slots=True)
class Effect:
    """What one product in one format does."""

    loss_increase: float  #: nats or whatever the loss is in
    gradient_error: float  #: squared error over square
    product_error: float  #: of the product's own result, squared error over square


@dataclass(slots=True, kw_only=True)
class Sensitivity:
    """Effects by layer, role and format, and what the probe saw besides."""

    loss: float
    shapes: dict[str, Shape]
    effects: dict[tuple[str, str, str], Effect]

    def of(self, layer: str, role: str, number_format: str) -> Effect:
        return self.effects[layer, role, number_format]


class _Watched(PyLayer):
    """An exact linear layer that measures the errors of its products on the way."""

    @staticmethod
    def forward(ctx: Any, x, weight, bias, watch: "_Watch"):
        rows = x.reshape([-1, x.shape[-1]])
        out = paddle.matmul(rows, weight)
        ctx.save_for_backward(x, weight)
        ctx.watch, ctx.bias = watch, bias
        out = out if bias is None else out + bias
        return out.reshape([*x.shape[:-1], weight.shape[1]])

    @staticmethod
    def backward(ctx: Any, gradient):
        x, weight = ctx.saved_tensor()
        rows = x.reshape([-1, x.shape[-1]])
        g = gradient.reshape([-1, gradient.shape[-1]])
        dx, dw = ctx.watch.see(rows, weight, g)
        grads = [
            None if x.stop_gradient else dx.reshape(x.shape),
            None if weight.stop_gradient else dw,
        ]
        if ctx.bias is not None:
            grads.append(None if ctx.bias.stop_gradient else column_sums(g))
        return tuple(grads)


class _Watch:
    """Errors of one layer's products, summed over its calls in a pass."""

    def __init__(self, formats: Iterable[str]):
        self.formats = tuple(formats)
        self.shape: Shape | None = None
        self.squares = dict.fromkeys(ROLES, 0.0)
        self.errors = {(role, name): 0.0 for role in ROLES for name in self.formats}
        self.loss_increase = dict.fromkeys(self.formats, 0.0)

    def see(self, x, weight, g):
        tokens = x.shape[0]
        self.shape = Shape(tokens=tokens, inputs=x.shape[1], outputs=weight.shape[1])
        exact = {}
        for role, (a, b) in zip(ROLES, ((x, weight), (g, weight), (x, g))):
            exact[role] = product(a, b, role, FORMATS["fp32"])
            self.squares[role] += _square(exact[role])
            for name in self.formats:
                error = product(a, b, role, FORMATS[name]) - exact[role]
                self.errors[role, name] += _square(error)
                if role == "forward":
                    per_token = (error * g).sum(axis=1)
                    self.loss_increase[name] += 0.5 * tokens * _square(per_token)
        return exact["input_grad"], exact["weight_grad"]

    def product_error(self, role: str, name: str) -> float:
        return self.errors[role, name] / self.squares[role] if self.squares[role] else 0.0


def probe(
    model: nn.Layer,
    batch: Any,
    loss: Loss,
    formats: Iterable[str],
    *,
    on_pass: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Measure the effect of every product of every linear layer in every format on one batch.

    Two passes for each linear layer and one more; gradients that the parameters hold are kept, and
    the state of Paddle's random generator, dropout included, is the same in each pass.

    Args:
        model: on the CPU or a GPU; its linear layers are those of ``linears``.
        batch: whatever ``loss`` takes.
        loss: ``loss(model, batch)``, a scalar, the mean over tokens or examples.
        formats: names of ``FORMATS`` besides ``fp32``.
        on_pass: is told how many passes of how many are done.

    Raises:
        ValueError: the model has no linear layer, the loss is not a finite scalar, or a linear layer
            is not used by it.
    """
    names = [name for name in dict.fromkeys(formats) if name != "fp32"]
    for name in names:
        format_named(name, "formats:")
    if not names:
        raise ValueError("formats must name one besides fp32.")
    layers = dict(linears(model))
    if not layers:
        raise ValueError("model has no paddle.nn.Linear: there is nothing to plan.")
    total = 1 + 2 * len(layers)
    with Passes(model, batch, loss) as passes:
        watches = {name: _Watch(names) for name in layers}
        for name, layer in layers.items():
            vars(layer)["forward"] = _watching(layer, watches[name])
        try:
            value, reference = passes.run()
        finally:
            for layer in layers.values():
                del vars(layer)["forward"]
        on_pass(1, total)
        unused = [name for name, watch in watches.items() if watch.shape is None]
        if unused:
            raise ValueError(
                f"layer {unused[0]} of the model got no gradient from the loss: leave it out of the"
                " model or use it in the loss."
            )
        coarsest = {
            (name, role): max(names, key=lambda f: watches[name].errors[role, f])
            for name in layers
            for role in ROLES
        }
        spread: dict[tuple[str, str], float] = {}
        done = 1
        for name in layers:
            for role in ("forward", "input_grad"):
                with only(model, name, role, coarsest[name, role]):
                    _, changed = passes.run()
                spread[name, role] = _gradient_error(reference, changed)
                done += 1
                on_pass(done, total)
    matrices = sum(one.size for one in reference if one is not None and one.ndim >= 2)
    effects = {}
    for name, watch in watches.items():
        for role in ROLES:
            most = watch.product_error(role, coarsest[name, role])
            for number_format in names:
                error = watch.product_error(role, number_format)
                if role == "weight_grad":
                    gradient_error = error * layers[name].weight.size / matrices
                else:
                    gradient_error = spread[name, role] * error / most if most else 0.0
                increase = watch.loss_increase[number_format] if role == "forward" else 0.0
                effects[name, role, number_format] = Effect(increase, gradient_error, error)
    shapes = {name: watch.shape for name, watch in watches.items() if watch.shape is not None}
    return Sensitivity(loss=value, shapes=shapes, effects=effects)


class Passes:
    """Passes over the same batch from the same random state; leaves the model as it was."""

    def __init__(self, model: nn.Layer, batch: Any, loss: Loss):
        self.model, self.batch, self.loss = model, batch, loss
        self.parameters = [p for p in model.parameters() if not p.stop_gradient]

    def __enter__(self) -> "Passes":
        self.random_state = paddle.get_rng_state()
        self.kept = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        self.buffers = [(b, b.clone()) for b in self.model.buffers()]
        return self

    def __exit__(self, *_) -> None:
        for parameter, gradient in zip(self.parameters, self.kept):
            parameter.clear_gradient(False)
            if gradient is not None:
                parameter.grad = gradient
        self._restore()

    def _restore(self) -> None:
        paddle.set_rng_state(self.random_state)
        for buffer, value in self.buffers:
            paddle.assign(value, buffer)

    def run(self) -> tuple[float, list[paddle.Tensor | None]]:
        """Loss, and the gradient of each parameter."""
        self._restore()
        for parameter in self.parameters:
            parameter.clear_gradient(False)
        value = self.loss(self.model, self.batch)
        if value.size != 1:
            raise ValueError(f"loss must return a scalar, got shape {value.shape}.")
        value.backward()
        number = float(value)
        if not abs(number) < float("inf"):
            raise ValueError(
                f"loss of the probe's batch is {number}; give a batch it can learn from."
            )
        return number, [None if p.grad is None else p.grad.clone() for p in self.parameters]


def _watching(layer: nn.Linear, watch: _Watch) -> Callable[[paddle.Tensor], paddle.Tensor]:
    return lambda x: _Watched.apply(x, layer.weight, layer.bias, watch)


def _gradient_error(reference: list, changed: list) -> float:
    """Squared error over square, in the mean over matrices weighted by their sizes."""
    total, size = 0.0, 0
    for exact, other in zip(reference, changed):
        if exact is None or exact.ndim < 2:
            continue
        square = _square(exact)
        if square:
            total += exact.size * _square(other - exact) / square
        size += exact.size
    return total / size if size else 0.0


def _square(x: paddle.Tensor) -> float:
    return float(paddle.square(x).sum())
