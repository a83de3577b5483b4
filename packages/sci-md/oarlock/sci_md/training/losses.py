"""How far a potential is from its labels, as one number to make smaller."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import paddle
from paddle import Tensor

from oarlock.sci_md import keys
from oarlock.sci_md.data.dataset import Batch
from oarlock.sci_md.training.metrics import Predictions
from oarlock.sci_md.training.settings import LossSettings


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loss:
    """Args:
    total: [], float64, what is differentiated.
    terms: the terms by label, before their weights.
    """

    total: Tensor
    terms: dict[str, Tensor]


def weights(settings: LossSettings, fraction: float) -> dict[str, float]:
    """The weight of each term while the learning rate is at this fraction of its start."""
    return {
        keys.ENERGY: settings.energy.at(fraction),
        keys.FORCES: settings.forces.at(fraction),
        keys.VIRIAL: settings.virial.at(fraction),
    }


def loss(
    result: Mapping[str, Tensor], batch: Batch, weight: Mapping[str, float], settings: LossSettings
) -> Loss:
    """The loss of what a potential returned for a batch; labels that are not known do not count."""
    terms: dict[str, Tensor] = {}
    if weight[keys.ENERGY] > 0:
        error = (result[keys.ENERGY] - batch.energy) / _divisor(batch.atoms, settings)
        terms[keys.ENERGY] = _mean(_penalty(error, settings), batch.energy_known)
    if weight[keys.FORCES] > 0:
        penalty = _penalty(result[keys.FORCES] - batch.forces, settings)
        terms[keys.FORCES] = (
            penalty.mean() if batch.forces_known is None else _mean(penalty, batch.forces_known)
        )
    if weight[keys.VIRIAL] > 0:
        divisor = _divisor(batch.atoms, settings).reshape([-1, 1, 1]).astype(batch.virial.dtype)
        error = (result[keys.VIRIAL] - batch.virial) / divisor
        terms[keys.VIRIAL] = _mean(_penalty(error, settings), batch.virial_known)
    total = paddle.zeros([], dtype="float64")
    for label, term in terms.items():
        total = total + weight[label] * term.astype("float64")
    return Loss(total=total, terms=terms)


def validation_loss(found: Predictions, settings: LossSettings) -> float:
    """The loss of all validation structures together, with the weights that training ends with.

    Mean squares of errors per atom and component, mean sizes for "mae"; "deepmd" and "huber" are taken
    as squares per atom too: it is for comparing parameters, not with the training loss.
    """
    kind = "mae" if settings.kind == "mae" else "rmse"
    total = 0.0
    for label in keys.LABELS:
        weight = getattr(settings, label)
        error = getattr(getattr(found, label), kind)
        if weight.used and math.isfinite(error):
            total += (weight.at(0.0) or weight.start) * (error if kind == "mae" else error**2)
    return total


def _divisor(atoms: Tensor, settings: LossSettings) -> Tensor:
    return paddle.sqrt(atoms) if settings.normalise == "deepmd" else atoms


def _penalty(error: Tensor, settings: LossSettings) -> Tensor:
    if settings.kind == "mse":
        return paddle.square(error)
    size = paddle.abs(error)
    if settings.kind == "mae":
        return size
    near = 0.5 * paddle.square(error)
    return paddle.where(size < settings.delta, near, settings.delta * (size - 0.5 * settings.delta))


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Over the rows whose label is known; 0 if there are none."""
    per_row = values.size // known.size
    return (values * known).sum() / (paddle.clip(known.sum(), min=1.0) * float(per_row))
