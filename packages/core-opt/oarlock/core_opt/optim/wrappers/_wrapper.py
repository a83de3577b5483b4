"""What the wrappers share: each is an optimiser to whatever trains with it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import paddle
from paddle.base import framework
from paddle.optimizer.lr import LRScheduler

from .. import _checks
from .._state import parameters
from .._base import forget_overflow


class Wrapper(paddle.optimizer.Optimizer):
    """An optimiser around another one, of this package or Paddle's.

    Attributes that are not the wrapper's own are read from and written to the optimiser inside,
    so that what trainers touch (``_learning_rate``, ``_param_groups``, ``_multi_precision``, ...)
    is there once only. A subclass names its own attributes in ``own``, acts in ``before_step`` and
    ``after_step`` and tells of its state in ``own_keys``, ``own_state``, ``check_own`` and
    ``commit_own``.
    """

    own: ClassVar[frozenset[str]] = frozenset({"optimizer", "_groups_taken"})
    #: part of the names of the wrapper's state
    kind: ClassVar[str] = ""
    #: takes two gradients a step, which a wrapper around it would not notice
    outermost: ClassVar[bool] = False
    #: averages or moves the parameters that the steps leave, and takes them for the iterates
    combines_steps: ClassVar[bool] = False

    optimizer: Any

    def __init__(self, optimizer: paddle.optimizer.Optimizer):
        if not framework.in_dygraph_mode():
            raise ValueError("static graphs are not supported; call paddle.disable_static() first.")
        if not isinstance(optimizer, paddle.optimizer.Optimizer):
            raise ValueError(
                "optimizer must be an optimiser such as optim.AdamW(parameters=...), got "
                f"{_checks.shown(optimizer)}."
            )
        innermost = chain(optimizer)[-1]
        if innermost is None:
            raise ValueError(
                "optimizer must have an optimiser inside, got an EMA of parameters alone; build it "
                "on the optimiser, EMA(optimizer)."
            )
        if self.combines_steps and getattr(innermost, "averages", False):
            name, outer = type(innermost).__name__, type(self).__name__
            raise ValueError(
                f"optimizer must not be a {name} within {outer}: it averages its iterates itself, "
                "and the parameters are only where it takes gradients. Leave "
                f"{outer} out; `with optimizer.averaged():` puts the average in their place."
            )
        for inside in chain(optimizer):
            if type(inside) is type(self):
                raise ValueError(f"optimizer is wrapped in {type(self).__name__} already.")
            if isinstance(inside, Wrapper) and inside.outermost:
                outer = type(inside).__name__
                raise ValueError(
                    f"optimizer must not be a {outer}, which takes two gradients a step; put it "
                    f"outside: {outer}({type(self).__name__}(optimizer))."
                )
        self.optimizer = optimizer
        self._groups_taken = 0

    def __getattr__(self, name: str):
        if name in type(self).own:  # not set yet: while copying, for example
            raise AttributeError(name)
        if self.optimizer is None:
            raise AttributeError(f"{type(self).__name__} has no optimiser to take {name!r} from.")
        return getattr(self.optimizer, name)

    def __setattr__(self, name: str, value) -> None:
        if name in type(self).own:
            object.__setattr__(self, name, value)
        else:
            setattr(self.optimizer, name, value)

    # The step -----------------------------------------------------------------------------------

    def step(self) -> None:
        """Update every parameter that has a gradient, once."""
        forget_overflow(self.optimizer)
        self.step_inside(self.optimizer.step)

    def minimize(self, loss, startup_program=None, parameters=None, no_grad_set=None):
        """Update from the gradients that ``loss.backward()`` left, as Paddle's ``minimize``."""
        forget_overflow(self.optimizer)
        return self.step_inside(
            self.optimizer.minimize, loss, startup_program, parameters, no_grad_set
        )

    def _apply_optimize(self, loss, startup_program, params_grads, param_group_idx=0):
        """Where Paddle's wrappers hand over pairs they have prepared, one group after the other."""
        if isinstance(params_grads, dict):
            self._groups_taken += 1
        last = self._groups_taken in (0, len(self._param_groups))
        if last:
            self._groups_taken = 0
        return self.step_inside(
            self.optimizer._apply_optimize,
            loss,
            startup_program,
            params_grads,
            param_group_idx,
            last=last,
        )

    def step_inside(self, take, *arguments, last: bool = True):
        """Let the optimiser inside step by its method ``take``; ``last`` part of a step or not."""
        self.before_step()
        overflow, skipped = self.overflow(), getattr(self.optimizer, "skipped_steps", 0)
        try:
            result = take(*arguments)
        except Exception:
            self._groups_taken = 0
            raise
        if last and not overflow and getattr(self.optimizer, "skipped_steps", 0) == skipped:
            self.after_step()
        return result

    def before_step(self) -> None:
        """What is to be done before the optimiser inside changes parameters."""

    def after_step(self) -> None:
        """What is to be done after a step, unless a scaler or a check for NaN left it out."""

    def overflow(self) -> bool:
        """Whether a GradScaler has told the optimiser to leave this step out."""
        return bool(self.optimizer._get_auxiliary_var("found_inf"))

    # What trainers call -------------------------------------------------------------------------

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Clear the gradients of all parameters."""
        self.optimizer.clear_grad(set_to_zero)

    clear_gradients = clear_grad

    def get_lr(self) -> float:
        """Learning rate of the optimiser inside."""
        return self.optimizer.get_lr()

    def set_lr(self, value: float) -> None:
        """Set the learning rate of the optimiser inside."""
        self.optimizer.set_lr(value)

    def set_lr_scheduler(self, scheduler: LRScheduler) -> None:
        """Set the schedule of the optimiser inside."""
        self.optimizer.set_lr_scheduler(scheduler)

    def _set_auxiliary_var(self, key, val) -> None:
        self.optimizer._set_auxiliary_var(key, val)

    def _get_auxiliary_var(self, key):
        return self.optimizer._get_auxiliary_var(key)

    # State --------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """State of the optimiser inside, and the wrapper's own."""
        return {**self.optimizer.state_dict(), **self.own_state()}

    def set_state_dict(self, state: Mapping) -> None:
        """Continue from ``state_dict()`` bit for bit; checks everything before it changes anything.

        Raises:
            ValueError: the wrapper's own state is missing or does not fit, or the optimiser inside
                refuses its part.
        """
        mine = set(self.own_keys())
        plan = self.check_own({key: value for key, value in state.items() if key in mine}, state)
        self.optimizer.set_state_dict(
            {key: value for key, value in state.items() if key not in mine}
        )
        with paddle.no_grad():  # not a decorator: wrappers in wrappers would enter it twice
            self.commit_own(plan)

    load_state_dict = set_state_dict
    set_dict = set_state_dict

    def own_keys(self) -> list[str]:
        """Every key that ``own_state`` may use."""
        return []

    def own_state(self) -> dict:
        """The wrapper's own part of the state."""
        return {}

    def check_own(self, mine: Mapping, state: Mapping):
        """Refuse what does not fit; return what ``commit_own`` needs."""

    def commit_own(self, plan) -> None:
        """Take over the checked state."""

    # Parameters ---------------------------------------------------------------------------------

    def members(self) -> list[paddle.Tensor]:
        """The optimiser's parameters, of all groups."""
        return parameters(self.optimizer)

    def wide(self, parameter) -> paddle.Tensor:
        """The parameter as the optimiser knows it best: its master weight if it has one."""
        masters = getattr(self.optimizer, "_master_weights", None) or {}
        return masters.get(parameter.name, parameter)

    def state_key(self, parameter, name: str) -> str:
        """Key of a state tensor of this parameter."""
        return f"{parameter.name}_{self.kind}_{name}_0"

    def count_key(self, name: str = "step") -> str:
        """Key of a number that belongs to no parameter."""
        return f"{self.kind}_{name}"


def chain(optimizer) -> list:
    """The optimiser and those inside it, outermost first."""
    found = [optimizer]
    while isinstance(found[-1], Wrapper):
        found.append(found[-1].optimizer)
    return found


def copy(tensor: paddle.Tensor) -> paddle.Tensor:
    """A new tensor with the same values, float32 of lower precision."""
    if tensor.dtype in (paddle.float32, paddle.float64):
        return tensor.detach().clone()
    return tensor.detach().astype("float32")


def count(value: int) -> paddle.Tensor:
    """A counter as a state tensor."""
    return paddle.to_tensor([value], dtype="int64", place=paddle.CPUPlace())


def number(key: str, state: Mapping) -> float:
    """The number that a state tensor of shape [1] holds, or ValueError."""
    return float(read(key, state, [1]).numpy()[0])


def read(key: str, state: Mapping, shape: list[int]) -> paddle.Tensor:
    """The state tensor of this key and shape, or ValueError."""
    if key not in state:
        raise ValueError(f"the state lacks {key!r}; it is truncated.")
    value = state[key]
    tensor = value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
    if list(tensor.shape) != list(shape):
        raise ValueError(
            f"{key!r} has shape {list(tensor.shape)} in the state, but {list(shape)} is needed."
        )
    return tensor
