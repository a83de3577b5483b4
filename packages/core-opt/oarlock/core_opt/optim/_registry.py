"""The registry: every optimiser by name, with its paper, defaults and memory."""

import builtins
import dataclasses
import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from paddle import nn
from paddle.optimizer.lr import LRScheduler

from ._base import Optimizer
from ._checks import shown, suggestion
from ._roles import Role, Roles
from ._roles import roles as infer_roles


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerInfo:
    """What the registry knows of one optimiser.

    Args:
        name: name for ``create``.
        cls: the class.
        paper: arXiv id or address of the source.
        year: year of the source.
        defaults: every option that ``create`` takes, with its default.
        state_bytes_per_parameter: bytes of state for a float32 parameter of its main rule.
        needs_roles: whether rules differ by role, so that it needs the model or its roles.
        description: one line.
    """

    name: str
    cls: type[Optimizer]
    paper: str
    year: int
    defaults: Mapping[str, object]
    state_bytes_per_parameter: float
    needs_roles: bool
    description: str


_INFOS: dict[str, OptimizerInfo] = {}


def register(
    name: str,
    *,
    paper: str,
    year: int,
    state_bytes_per_parameter: float,
    description: str,
    needs_roles: bool = False,
) -> Callable[[type[Optimizer]], type[Optimizer]]:
    """Class decorator that enters an optimiser; its defaults are read from its signature."""

    def enter(cls: type[Optimizer]) -> type[Optimizer]:
        signature = inspect.signature(cls.__init__).parameters
        defaults = {
            key: parameter.default
            for key, parameter in signature.items()
            if key not in ("self", "parameters", "roles")
        }
        _INFOS[name] = OptimizerInfo(
            name=name,
            cls=cls,
            paper=paper,
            year=year,
            defaults=MappingProxyType(defaults),
            state_bytes_per_parameter=state_bytes_per_parameter,
            needs_roles=needs_roles,
            description=description,
        )
        return cls

    return enter


def list(pattern: str = "*") -> builtins.list[str]:
    """Names of the optimisers that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_INFOS, pattern.lower()))


def info(name: str) -> OptimizerInfo:
    """Metadata of one optimiser; ValueError with the nearest names if there is none."""
    if not isinstance(name, str):
        raise ValueError(
            f"name must be one of {', '.join(sorted(_INFOS))}, got {shown(name)}; "
            "write create(name, model)."
        )
    if name not in _INFOS:
        raise ValueError(f"unknown optimiser {name!r}: {suggestion(name, _INFOS)}")
    return _INFOS[name]


def create(
    name: str,
    model_or_parameters: nn.Layer | Iterable,
    /,
    *,
    learning_rate: float | LRScheduler | None = None,
    roles: Roles | Mapping[str, Role] | None = None,
    **options,
) -> Optimizer:
    """Build an optimiser by name.

    Args:
        name: one of ``list()``.
        model_or_parameters: a model, whose trainable parameters are taken and whose roles are
            inferred where needed; or parameters or groups.
        learning_rate: number or scheduler; None for the paper's default.
        roles: roles to use instead of the inferred ones.
        options: options of this optimiser (``info(name).defaults``); any other name is refused.

    Raises:
        ValueError: an unknown name or option, or a wrong value.
    """
    entry = info(name)
    for key in options:
        if key not in entry.defaults:
            raise ValueError(f"{name} has no option {key!r}: {suggestion(key, entry.defaults)}")
    if learning_rate is not None:
        options["learning_rate"] = learning_rate
    parameters = model_or_parameters
    if isinstance(model_or_parameters, nn.Layer):
        parameters = [p for p in model_or_parameters.parameters() if not p.stop_gradient]
        if entry.needs_roles and roles is None:
            roles = infer_roles(model_or_parameters)
    if entry.needs_roles:
        options["roles"] = roles
    elif roles is not None:
        raise ValueError(f"{name} updates every role alike; leave roles out.")
    return entry.cls(parameters=parameters, **options)
