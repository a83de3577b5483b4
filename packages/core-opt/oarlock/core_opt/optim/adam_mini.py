"""Adam-mini: Adam with one second moment for each block of a parameter."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._moments import denominator
from ._registry import register
from ._roles import Role, Roles
from ._rule import Batch, Rule

# Number of axes that each layout takes.
AXES = {"columns": (2,), "experts": (3,), "rows": (2, 3, 4, 5), "whole": tuple(range(10))}
LAYOUTS = {
    Role.HIDDEN_MATRIX: "columns",
    Role.HEAD: "columns",
    Role.EXPERTS: "experts",
    Role.EMBEDDING: "rows",
    Role.CONV: "rows",
    Role.VECTOR: "whole",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdamMiniRule(Rule):
    """Options and update of Adam-mini.

    ``layout`` names the blocks: ``columns`` of a matrix [in, out], those of each matrix of
    ``experts`` [experts, in, out], ``rows`` of an embedding [tokens, features] or of a convolution
    [out, in, ...], or the ``whole`` tensor. ``num_heads`` joins columns to as many blocks.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    layout: str = "whole"
    num_heads: int | None = None

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)
        _checks.choice("layout", self.layout, tuple(AXES))
        if self.num_heads is not None:
            _checks.whole("num_heads", self.num_heads, 1)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"moment1": shape, "moment2": (self.blocks(shape),)}

    def blocks(self, shape: tuple[int, ...]) -> int:
        """Number of blocks of a parameter of this shape."""
        if self.layout == "columns":
            return self.num_heads or shape[1]
        return {"experts": shape[0] * shape[-1], "rows": shape[0], "whole": 1}[self.layout]

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        shape = list(parameter.shape)
        self.refuse_slice(name, parameter, "Gather it.")
        if parameter.ndim not in AXES[self.layout]:
            wanted = " or ".join(str(count) for count in AXES[self.layout])
            raise ValueError(
                f"Adam-mini needs {wanted} axes for blocks of layout {self.layout!r}, but {name!r} "
                f"has shape {shape}. If it is a flattened shard, gather it first; else give it its "
                "role: embedding, experts, conv, or vector for one block."
            )
        if self.num_heads is None:
            return
        if self.layout != "columns":
            raise ValueError(
                f"num_heads is for matrices [in, heads * width], but {name!r} {shape} has blocks "
                f"of layout {self.layout!r}; leave it out there."
            )
        if shape[1] % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide the {shape[1]} outputs of {name!r}; "
                "give the number of heads of this matrix (of key heads with grouped queries)."
            )

    def native(self, batch: Batch) -> None:
        (self._native_columns if self.layout in ("columns", "experts") else self._native_rows)(
            batch
        )

    def _native_rows(self, batch: Batch) -> None:
        """Blocks that lie together in memory."""
        from oarlock.native import optim as kernels

        kernels.adam_mini(
            batch.parameters,
            batch.grads,
            batch.states["moment1"],
            batch.states["moment2"],
            lr=batch.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            step=batch.step,
            grad_scale=batch.grad_scale,
            rounding_seed=batch.rounding_seed,
        )

    def _native_columns(self, batch: Batch) -> None:
        """Blocks of columns, tensor by tensor, so that only one update is in memory."""
        from oarlock.native import optim as kernels

        moments = zip(batch.states["moment1"], batch.states["moment2"])
        for index, (parameter, grad, (m, v)) in enumerate(
            zip(batch.parameters, batch.grads, moments)
        ):
            matrices = [grad] if grad.ndim == 2 else [grad[i] for i in range(grad.shape[0])]
            # beside the gradient, whatever Paddle's default device and dtype are
            rows = [paddle.zeros_like(matrix[:, 0], dtype="float32") for matrix in matrices]
            columns = [paddle.zeros_like(matrix[0], dtype="float32") for matrix in matrices]
            kernels.row_column_mean_squares(
                matrices, rows, columns, decay=0.0, grad_scale=batch.grad_scale
            )
            squares = paddle.concat(columns).reshape([v.shape[0], -1]).mean(axis=1)
            wide = grad.astype(m.dtype)
            m.lerp_(wide if batch.grad_scale == 1 else wide * batch.grad_scale, 1 - self.beta1)
            kernels.sgd(
                [parameter],
                [self._direction(m, v, squares, batch.step)],
                None,
                lr=batch.lr,
                weight_decay=self.weight_decay,
                rounding_seed=None if batch.rounding_seed is None else batch.rounding_seed + index,
            )

    def plain(self, batch: Batch) -> None:
        moments = zip(batch.states["moment1"], batch.states["moment2"])
        for parameter, grad, (m, v) in zip(batch.parameters, batch.grads, moments):
            m.scale_(self.beta1).add_(grad * (1 - self.beta1))
            squares = self._means(paddle.square(grad), v.shape[0])
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_(self._direction(m, v, squares, batch.step).scale_(batch.lr))

    def _means(self, squares: paddle.Tensor, blocks: int) -> paddle.Tensor:
        """Means over the blocks, [blocks]."""
        if self.layout == "columns":
            squares = squares.mean(axis=0)
        elif self.layout == "experts":
            squares = squares.mean(axis=1)
        return squares.reshape([blocks, -1]).mean(axis=1)

    def _direction(self, m, v, squares: paddle.Tensor, step: int) -> paddle.Tensor:
        """The update for learning rate 1, of the shape of ``m``; takes ``squares`` into ``v``."""
        v.scale_(self.beta2).add_(squares * (1 - self.beta2))
        scale = denominator(v, self.beta2, step, self.epsilon).scale_(1 - self.beta1**step)
        shape = list(m.shape)
        if self.layout == "columns":
            width = shape[1] // v.shape[0]
            scale = scale.reshape([-1, 1]).expand([-1, width]).reshape([1, shape[1]])
        elif self.layout == "experts":
            scale = scale.reshape([shape[0], 1, shape[2]])
        else:
            scale = scale.reshape([-1] + [1] * (len(shape) - 1))
        return m / scale


