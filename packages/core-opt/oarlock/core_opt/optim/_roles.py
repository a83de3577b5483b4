"""Roles of parameters: which of them are hidden matrices, embeddings, heads and vectors."""

import dataclasses
import enum
import fnmatch
from collections.abc import Iterator, Mapping

import paddle
from paddle import nn

from ._checks import suggestion

LINEAR = frozenset({"Linear", "ColumnParallelLinear", "RowParallelLinear"})
EMBEDDING = frozenset({"Embedding", "VocabParallelEmbedding"})
CONVOLUTION = frozenset({"Conv1D", "Conv2D", "Conv3D"})
HEAD_NAMES = frozenset({"lm_head", "head", "output", "classifier", "unembedding", "score"})


class Role(enum.Enum):
    """What a parameter does in the model, which decides the rule that updates it."""

    #: weight of a linear map between hidden spaces, [in, out]
    HIDDEN_MATRIX = "hidden_matrix"
    #: stack of hidden matrices, [experts, in, out]
    EXPERTS = "experts"
    #: kernel of a convolution, [out, in, ...]; a matrix [out, in * ...]
    CONV = "conv"
    #: table looked up by index, also when tied to the head
    EMBEDDING = "embedding"
    #: last linear map, onto the vocabulary or the classes
    HEAD = "head"
    #: gains, biases, grouped convolutions and whatever else is no single matrix
    VECTOR = "vector"

    @classmethod
    def parse(cls, value: "Role | str") -> "Role":
        """Return the role itself or the one of this name."""
        if isinstance(value, cls):
            return value
        names = [role.value for role in cls]
        if not isinstance(value, str) or value.lower() not in names:
            raise ValueError(f"unknown role {value!r}: {suggestion(str(value), names)}")
        return cls(value.lower())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row: the parameter's name in the model, its tensor name, and why it has its role."""

    name: str
    parameter: str
    shape: tuple[int, ...]
    role: Role
    reason: str


class Roles(Mapping):
    """Role of each parameter by its name in the model; ``print`` shows the table with reasons."""

    def __init__(self, entries: list[Entry]):
        self.entries = tuple(entries)
        self._by_name = {entry.name: entry.role for entry in entries}
        self._by_parameter = {entry.parameter: entry.role for entry in entries}

    def __getitem__(self, name: str) -> Role:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def of(self, parameter: paddle.Tensor) -> Role:
        """Role of a parameter tensor; ValueError if it is none of the model's."""
        if parameter.name not in self._by_parameter:
            raise ValueError(
                f"parameter {parameter.name!r} {list(parameter.shape)} is not in these roles; "
                "take the roles of the model that holds it."
            )
        return self._by_parameter[parameter.name]

    def count(self, role: Role) -> int:
        """Number of parameters (elements) of one role."""
        return sum(_size(entry.shape) for entry in self.entries if entry.role is role)

    def __str__(self) -> str:
        rows = [("parameter", "shape", "role", "because")]
        for entry in self.entries:
            shape = " x ".join(str(size) for size in entry.shape) or "scalar"
            rows.append((entry.name, shape, entry.role.value, entry.reason))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]])
            for row in rows
        ]
        totals = [f"{role.value} {self.count(role):,}" for role in Role if self.count(role)]
        return "\n".join([*lines, "elements: " + ", ".join(totals)])

    __repr__ = __str__


