"""LoRA adapters of an engine: packed for its decoder, by the names that requests ask for.

The decoder has queries, keys and values in one product, and gate and up in one: an adapter's change of one of
them is a change of some columns. Beside float32 weights adapters are float32, beside all others bfloat16.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
from oarlock.native import adapters as native
from oarlock.native import decoder

from oarlock.llm.engine.sharding import Shard
from oarlock.llm.loading import Adapter, LowRank
from oarlock.llm.ranks.leader import LedDecoder

_NAME = re.compile(r"blocks\.(\d+)\.(attention|feed_forward)\.(?:experts\.(\d+)\.)?(\w+)\.weight")
_Places = dict[tuple[int, int | None, str], list[tuple[int, LowRank]]]
#: For one process, or a part for each rank.
Packed = native.Adapter | list[native.Adapter]


def pack(adapter: Adapter, model: decoder.Model) -> native.Adapter:
    """An adapter as the decoder takes it.

    Args:
        adapter: changes by names of parameters.
        model: packed.

    Raises:
        ValueError: it changes what the engine cannot change, or a matrix does not fit; all such are named.
    """
    places = _checked(adapter, model)
    format = "fp32" if model.layers[0].qkv.weight.format == "fp32" else "bf16"

    def change(layer: int, product: str, expert: int | None = None) -> native.LowRank | None:
        found = sorted(places.get((layer, expert, product), ()), key=lambda one: one[0])
        parts = [(one.a, np.float32(one.scale) * one.b, first) for first, one in found]
        return native.LowRank.pack(parts, format=format) if parts else None

    layers = []
    for i, layer in enumerate(model.layers):
        experts = range(len(layer.experts))
        layers.append(
            native.AdapterLayer(
                **{product: change(i, product) for product in ("qkv", "out", "up", "down")},
                experts=tuple((change(i, "up", e), change(i, "down", e)) for e in experts),
            )
        )
    return native.Adapter(layers=tuple(layers))


def pack_parts(
    adapter: Adapter, model: decoder.Model, shards: Sequence[Shard]
) -> list[native.Adapter]:
    """The parts of several ranks: columns of B where the outputs of a product are cut, rows of A where its inputs are.

    Args:
        adapter: changes by names of parameters.
        model: packed, the part of any rank.
        shards: what each rank has.

    Raises:
        ValueError: as of ``pack``.
    """
    last = shards[-1]
    ends = last.queries.stop, last.keys.stop, last.inner.stop
    _checked(adapter, _sized(model, *(slice(0, end) for end in ends)))
    found = []
    for shard in shards:
        changes = {n: _cut(n, one, shard, model.head_size) for n, one in adapter.changes.items()}
        own = _sized(model, shard.queries, shard.keys, shard.inner)
        found.append(pack(dataclasses.replace(adapter, changes=changes), own))
    return found


def _sized(model: decoder.Model, queries: slice, keys: slice, inner: slice) -> decoder.Model:
    """A model of other sizes; its weights do not matter."""
    heads, kv_heads, width = (one.stop - one.start for one in (queries, keys, inner))
    return dataclasses.replace(model, heads=heads, kv_heads=kv_heads, intermediate=width)


def _cut(name: str, change: LowRank, shard: Shard, head_size: int) -> LowRank:
    """A rank's part of a change."""
    q, k = (
        slice(one.start * head_size, one.stop * head_size) for one in (shard.queries, shard.keys)
    )
    part = name.split(".")[-2]
    columns = {"query": q, "key": k, "value": k, "gate": shard.inner, "up": shard.inner}
    if part in columns:
        return dataclasses.replace(change, b=change.b[:, columns[part]])
    return dataclasses.replace(change, a=change.a[{"out": q, "down": shard.inner}[part]])


def _checked(adapter: Adapter, model: decoder.Model) -> _Places:
    places, wrong = _places(adapter.changes, model)
    if wrong:
        raise ValueError(f"{adapter.source} cannot be run: {'; '.join(wrong[:50])}.")
    return places


