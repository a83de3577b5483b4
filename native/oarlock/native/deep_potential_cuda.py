"""``oarlock.native.deep_potential`` on a GPU: lists of neighbours go there when they change, positions each step.

Arrays are NumPy's, in the host's memory. The numbers are the CPU's up to the order of sums, and the same bits in
every call. It takes tables of ``compress`` in place of the embedding networks.

>>> engine = deep_potential_cuda.DeepPotential(model, tables=deep_potential.compress(model))
>>> engine.set_lists(species, offsets, neighbours, shifts=shifts)
>>> engine.evaluate(positions).forces
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.native import _deep_potential_abi as abi
from oarlock.native import cuda
from oarlock.native._deep_potential_arguments import argument, array
from oarlock.native._deep_potential_model import Array, Model
from oarlock.native._deep_potential_tables import Table
from oarlock.native.deep_potential import Result

__all__ = ["DeepPotential", "Milliseconds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Milliseconds:
    """Of one call, by the GPU's clock: positions there, kernels, results back."""

    upload: float
    compute: float
    download: float


class DeepPotential:
    """A model with parameters as they were, on the current GPU.

    Args:
        model: what to compute.
        precision: "float32" or "float64", of networks and sums over neighbours. Positions and what is
            added up over atoms are float64.
        tables: of `compress`.

    Raises:
        ValueError: sizes that do not fit together, or that a GPU has no room for.
        LibraryUnavailable: no GPU; `cuda.why_not()` says why.
    """

    def __init__(
        self, model: Model, *, precision: str = "float64", tables: Sequence[Table]
    ) -> None:
        if tables is None:
            raise ValueError("tables=None: on a GPU, pass those of compress(model)")
        kept: list[Any] = []
        given = argument(model, precision, tables, kept)
        self.model, self.precision, self.tables = model, precision, tables
        self._library = cuda.load()
        handle = ctypes.c_void_p()
        self._call("create", ctypes.byref(given), ctypes.byref(handle))
        self._handle = handle
        self._sizes: tuple[int, int, int] | None = None
        weakref.finalize(self, self._library.functions.oarlock_cuda_deep_potential_destroy, handle)

    def set_lists(
        self,
        species: NDArray[np.int32],
        offsets: NDArray[np.int64],
        neighbours: NDArray[np.int32],
        *,
        shifts: Array | None = None,
        owned: int | None = None,
    ) -> None:
        """Everything but positions, as `deep_potential.DeepPotential.evaluate` takes it. Copied.

        Raises:
            ValueError: shapes or indices that do not fit; the lists before then stay.
        """
        species = array("species", species, np.int32, (-1,))
        offsets = array("offsets", offsets, np.int64, (-1,))
        neighbours = array("neighbours", neighbours, np.int32, (-1,))
        rows = len(offsets) - 1
        if rows < 0 or offsets[0] != 0 or offsets[-1] != len(neighbours):
            raise ValueError(f"offsets have to rise from 0 to {len(neighbours)}, all neighbours")
        if shifts is not None:
            shifts = array("shifts", shifts, np.float64, (len(neighbours), 3))
        sizes = (len(species), rows, rows if owned is None else owned)
        inputs = (None, species, offsets, neighbours, shifts)
        self._call("set_lists", self._handle, ctypes.byref(_structure(sizes, *inputs)))
        self._sizes = sizes

    def evaluate(self, positions: Array, *, virials: bool = False) -> Result:
        """Energies of the owned atoms of the lists, and what they do to all.

        Args:
            positions: [M, 3], Å.
            virials: also share the virial out among atoms.

        Raises:
            ValueError: no lists yet, another number of atoms, overlapping atoms, or atoms closer than the
                tables reach.
        """
        if self._sizes is None:
            raise ValueError("set_lists has to be called before evaluate")
        positions = array("positions", positions, np.float64, (self._sizes[0], 3))
        energies = np.empty(self._sizes[2])
        forces, virial = np.empty(positions.shape), np.empty((3, 3))
        shared = np.empty((len(energies), 3, 3)) if virials else None
        arrays = (positions, None, None, None, None, energies, forces, virial, shared)
        self._call("evaluate", self._handle, ctypes.byref(_structure(self._sizes, *arrays)))
        return Result(energies=energies, forces=forces, virial=virial, virials=shared)

    @property
    def times(self) -> Milliseconds:
        """Of the last `evaluate`."""
        found = (ctypes.c_double * 3)()
        self._call("times", self._handle, found)
        return Milliseconds(upload=found[0], compute=found[1], download=found[2])

    def _call(self, name: str, *arguments: Any) -> None:
        self._library.functions.oarlock_cuda_set_stream(ctypes.c_void_p(None))
        self._library.call(f"oarlock_cuda_deep_potential_{name}", *arguments)


def _structure(sizes: tuple[int, int, int], *arrays: NDArray[Any] | None) -> abi.Structure:
    return abi.Structure(*sizes, *(None if one is None else one.ctypes.data for one in arrays))
