"""Models and arrays of a Deep Potential as the C ABI takes them, for the CPU and for GPUs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.native import _deep_potential_abi as abi
from oarlock.native._deep_potential_model import Array, Layer, Model, embed
from oarlock.native._deep_potential_tables import Table


def array(name: str, values: Any, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    found: NDArray[Any] = np.ascontiguousarray(values, dtype)
    if len(found.shape) != len(shape) or any(
        wanted not in (-1, size) for wanted, size in zip(shape, found.shape)
    ):
        raise ValueError(f"{name} has shape {list(found.shape)}, but must be {list(shape)}")
    return found


def argument(
    model: Model, precision: str, tables: Sequence[Table] | None, kept: list[Any]
) -> abi.Model:
    """The structure of the C ABI; ``kept`` gets all that it points to.

    Raises:
        ValueError: sizes that do not fit together.
    """
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision={precision!r} has to be 'float32' or 'float64'")
    if tables is not None and len(tables) != len(model.embeddings):
        raise ValueError(f"tables has {len(tables)} for {len(model.embeddings)} networks")
    kinds, nets = model.kinds, model.kinds if model.one_side else model.kinds**2
    if len(model.embeddings) != nets or len(model.fittings) != kinds:
        raise ValueError(
            f"embeddings and fittings have {len(model.embeddings)} and {len(model.fittings)} "
            f"networks, but must have {nets} and {kinds}"
        )
    for name, networks in (("embeddings", model.embeddings), ("fittings", model.fittings)):
        if len({len(network) for network in networks}) != 1:
            raise ValueError(f"{name} have to be of as many layers each")
    if not 0 <= model.smooth < model.cutoff:
        raise ValueError(f"smooth={model.smooth} has to be below cutoff={model.cutoff}")
    if not np.sum(model.sel) > 0 or not np.min(model.deviation) > 0:
        raise ValueError("deviation and the total of sel have to be positive")
    arrays = {
        "mean": _address("mean", model.mean, (kinds, 4), kept),
        "deviation": _address("deviation", model.deviation, (kinds, 4), kept),
        "sel": _address("sel", model.sel, (kinds,), kept),
        "reference": _address("reference", model.reference, (kinds,), kept),
        "nothing": _address(
            "nothing", _nothing(model, tables), (kinds, kinds, model.width, 4), kept
        ),
    }
    found = None
    if tables is not None:
        found = (abi.Table * nets)(
            *(
                abi.Table(
                    _address("nodes", one.nodes, (len(one.nodes), 4, model.width), kept),
                    one.first,
                    one.step,
                    len(one.nodes) - 1,
                )
                for one in tables
            )
        )
        kept.append(found)
    return abi.Model(
        bits=32 if precision == "float32" else 64,
        kinds=kinds,
        one_side=model.one_side,
        axis=model.axis,
        embedding_layers=len(model.embeddings[0]),
        fitting_layers=len(model.fittings[0]) - 1,
        cutoff=model.cutoff,
        smooth=model.smooth,
        scale=model.scale,
        embedding=_layers(model.embeddings, kept),
        fitting=_layers(model.fittings, kept),
        tables=found,
        **arrays,
    )


def _nothing(model: Model, tables: Sequence[Table] | None) -> Array:
    """Features times row of a neighbour at the cut-off. [K, K, M, 4]. By what neighbours go through too, so
    that one which leaves changes nothing."""
    rows = -model.mean / model.deviation
    found = np.empty((model.kinds, model.kinds, model.width, 4))
    for center in range(model.kinds):
        for neighbour in range(model.kinds):
            number, at = model.net(center, neighbour), rows[center, :1]
            features = embed(model.embeddings[number], at) if tables is None else tables[number](at)
            found[center, neighbour] = features[0][0][:, None] * rows[center]
    return found


def _layers(networks: Sequence[Sequence[Layer]], kept: list[Any]) -> Any:
    layers = [
        abi.Layer(
            _address("weight", one.weight, np.shape(one.weight), kept),
            _address("bias", one.bias, (np.shape(one.weight)[1],), kept),
            (
                None
                if one.timestep is None
                else _address("timestep", one.timestep, (np.shape(one.weight)[1],), kept)
            ),
            *np.shape(one.weight),
        )
        for network in networks
        for one in network
    ]
    found = (abi.Layer * len(layers))(*layers)
    kept.append(found)
    return found


def _address(name: str, values: Any, shape: tuple[int, ...], kept: list[Any]) -> int:
    found = array(name, values, np.float64, shape)
    if not np.isfinite(found).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    kept.append(found)
    return found.ctypes.data
