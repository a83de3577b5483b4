"""Labels: energies, forces and virials of true quantum-mechanical calculations, made locally."""

from oarlock.sci_md.labels.cache import LabelCache, content_hash
from oarlock.sci_md.labels.generate import Failure, Labelled, generate
from oarlock.sci_md.labels.method import LabelCalculator, LabelMethod
from oarlock.sci_md.labels.packing import packed
from oarlock.sci_md.labels.quantum_chemistry import QuantumChemistry
from oarlock.sci_md.labels.sampling import (
    closeness,
    deformed,
    dimers,
    rattled,
    strained,
    visited,
    volume_scan,
)
from oarlock.sci_md.labels.tight_binding import TightBinding

__all__ = [
    "Failure",
    "LabelCache",
    "LabelCalculator",
    "LabelMethod",
    "Labelled",
    "QuantumChemistry",
    "TightBinding",
    "closeness",
    "content_hash",
    "deformed",
    "dimers",
    "generate",
    "packed",
    "rattled",
    "strained",
    "visited",
    "volume_scan",
]
