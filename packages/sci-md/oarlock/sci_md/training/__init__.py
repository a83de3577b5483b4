"""Training of potentials: settings, losses, the loop, and what it leaves on disk."""

from oarlock.sci_md.training.committee import Committee, Deviation
from oarlock.sci_md.training.config import DataSettings, RunConfig, Source, prepare
from oarlock.sci_md.training.metrics import Pair, Predictions, predict
from oarlock.sci_md.training.progress import Silent, Terminal
from oarlock.sci_md.training.run import Member, run
from oarlock.sci_md.training.settings import (
    LearningRate,
    LossSettings,
    OptimizerSettings,
    TrainingSettings,
    Weight,
)
from oarlock.sci_md.training.trainer import Outcome, Trainer, TrainingDiverged

__all__ = [
    "Committee",
    "DataSettings",
    "Deviation",
    "Member",
    "RunConfig",
    "Source",
    "prepare",
    "run",
    "LearningRate",
    "LossSettings",
    "OptimizerSettings",
    "Outcome",
    "Pair",
    "Predictions",
    "Silent",
    "Terminal",
    "Trainer",
    "TrainingDiverged",
    "TrainingSettings",
    "Weight",
    "predict",
]
