"""Trains a recipe, step by step, so that it can be stopped at any step and gone on with."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paddle

from oarlock.accept.data.verify import file_sha256
from oarlock.accept.prepare import corpus, place
from oarlock.accept.prepare.recipes import Recipe
from oarlock.core_opt import optim
from oarlock.llm import models
from oarlock.native.paddle import accelerate

SAVE_EVERY_S = 30.0


class Interrupted(KeyboardInterrupt):
    """Stopped by Ctrl-C with a checkpoint written."""


class Diverged(FloatingPointError):
    """The loss is no number any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a progress display wants to know after a step."""

    step: int
    steps: int
    loss: float
    tokens_per_s: float


@dataclass(slots=True, kw_only=True)
class History:
    """What happened so far; saved with every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)  #: [step, training, validation]
    sessions: int = 0


def build(recipe: Recipe, vocab_size: int) -> models.LanguageModel:
    """The untrained model of a recipe, from its seed."""
    config = models.config_class(recipe.family).from_dict(
        {"vocab_size": vocab_size, **recipe.config}
    )
    return models.create(recipe.family, config, seed=recipe.seed)


def schedule(recipe: Recipe) -> optim.schedules.WarmupCosine:
    """The learning rates of a recipe, by step."""
    return optim.schedules.WarmupCosine(
        recipe.learning_rate,
        recipe.steps,
        warmup_steps=recipe.warmup,
        final_factor=recipe.final_lr,
    )


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into an event; a second one interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(signum, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _save(where: Path, model, optimizer, history: History) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": json.dumps(
            {name: getattr(history, name) for name in ("step", "seconds", "losses", "sessions")}
        ),
    }
    part = where / ".checkpoint.part"
    paddle.save(state, str(part))
    part.replace(where / "checkpoint")
    place.write_json(where / "progress.json", {"step": history.step})


def _restore(where: Path, model, optimizer) -> History:
    path = where / "checkpoint"
    if not path.exists():
        return History()
    state = paddle.load(str(path))
    model.set_state_dict(state["model"])
    optimizer.set_state_dict(state["optimizer"])
    return History(**json.loads(state["history"]))


@paddle.no_grad()
def _validate(model, batches) -> float:
    losses = [model.loss(tokens, targets).item() for tokens, targets in batches]
    return sum(losses) / len(losses)


def train(recipe: Recipe, where: Path, on_step: Callable[[Step], None]) -> None:
    """Trains a recipe in the folder `where`, going on from a checkpoint if there is one.

    The result depends on the recipe only: how often it was interrupted changes no bit of it.

    Raises:
        Interrupted: after Ctrl-C; the checkpoint holds the last step.
        Diverged: the loss is not finite; the checkpoint holds an earlier step.
    """
    report = accelerate()
    text = corpus.load(recipe, where / "tokenizer.json")
    held_out = corpus.validation(text.held_out, recipe)
    with paddle.utils.unique_name.guard(), _ctrl_c() as stop:  # the same names every time
        model, rates = build(recipe, text.vocab_size), schedule(recipe)
        optimizer = optim.create(
            recipe.optimizer,
            model,
            learning_rate=rates,
            weight_decay=recipe.weight_decay,
            grad_clip=paddle.nn.ClipGradByGlobalNorm(recipe.clip_norm),
            **recipe.options,
        )
        history = _restore(where, model, optimizer)
        history.sessions += 1
        batches = corpus.batches(text.train, recipe, step=history.step)
        saved = began = time.perf_counter()
        before = history.seconds
        while history.step < recipe.steps:
            started = time.perf_counter()
            tokens, targets = next(batches)
            rates.step(history.step)
            loss = model.loss(tokens, targets)
            value = float(loss)
            if not math.isfinite(value):
                raise Diverged(f"{recipe.name}: loss {value} at step {history.step}")
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            history.step += 1
            if history.step % recipe.validate_every == 0 or history.step == recipe.steps:
                history.losses.append([history.step, value, _validate(model, held_out)])
            now = time.perf_counter()
            history.seconds = before + now - began
            on_step(
                Step(
                    step=history.step,
                    steps=recipe.steps,
                    loss=value,
                    tokens_per_s=recipe.batch * recipe.context / (now - started),
                )
            )
            if stop.is_set() or now - saved > SAVE_EVERY_S:
                _save(where, model, optimizer, history)
                saved = now
            if stop.is_set() and history.step < recipe.steps:
                raise Interrupted(
                    f"{recipe.name}: stopped after step {history.step} of {recipe.steps};"
                    " the next call goes on from there"
                )
        _finish(recipe, where, model, history, text, str(report))
        if stop.is_set():
            raise Interrupted(f"{recipe.name}: stopped; this model is ready")


def _finish(recipe: Recipe, where: Path, model, history: History, text, accelerated: str) -> None:
    models.save(model, where)
    files = ["config.json", "model.safetensors"] + ["tokenizer.json"] * (recipe.tokenizer == "bpe")
    card: dict[str, Any] = {
        "name": recipe.name,
        "key": place.key(recipe),
        **place.address(recipe),
        "vocab_size": text.vocab_size,
        "parameters": model.num_parameters(),
        "tokens": recipe.steps * recipe.batch * recipe.context,
        "validation_loss": history.losses[-1][2],
        "characters_per_token": text.characters_per_token,
        "losses": history.losses,
        "seconds": round(history.seconds, 1),
        "sessions": history.sessions,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "accelerate": accelerated,
        "files": {name: file_sha256(where / name) for name in files},
    }
    place.write_json(where / "card.json", card)  # last: its presence says that all is there
    for name in ("checkpoint", "progress.json"):
        (where / name).unlink(missing_ok=True)
