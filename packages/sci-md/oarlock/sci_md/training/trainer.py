"""The training loop."""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from oarlock.sci_md.data import batch_count, batches, write
from oarlock.sci_md.data.dataset import Batch, Dataset
from oarlock.sci_md.interrupts import deferred
from oarlock.sci_md.ops import without_distances
from oarlock.sci_md.potentials import Potential, load
from oarlock.sci_md.potentials import save as save_potential
from oarlock.sci_md.training import checkpoint, optimizers, plots, starting
from oarlock.sci_md.training.averaging import Average
from oarlock.sci_md.training.history import History
from oarlock.sci_md.training.losses import loss, validation_loss, weights
from oarlock.sci_md.training.metrics import Predictions, predict
from oarlock.sci_md.training.progress import Reporter, Silent
from oarlock.sci_md.training.schedules import learning_rate
from oarlock.sci_md.training.settings import TrainingSettings

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
LAST = "last.safetensors"
#: At most this share of the time is spent on drawing.
DRAWING = 0.02


class TrainingDiverged(ValueError):
    """The loss or its gradient is not finite; the message says where the culprits were saved."""


@dataclass(kw_only=True, slots=True)
class State:
    """Where a run is; all that a checkpoint needs besides tensors.

    Args:
        step, epoch, position: steps done, passes begun before this one, batches done in this one.
        seconds: spent, over all sessions of the run.
        factor: what a plateau has left of the learning rate.
        best, since: the best value of what is monitored, and validations since.
        on_plateau: validations without improvement since the learning rate fell.
        sums, summed: of losses and terms since the last validation, and how many.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    factor: float = 1.0
    best: float | None = None
    since: int = 0
    on_plateau: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """Args:
    reason: "done", "patience", "seconds" or "interrupted".
    step: steps done.
    seconds: spent, over all sessions of the run.
    predictions: of the best parameters for the validation structures; None without such.
    """

    reason: str
    step: int
    seconds: float
    predictions: Predictions | None


class Trainer:
    """Fits a potential to labelled structures.

    Args:
        potential: is trained in place; afterwards it has the best averaged parameters (the last ones
            without validation structures).
        train, validation: with the potential's elements and cut-off.
        folder: for checkpoint, best and last potential, history and plots; None to write nothing.
        optimizer: of this potential's parameters, instead of the one that the settings name. If its
            learning rate is one of Paddle's schedulers, that one is stepped and the settings' is not used.
        reporter: sees progress.

    Raises:
        ValueError: labels that a weight above 0 needs are in no structure; another cut-off or elements;
            an optimizer that cannot be used.
    """

    def __init__(
        self,
        potential: Potential,
        train: Dataset,
        settings: TrainingSettings,
        *,
        validation: Dataset | None = None,
        folder: str | Path | None = None,
        optimizer: paddle.optimizer.Optimizer | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.potential = potential
        self.train = train
        self.validation = validation
        self.settings = settings
        self.folder = None if folder is None else Path(folder)
        self.reporter: Reporter = reporter or Silent()
        starting.check(potential, {"train": train, "validation": validation}, settings)
        if type(optimizer).__name__ in optimizers.NEEDS_CLOSURE:
            raise ValueError(
                f"optimizer={type(optimizer).__name__} needs a closure, which training does not have: "
                "give one that steps on gradients"
            )
        self.optimizer = optimizer or optimizers.build(
            settings.optimizer, potential, settings.learning_rate.start
        )
        scheduler = getattr(self.optimizer, "_learning_rate", None)
        self._scheduler = (
            scheduler if isinstance(scheduler, paddle.optimizer.lr.LRScheduler) else None
        )
        self.average = Average(potential, settings.ema)
        self.state = State()
        self.history = History(None if self.folder is None else self.folder / "history.csv")
        self._parameters = [p for p in potential.parameters() if not p.stop_gradient]
        self._first = batch_count(train, settings.batch, seed=settings.seed)
        self.steps = settings.steps or (settings.epochs or 0) * self._first
        self._forces = settings.loss.forces.used or settings.loss.virial.used
        self._drawn = (-math.inf, 0.0)  # when a plot was drawn last, and how long it took
        self._norm = self._rate = 0.0
        self._since = 0.0, 0
        self._best: dict[str, np.ndarray] | None = None
        starting.prepare_potential(potential, train, settings, self.reporter.say)

    def run(self) -> Outcome:
        """Trains to the end, or until patience, time or Ctrl-C end it; then the state is on disk.

        Raises:
            TrainingDiverged: see there.
        """
        began = time.perf_counter()
        self._since, self._rate = (began, self.state.step), 0.0
        spent = self.state.seconds
        self.potential.train()
        with deferred() as interrupted, self.reporter:
            self.reporter.started(self.state.step, self.steps)
            reason = ""
            while not reason:
                settings, state = self.settings, self.state
                for indices in batches(
                    self.train,
                    settings.batch,
                    seed=settings.seed,
                    epoch=state.epoch,
                    start=state.position,
                ):
                    if state.step >= self.steps:
                        break
                    self.step(indices)
                    state.seconds = spent + time.perf_counter() - began
                    self.reporter.stepped(state.step, self._speed())
                    patient = self._due()
                    if interrupted():
                        reason = "interrupted"
                    elif not patient:
                        reason = "patience"
                    elif state.step < self.steps and self._out_of_time():
                        reason = "seconds"
                    if reason:
                        break
                else:
                    state.epoch, state.position = state.epoch + 1, 0
                if not reason and state.step >= self.steps:
                    reason = "done"
            return self._finish(reason)

    def _out_of_time(self) -> bool:
        return self.settings.seconds is not None and self.state.seconds >= self.settings.seconds

    def step(self, indices: np.ndarray) -> float:
        """One step on the training structures of these indices, which `run` takes one after the other.

        Returns:
            the loss before the step.

        Raises:
            TrainingDiverged: see there.
        """
        state, settings = self.state, self.settings
        # Layers with chance, if a potential has some, do the same again when a run is resumed.
        paddle.seed(settings.seed * 1_000_003 + state.step)
        rate = self._set_rate()
        batch = self.train.batch(indices, self.potential.config.dtype)
        result = self.potential(batch.graph, forces=self._forces)
        got = loss(result, batch, weights(settings.loss, rate), settings.loss)
        value = float(got.total)
        # Not paddle.grad by the parameters: it cuts the vectors out of the graph, and kernels that take
        # them directly and give a gradient by them are then refused.
        with without_distances():
            got.total.backward()
        batch.graph.vectors.clear_gradient(False)  # the batch may be kept
        gradients = [parameter.grad for parameter in self._parameters]
        norm = optimizers.norm(gradients)
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingDiverged(self._culprit(batch, value, norm))
        if settings.clip is not None and norm > settings.clip:
            optimizers.scale(gradients, settings.clip / norm)
        self.optimizer.step()
        self.optimizer.clear_grad()
        if self._scheduler is not None:
            self._scheduler.step()
        self.average.update(state.step)
        self._norm = norm
        for name, part in (
            ("loss", value),
            *((label, float(term)) for label, term in got.terms.items()),
        ):
            state.sums[name] = state.sums.get(name, 0.0) + part
        state.summed += 1
        state.step += 1
        state.position += 1
        return value

    def _set_rate(self) -> float:
        """Sets the learning rate of this step; returns it by its start, without the warm-up."""
        if self._scheduler is not None:
            return 1.0
        settings, state = self.settings.learning_rate, self.state
        rate = learning_rate(settings, state.step, self.steps) * state.factor
        if settings.kind == "plateau" and state.step >= settings.warm_up:
            rate = max(rate, settings.stop)
        self.optimizer.set_lr(rate)
        after = learning_rate(settings, max(state.step, settings.warm_up), self.steps)
        return after * state.factor / settings.start

    def _due(self) -> bool:
        """Validation and checkpoint where it is their turn; False when patience has ended."""
        state, settings = self.state, self.settings
        last = state.step >= self.steps
        every = settings.validate_every or self._first
        patient = True
        validated = last or state.step % every == 0
        if validated:
            patient = self._validate()
        due = settings.checkpoint_every
        if (validated if due is None else state.step % due == 0) or last:
            self.save()
        return patient

    def _validate(self) -> bool:
        state, settings = self.state, self.settings
        count = max(state.summed, 1)
        row = {
            "step": float(state.step),
            "epoch": state.step / self._first,
            "seconds": state.seconds,
            "learning_rate": float(self.optimizer.get_lr()),
            "gradient_norm": self._norm,
            "steps_per_second": self._speed(),
        }
        row |= {f"train_{name}": value / count for name, value in state.sums.items()}
        state.sums, state.summed = {}, 0
        patient = True
        if self.validation is not None:
            with self.average.applied():
                found = predict(self.potential, self.validation, batch=settings.validation_batch)
                errors = found.errors()
                row |= {name: value for name, value in errors.items() if math.isfinite(value)}
                row["loss"] = validation_loss(found, settings.loss)
                watched = "loss" if settings.monitor == "loss" else f"{settings.monitor}_mae"
                patient = self._judge({**errors, "loss": row["loss"]}[watched])
            self._draw(found)
        self.history.append(row)
        self.reporter.validated(row)
        return patient

    def _judge(self, value: float) -> bool:
        """Keeps the parameters if they are the best so far. Called with the averages applied."""
        state, settings = self.state, self.settings
        if math.isfinite(value) and (state.best is None or value < state.best):
            state.best, state.since, state.on_plateau = value, 0, 0
            self._best = {name: t.numpy() for name, t in self.potential.state_dict().items()}
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                save_potential(self.potential, self.folder / BEST)
        else:
            state.since += 1
            state.on_plateau += 1
        rate = settings.learning_rate
        if rate.kind == "plateau" and state.on_plateau >= rate.patience:
            state.factor, state.on_plateau = state.factor * rate.factor, 0
        return settings.patience is None or state.since < settings.patience

    def _draw(self, found: Predictions, *, at_once: bool = False) -> None:
        if self.folder is None or not self.settings.plots:
            return
        drawn, took = self._drawn
        now = time.perf_counter()
        if not at_once and now - drawn < took / DRAWING:
            return
        plots.parity(found, self.folder / "parity.png", title=f"step {self.state.step}")
        if self.history.rows:
            plots.curves(self.history.rows, self.folder / "curves.png")
        self._drawn = time.perf_counter(), time.perf_counter() - now

    def _speed(self) -> float:
        """Steps a second over the last two seconds or so."""
        now = time.perf_counter()
        since, step = self._since
        if now - since > 2.0 or (not self._rate and self.state.step > step):
            self._rate = (self.state.step - step) / max(now - since, 1e-9)
            self._since = now, self.state.step
        return self._rate

    def _finish(self, reason: str) -> Outcome:
        if reason in ("interrupted", "seconds", "patience"):
            self.save()
        with self.average.applied():
            last = {name: t.numpy() for name, t in self.potential.state_dict().items()}
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                save_potential(self.potential, self.folder / LAST)
        self._set(last if self.validation is None or self._best is None else self._best)
        self.potential.eval()
        found = None
        if self.validation is not None:
            found = predict(self.potential, self.validation, batch=self.settings.validation_batch)
            self._draw(found, at_once=True)
        state = self.state
        return Outcome(reason=reason, step=state.step, seconds=state.seconds, predictions=found)

    def _set(self, values: dict[str, np.ndarray]) -> None:
        for name, tensor in self.potential.state_dict().items():
            tensor.set_value(paddle.to_tensor(values[name], dtype=tensor.dtype))

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        if self.folder is None:
            return
        averages = self.average.state()
        progress: dict[str, Any] = {
            "state": asdict(self.state),
            "optimizer": optimizers.pack_rest(self.optimizer),
            "settings": self.settings.model_dump(mode="json"),
            "config": self.potential.config.to_dict(),
        }
        checkpoint.save(
            checkpoint.Checkpoint(
                model={
                    n: np.array(t.numpy(), order="C")
                    for n, t in self.potential.state_dict().items()
                },
                averages=None if averages is None else averages.numpy(),
                optimizer=optimizers.pack(self.optimizer, self.potential),
                progress=progress,
            ),
            self.folder / CHECKPOINT,
        )

    def resume(self) -> None:
        """Goes on where the folder's checkpoint was written; then `run` gives what one run would have.

        Raises:
            ValueError: no checkpoint, a damaged one, or one of another potential or optimizer.
        """
        if self.folder is None:
            raise ValueError("folder is None: a run without one cannot be resumed")
        saved = checkpoint.load(self.folder / CHECKPOINT)
        mine = self.potential.state_dict()
        shapes = {name: list(tensor.shape) for name, tensor in mine.items()}
        theirs = {name: list(value.shape) for name, value in saved.model.items()}
        if shapes != theirs or (saved.averages is None) != (self.average.state() is None):
            raise ValueError(
                f"{self.folder / CHECKPOINT} is of another potential or another ema: resume with the "
                "configuration that the run began with"
            )
        optimizers.unpack(
            self.optimizer, self.potential, saved.optimizer, saved.progress["optimizer"]
        )
        self._set(dict(saved.model))
        if saved.averages is not None:
            self.average.restore(paddle.to_tensor(saved.averages))
        self.state = State(**saved.progress["state"])
        self.history.rewind(self.state.step)
        best = self.folder / BEST
        if best.is_file():
            self._best = {name: t.numpy() for name, t in load(best).state_dict().items()}

    def _culprit(self, batch: Batch, value: float, norm: float) -> str:
        """Saves the batch and the state before the step; returns what to say."""
        structures = [self.train.structures[index] for index in batch.indices]
        names = ", ".join(
            one.name or str(i) for i, one in zip(batch.indices, structures, strict=True)
        )
        what = (
            f"the loss is {value}" if not math.isfinite(value) else f"the gradient's norm is {norm}"
        )
        self.optimizer.clear_grad()
        saved = "nothing was saved, as there is no folder"
        if self.folder is not None:
            place = self.folder / "diverged"
            place.mkdir(parents=True, exist_ok=True)
            write(place / "batch.extxyz", structures)
            self.save()
            saved = (
                f"the batch is in {place / 'batch.extxyz'}, parameters and optimizer before the step in "
                f"{self.folder / CHECKPOINT}"
            )
        return (
            f"step {self.state.step}: {what} for the batch of {names}; {saved}. Look at these structures, "
            "lower the learning rate or set clip"
        )
