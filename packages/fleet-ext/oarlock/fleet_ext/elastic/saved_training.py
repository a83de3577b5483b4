"""A training whose state is saved while it goes on, so that a job of which no node is left goes on where it was.

A state is saved behind a step that was taken. Whoever has taken a step has the mean that all ranks agreed on, so its
state is the job's, however many of the others had come as far: of the checkpoints that nodes find, the newest whole one
counts. A checkpoint that all ranks write together is there when each has written its part, and not before.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from oarlock.fleet_ext.checkpoints import CheckpointError, Checkpoints, Saving, latest, load
from oarlock.fleet_ext.checkpoints.layout import DTYPES
from oarlock.fleet_ext.checkpoints.manifest import Manifest
from oarlock.fleet_ext.elastic.session import Training
from oarlock.fleet_ext.transport import MeshGroup

_log = logging.getLogger(__name__)


def restore(training: Training, folder: Path | str) -> int:
    """Gives a training the state of the newest whole checkpoint in a folder; alone, before `Session.run`.

    Nodes need not find the same: the newest that any of those who begin has counts.

    Returns:
        the step that is next, for `Session.run`'s `first`; 0 where there is no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints, but no good one.
    """
    while (found := latest(folder)) is not None:
        try:
            state = _state_of(found.path)
        except (CheckpointError, OSError):
            if found.path.exists():
                raise
            continue  # others, who train, have removed it for a newer one
        training.load(state)
        _log.info("%s is loaded: step %d is next", found.path, found.step)
        return found.step
    return 0


class SavedTraining:
    """Saves the state of a training behind every so many steps, in the background.

    >>> saved = SavedTraining(training, folder, every=100)
    >>> session.run(saved, steps=10_000, first=saved.restore())

    Checkpoints have the number of the step that is next. What cannot be saved is told by the log, and training goes on;
    so is a checkpoint that the nodes of an epoch were writing together when it ended.

    Args:
        training: whose state after a step is all that there is to save: what changes later, in `after` of
            `Session.run`, is not.
        folder: made where it is missing.
        every: steps.
        keep: so many good checkpoints stay.
        shared: whether all nodes see the same folder: then they write each checkpoint together, each its share. Else it is this
            node's own, which saves all by itself.
    """

    def __init__(
        self, training: Training, folder: Path | str, *, every: int, keep: int = 3, shared: bool = True
    ) -> None:  # fmt: skip
        if every < 1:
            raise ValueError(f"every must be at least 1 step, not {every}")
        self._training, self._folder, self._every = training, Path(folder), every
        self._keep, self._shared = keep, shared
        self._group: MeshGroup | None = None
        self._checkpoints = None if shared else Checkpoints(folder, keep=keep)
        self.saving: Saving | None = None  #: the latest

    def restore(self) -> int:
        """See `restore`."""
        return restore(self._training, self._folder)

    def compute(self, step: int, group: MeshGroup) -> None:
        if self._shared and group is not self._group:
            self._close()
            self._checkpoints = Checkpoints(self._folder, group, keep=self._keep)
            self._group = group
        self._training.compute(step, group)

    def apply(self, step: int) -> None:
        self._training.apply(step)
        if (step + 1) % self._every == 0:
            assert self._checkpoints is not None
            self.saving = self._checkpoints.save(self._training.state(), step + 1)

    def state(self) -> dict[str, np.ndarray]:
        return self._training.state()

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self._training.load(state)

    @property
    def loss(self) -> float | None:
        """The training's."""
        return getattr(self._training, "loss", None)

    @property
    def waited(self) -> float | None:
        """The training's."""
        return getattr(self._training, "waited", None)

    def close(self) -> None:
        """Waits for the last checkpoint; before the session is closed."""
        self._close()

    def _close(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.close()
            self._checkpoints = None


def _state_of(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, in memory of their own."""
    stored = Manifest.read(path).tensors
    state = {name: np.empty(one.shape, DTYPES[one.dtype]) for name, one in stored.items()}
    load(path, state, verify=False)  # `latest` has compared the checksums
    return state
