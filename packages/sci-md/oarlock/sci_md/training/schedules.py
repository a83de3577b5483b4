"""The learning rate as a function of the step."""

import math

from oarlock.sci_md.training.settings import LearningRate


def learning_rate(settings: LearningRate, step: int, steps: int) -> float:
    """The rate of a step (from 0) of so many, without what a plateau has taken.

    With t = (step − warm_up) / (steps − warm_up), exponential: start (stop / start)^t, in drops where
    `every` is given; cosine: stop + ½ (start − stop)(1 + cos πt).
    """
    if step < settings.warm_up:
        return settings.start * (step + 1) / (settings.warm_up + 1)
    past, length = step - settings.warm_up, max(steps - settings.warm_up, 1)
    if settings.kind == "exponential":
        if settings.every is not None:
            past -= past % settings.every
        return settings.start * (settings.stop / settings.start) ** min(past / length, 1.0)
    if settings.kind == "cosine":
        wave = 0.5 * (1.0 + math.cos(math.pi * min(past / length, 1.0)))
        return settings.stop + (settings.start - settings.stop) * wave
    return settings.start
