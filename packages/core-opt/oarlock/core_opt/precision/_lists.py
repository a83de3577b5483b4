"""Which operators compute in low precision and which in float32: the lists of Paddle's AMP.

Paddle names operators there as its old static graph did (``matmul_v2``, ``reduce_sum``).
``OLD_NAMES`` has those that are called otherwise in ``paddle._C_ops``.
"""

from collections.abc import Collection
from dataclasses import dataclass

import paddle
from paddle import _C_ops

from .._checks import suggestion

OLD_NAMES = {
    "add": "elementwise_add",
    "bicubic_interp": "bicubic_interp_v2",
    "bilinear_interp": "bilinear_interp_v2",
    "cross_entropy_with_softmax": "softmax_with_cross_entropy",
    "divide": "elementwise_div",
    "embedding": "lookup_table_v2",
    "linear_interp": "linear_interp_v2",
    "matmul": "matmul_v2",
    "matmul_with_flatten": "mul",
    "max": "reduce_max",
    "maximum": "elementwise_max",
    "mean": "reduce_mean",
    "min": "reduce_min",
    "minimum": "elementwise_min",
    "multiply": "elementwise_mul",
    "nearest_interp": "nearest_interp_v2",
    "prod": "reduce_prod",
    "subtract": "elementwise_sub",
    "sum": "reduce_sum",
    "trilinear_interp": "trilinear_interp_v2",
}


_NEW_NAMES = {old: new for new, old in OLD_NAMES.items()} | {"lookup_table": "embedding"}

# Two operators under one name: `linear` is what a CPU build has for `linear_v2`.
_ALSO = {"linear_v2": ("linear",), "mean": ("mean_all",)}

# Operators in neither list whose operands must be of one type, and which do not widen by
# themselves: they get float32 if one of their operands is float32.
OF_ONE_TYPE = (
    "add add_n addmm baddbmm bce_loss bilinear bmm concat conv2d_transpose conv3d conv3d_transpose "
    "depthwise_conv2d depthwise_conv2d_transpose divide dot fused_softmax_mask grid_sample "
    "index_add index_put kldiv_loss lerp maximum meshgrid minimum multi_dot multiply mv prelu "
    "put_along_axis scatter_nd_add stack subtract swiglu where"
).split()

# Those that compute in the type of their first operand, and take float32 parameters besides a
# first operand in low precision, but not the other way round.
OF_FIRST_TYPE = "batch_norm group_norm instance_norm layer_norm rms_norm".split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Operators by what is done to their operands, named as Paddle's AMP names them.

    Args:
        low: those that compute in low precision.
        high: those that compute in float32.
        white: what the user added to the first.
        black: what the user added to the second.
    """

    low: frozenset[str]
    high: frozenset[str]
    white: frozenset[str]
    black: frozenset[str]

    def rules(self) -> dict[str, str]:
        """What type each function of ``paddle._C_ops`` concerned gets.

        ``"low"``, ``"high"``, the ``"widest"`` of its operands', or that of its ``"first"``.
        """
        rules = dict.fromkeys(OF_ONE_TYPE, "widest") | dict.fromkeys(OF_FIRST_TYPE, "first")
        for names, rule in ((self.low, "low"), (self.high, "high")):
            for name in names:
                rules[_NEW_NAMES.get(name, name)] = rule
                rules.update(dict.fromkeys(_ALSO.get(name, ()), rule))
        return {name: rule for name, rule in rules.items() if hasattr(_C_ops, name)}


def lists(
    *, level: str, dtype: str, white: Collection[str] = (), black: Collection[str] = ()
) -> Lists:
    """Paddle's lists, changed by the user's: a name moves to the list in which the user puts it.

    Args:
        level: ``"O1"`` or ``"O2"``; the second has a much shorter black list.
        dtype: ``"bfloat16"`` or ``"float16"``.
        white: operators to compute in low precision besides; old or new names.
        black: operators to compute in float32 besides.

    Raises:
        ValueError: a name that is no operator's, or in both.
    """
    users_white, users_black = _names("white", white), _names("black", black)
    both = sorted(users_white & users_black)
    if both:
        raise ValueError(f"white and black must differ, but both have {', '.join(both)}.")
    low, high = paddle.amp.white_list()[dtype][level], paddle.amp.black_list()[dtype][level]
    return Lists(
        low=frozenset((low | users_white) - users_black),
        high=frozenset((high | users_black) - users_white),
        white=users_white,
        black=users_black,
    )


def _names(argument: str, names: Collection[str]) -> frozenset[str]:
    """The names and, where an operator has another, that too."""
    if isinstance(names, str):
        raise ValueError(f"{argument} must be a collection of operators, got the string {names!r}.")
    known = {name for name in dir(_C_ops) if not name.startswith("_")}
    known |= {*OLD_NAMES.values(), *paddle.amp.white_list()["bfloat16"]["O1"]}
    known |= paddle.amp.black_list()["bfloat16"]["O1"]
    for name in names:
        if name not in known:
            hint = suggestion(name, known) if isinstance(name, str) else "give strings."
            raise ValueError(f"{argument} has {name!r}, which is no operator of Paddle: {hint}")
    return frozenset(names) | {OLD_NAMES[name] for name in names if name in OLD_NAMES}
