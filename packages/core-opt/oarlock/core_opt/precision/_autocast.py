"""Mixed precision that really casts on a CPU.

``paddle.amp.auto_cast`` does nothing there, for two reasons: its Python half turns itself off with a
warning, and its C++ half, which puts the casts before operators, chooses float32 for operands that
are all on a CPU. So :class:`autocast` puts the casts before the operators in ``paddle._C_ops`` itself,
for as long as a context is open, by the same lists. The operators for bfloat16 come from
``oarlock.native.paddle.kernels``.
"""

import sys
import threading
from contextlib import ContextDecorator

import paddle
import paddle.amp.auto_cast  # noqa: F401 - the module, which paddle.amp hides by a function
from oarlock.native.paddle import kernels
from paddle import _C_ops
from paddle.base import core
from paddle.base.framework import in_dygraph_mode

from .._checks import choice, flag, shown
from ._lists import Lists, lists

Tensor = core.eager.Tensor
_TENSORS = (Tensor, paddle.pir.Value)  # eager, and in a graph that to_static traces
_CASTABLE = frozenset(("float32", "bfloat16", "float16"))
_STOCK = sys.modules["paddle.amp.auto_cast"]
_METHODS = {  # operators of Python's that reach C++ without `_C_ops`, by the operator they are
    "matmul": ("__matmul__",),
    "pow": ("__pow__", "__rpow__"),
}
_BATCH_NORMS = (  # their running statistics need float32
    paddle.nn.BatchNorm,
    paddle.nn.BatchNorm1D,
    paddle.nn.BatchNorm2D,
    paddle.nn.BatchNorm3D,
    paddle.nn.SyncBatchNorm,
)


class autocast(ContextDecorator):  # noqa: N801 - a context manager, named as Paddle and torch do
    """Casts before operators: the matrix products to low precision, delicate ones to float32.

    ``with autocast(): loss = model(x)``, then ``loss.backward()`` and the optimiser's step, inside or
    outside. Casts are differentiable: float32 parameters get float32 gradients. May be nested and
    entered again, in each thread by itself; a stock ``paddle.amp.auto_cast(enable=False)`` inside is
    heeded. Also a decorator.

    - O1: operators on the white list compute in ``dtype``, those on the black list in float32,
      others in the widest type among their operands.
    - O2: the same with a much shorter black list, for models whose parameters :func:`decorate` has
      cast: activations stay in ``dtype`` from layer to layer.
    - A parameter is cast at each use, as Paddle does on GPUs. A cast kept for later could be out of
      date: optimisers' kernels, and even ``set_value``, change parameters without a trace.
    - ``to_static``: a graph is traced once, with the casts of the context around that first call,
      and keeps them for later calls, inside and outside. A context inside the function needs
      ``full_graph=True``, and ``kernels.load()`` before.
    - GPU: this is ``paddle.amp.auto_cast``.
    - ``recompute`` (fleet's) calls the stock ``auto_cast`` in its backward pass, which does nothing
      on a CPU: open ``autocast`` inside the recomputed function.

    Args:
        level: ``"O1"`` or ``"O2"``.
        dtype: ``"bfloat16"``; ``"float16"`` on GPUs only.
        white: operators to compute in ``dtype`` besides Paddle's, named as in
            ``paddle.amp.white_list()`` or as in ``paddle._C_ops``.
        black: operators to compute in float32 besides Paddle's.
        enabled: False for no casts at all, also inside another ``autocast``.

    Raises:
        ValueError: an argument other than the above.
        oarlock.native.paddle.kernels.KernelsUnavailable: on a CPU whose Paddle cannot be given
            bfloat16 operators; when the context is entered, before anything has changed.
        RuntimeError: entered for the first time inside a function that is being traced.

    Source: Micikevicius et al., "Mixed precision training" (1710.03740); lists: ``paddle.amp``.
    """

    def __init__(self, *, level="O1", dtype="bfloat16", white=(), black=(), enabled=True):
        self._level = choice("level", level, ("O1", "O2"))
        self._dtype = choice("dtype", dtype, ("bfloat16", "float16"))
        self._lists = lists(level=level, dtype=dtype, white=white, black=black)
        self._enabled = flag("enabled", enabled)
        self._entered: list = []  # innermost last: a context may be entered again

    def __enter__(self) -> "autocast":
        context = self._context()
        context.__enter__()
        self._entered.append(context)
        return self

    def __exit__(self, *error) -> None:
        self._entered.pop().__exit__(*error)

    def _context(self):
        if not _on_cpu():
            return paddle.amp.auto_cast(
                self._enabled,
                self._lists.white,
                self._lists.black,
                level=self._level,
                dtype=self._dtype,
            )
        if not self._enabled:
            return _Context(None)
        prepare(self._dtype)
        return _Context(_Casts(self._dtype, self._lists))


def prepare(dtype: str) -> None:
    """Load the operators for training in ``dtype`` on a CPU, or raise for want of them."""
    if dtype != "bfloat16":
        raise ValueError(
            f"dtype must be 'bfloat16' on a CPU, got {dtype!r}: neither Paddle nor oarlock has "
            f"float16 operators there, and bfloat16 needs no loss scaling."
        )
    if not (kernels.status().loaded or in_dygraph_mode()):  # Paddle would crash
        raise RuntimeError(
            "kernels cannot be loaded while to_static traces: call "
            "oarlock.native.paddle.kernels.load() first."
        )
    kernels.load()


def _on_cpu() -> bool:
    return paddle.device.get_device() == "cpu"


