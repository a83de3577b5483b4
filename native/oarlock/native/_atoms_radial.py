"""Filters that are functions of the distance."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oarlock.native import _atoms_abi
from oarlock.native import threads as _threads
from oarlock.native._atoms_arguments import Call
from oarlock.native._atoms_edges import activation_code

BASES, CUTOFFS = ("gaussian", "bessel"), ("cosine", "polynomial")

_WEIGHTS = "distances parameters first first_bias last last_bias"
_FORWARD = Call("radial_forward", f"{_WEIGHTS} out slopes")
_BACKWARD = Call("radial_backward", f"{_WEIGHTS} a b of_first of_first_bias of_last of_last_bias")
_CURVATURE = Call("radial_curvature", f"{_WEIGHTS} b out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Radial:
    r"""What filters are made of: a basis, an activation and a cut-off.

    .. math:: w(r) = c(r) \, (f(\varphi(r) W_1 + b_1) W_2 + b_2)

    or without a hidden layer :math:`c(r) (\varphi(r) W_1 + b_1)`.

    Args:
        cutoff: r_c, a length.
        basis: "gaussian", exp(−½ ((r − μ) / w)²), with centres μ as parameters; or "bessel",
            √(2 / r_c) sin(ω r) / r, with frequencies ω.
        width: w of Gaussians.
        envelope: c: "cosine", ½ (1 + cos(π r / r_c)); or "polynomial",
            1 − (p+1)(p+2)/2 uᵖ + p(p+2) uᵖ⁺¹ − p(p+1)/2 uᵖ⁺² with u = r / r_c.
        power: p, 2 to 64.
        activation: f: "shifted_softplus" or "silu".

    Raises:
        ValueError: an unknown name, or a number that cannot be.
    """

    cutoff: float
    basis: str = "gaussian"
    width: float = 1.0
    envelope: str = "cosine"
    power: int = 6
    activation: str = "shifted_softplus"

    def __post_init__(self) -> None:
        for field, known in (("basis", BASES), ("envelope", CUTOFFS)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"{field} must be one of {', '.join(known)}, not {getattr(self, field)!r}"
                )
        activation_code(self.activation)
        if not self.cutoff > 0:
            raise ValueError(f"cutoff must be a positive length, not {self.cutoff}")
        if not self.width > 0:
            raise ValueError(f"width must be a positive length, not {self.width}")
        if not 2 <= self.power <= 64:
            raise ValueError(f"power must be in [2, 64], not {self.power}")

    def options(self) -> Any:
        return ctypes.byref(
            _atoms_abi.RadialOptions(
                BASES.index(self.basis),
                CUTOFFS.index(self.envelope),
                activation_code(self.activation),
                self.power,
                self.cutoff,
                self.width,
            )
        )


def radial_filters(
    radial: Radial,
    distances: Any,
    weights: Sequence[Any],
    out: Any,
    slopes: Any = None,
    *,
    threads: int | None = None,
) -> None:
    """The filter of each edge, and its derivative by the distance.

    Args:
        radial: what filters are made of.
        distances: r, [P] float32 or float64; not 0 with Bessel functions.
        weights: parameters of the basis [K], W₁ [K, H], b₁ [H], W₂ [H, F], b₂ [F]; W₁ and b₁ are
            None where there is no hidden layer, and then W₂ is [K, F].
        out: w, [P, F], overwritten.
        slopes: dw/dr, [P, F], overwritten; None for not wanted.
        threads: as in ``convolve``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    team = _threads.count(threads)
    _FORWARD([distances, *_five(weights), out, slopes], radial.options(), team)


def radial_gradients(
    radial: Radial,
    distances: Any,
    weights: Sequence[Any],
    a: Any,
    b: Any,
    out: Sequence[Any],
    *,
    threads: int | None = None,
) -> None:
    """Gradients by the weights of the sum of a ∘ w + b ∘ dw/dr.

    Args:
        radial, distances, weights: as in ``radial_filters``.
        a, b: [P, F]; one of them may be None, for zeros.
        out: for each of W₁, b₁, W₂, b₂ one of its shape, overwritten; None where there is none.
        threads: as in ``convolve``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    team = _threads.count(threads)
    _BACKWARD([distances, *_five(weights), a, b, *out], radial.options(), team)


def radial_curvatures(
    radial: Radial,
    distances: Any,
    weights: Sequence[Any],
    b: Any,
    out: Any,
    *,
    threads: int | None = None,
) -> None:
    """For each edge the product of b, [P, F], and d²w/dr²; out [P].

    Args:
        radial, distances, weights, threads: as in ``radial_filters``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    team = _threads.count(threads)
    _CURVATURE([distances, *_five(weights), b, out], radial.options(), team)


def _five(weights: Sequence[Any]) -> Sequence[Any]:
    if len(weights) != 5 or (weights[1] is None) != (weights[2] is None):
        raise ValueError(
            "weights must be parameters, W1, b1, W2 and b2, with None for both W1 and b1 or neither"
        )
    return weights
