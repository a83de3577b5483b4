"""Deep Potentials for inference: atoms and lists of neighbours to energies, forces and virial.

``Model`` says what is computed, ``DeepPotential`` computes it, in float32 or float64. With tables of
``compress`` in place of the embedding networks it is several times as fast, and the features of edges
are never kept.
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.native import _deep_potential_abi as abi
from oarlock.native import _library
from oarlock.native import threads as _threads
from oarlock.native._deep_potential_model import Array, Layer, Model, embed
from oarlock.native._deep_potential_tables import Table, compress

__all__ = ["DeepPotential", "Layer", "Model", "Result", "Table", "compress"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Result:
    """Args:
    energies: [owned], eV.
    forces: [atoms, 3], eV/Å.
    virial: [3, 3], eV, −∂E/∂ε.
    virials: [owned, 3, 3], eV, what each atom's own edges give to it; None where not asked for.
    """

    energies: Array
    forces: Array
    virial: Array
    virials: Array | None


class DeepPotential:
    """A model with parameters as they were.

    Args:
        model: what to compute.
        precision: "float32" or "float64", of networks and sums over neighbours. Positions and what is
            added up over atoms are float64.
        tables: of `compress`, in place of the embedding networks.

    Raises:
        ValueError: sizes that do not fit together.
    """

    def __init__(
        self, model: Model, *, precision: str = "float64", tables: Sequence[Table] | None = None
    ) -> None:
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision={precision!r} has to be 'float32' or 'float64'")
        if tables is not None and len(tables) != len(model.embeddings):
            raise ValueError(f"tables has {len(tables)} for {len(model.embeddings)} networks")
        self.model, self.precision, self.tables = model, precision, tables
        self._library = _library.load()
        kept: list[Any] = []
        given = _argument(model, precision, tables, kept)
        handle = ctypes.c_void_p()
        self._library.call(
            "oarlock_atoms_deep_potential_create", ctypes.byref(given), ctypes.byref(handle)
        )
        self._handle = handle
        weakref.finalize(self, self._library.functions.oarlock_atoms_deep_potential_destroy, handle)

    def evaluate(
        self,
        positions: Array,
        species: NDArray[np.int32],
        offsets: NDArray[np.int64],
        neighbours: NDArray[np.int32],
        *,
        shifts: Array | None = None,
        owned: int | None = None,
        virials: bool = False,
        threads: int | None = None,
    ) -> Result:
        """Energies of the owned atoms and what they do to all. Any number of threads gives the same bits.

        Args:
            positions: [M, 3], Å.
            species: [M].
            offsets: [rows + 1]; the neighbours of atom i are ``neighbours[offsets[i]:offsets[i + 1]]``.
            neighbours: [E]; those beyond the cut-off are left out.
            shifts: [E, 3], Å, added to the vectors from centre to neighbour.
            owned: the first atoms, whose energies count; None for all rows.
            virials: also share the virial out among atoms.

        Raises:
            ValueError: shapes or indices that do not fit, overlapping atoms, or atoms closer than the
                tables reach.
        """
        positions = _array("positions", positions, np.float64, (-1, 3))
        species = _array("species", species, np.int32, (len(positions),))
        offsets = _array("offsets", offsets, np.int64, (-1,))
        neighbours = _array("neighbours", neighbours, np.int32, (-1,))
        rows = len(offsets) - 1
        if rows < 0 or offsets[0] != 0 or offsets[-1] != len(neighbours):
            raise ValueError(f"offsets have to rise from 0 to {len(neighbours)}, all neighbours")
        if shifts is not None:
            shifts = _array("shifts", shifts, np.float64, (len(neighbours), 3))
        owned = rows if owned is None else owned
        energies = np.empty(max(owned, 0))
        forces, virial = np.empty((len(positions), 3)), np.empty((3, 3))
        shared = np.empty((len(energies), 3, 3)) if virials else None
        inputs = (positions, species, offsets, neighbours, shifts)
        arrays = (*inputs, energies, forces, virial, shared)
        given = abi.Structure(
            len(positions),
            rows,
            owned,
            *(None if one is None else one.ctypes.data for one in arrays),
        )
        self._library.call(
            "oarlock_atoms_deep_potential_evaluate",
            self._handle,
            ctypes.byref(given),
            _threads.count(threads),
        )
        return Result(energies=energies, forces=forces, virial=virial, virials=shared)


def _array(name: str, values: Any, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    array: NDArray[Any] = np.ascontiguousarray(values, dtype)
    if len(array.shape) != len(shape) or any(
        wanted not in (-1, found) for wanted, found in zip(shape, array.shape)
    ):
        raise ValueError(f"{name} has shape {list(array.shape)}, but must be {list(shape)}")
    return array


def _argument(
    model: Model, precision: str, tables: Sequence[Table] | None, kept: list[Any]
) -> abi.Model:
    """The structure of the C ABI; ``kept`` gets all that it points to."""
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
    array = _array(name, values, np.float64, shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    kept.append(array)
    return array.ctypes.data
