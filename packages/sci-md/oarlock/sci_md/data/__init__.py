"""Reference data: read, checked, split, and made into batches."""

from oarlock.sci_md.data.batches import BatchSize, batch_count, batches
from oarlock.sci_md.data.dataset import Batch, Dataset
from oarlock.sci_md.data.read import FORMATS, check_labels, read, write
from oarlock.sci_md.data.scales import Units, check_scales
from oarlock.sci_md.data.splits import split
from oarlock.sci_md.data.statistics import (
    ReferenceEnergies,
    Statistics,
    reference_energies,
    statistics,
)

__all__ = [
    "FORMATS",
    "Batch",
    "BatchSize",
    "Dataset",
    "ReferenceEnergies",
    "Statistics",
    "Units",
    "batch_count",
    "batches",
    "check_labels",
    "check_scales",
    "read",
    "reference_energies",
    "split",
    "statistics",
    "write",
]
