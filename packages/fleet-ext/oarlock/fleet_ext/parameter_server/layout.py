"""What tables there are, and into how many shards they are divided: the same for all servers and clients of a job.

```yaml
shards: 64
replicas: 2
tables:
  embedding: {kind: sparse, width: 16, optimizer: {kind: adagrad, rate: 0.05}, initial: {kind: normal, deviation: 0.01}}
  tower: {kind: dense, shape: [2113], optimizer: {kind: adam, rate: 0.001}}
```
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import yaml

from oarlock.fleet_ext.parameter_server.hashing import salt_of
from oarlock.fleet_ext.parameter_server.initial import INITIALS, Constant, Initial, Uniform
from oarlock.fleet_ext.parameter_server.optimizers import OPTIMIZERS, Optimizer, Sgd

MOST_WIDTH = 1 << 16
MOST_SHARDS = 4096
_BLOCK = 1024  #: numbers of a dense table that lie in one shard together


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """Rows by key. One that was never pushed is not kept: it is what `initial` says.

    Args:
        width: numbers of a row.
        optimizer: that takes the steps.
        initial: what rows begin with.
        hot_rows: in memory, of the whole table and for each of its copies; None for all. The others lie on the
            server's disk, and results are the same bits.
    """

    kind: ClassVar[str] = "sparse"
    width: int
    optimizer: Optimizer = Sgd()
    initial: Initial = Uniform()
    hot_rows: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MOST_WIDTH:
            raise ValueError(f"width must be from 1 to {MOST_WIDTH}, not {self.width}")
        if self.hot_rows is not None and self.hot_rows < 1:
            raise ValueError(f"hot_rows must be at least 1, or None for all, not {self.hot_rows}")

    @property
    def record(self) -> int:
        """Numbers of a row and of what its optimiser remembers."""
        return self.width + self.optimizer.extra(self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """An array. It is kept as rows, of which each is a block of it, by the number of the block.

    Args:
        shape: of the array.
        optimizer: that takes the steps.
        initial: what it begins with; for values of your own, `Client.assign_dense`.
    """

    kind: ClassVar[str] = "dense"
    shape: tuple[int, ...]
    optimizer: Optimizer = Sgd()
    initial: Initial = Constant()

    def __post_init__(self) -> None:
        if not self.shape or any(one < 1 for one in self.shape):
            raise ValueError(f"shape must be numbers above 0, not {self.shape}")

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def width(self) -> int:
        return min(_BLOCK, self.size)

    @property
    def blocks(self) -> int:
        return -(-self.size // self.width)

    @property
    def hot_rows(self) -> None:
        return None

    @property
    def record(self) -> int:
        return self.width + self.optimizer.extra(self.width)


Table = Sparse | Dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """
    Args:
        tables: by name.
        shards: into which keys are divided by their hash; they move between servers, and their number stays.
        replicas: copies of each shard: 2 survive a server, 1 do not.
    """

    tables: Mapping[str, Table]
    shards: int = 64
    replicas: int = 2
    salts: Mapping[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= MOST_SHARDS:
            raise ValueError(f"shards must be from 1 to {MOST_SHARDS}, not {self.shards}")
        if self.replicas not in (1, 2):
            raise ValueError(f"replicas must be 1 or 2, not {self.replicas}")
        if not self.tables or any(not name or len(name) > 100 for name in self.tables):
            raise ValueError("tables must be some, with names of 1 to 100 characters")
        object.__setattr__(self, "salts", {name: salt_of(name) for name in self.tables})

    def table(self, name: str) -> Table:
        """
        Raises:
            ValueError: there is none; the message says which there are.
        """
        found = self.tables.get(name)
        if found is None:
            raise ValueError(
                f"there is no table {name!r}: there are {', '.join(sorted(self.tables))}"
            )
        return found

    def pack(self) -> bytes:
        tables = {
            name: {"kind": one.kind, **asdict(one),
                   "optimizer": {"kind": one.optimizer.kind, **asdict(one.optimizer)},  # type: ignore[call-overload]
                   "initial": {"kind": one.initial.kind, **asdict(one.initial)}}
            for name, one in self.tables.items()
        }  # fmt: skip
        said = {"shards": self.shards, "replicas": self.replicas, "tables": tables}
        return json.dumps(said, sort_keys=True).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> "Layout":
        return cls.of(json.loads(packed))

    @classmethod
    def read(cls, path: Path) -> "Layout":
        """From a file of YAML, as above.

        Raises:
            ValueError: it is not as it should be; the message says where.
        """
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML: {error}") from error
        try:
            return cls.of(given)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def of(cls, given: Any) -> "Layout":
        """From plain values."""
        if not isinstance(given, dict) or not isinstance(given.get("tables"), dict):
            raise ValueError("a layout has `tables`, by name, and may have `shards` and `replicas`")
        tables = {str(name): _table(str(name), one) for name, one in given["tables"].items()}
        rest = {key: value for key, value in given.items() if key != "tables"}
        return _made(cls, "layout", {**rest, "tables": tables}, "")


def _table(name: str, given: Any) -> Table:
    where = f"tables.{name}"
    if not isinstance(given, dict):
        raise ValueError(f"{where} must have a kind, sparse or dense, and its settings")
    settings = dict(given)
    for part, known in (("optimizer", OPTIMIZERS), ("initial", INITIALS)):
        if part in settings:
            settings[part] = _kind(settings[part], known, f"{where}.{part}")
    if isinstance(settings.get("shape"), list):
        settings["shape"] = tuple(settings["shape"])
    return _kind(settings, {"sparse": Sparse, "dense": Dense}, where)


def _kind(given: Any, known: Mapping[str, type], where: str) -> Any:
    if not isinstance(given, dict) or given.get("kind") not in known:
        raise ValueError(f"{where} must have a kind: {', '.join(known)}")
    rest = {key: value for key, value in given.items() if key != "kind"}
    return _made(known[given["kind"]], where, rest, f" of kind {given['kind']}")


def _made(cls: type, where: str, settings: Mapping[str, Any], what: str) -> Any:
    known = {one.name: one.type for one in fields(cls) if one.init}
    if unknown := sorted(settings.keys() - known.keys()):
        raise ValueError(
            f"{where}{what} has no {', '.join(unknown)}: it may have {', '.join(sorted(known))}"
        )
    try:
        return cls(**{name: _number(name, value, known[name]) for name, value in settings.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if what else str(error)) from error


def _number(name: str, value: Any, kind: Any) -> Any:
    """A setting; YAML takes 1e-3 for text."""
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    wanted = {float: (int, float), int: int, int | None: int | None, tuple[int, ...]: tuple}.get(
        kind
    )
    if wanted is None:
        return value
    inner = value if isinstance(value, tuple) else (value,)
    if not isinstance(value, wanted) or any(isinstance(one, bool | str) for one in inner):
        raise ValueError(f"{name} must be of type {getattr(kind, '__name__', kind)}, not {value!r}")
    return value
