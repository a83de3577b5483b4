"""Jinja's sandbox with bounds on work and memory.

The sandbox keeps templates from Python, not from ``range`` in ``range`` in ``range`` or from doubling a
text forty times. Here every turn of a loop, call, filter and operator that makes a value counts as a
step; the characters it makes count too, before they are made where one operation can make many.
"""

import contextvars
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 200_000
MAX_SIZE = 1 << 22  # of one value and of the output, characters or items
MAX_TOTAL = 1 << 26  # of all values together
MAX_NUMBER = 1 << 20  # as an argument; widths and counts
_WIDE = re.compile(r"\d{5}")

_FILTERS = (
    """abs capitalize count d default dictsort e escape first float groupby indent int items join
last length list lower map max min reject rejectattr replace reverse round safe select selectattr sort
string sum title trim unique upper wordcount""".split()
)
_GLOBALS = ("range", "dict", "namespace", "joiner", "cycler")


class LimitError(Exception):
    """A template does more than it may."""


class Budget:
    """Counts what one rendering does; set for the code within a ``with``."""

    def __init__(self) -> None:
        self._steps = self._total = self._output = 0

    def __enter__(self) -> "Budget":
        self._token = _current.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _current.reset(self._token)

    def step(self, size: int = 0) -> None:
        """One more step, which makes a value of ``size``."""
        self._steps += 1
        self._total += size
        if size > MAX_SIZE or self._total > MAX_TOTAL:
            raise LimitError(f"it makes values of more than {MAX_SIZE} characters")
        if self._steps > MAX_STEPS:
            raise LimitError(f"it takes more than {MAX_STEPS} steps; is a loop endless?")

    def output(self, text: str) -> None:
        """One more piece of the result."""
        self._output += len(text)
        if self._output > MAX_SIZE:
            raise LimitError(f"it makes more than {MAX_SIZE} characters")


_current: contextvars.ContextVar[Budget] = contextvars.ContextVar("budget")


def _step(size: int = 0) -> None:
    _current.get().step(size)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict)) else 1


def _check_arguments(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, (int, float)) and not -MAX_NUMBER <= value <= MAX_NUMBER:
            raise LimitError(f"it calls with a number beyond {MAX_NUMBER}")


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that counts; arguments and result are looked at."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        _check_arguments((*arguments[1:], *named.values()))
        result = function(*arguments, **named)
        _step(_size(result))
        return result

    return call


def _join(values: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        raise LimitError("it joins by attribute, which is not rendered here")
    texts = [str(value) for value in values]
    _step(sum(map(len, texts)) + len(d) * len(texts))
    return str(d).join(texts)


def _replace(text: str, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    times = text.count(old) if count is None else min(text.count(old), max(count, 0))
    _step(len(text) + times * len(new))
    return text.replace(old, new, times)


def _turns(values: Iterable[Any]) -> Iterator[Any]:
    """The values of a loop, each a step."""
    for value in values:
        _step()
        yield value


def _concatenate(values: list[Any]) -> str:
    texts = [str(value) for value in values]
    _step(sum(map(len, texts)))
    return "".join(texts)


def _printed(value: Any) -> Any:
    """What is about to be written, into a block perhaps that becomes a value."""
    _step(_size(value))
    return value


class _CountingGenerator(CodeGenerator):
    """Writes no constant without counting it."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> str:
        raise nodes.Impossible()


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """An environment whose templates run within the current ``Budget``."""

    code_generator_class = _CountingGenerator
    intercepted_binops = frozenset(("+", "*", "%", "**"))

    def __init__(self, **options: Any):
        super().__init__(finalize=_printed, **options)
        self.filters = {name: counted(self.filters[name]) for name in _FILTERS} | {
            "join": _join,
            "replace": _replace,
            "_turns": _turns,
            "_concatenate": _concatenate,
        }
        self.globals = {name: self.globals[name] for name in _GLOBALS}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            if loop.recursive:
                raise LimitError("it has a recursive loop, which is not rendered here")
            loop.iter = _filtered(loop.iter, "_turns")
        _replace_concatenations(tree)
        for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
            if next(tree.find_all(kind), None) is not None:
                raise LimitError("it wants other templates, of which there are none")
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        texts = isinstance(left, (str, list, tuple)), isinstance(right, (str, list, tuple))
        if operator == "*" and any(texts):
            times, value = (right, left) if texts[0] else (left, right)
            _step(len(value) * max(times, 0) if isinstance(times, int) else 0)
        elif operator == "+" and all(texts):
            _step(len(left) + len(right))
        elif operator == "%" and texts[0]:
            if isinstance(left, str) and (_WIDE.search(left) or "*" in left):
                raise LimitError("it formats to a great width")
            _step(len(left) + sum(map(_size, right if isinstance(right, tuple) else (right,))))
        elif operator in ("*", "**"):
            _check_arguments((left, right) if operator == "**" else ())
            if operator == "**" and (abs(right) > 64 or abs(left) > 1e4):
                raise LimitError("it takes a great power")
            _step()
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and abs(result) > 1 << 256:
            raise LimitError("it computes with numbers beyond 256 bits")
        return result

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        _check_arguments((*arguments, *named.values()))
        if isinstance(owner, str):
            if name == "replace" and len(arguments) >= 2:
                return _replace(owner, *arguments)
            if name == "join" and len(arguments) == 1:
                return _join(arguments[0], owner)
            if name in ("format", "format_map") and _WIDE.search(owner):
                raise LimitError("it formats to a great width")
        _step()
        result = super().call(context, function, *arguments, **named)
        _step(_size(result))
        return result


def _filtered(value: nodes.Node, name: str) -> nodes.Node:
    made = nodes.Filter(value, name, [], [], None, None)  # type: ignore[arg-type]
    return made.set_lineno(value.lineno)


def _replace_concatenations(node: nodes.Node) -> None:
    """``a ~ b`` becomes a filter, which counts."""
    for field, value in node.iter_fields():
        if isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, nodes.Node):
                    value[i] = _counted_node(item)
        elif isinstance(value, nodes.Node):
            setattr(node, field, _counted_node(value))


def _counted_node(node: nodes.Node) -> nodes.Node:
    _replace_concatenations(node)
    if isinstance(node, nodes.Concat):
        items = nodes.List(node.nodes).set_lineno(node.lineno)
        return _filtered(items, "_concatenate")
    return node