def _places(changes: Mapping[str, LowRank], model: decoder.Model) -> tuple[_Places, list[str]]:
    """Which product and which of its first columns each change is for, and what is wrong."""
    columns = _columns(model)
    places: _Places = {}
    wrong = []
    for name, change in changes.items():
        found = _NAME.fullmatch(name)
        key = (found[2], found[4]) if found else None
        expert = int(found[3]) if found and found[3] else None
        if (
            found is None
            or key not in columns
            or not _is_there(model, int(found[1]), key[0], expert)
        ):
            wrong.append(f"{name} is none of the products that an adapter can change")
            continue
        product, inputs, first, outputs = columns[key]
        if (
            change.a.shape[0] != inputs
            or change.b.shape[1] != outputs
            or change.a.shape[1:] != change.b.shape[:1]
        ):
            wrong.append(
                f"{name} must have a [{inputs}, r] and b [r, {outputs}], got {change.a.shape} and "
                f"{change.b.shape}"
            )
        elif not (np.isfinite(change.a).all() and np.isfinite(change.b * change.scale).all()):
            wrong.append(f"{name} must have finite numbers")
        else:
            places.setdefault((int(found[1]), expert, product), []).append((first, change))
    return places, wrong


def _columns(model: decoder.Model) -> dict[tuple[str, str], tuple[str, int, int, int]]:
    """Product, inputs, first column and outputs of each part of a block."""
    D, F = model.hidden, model.intermediate
    HK, GK = model.heads * model.head_size, model.kv_heads * model.head_size
    gate = F if model.activation == "swiglu" else 0
    found = {
        ("attention", "query"): ("qkv", D, 0, HK),
        ("attention", "key"): ("qkv", D, HK, GK),
        ("attention", "value"): ("qkv", D, HK + GK, GK),
        ("attention", "out"): ("out", HK, 0, D),
        ("feed_forward", "up"): ("up", D, gate, F),
        ("feed_forward", "down"): ("down", F, 0, D),
    }
    return found | ({("feed_forward", "gate"): ("up", D, 0, F)} if gate else {})


def _is_there(model: decoder.Model, layer: int, part: str, expert: int | None) -> bool:
    if layer >= len(model.layers):
        return False
    experts = len(model.layers[layer].experts)
    if part == "attention" or not experts:
        return expert is None
    return expert is not None and expert < experts


class Adapters:
    """The adapters that are loaded.

    Args:
        decoder: that computes them.
        shards: what each rank has, where several compute them.
    """

    def __init__(self, decoder: decoder.Decoder, shards: Sequence[Shard] = ()) -> None:
        self._decoder, self._shards = decoder, shards
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were loaded."""
        return tuple(self._numbers)

    def number(self, name: str | None) -> int:
        """Of an adapter; -1 for the model alone. None has the number of one before it.

        Raises:
            ValueError: there is none of this name.
        """
        found = -1 if name is None else self._numbers.get(name)
        if found is None:
            known = f"one of {', '.join(self.names)}" if self.names else "None, for none is loaded"
            raise ValueError(f"adapter must be {known}, got {name!r}.")
        return found

    def pack(self, adapter: Adapter) -> Packed:
        """An adapter as the decoder takes it, a part for each rank where there are several; changes nothing.

        Raises:
            ValueError: the adapter does not fit.
        """
        if isinstance(self._decoder, LedDecoder):
            return pack_parts(adapter, self._decoder.model, self._shards)
        return pack(adapter, self._decoder.model)

    def load(self, name: str, adapter: Adapter | Packed) -> None:
        """Take an adapter in, packed already or not.

        Raises:
            ValueError: the name is empty or in use, or the adapter does not fit.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be a text that is not empty, got {name!r}.")
        if name in self._numbers:
            raise ValueError(f"name must be new, but {name!r} is loaded; unload it first.")
        packed = self.pack(adapter) if isinstance(adapter, Adapter) else adapter
        made = self._decoder
        if isinstance(packed, native.Adapter):
            number = made.load_adapter(packed)
        else:
            assert isinstance(made, LedDecoder)
            number = made.load_parts(packed)
        self._numbers[name] = number

    def unload(self, name: str) -> None:
        """Forget an adapter that no text uses."""
        self._decoder.unload_adapter(self._numbers[name])
        del self._numbers[name]
