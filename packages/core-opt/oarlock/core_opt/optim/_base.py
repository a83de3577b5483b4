"""The common base of all optimisers: a real ``paddle.optimizer.Optimizer`` around update rules."""

import dataclasses
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import paddle
from paddle.base import framework
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks, _gradients
from ._roles import Role, Roles
from ._rounding import round_to
from ._rule import Batch, Rule, options
from ._state import load_state, state_dict

NATIVE = (paddle.float32, paddle.bfloat16)
# Paddle's SOT compiler traces every frame it meets and misreads dataclasses: run these as they are.
paddle.framework.core.eval_frame_skip_file_prefix((os.path.dirname(__file__) + os.sep,))

GROUP_KEYS = ("params", "learning_rate", "grad_clip", "role")


@dataclasses.dataclass(slots=True, kw_only=True)
class Slot:
    """What the optimiser knows of one parameter between steps."""

    name: str
    rule: Rule
    lr_scale: float | None
    checked: bool = False  # whether the rule has seen what is handed over to steps
    step: int = 0
    states: dict[str, paddle.Tensor] = dataclasses.field(default_factory=dict)


class Optimizer(paddle.optimizer.Optimizer):
    """Base class: gathers gradients, clips, keeps state, and hands batches to update rules.

    A subclass passes one ``Rule``, or one for each ``Role``; it needs no other method. A step
    makes one native call for each set of parameters that share rule, learning rate and step.

    Args:
        learning_rate: number >= 0 or an LRScheduler.
        parameters: list of parameters, or of groups ``{"params": [...], ...}``. A group may
            override the options of its rules and set ``learning_rate`` (a factor on the
            optimiser's learning rate, as in Paddle), ``grad_clip`` and ``role``.
        rules: the rule of all parameters, or the rule of each role.
        roles: role of each parameter, from ``oarlock.core_opt.optim.roles(model)``; needed when
            ``rules`` differ by role and groups name none.
        grad_clip: a Paddle clip. The global norm is taken over all groups that share it.
        multi_precision: keep a float32 master weight of each float16 or bfloat16 parameter.
        stochastic_rounding: round bfloat16 parameters without master weight stochastically.
        seed: seed of stochastic rounding, an integer >= 0.
        nonfinite: what to do with NaN or Inf in a gradient: ``"raise"`` NonFiniteGradient before
            anything changes, ``"skip"`` the step (counted in ``skipped_steps``), ``"propagate"``.
        path: ``"native"`` kernels, ``"paddle"`` operators, or None for the kernels on float32 and
            bfloat16 CPU tensors and the operators elsewhere.
        apply_decay_param_fun: given a parameter's name, whether weight decay applies to it.
        name: prefix of the state names.
    """

    #: averages its iterates itself, so that nothing else may average or move the parameters
    averages: ClassVar[bool] = False

    def __init__(
        self,
        *,
        learning_rate: float | LRScheduler,
        parameters: Iterable | None,
        rules: Rule | Mapping[Role, Rule],
        roles: Roles | Mapping[str, Role] | None = None,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        name: str | None = None,
    ):
        if not framework.in_dygraph_mode():
            raise ValueError("static graphs are not supported; call paddle.disable_static() first.")
        if grad_clip is not None and not isinstance(grad_clip, GradientClipBase):
            raise ValueError(
                "grad_clip must be a Paddle clip such as paddle.nn.ClipGradByGlobalNorm(1.0), "
                f"got {_checks.shown(grad_clip)}."
            )
        learning_rate = _checks.learning_rate(learning_rate)
        items = _checks.parameters(parameters)
        self._multi_precision = _checks.flag("multi_precision", multi_precision)
        self._stochastic_rounding = _checks.flag("stochastic_rounding", stochastic_rounding)
        self._seed = _checks.whole("seed", seed, 0)
        self._nonfinite = _checks.choice("nonfinite", nonfinite, ("raise", "skip", "propagate"))
        self._path = _checks.choice("path", path, (None, "native", "paddle"))
        self._rules = rules
        self._roles = roles
        self._apply_decay_param_fun = apply_decay_param_fun
        self._slots: dict[str, Slot] = {}
        self.skipped_steps = 0
        super().__init__(learning_rate, items, None, grad_clip, name)
        groups = self._param_groups if isinstance(items[0], dict) else [{"params": items}]
        for group in groups:
            self._add_slots(group)

    # Parameter groups ---------------------------------------------------------------------------

    def _add_param_group(self, param_group: dict) -> None:
        param_group.setdefault("grad_clip", self._grad_clip)
        self._param_groups.append(param_group)

    def _add_slots(self, group: dict) -> None:
        overrides = {key: value for key, value in group.items() if key not in GROUP_KEYS}
        lr_scale = group.get("learning_rate")
        if lr_scale is not None:
            lr_scale = _checks.non_negative('group["learning_rate"]', lr_scale)
        if group.get("role") is not None:
            Role.parse(group["role"])
        unused, rules = set(overrides), {}
        for parameter in group["params"]:
            rule = self._rule(parameter, group)
            if rule not in rules:
                taken = {key: overrides[key] for key in overrides if key in options(rule)}
                unused -= set(taken)
                rules[rule] = dataclasses.replace(rule, **taken)
            rule = rules[rule]
            decay = self._apply_decay_param_fun
            if decay is not None and not decay(parameter.name) and rule.weight_decay:
                rule = dataclasses.replace(rule, weight_decay=0.0)
            rule.check(parameter.name, parameter)
            if parameter.name in self._slots:
                raise ValueError(f"two parameters share the name {parameter.name!r}; rename one.")
            self._slots[parameter.name] = Slot(name=parameter.name, rule=rule, lr_scale=lr_scale)
        if unused:
            known = sorted({*GROUP_KEYS, *(key for rule in rules for key in options(rule))})
            key = sorted(unused)[0]
            raise ValueError(f"unknown group key {key!r}: {_checks.suggestion(key, known)}")

    def _rule(self, parameter, group: dict) -> Rule:
        role = group.get("role")
        if isinstance(self._rules, Rule):  # the same for every role
            return self._rules
        if role is None and self._roles is not None:
            role = self._roles.of(parameter) if isinstance(self._roles, Roles) else None
            role = self._roles.get(parameter.name) if role is None else role
        if role is None:
            raise ValueError(
                f"no role for parameter {parameter.name!r}; pass roles=optim.roles(model), use "
                "optim.create(name, model), or name the role in each group: "
                '{"params": [...], "role": "hidden_matrix"}.'
            )
        return self._rules[Role.parse(role)]

    # The step -----------------------------------------------------------------------------------

    @paddle.jit.not_to_static
    @paddle.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient, once.

        Raises:
            NonFiniteGradient: a gradient holds NaN or Inf and ``nonfinite="raise"``.
            ValueError: a gradient is sparse, or the schedule gives a wrong learning rate.
        """
        _refuse_static()
        forget_overflow(self)
        if isinstance(self._param_groups[0], dict):
            work = [(group["grad_clip"], group["params"]) for group in self._param_groups]
        else:
            work = [(self._grad_clip, self._param_groups)]
        self._take([(clip, _gradients.gather(parameters)) for clip, parameters in work])

    @paddle.no_grad()
    def minimize(self, loss, startup_program=None, parameters=None, no_grad_set=None):
        """Update from the gradients that ``loss.backward()`` left, as Paddle's ``minimize``.

        Returns:
            An empty list of operators and the list of (parameter, gradient) pairs.
        """
        _refuse_static()
        forget_overflow(self)
        left_out = {p if isinstance(p, str) else p.name for p in no_grad_set or ()}
        chosen = None if parameters is None else {p.name for p in parameters}
        work = []
        groups = self._param_groups
        if not isinstance(groups[0], dict):
            groups = [{"params": groups, "grad_clip": self._grad_clip}]
        for group in groups:
            members = [
                p
                for p in group["params"]
                if p.name not in left_out and (chosen is None or p.name in chosen)
            ]
            work.append((group["grad_clip"], _gradients.gather(members)))
        self._take(work)
        return [], [pair for _, pairs in work for pair in pairs]

    @paddle.no_grad()
    def _apply_optimize(self, loss, startup_program, params_grads, param_group_idx=0):
        """Where Paddle's wrappers (sharding, pipeline) hand over pairs they have prepared."""
        if isinstance(params_grads, dict):
            pairs = params_grads["params"]
            try:
                self._take([(params_grads.get("grad_clip"), pairs)])
            except _checks.NonFiniteGradient as error:
                if any(pairs[0][0] is first for first in self._param_groups[0]["params"]):
                    raise
                raise _checks.NonFiniteGradient(
                    str(error).replace(
                        _gradients.UNCHANGED,
                        "Its group was not changed, but the groups before it were updated.",
                    )
                ) from None
        else:
            self._take([(self._grad_clip, list(params_grads))])
        return []

    def _take(self, work: list[tuple]) -> None:
        found_inf = self._get_auxiliary_var("found_inf")
        if isinstance(found_inf, paddle.Tensor):  # set by GradScaler, read back as a bool
            self._set_auxiliary_var("found_inf", bool(found_inf))
        if found_inf:  # a bool already where another group of the same step came first
            return
        lr = self._current_learning_rate()
        found = _gradients.clusters(work, self._path, self._nonfinite != "propagate")
        if self._nonfinite != "propagate" and not _gradients.finite(found):
            if self._nonfinite == "raise":
                raise _gradients.refuse_non_finite(found, self._path)
            self.skipped_steps += 1
            return
        buckets: dict[tuple, list] = {}
        for cluster in found:
            pairs, scale = _gradients.clipped(cluster)
            for parameter, grad in pairs:
                slot, target = self._slot(parameter), self._target(parameter)
                factor, native = self._lr_factor(slot, parameter), self._is_native(target)
                # A rule may keep other states for other shapes, such as a side without a basis.
                states = tuple(slot.states or slot.rule.state(tuple(parameter.shape)))
                key = (slot.rule, factor, slot.step, scale, native, states)
                buckets.setdefault(key, []).append((parameter, target, grad, slot))
        for (rule, factor, step, scale, native, _), members in buckets.items():
            self._run(rule, lr * factor, step + 1, scale, native, members)

    def _run(self, rule: Rule, lr: float, step: int, scale: float, native: bool, members) -> None:
        targets = [target for _, target, _, _ in members]
        grads = [grad for _, _, grad, _ in members]
        seed = None
        if self._stochastic_rounding:
            seed = zlib.crc32(f"{self._seed} {step} {members[0][0].name}".encode())
        cautious = rule.cautious_weight_decay and rule.weight_decay > 0
        if native:
            held = [_working(target) for target in targets] if cautious else targets
            grads = [
                grad if grad.dtype in (paddle.float32, work.dtype) else grad.astype("float32")
                for grad, work in zip(grads, held)
            ]
        else:
            held = [_working(target) for target in targets]
            grads = [_cast(grad, work.dtype) for grad, work in zip(grads, held)]
            if scale != 1.0:
                grads = [grad * scale for grad in grads]
        for (parameter, _, _, slot), work in zip(members, held):
            self._ensure_state(slot, parameter, work.dtype)
        names = members[0][3].states
        batch = Batch(
            parameters=held,
            grads=grads,
            states={name: [slot.states[name] for *_, slot in members] for name in names},
            names=[parameter.name for parameter, *_ in members],
            lr=lr,
            step=step,
            grad_scale=scale if native else 1.0,
            rounding_seed=seed,
        )
        if cautious:
            before = [work.clone() for work in held]
            bare = dataclasses.replace(rule, weight_decay=0.0)
            (bare.native if native else bare.plain)(batch)
            _decay_cautiously(held, before, lr * rule.weight_decay)
        else:
            (rule.native if native else rule.plain)(batch)
        for index, (parameter, target, _, slot) in enumerate(members):
            if held[index] is not target:
                round_to(target, held[index], seed, index)
            if target is not parameter:
                paddle.assign(target.astype(parameter.dtype), output=parameter)
            elif native:
                parameter._bump_inplace_version()
            slot.step = step

    def _current_learning_rate(self) -> float:
        lr = float(self.get_lr())
        if not 0 <= lr < math.inf:
            raise ValueError(
                f"the schedule gives the learning rate {lr:g}; it must be >= 0 and finite."
            )
        return lr

    def _lr_factor(self, slot: Slot, parameter) -> float:
        """The group's factor, or that of the parameter's ParamAttr, times the rule's."""
        if slot.lr_scale is not None:
            return slot.lr_scale * slot.rule.lr_scale
        attributes = getattr(parameter, "optimize_attr", None) or {}
        return attributes.get("learning_rate", 1.0) * slot.rule.lr_scale

    def _slot(self, parameter) -> Slot:
        slot = self._slots.get(parameter.name)
        if slot is None:
            raise ValueError(
                f"parameter {parameter.name!r} is not one of this optimiser's; pass it in "
                "parameters when building the optimiser."
            )
        if not slot.checked:
            slot.rule.check(parameter.name, parameter)
            slot.checked = True
        return slot

    def _target(self, parameter):
        """The tensor that the rule changes: the master weight where there is one."""
        if self._multi_precision and parameter.dtype in _gradients.LOW_PRECISION:
            master = self._master_weights.get(parameter.name)
            if master is None:
                master = parameter.astype("float32")
                master.name = f"{parameter.name}_fp32_master_0"
                self._master_weights[parameter.name] = master
            return master
        return parameter

    def _is_native(self, target) -> bool:
        able = target.place.is_cpu_place() and target.dtype in NATIVE and not target.is_dist()
        if self._path == "native" and not able:
            raise ValueError(
                f'path="native" cannot update {target.name!r} ({target.dtype} on {target.place}); '
                'the kernels take float32 and bfloat16 on the CPU. Use path=None or "paddle".'
            )
        return able and self._path != "paddle"

    # State --------------------------------------------------------------------------------------

    def _state_key(self, name: str) -> str:
        return name if self._name is None else f"{self._name}_{name}"

    def _ensure_state(self, slot: Slot, parameter, dtype) -> None:
        if not slot.states:
            for name, shape in slot.rule.state(tuple(parameter.shape)).items():
                slot.states[name] = self._new_state(name, shape, parameter, dtype)

    def _new_state(self, name: str, shape: tuple[int, ...], parameter, dtype) -> paddle.Tensor:
        """A state tensor of zeros beside its parameter, filed where Paddle looks for it."""
        with paddle.base.dygraph.guard(parameter.place):
            wide = paddle.float64 if dtype == paddle.float64 else paddle.float32
            tensor = paddle.zeros(shape, dtype=wide)
        tensor.name = f"{parameter.name}_{self._state_key(name)}_0"
        self._accumulators[self._state_key(name)][parameter.name] = tensor
        return tensor

    def state_dict(self) -> dict:
        """State by Paddle's names: ``{parameter}_{state}_0``, ``master_weights``, ``LR_Scheduler``.

        Tensors are the live ones, as in Paddle: save them, or copy them, before the next step.
        """
        return state_dict(self)

    @paddle.no_grad()
    def set_state_dict(self, state: Mapping) -> None:
        """Continue from ``state_dict()`` bit for bit; checks everything before it changes anything.

        Raises:
            ValueError: a tensor is missing or has another shape, or belongs to no parameter here.
        """
        load_state(self, state)

    load_state_dict = set_state_dict
    set_dict = set_state_dict


