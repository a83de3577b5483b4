"""Trains several optimisers on one task in turns, so that a slow spell of the machine hits all."""

import contextlib
import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import paddle
from paddle.optimizer.lr import LRScheduler

from oarlock.accept.convergence.settings import VALIDATION, Setting, Task
from oarlock.core_opt import optim
from oarlock.core_opt.optim.sophia import sampled_labels
from oarlock.llm import models
from oarlock.llm.data import BatchSampler, split

TURNS = 10  #: of a race; each run is validated after each of its turns
CLIP_NORM = 1.0
#: Optimisers whose rule for tables and vectors is AdamW, with learning rates of its own.
WITH_ADAMW = ("muon", "normuon", "shampoo", "soap", "soap_muon")


class Diverged(FloatingPointError):
    """A training loss is not finite."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What one optimiser did; times are those of its training steps only."""

    steps: int
    wall_s: float = 0.0
    cpu_s: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)  #: (step, validation loss)

    @property
    def validation_loss(self) -> float:
        """Nats a byte at the end of the schedule."""
        return self.curve[-1][1]


@dataclass(slots=True)
class Runner:
    model: models.LanguageModel
    optimizer: optim.Optimizer
    schedule: LRScheduler
    batches: Iterator[tuple[paddle.Tensor, paddle.Tensor]]
    run: Run
    masks: Any = None  #: a mask scheduler, which steps before the optimiser does
    done: int = 0

    def advance(self, until: int) -> None:
        if until <= self.done:  # fewer steps than turns
            return
        wall, cpu = time.perf_counter(), _cpu_seconds()
        while self.done < until:
            tokens, targets = next(self.batches)
            if isinstance(self.optimizer, optim.SophiaG) and self.optimizer.hessian_due:
                self._estimate_hessian(tokens)
            loss = self.model.loss(tokens, targets)
            loss.backward()
            if self.masks is not None:
                self.masks.step()
            self.optimizer.step()
            self.optimizer.clear_grad()
            self.schedule.step()
            self.done += 1
        value = float(loss)
        self.run.wall_s += time.perf_counter() - wall
        self.run.cpu_s += _cpu_seconds() - cpu
        if not math.isfinite(value):
            raise Diverged(f"loss {value} at step {self.done}")

    def _estimate_hessian(self, tokens: paddle.Tensor) -> None:
        """Gauss-Newton-Bartlett on the batch at hand, as part of the training step."""
        logits = self.model(tokens)
        sampled = sampled_labels(logits, seed=self.done)
        paddle.nn.functional.cross_entropy(logits, sampled.unsqueeze(-1)).backward()
        self.optimizer.update_hessian(num_tokens=sampled.size)
        self.optimizer.clear_grad()

    @paddle.no_grad()
    def validate(self, batches: list[tuple]) -> float:
        """Mean loss, at the averaged weights of an optimiser that keeps them."""
        averaged: contextlib.AbstractContextManager = contextlib.nullcontext()
        if isinstance(self.optimizer, optim.ScheduleFreeAdamW):
            averaged = self.optimizer.averaged()
        with averaged:
            return float(np.mean([self.model.loss(*batch).item() for batch in batches]))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def tokens(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a text, for training and for validation."""
    return split(np.frombuffer(text.encode(), np.uint8), validation=VALIDATION)


def model_of(task: Task, seed: int) -> models.LanguageModel:
    """The untrained model of a task."""
    sizes = {
        "vocab_size": 256,
        "hidden_size": task.hidden_size,
        "num_layers": task.num_layers,
        "num_heads": task.num_heads,
        "max_length": max(task.context, 1024),
    }
    if task.num_kv_heads is not None:
        sizes["num_kv_heads"] = task.num_kv_heads
    config = models.config_class(task.model).from_dict(sizes)
    return models.create(task.model, config, seed=seed)


def race(
    task: Task,
    arms: Mapping[str, tuple[Setting, int]],
    text: str,
    *,
    seed: int,
    turns: int = TURNS,
    prepare: Mapping[str, Callable[[models.LanguageModel], object]] = MappingProxyType({}),
    tasks: Mapping[str, Task] = MappingProxyType({}),
    on_turn: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Run]:
    """Train each arm, a setting and its number of steps, to the end of its own schedule.

    All arms start from the same weights and see the same batches. They take turns; each has its own
    clock, which stands still while it is validated.

    Args:
        task: model and batches.
        arms: by name.
        text: UTF-8 bytes of it are the tokens.
        seed: of weights and batches.
        turns: into which each run is cut.
        prepare: what is done to the untrained model of an arm, outside its clock and before the
            optimiser is made; if it returns something with ``step``, a mask scheduler of
            ``oarlock.core_opt.sparse``, that is stepped before the optimiser.
        tasks: of arms with a model of other sizes, which sees the same batches all the same.
        on_turn: called with (done, total) after each turn.

    Raises:
        FloatingPointError: the loss of an arm (Diverged) or a gradient is not finite.
    """
    training, held_out = tokens(text)
    validation = _validation_batches(held_out, task)
    runners = {
        name: runner_of(
            tasks.get(name, task), setting, steps, training, seed, prepare=prepare.get(name)
        )
        for name, (setting, steps) in arms.items()
    }
    for turn in range(1, turns + 1):
        for runner in runners.values():
            runner.advance(round(runner.run.steps * turn / turns))
            runner.run.curve.append((runner.done, runner.validate(validation)))
        on_turn(turn, turns)
    return {name: runner.run for name, runner in runners.items()}


def runner_of(
    task: Task,
    setting: Setting,
    steps: int,
    training: np.ndarray,
    seed: int,
    *,
    prepare: Callable[[models.LanguageModel], Any] | None = None,
) -> Runner:
    model = model_of(task, seed)
    prepared = None if prepare is None else prepare(model)
    roles = optim.roles(model)
    vectors = {p.name for p in model.parameters() if roles.of(p) is optim.Role.VECTOR}
    schedule = _schedule(setting, steps)
    rates = _with_rates(model, roles, setting)
    optimizer = optim.create(
        setting.optimizer,
        rates.pop("parameters"),
        learning_rate=schedule,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(CLIP_NORM),
        apply_decay_param_fun=lambda name: name not in vectors,
        **setting.options,
        **rates,
    )
    batches = BatchSampler(training, task.batch, task.context, seed=seed)
    masks = prepared if hasattr(prepared, "step") else None
    return Runner(model, optimizer, schedule, batches, Run(steps=steps), masks)


def _schedule(setting: Setting, steps: int) -> LRScheduler:
    """Warm-up, then linearly to zero; constant where the optimiser averages in place of a decay."""
    rate, warmup = setting.learning_rate, max(1, round(setting.warmup * steps))
    if setting.optimizer == "schedule_free_adamw":
        return optim.schedules.WSD(
            rate, steps, warmup_steps=warmup, decay_steps=1, final_factor=1.0
        )
    return optim.schedules.LinearToZero(rate, steps, warmup_steps=warmup)


def _with_rates(
    model: models.LanguageModel, roles: optim.Roles, setting: Setting
) -> dict[str, Any]:
    """Arguments that give tables and vectors their own learning rates, for every optimiser alike."""
    tables = setting.table_learning_rate / setting.learning_rate
    factors = {
        optim.Role.EMBEDDING: tables,
        optim.Role.HEAD: tables,
        optim.Role.VECTOR: setting.vector_learning_rate / setting.learning_rate,
    }
    needed = {"roles": roles} if optim.info(setting.optimizer).needs_roles else {}
    if setting.optimizer in WITH_ADAMW:
        return {"parameters": model.parameters(), "adamw_lr_scale": factors} | needed
    groups: dict[float, list] = {}
    for parameter in model.parameters():
        groups.setdefault(factors.get(roles.of(parameter), 1.0), []).append(parameter)
    listed = [{"params": some, "learning_rate": factor} for factor, some in groups.items()]
    return {"parameters": listed} | needed


def _validation_batches(held_out: np.ndarray, task: Task) -> list[tuple]:
    """Windows spread evenly over the held-out text, the same every time."""
    count = task.validation_batches * task.batch
    starts = np.linspace(0, len(held_out) - task.context - 1, count).astype(np.int64)
    windows = held_out[starts[:, None] + np.arange(task.context + 1)].astype(np.int64)
    return [
        (paddle.to_tensor(part[:, :-1]), paddle.to_tensor(part[:, 1:]))
        for part in np.split(windows, task.validation_batches)
    ]
