"""A Deep Potential on the native kernels: nothing of Paddle is called."""

import numpy as np
from oarlock.native import deep_potential as native

from oarlock.sci_md.evaluate.eager import check_finite
from oarlock.sci_md.evaluate.evaluator import Evaluation
from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.potentials.deep_potential import DeepPotential
from oarlock.sci_md.potentials.deep_potential_layers import FittingNet, ResidualLayer


class NativeDeepPotential:
    """See `Evaluator`. The potential's parameters as they are now, in its dtype.

    Args:
        potential: without ZBL.
        compressed: tables in place of the embedding networks (DP Compress, 2107.02103), several times as
            fast; `tables` says how far they are off.
        closest: Å; with tables, pairs of atoms below are refused.
        tolerance: of what tables give; None for 1e-9 in float64 and 1e-6 in float32.
        threads: None for as many as Paddle's operators use.

    Raises:
        ValueError: the potential has ZBL, or the tolerance cannot be reached.
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
    ) -> None:
        config = potential.config
        if config.zbl:
            raise ValueError("zbl=True has no native kernel: use EagerEvaluator, or zbl=False")
        model = native_model(potential)
        if tolerance is None:
            tolerance = 1e-9 if config.dtype == "float64" else 1e-6
        self.elements, self.cutoff = config.elements, config.cutoff
        self.tables = (
            native.compress(model, closest=closest, tolerance=tolerance) if compressed else None
        )
        self._native = native.DeepPotential(model, precision=config.dtype, tables=self.tables)
        self._threads = threads

    def evaluate(self, atoms: Neighbourhood) -> Evaluation:
        result = self._native.evaluate(
            atoms.positions,
            atoms.species,
            atoms.offsets,
            atoms.neighbours,
            shifts=atoms.shifts,
            owned=atoms.owned,
            threads=self._threads,
        )
        evaluation = Evaluation(
            energy=float(result.energies.sum()),
            atomic_energies=result.energies,
            forces=result.forces,
            virial=result.virial,
        )
        check_finite(evaluation)
        return evaluation


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


def _layer(layer: ResidualLayer) -> native.Layer:
    step = layer.timestep
    return native.Layer(
        weight=layer.weight.numpy().astype(np.float64),
        bias=layer.bias.numpy().astype(np.float64),
        timestep=None if step is None else step.numpy().astype(np.float64),
    )


def _fitting(net: FittingNet) -> list[native.Layer]:
    last = native.Layer(
        weight=net.out.weight.numpy().astype(np.float64),
        bias=net.out.bias.numpy().astype(np.float64),
    )
    return [*(_layer(layer) for layer in net.layers), last]
