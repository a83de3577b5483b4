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
from oarlock.native._deep_potential_arguments import argument, array
from oarlock.native._deep_potential_model import Array, Layer, Model
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
        kept: list[Any] = []
        given = argument(model, precision, tables, kept)
        self.model, self.precision, self.tables = model, precision, tables
        self._library = _library.load()
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
        positions = array("positions", positions, np.float64, (-1, 3))
        species = array("species", species, np.int32, (len(positions),))
        offsets = array("offsets", offsets, np.int64, (-1,))
        neighbours = array("neighbours", neighbours, np.int32, (-1,))
        rows = len(offsets) - 1
        if rows < 0 or offsets[0] != 0 or offsets[-1] != len(neighbours):
            raise ValueError(f"offsets have to rise from 0 to {len(neighbours)}, all neighbours")
        if shifts is not None:
            shifts = array("shifts", shifts, np.float64, (len(neighbours), 3))
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
