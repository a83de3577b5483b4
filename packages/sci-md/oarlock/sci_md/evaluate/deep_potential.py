"""A Deep Potential on the native kernels: nothing of Paddle is called."""

from dataclasses import replace

import numpy as np
import paddle
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from paddle import nn
from oarlock.native import cuda
from oarlock.native import deep_potential as native
from oarlock.native import deep_potential_cuda

from oarlock.sci_md.evaluate.eager import check_finite, within
from oarlock.sci_md.evaluate.evaluator import Evaluation
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.potentials.base import edge_forces
from oarlock.sci_md.potentials.config import PotentialConfig
from oarlock.sci_md.potentials.deep_potential import DeepPotential
from oarlock.sci_md.potentials.deep_potential_layers import FittingNet, ResidualLayer
from oarlock.sci_md.potentials.zbl import NuclearRepulsion
from oarlock.sci_md.structure import Array


class NativeDeepPotential:
    """See `Evaluator`. The potential's parameters as they are now, in its dtype.

    Args:
        potential: with ZBL, the few pairs that it is about go through Paddle.
        compressed: tables in place of the embedding networks (DP Compress, 2107.02103), several times as
            fast; `tables` says how far they are off.
        closest: Å; with tables, pairs of atoms below are refused.
        tolerance: of what tables give; None for 1e-9 in float64 and 1e-6 in float32.
        threads: None for as many as Paddle's operators use.
        device: "cpu" or "gpu", with `compressed` only. Lists of neighbours go to a GPU when they are other
            arrays than in the call before: do not change arrays in place.

    Raises:
        ValueError: the tolerance cannot be reached, or no GPU that could be used.
    """

    reach = 1

    def __init__(
        self,
        potential: DeepPotential,
        *,
        compressed: bool = False,
        closest: float = 0.6,
        tolerance: float | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        config = potential.config
        if device not in ("cpu", "gpu"):
            raise ValueError(f"device={device!r} has to be 'cpu' or 'gpu'")
        if device == "gpu" and not compressed:
            raise ValueError("device='gpu' computes with tables: pass compressed=True")
        if device == "gpu" and (reason := cuda.why_not()) is not None:
            raise ValueError(f"device='gpu': {reason}")
        model = native_model(potential)
        if tolerance is None:
            tolerance = 1e-9 if config.dtype == "float64" else 1e-6
        self.elements, self.cutoff = config.elements, config.cutoff
        self.tables = (
            native.compress(model, closest=closest, tolerance=tolerance) if compressed else None
        )
        self._native: native.DeepPotential | OnGpu
        if device == "gpu":
            assert self.tables is not None
            self._native = OnGpu(model, config.dtype, self.tables)
        else:
            self._native = native.DeepPotential(model, precision=config.dtype, tables=self.tables)
        self._repulsion = Repulsion(config) if config.zbl else None
        self._threads = threads

    def evaluate(self, atoms: Neighbourhood) -> Evaluation:
        result = self._run(atoms, virials=False)
        evaluation = Evaluation(
            energy=float(result.energies.sum()),
            atomic_energies=result.energies,
            forces=result.forces,
            virial=result.virial,
        )
        if self._repulsion is not None:
            evaluation = self._repulsion.added(evaluation, atoms)
        check_finite(evaluation)
        return evaluation

    def atomic_virials(self, atoms: Neighbourhood) -> Array:
        """See `AtomicVirials`; zero for rows that are not owned."""
        if self._repulsion is not None:
            raise ValueError("zbl=True: the virials of atoms are not known with it")
        found = np.zeros((atoms.rows, 3, 3))
        found[: atoms.owned] = self._run(atoms, virials=True).virials
        return found

    def _run(self, atoms: Neighbourhood, *, virials: bool) -> native.Result:
        return self._native.evaluate(
            atoms.positions,
            atoms.species,
            atoms.offsets,
            atoms.neighbours,
            shifts=atoms.shifts,
            owned=atoms.owned,
            virials=virials,
            threads=self._threads,
        )


class OnGpu:
    """The engine of a GPU under the method of the CPU's: lists go there when they change."""

    def __init__(self, model: native.Model, precision: str, tables: list[native.Table]) -> None:
        self._engine = deep_potential_cuda.DeepPotential(model, precision=precision, tables=tables)
        self._lists: tuple[object, ...] = ()

    def evaluate(
        self,
        positions: Array,
        species: NDArray[np.int32],
        offsets: NDArray[np.int64],
        neighbours: NDArray[np.int32],
        *,
        shifts: Array | None,
        owned: int,
        virials: bool,
        threads: int | None,
    ) -> native.Result:
        arrays = (species, offsets, neighbours, shifts)
        known = len(self._lists) == 5 and self._lists[4] == owned
        if not known or any(one is not other for one, other in zip(arrays, self._lists)):
            self._lists = ()
            self._engine.set_lists(species, offsets, neighbours, shifts=shifts, owned=owned)
            self._lists = (*arrays, owned)
        return self._engine.evaluate(positions, virials=virials)


class Repulsion:
    """The repulsion of nuclei beside an engine that has none, for the few edges that are so short."""

    def __init__(self, config: PotentialConfig) -> None:
        radii = covalent_radii[[atomic_numbers[symbol] for symbol in config.elements]]
        self._reach = min(2.0 * float(radii.max()), config.cutoff)
        self._energies = NuclearRepulsion(config)

    def added(self, evaluation: Evaluation, atoms: Neighbourhood) -> Evaluation:
        edges = int(atoms.offsets[atoms.owned])
        owned = replace(
            atoms,
            offsets=atoms.offsets[: atoms.owned + 1],
            neighbours=atoms.neighbours[:edges],
            shifts=None if atoms.shifts is None else atoms.shifts[:edges],
        )
        near = within(owned, self._reach)
        if not len(near.neighbours):
            return evaluation
        graph = to_graph([near], "float64")
        graph.vectors.stop_gradient = False
        energies = self._energies(graph)
        (slopes,) = paddle.grad([energies.sum()], [graph.vectors])
        forces, virial = edge_forces(slopes, graph)
        own = energies.numpy()[: atoms.owned]
        return Evaluation(
            energy=evaluation.energy + float(own.sum()),
            atomic_energies=evaluation.atomic_energies + own,
            forces=evaluation.forces + forces.numpy(),
            virial=evaluation.virial + virial.numpy()[0],
        )


def native_model(potential: DeepPotential) -> native.Model:
    """The parameters in NumPy, float64."""
    config, part = potential.config, potential.descriptor
    return native.Model(
        cutoff=config.cutoff,
        smooth=config.smooth,
        axis=config.axis,
        one_side=config.one_side,
        mean=part.mean.numpy().astype(np.float64),
        deviation=part.deviation.numpy().astype(np.float64),
        sel=np.array(config.sel, dtype=np.float64),
        reference=potential.reference_energies.numpy(),
        scale=potential.scale.item(),
        embeddings=[[_layer(layer) for layer in net.layers] for net in part.embeddings],
        fittings=[_fitting(net) for net in potential.fittings],
    )


def _layer(layer: nn.Layer) -> native.Layer:
    assert isinstance(layer, ResidualLayer)
    step = layer.timestep
    return native.Layer(
        weight=layer.weight.numpy().astype(np.float64),
        bias=layer.bias.numpy().astype(np.float64),
        timestep=None if step is None else step.numpy().astype(np.float64),
    )


def _fitting(net: nn.Layer) -> list[native.Layer]:
    assert isinstance(net, FittingNet)
    last = native.Layer(
        weight=net.out.weight.numpy().astype(np.float64),
        bias=net.out.bias.numpy().astype(np.float64),
    )
    return [*(_layer(layer) for layer in net.layers), last]