def forget_overflow(optimizer: paddle.optimizer.Optimizer) -> None:
    """Drop the answer to a GradScaler whose step was left out; before each it sets a tensor."""
    if optimizer._get_auxiliary_var("found_inf") is True:
        optimizer._set_auxiliary_var("found_inf", None)


def _refuse_static() -> None:
    if not framework.in_dygraph_mode() or paddle.base.dygraph.base.in_to_static_mode():
        raise ValueError(
            "step() runs in dynamic mode only; compile the forward pass with "
            "paddle.jit.to_static and leave the step outside."
        )


def _decay_cautiously(parameters: list, before: list, amount: float) -> None:
    """Decay where the update goes towards zero: p <- p - lr wd p_0 where (p_0 - p) p_0 >= 0."""
    for parameter, old in zip(parameters, before):
        # The sign of the difference, since its product with a small value would underflow to 0.
        towards_zero = paddle.sign(old - parameter) * old >= 0
        parameter.subtract_((old * towards_zero.astype(old.dtype)).scale_(amount))


def _working(target) -> paddle.Tensor:
    return _cast(target, paddle.float32) if target.dtype in _gradients.LOW_PRECISION else target


def _cast(tensor, dtype) -> paddle.Tensor:
    return tensor if tensor.dtype == dtype else tensor.astype(dtype)
