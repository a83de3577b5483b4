"""The gradient noise scale, and the batch size that it recommends."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping

import paddle

from . import _checks, _gradients

LARGEST_SHARE = 0.5  # of one update in the averages, for an interval


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A batch size with its price; ``print`` gives the reasoning.

    Args:
        batch: recommended batch, in the examples that the meter was given.
        noise_scale: the estimate that it rests on.
        interval: interval of the noise scale at ``confidence``; the upper end may be infinite.
        confidence: confidence level of the interval.
        extra_steps: steps to the same loss over the fewest possible, minus 1.
        extra_examples: examples to the same loss over the fewest possible, minus 1.
    """

    batch: int
    noise_scale: float
    interval: tuple[float, float]
    confidence: float
    extra_steps: float
    extra_examples: float

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"batch {self.batch:,}: the noise scale is {self.noise_scale:,.4g} "
            f"({self.confidence:.0%} interval {low:,.4g} to {high:,.4g}), so this batch is expected "
            f"to take {self.extra_steps:.0%} more steps than a huge one and {self.extra_examples:.0%} "
            "more examples than a tiny one: (S / S_min - 1) (E / E_min - 1) = 1."
        )


class GradientNoiseScale:
    r"""Meter of the simple noise scale :math:`B = \mathrm{tr}(\Sigma) / |G|^2`.

    From the squared norms of a gradient over :math:`b` and over :math:`B` examples,

    .. math::
        |G|^2 \approx \frac{B |G_B|^2 - b |G_b|^2}{B - b}, \qquad
        \mathrm{tr}(\Sigma) \approx \frac{|G_b|^2 - |G_B|^2}{1/b - 1/B}

    are free of bias; both are averaged over the steps before they are divided. Batches much smaller
    than the noise scale waste no examples, batches much larger save no steps. It foretells the
    critical batch of SGD; that of optimisers with a preconditioner is of its order at best. Muon's
    is about as large where one direction dominates the gradient, and 2 to 15 times as large in the
    spread spectra that theory has looked at. It grows as the loss falls: measure again.

    With gradient accumulation, call ``micro`` after each ``backward()`` and ``step`` after the
    last; between data-parallel workers, pass the mean of the workers' own squared norms and that of
    the averaged gradient to ``update``.

    Args:
        decay: decay of the averages in [0, 1]; 1 weighs all updates alike.

    Source: McCandlish et al., 1812.06162, appendix A.1 and equations 2.11 and 2.12.
    """

    _squares: list[float]
    _before: dict[str, paddle.Tensor]
    _examples: int | None

    def __init__(self, decay: float = 0.99):
        self.decay = _checks.real("decay", decay, 0.0, 1.0)
        self.reset()

    def reset(self) -> None:
        """Forget everything measured."""
        self.updates = 0
        self._weight = self._weight_squares = 0.0  # sums of the weights and of their squares
        self._mean = [0.0, 0.0]  # tr(Sigma), |G|^2
        self._products = [0.0, 0.0, 0.0]  # means of their squares and of their product
        self._forget_micro()

    def state_dict(self) -> dict:
        """What was measured, as plain numbers; micro-batches of a step under way are not in it."""
        return {
            "updates": self.updates,
            "weight": self._weight,
            "weight_squares": self._weight_squares,
            "mean": list(self._mean),
            "products": list(self._products),
        }

    def set_state_dict(self, state: Mapping) -> None:
        """Go on from ``state_dict()``.

        Raises:
            ValueError: something is missing; the meter is left as it was.
        """
        missing = sorted(self.state_dict().keys() - state.keys())
        if missing:
            raise ValueError(f"the state of a noise meter must hold {', '.join(missing)}.")
        self.updates = _checks.whole("updates", state["updates"], 0)
        self._weight, self._weight_squares = state["weight"], state["weight_squares"]
        self._mean, self._products = list(state["mean"]), list(state["products"])
        self._forget_micro()

    # Measuring ----------------------------------------------------------------------------------

    def update(
        self, small_square: float, big_square: float, small_batch: float, big_batch: float
    ) -> None:
        """Take in one step.

        Args:
            small_square: squared norm of the gradient over ``small_batch`` examples, averaged over
                as many such gradients as there are.
            big_square: squared norm of the gradient over ``big_batch`` examples.
            small_batch, big_batch: numbers of examples (or tokens), small < big.
        """
        small, big = (
            _checks.non_negative("small_square", float(small_square)),
            _checks.non_negative("big_square", float(big_square)),
        )
        few = _checks.real("small_batch", small_batch, 0.0, math.inf, open_low=True, open_high=True)
        many = _checks.real("big_batch", big_batch, 0.0, math.inf, open_low=True, open_high=True)
        if few >= many:
            raise ValueError(f"small_batch must be less than big_batch ({many:g}), got {few:g}.")
        noise = (small - big) / (1 / few - 1 / many)
        signal = (many * big - few * small) / (many - few)
        self.updates += 1
        self._weight = self.decay * self._weight + 1
        self._weight_squares = self.decay**2 * self._weight_squares + 1
        for held, values in (
            (self._mean, (noise, signal)),
            (self._products, (noise * noise, signal * signal, noise * signal)),
        ):
            for index, value in enumerate(values):
                held[index] += (value - held[index]) / self._weight

    @paddle.no_grad()
    def micro(self, parameters: Iterable[paddle.Tensor], examples: int) -> None:
        """Note one micro-batch, after its ``backward()`` and before the next.

        Keeps a copy of the accumulated gradient until ``step``.

        Args:
            parameters: the parameters, as in the first call of this step.
            examples: examples (or tokens) in a micro-batch; all have the same number.
        """
        examples = _checks.whole("examples", examples, 1)
        if self._examples not in (None, examples):
            raise ValueError(
                f"examples must be {self._examples} as in the first micro-batch, got {examples}."
            )
        grads = {p.name: grad.astype("float32") for p, grad in _gradients.gather(list(parameters))}
        if not grads:
            raise ValueError("parameters have no gradients; call micro() after loss.backward().")
        change = [
            grad - self._before[name] if name in self._before else grad
            for name, grad in grads.items()
        ]
        self._squares.append(_gradients.squared_norm(change, None))
        # backward() adds to the gradient in place, so what is kept must be a copy
        self._before = {name: grad.clone() for name, grad in grads.items()}
        self._examples = examples

    @paddle.no_grad()
    def step(self, *, averaged: bool = True) -> None:
        """Take in the micro-batches noted since the last call, before the optimiser's step.

        Args:
            averaged: whether each loss was divided by the number of micro-batches; False where
                gradients were summed.
        """
        averaged = _checks.flag("averaged", averaged)
        count = len(self._squares)
        if count < 2:
            self._forget_micro()
            raise ValueError(
                f"the noise scale needs at least 2 micro-batches a step, got {count}; "
                "call micro(parameters, examples) after each backward()."
            )
        small = sum(self._squares) / count
        big = _gradients.squared_norm(list(self._before.values()), None)
        examples = self._examples
        self._forget_micro()
        assert examples is not None
        if averaged:
            small *= count**2
        else:
            big /= count**2
        self.update(small, big, examples, count * examples)

    def _forget_micro(self) -> None:
        self._squares = []
        self._before = {}
        self._examples = None

    # Reading ------------------------------------------------------------------------------------

    @property
    def noise(self) -> float:
        """Averaged estimate of tr(Sigma), the variance of one example's gradient."""
        self._need(1)
        return self._mean[0]

    @property
    def signal(self) -> float:
        """Averaged estimate of the squared norm of the true gradient; it may be negative."""
        self._need(1)
        return self._mean[1]

    @property
    def noise_scale(self) -> float:
        """Noise over signal, in examples; infinite where no signal is seen in the noise."""
        if self.signal <= 0:
            return math.inf
        return max(0.0, self.noise) / self.signal

    def interval(self, confidence: float = 0.9) -> tuple[float, float]:
        """Confidence interval of the noise scale, by Fieller's theorem for a ratio of two means.

        Takes the steps for independent. The upper end is infinite where the signal does not differ
        from zero at this level.

        Args:
            confidence: level in (0, 1).
        """
        confidence = _checks.real("confidence", confidence, 0, 1, open_low=True, open_high=True)
        self._need(3)
        share = self._share
        if share > LARGEST_SHARE:
            raise ValueError(
                f"decay must be larger for an interval: {self.decay:g} leaves {1 / share:.1f} "
                "updates of any weight; 0.99 leaves about 200."
            )
        noise, signal = self._mean
        factor = share / (1 - share) * _quantile(confidence, 1 / share - 1) ** 2
        noise_2, signal_2, both = (
            factor * (product - mean)
            for product, mean in zip(
                self._products, (noise * noise, signal * signal, noise * signal)
            )
        )
        # The R with |noise - R signal| <= t s(R) solve a R^2 - 2 b R + c <= 0.
        a, b, c = signal**2 - signal_2, noise * signal - both, noise**2 - noise_2
        root = math.sqrt(max(0.0, b * b - a * c))
        if a > 0 and signal > 0:
            return max(0.0, (b - root) / a), max(0.0, (b + root) / a)
        if a < 0 < c:  # the signal may be zero, the noise is not
            return (b - root) / a, math.inf
        return 0.0, math.inf

    def recommend(
        self, *, extra_examples: float = 1.0, multiple_of: int = 1, confidence: float = 0.9
    ) -> Recommendation:
        r"""Batch size at which a given share of examples more than the fewest is spent.

        At the batch :math:`b`, :math:`S / S_{min} = 1 + B / b` steps and
        :math:`E / E_{min} = 1 + b / B` examples reach the same loss.

        Args:
            extra_examples: share of examples that fewer steps may cost; 1 is the noise scale
                itself, twice the fewest of both.
            multiple_of: round to a multiple, at least one.
            confidence: level of the interval that is told with it.

        Raises:
            ValueError: too few updates, or the gradient cannot be told from noise yet.
        """
        share = _checks.real(
            "extra_examples", extra_examples, 0.0, math.inf, open_low=True, open_high=True
        )
        multiple = _checks.whole("multiple_of", multiple_of, 1)
        interval = self.interval(confidence)
        scale = self.noise_scale
        if not 0 < scale < math.inf:
            raise ValueError(
                f"the noise scale is {scale:g} after {self.updates} updates (noise {self.noise:.3g}, "
                f"signal {self.signal:.3g}): measure more steps, or with a larger big_batch."
            )
        batch = max(1, round(share * scale / multiple)) * multiple
        return Recommendation(
            batch=batch,
            noise_scale=scale,
            interval=interval,
            confidence=confidence,
            extra_steps=scale / batch,
            extra_examples=batch / scale,
        )

    def __str__(self) -> str:
        if not self.updates:
            return "gradient noise scale: no updates yet"
        text = (
            f"gradient noise scale {self.noise_scale:,.4g} examples after {self.updates} updates "
            f"(tr(Sigma) {self.noise:.4g}, |G|^2 {self.signal:.4g})"
        )
        if self.updates < 3 or self._share > LARGEST_SHARE:
            return text
        low, high = self.interval()
        return f"{text}, 90% interval {low:,.4g} to {high:,.4g}"

    __repr__ = __str__

    @property
    def _share(self) -> float:
        """1 / effective number of updates."""
        return self._weight_squares / self._weight**2

    def _need(self, updates: int) -> None:
        if self.updates < updates:
            raise ValueError(
                f"the meter needs {updates} updates for this, and has {self.updates}; "
                "call update(), or micro() and step()."
            )


def _quantile(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t, by Fisher's expansion about the normal one."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
