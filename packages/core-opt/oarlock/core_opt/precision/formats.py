"""Number formats of matrix products, and the three products of a linear layer.

With x [tokens, in], the weight W [in, out] and the gradient g [tokens, out] of the output:

=============  ==========  ==========  =========
role           product     reduces by  result
=============  ==========  ==========  =========
forward        x W         in          [tokens, out]
input_grad     g Wᵀ        out         [tokens, in]
weight_grad    xᵀ g        tokens      [in, out]
=============  ==========  ==========  =========
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._checks import suggestion

ROLES = ("forward", "input_grad", "weight_grad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How the operands of a product are rounded; every result is float32."""

    name: str
    bits: int
    activation: str  #: kernel format of activations and weights
    gradient: str  #: kernel format of gradients of outputs
    #: Elements along the reduction that share a scale; None: a whole row or column does.
    block: int | None = None
    about: str = ""

    def operands(self, role: str) -> tuple[str, str]:
        """Kernel formats of the left and the right operand of a product."""
        return {
            "forward": (self.activation, self.activation),
            "input_grad": (self.gradient, self.activation),
            "weight_grad": (self.activation, self.gradient),
        }[role]


def _format(
    name: str, bits: int, about: str, *, gradient: str = "", block=None, kernel=""
) -> Format:
    activation = kernel or name
    return Format(
        name=name,
        bits=bits,
        activation=activation,
        gradient=gradient or activation,
        block=block,
        about=about,
    )


#: By name, from exact to coarse. Scales are symmetric, by the largest magnitude.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        one.name: one
        for one in (
            _format("fp32", 32, "Paddle's own product"),
            _format("int16", 16, "codes to ±5792, a scale a row and a column (1802.00930)"),
            _format("fp16", 16, "11 bits of significand, largest 65504"),
            _format("bf16", 16, "8 bits of significand, the range of fp32"),
            _format("int8", 8, "a scale a row and a column (LLM.int8, 2208.07339)"),
            _format(
                "int8_block",
                8,
                "a scale each 128 elements of the reduction (Jetfire, 2403.12422)",
                kernel="int8",
                block=128,
            ),
            _format(
                "fp8",
                8,
                "E4M3, gradients E5M2 (2209.05433), a scale a row and a column",
                kernel="fp8_e4m3",
                gradient="fp8_e5m2",
            ),
        )
    }
)


def format_named(name: str, argument: str = "format") -> Format:
    """The format of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in FORMATS:
        raise ValueError(f"{argument} {name!r} is not a format; {suggestion(str(name), FORMATS)}")
    return FORMATS[name]


def check_role(role: str) -> str:
    """Return ``role`` if it is one.

    Raises:
        ValueError: it is not.
    """
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)}, got {role!r}.")
    return role