def roles(model: nn.Layer, *, override: Mapping[str, Role | str] | None = None) -> Roles:
    """Infer the role of every parameter of ``model`` from its layer, shape and place.

    Embedding layers give EMBEDDING, also when tied to the head. A linear layer is the HEAD when
    its outputs count as many as an embedding's rows, when it bears a head's name outside the
    repeated blocks, or when it comes last outside them. Other linear weights are HIDDEN_MATRIX,
    convolution kernels CONV, and what has one axis (after axes of size 1) VECTOR. A layer may
    declare the roles of its own parameters: ``parameter_roles = {"weight": "experts"}``.

    Args:
        model: the layer that holds the parameters.
        override: role by name pattern, such as ``{"*.router.weight": Role.VECTOR}``; the last
            pattern that matches wins.

    Returns:
        A mapping from parameter names to roles, printable as a table.

    Raises:
        ValueError: a parameter with two axes or more lies in a layer that is not known, or a
            pattern matches nothing.
    """
    if not isinstance(model, nn.Layer):
        raise ValueError(f"model must be a paddle.nn.Layer, got {type(model).__name__}.")
    forced = {pattern: Role.parse(role) for pattern, role in (override or {}).items()}
    layers = dict(model.named_sublayers(include_self=True))
    vocabularies = {layer.weight.shape[0] for layer in layers.values() if _kind(layer) & EMBEDDING}
    linears = [path for path, layer in layers.items() if _kind(layer) & LINEAR]
    last = linears[-1] if linears else None
    uses: dict[int, list[tuple]] = {}  # a tied parameter is used more than once
    for path, layer in layers.items():
        for key, parameter in layer._parameters.items():
            if parameter is not None:
                uses.setdefault(id(parameter), []).append((path, layer, key, parameter))
    entries, unknown, used = [], [], set()
    for places in uses.values():
        names = [f"{path}.{key}" if path else key for path, _, key, _ in places]
        matches = [p for p in forced if any(fnmatch.fnmatchcase(name, p) for name in names)]
        used.update(matches)
        if matches:
            found = [(names[0], forced[matches[-1]], f"override {matches[-1]!r}")]
        else:
            inferred = [
                _infer(path, layer, key, parameter, vocabularies, path == last)
                for path, layer, key, parameter in places
            ]
            found = [
                (name, hit[0], hit[1]) for name, hit in zip(names, inferred) if hit is not None
            ]
        parameter = places[0][3]
        shape = tuple(parameter.shape)
        if not found:
            unknown.append(f"{names[0]} {list(shape)} in {type(places[0][1]).__name__}")
            continue
        tied = [hit for hit in found if hit[1] is Role.EMBEDDING]
        name, role, reason = (tied or found)[0]
        entries.append(
            Entry(name=name, parameter=parameter.name, shape=shape, role=role, reason=reason)
        )
    if unknown:
        raise ValueError(
            f"cannot tell the role of {'; '.join(unknown)}. Name it: "
            f"override={{'{unknown[0].split(' ')[0]}': Role.HIDDEN_MATRIX}} (or EMBEDDING, VECTOR, "
            "EXPERTS), or declare parameter_roles in the layer."
        )
    for pattern in forced:
        if pattern not in used:
            names = [entry.name for entry in entries]
            raise ValueError(
                f"override pattern {pattern!r} matches no parameter: {suggestion(pattern, names)}"
            )
    return Roles(entries)


def _infer(path, layer, key, parameter, vocabularies, is_last) -> tuple[Role, str] | None:
    kind = type(layer).__name__
    declared = getattr(layer, "parameter_roles", {})
    if key in declared:
        return Role.parse(declared[key]), f"declared by {kind}"
    if _kind(layer) & EMBEDDING:
        return Role.EMBEDDING, kind
    shape = tuple(parameter.shape)
    if sum(size > 1 for size in shape) <= 1:
        return Role.VECTOR, "one axis"
    if _kind(layer) & LINEAR and len(shape) == 2:
        if shape[1] in vocabularies:
            return Role.HEAD, f"{shape[1]} outputs, as many as the vocabulary"
        if not _repeated(path):
            names = HEAD_NAMES.intersection(path.split("."))
            if names:
                return Role.HEAD, f"named {min(names)!r}"
            if is_last:
                return Role.HEAD, "last linear layer"
        return Role.HIDDEN_MATRIX, kind
    if _kind(layer) & CONVOLUTION:
        if layer._groups > 1:
            return Role.VECTOR, "grouped convolution, no single matrix"
        return Role.CONV, kind
    if len(shape) == 3 and "expert" in f"{path}.{key}".lower():
        return Role.EXPERTS, "stack of experts"
    return None


def _repeated(path: str) -> bool:
    """Whether the layer sits inside a numbered block (its own number does not count)."""
    return any(part.isdigit() for part in path.split(".")[:-1])


def _kind(layer: nn.Layer) -> frozenset[str]:
    return frozenset(base.__name__ for base in type(layer).__mro__)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