@register(
    "adam_mini",
    paper="2406.16793",
    year=2024,
    state_bytes_per_parameter=4,
    description="AdamW with one second moment for each head, neuron or token: half its state.",
    needs_roles=True,
)
class AdamMini(Optimizer):
    r"""Adam-mini: AdamW whose second moment is one number for each block of a parameter.

    With :math:`b` the block of an element, of :math:`|b|` elements,

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad
        v_{t,b} = \beta_2 v_{t-1,b} + \frac{1-\beta_2}{|b|} \sum_{i \in b} g_{t,i}^2

        \theta_t = (1 - \eta\lambda)\,\theta_{t-1}
        - \eta\, \frac{m_t / (1-\beta_1^t)}{\sqrt{v_{t,b} / (1-\beta_2^t)} + \epsilon}

    Blocks are the smallest dense blocks of the Hessian, by role:

    ==============  =======================================================================
    role            one block is
    ==============  =======================================================================
    hidden_matrix   the weights of one output neuron, a column of [in, out]; of one head where
                    ``num_heads`` is given, as it should be for queries and keys
    head            the weights of one token or class, a column
    experts         a column of one expert's matrix
    embedding       the row of one token
    conv            the kernel of one output channel
    vector          the whole tensor
    ==============  =======================================================================

    Queries and keys cannot be told by shape, so without ``num_heads`` they have one block for each
    output neuron as well: finer than the paper's, at ``width`` numbers for a head in the place of
    one. A fused matrix of queries, keys and values stays with neurons. Outside Transformers the
    paper takes whole tensors; convolutions here follow its principle, not that default. The state
    is 4 bytes for each element and 4 for each block.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        parameters: parameters, or groups that may override the options, ``num_heads`` too.
        roles: roles of the parameters, ``oarlock.core_opt.optim.roles(model)``.
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: > 0.
        weight_decay: :math:`\lambda` >= 0.
        num_heads: number of heads by pattern of the name, in the model or of the tensor, such as
            ``{"*.q_proj.weight": 12, "*.k_proj.weight": 4}``; the last pattern that matches wins.

    The other arguments are those of ``Optimizer``. Sharded parameters are refused, since a shard
    need not hold whole blocks.

    Source: Zhang et al., 2406.16793; defaults of the authors' code.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 1e-3,
        parameters: Iterable | None = None,
        roles: Roles | Mapping[str, Role] | None = None,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        num_heads: Mapping[str, int] | None = None,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        self._num_heads = _heads(num_heads)
        self._matched: set[str] = set()
        self._seen: set[str] = set()
        rule = AdamMiniRule(beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)
        super().__init__(
            learning_rate=learning_rate,
            parameters=parameters,
            rules={
                role: dataclasses.replace(rule, layout=layout) for role, layout in LAYOUTS.items()
            },
            roles=roles,
            grad_clip=grad_clip,
            multi_precision=multi_precision,
            apply_decay_param_fun=apply_decay_param_fun,
            stochastic_rounding=stochastic_rounding,
            seed=seed,
            nonfinite=nonfinite,
            path=path,
            name=name,
        )
        for pattern in self._num_heads:
            if pattern not in self._matched:
                raise ValueError(
                    f"num_heads pattern {pattern!r} matches no parameter: "
                    f"{_checks.suggestion(pattern, self._seen)}"
                )

    def _rule(self, parameter, group: dict) -> Rule:
        rule = super()._rule(parameter, group)
        names = {parameter.name}
        if isinstance(self._roles, Roles):
            names |= {e.name for e in self._roles.entries if e.parameter == parameter.name}
        self._seen |= names
        for pattern, heads in self._num_heads.items():
            if any(fnmatch.fnmatchcase(name, pattern) for name in names):
                self._matched.add(pattern)
                assert isinstance(rule, AdamMiniRule)
                rule = dataclasses.replace(rule, num_heads=heads)
        return rule


def _heads(value) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(
            "num_heads must map patterns of names to numbers of heads, such as "
            f'{{"*.q_proj.weight": 12}}, got {_checks.shown(value)}.'
        )
    return {key: _checks.whole(f"num_heads[{key!r}]", heads, 1) for key, heads in value.items()}