class _Thread(threading.local):
    casts: "_Casts | None" = None  # those of the innermost open context of this thread


_THREAD = _Thread()


class _Context:
    """Makes casts, or none, the ones of this thread, and takes them back."""

    def __init__(self, casts: "_Casts | None"):
        self._casts = casts

    def __enter__(self) -> None:
        self._outer = _THREAD.casts
        if self._casts is not None:
            self._casts.stock = _STOCK.amp_state()
            _HOOKS.install(self._casts.rules)
        _THREAD.casts = self._casts

    def __exit__(self, *error) -> None:
        _THREAD.casts = self._outer
        if self._casts is not None:
            _HOOKS.remove(self._casts.rules)


class _Casts:
    """What a context does to the operands of operators."""

    def __init__(self, dtype: str, names: Lists):
        self.rules = names.rules()
        self.stock = None  # Paddle's AMP context around this one
        self._low = dtype

    def apply_to(self, operator: str) -> bool:
        """Whether this operator's operands are to be cast, here and now."""
        stock = _STOCK.amp_state()  # another one than at first was entered inside this context
        return operator in self.rules and (stock is self.stock or stock["enable"])

    def prepared(self, operator: str, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments with their tensors cast as the operator's rule has it."""
        rule = self.rules[operator]
        if rule == "first" and not _has_float32(args[:1]):
            return args, kwargs
        low = rule == "low" or (rule == "widest" and not _has_float32((*args, *kwargs.values())))
        to = self._low if low else "float32"
        args = tuple(self._cast(value, to) for value in args)
        return args, {name: self._cast(value, to) for name, value in kwargs.items()}

    def _cast(self, value, to: str):
        if isinstance(value, _TENSORS):
            name = _type_of(value)
            if name == to or name not in _CASTABLE:
                return value
            return paddle.cast(value, to)  # type: ignore[arg-type]  # one of _CASTABLE
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], _TENSORS):
            return type(value)(self._cast(item, to) for item in value)
        return value


class _Hooks:
    """Wrappers around operators, installed while any thread has a context that needs them."""

    def __init__(self):
        self._lock = threading.Lock()
        self._users: dict = {}  # operator -> number of open contexts
        self._originals: dict = {}  # (owner, attribute) -> what was there

    def installed(self) -> bool:
        return bool(self._originals)

    def install(self, operators) -> None:
        with self._lock:
            for operator in operators:
                self._users[operator] = self._users.get(operator, 0) + 1
                if self._users[operator] == 1:
                    for owner, name in self._places(operator):
                        original = getattr(owner, name)
                        self._originals[owner, name] = original
                        setattr(owner, name, _wrapped(operator, original))

    def remove(self, operators) -> None:
        with self._lock:
            for operator in operators:
                self._users[operator] -= 1
                if self._users[operator] == 0:
                    for owner, name in self._places(operator):
                        setattr(owner, name, self._originals.pop((owner, name)))

    @staticmethod
    def _places(operator: str) -> list[tuple]:
        """Where Python finds an operator: the owner and the attribute's name."""
        methods = _METHODS.get(operator, ())
        return [(_C_ops, operator), *((kind, name) for kind in _TENSORS for name in methods)]


_HOOKS = _Hooks()


def _wrapped(operator: str, original):
    def call(*args, **kwargs):
        casts = _THREAD.casts
        if casts is not None and casts.apply_to(operator):
            args, kwargs = casts.prepared(operator, args, kwargs)
        return original(*args, **kwargs)

    call.__name__ = operator
    return call


def _type_of(tensor) -> str:
    return _TYPE_NAMES.get(tensor.dtype, "")


_TYPE_NAMES = {getattr(paddle, name): name for name in _CASTABLE} | {
    getattr(core.DataType, name.upper()): name for name in _CASTABLE
}


def _has_float32(values) -> bool:
    for value in values:
        if isinstance(value, _TENSORS):
            if _type_of(value) == "float32":
                return True
        elif isinstance(value, (list, tuple)) and _has_float32(value):
            return True
    return False


def decorate(model: paddle.nn.Layer, *, dtype="bfloat16", keep=()) -> paddle.nn.Layer:
    """Cast a model's parameters for level O2, in place; normalisation by batches stays float32.

    Give the optimiser ``multi_precision=True``: it then keeps float32 masters of the parameters.
    ``paddle.amp.decorate`` uses the same rule, and does nothing on a CPU.

    Args:
        model: any layer, its parameters in float32.
        dtype: ``"bfloat16"``; ``"float16"`` on GPUs only.
        keep: kinds of layers (classes) whose parameters stay as they are, besides.

    Returns:
        The model.

    Raises:
        ValueError: not a layer, or an argument other than the above. Nothing was cast then.
        oarlock.native.paddle.kernels.KernelsUnavailable: as for :class:`autocast`.
    """
    if not isinstance(model, paddle.nn.Layer):
        raise ValueError(f"model must be a paddle.nn.Layer, got {shown(model)}.")
    choice("dtype", dtype, ("bfloat16", "float16"))
    kinds = tuple(keep)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, paddle.nn.Layer)):
            raise ValueError(f"keep must have classes of layers, got {shown(kind)}.")
    if not _on_cpu():
        return paddle.amp.decorate(model, level="O2", dtype=dtype, excluded_layers=list(kinds))
    prepare(dtype)
    for layer in model.sublayers(include_self=True):
        if not isinstance(layer, (*_BATCH_NORMS, *kinds)):
            layer._to_impl(dtype=dtype, include_sublayers=False, floating_only=True)
    return model
