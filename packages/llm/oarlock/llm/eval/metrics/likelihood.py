"""What follows from log-probabilities.

A score is a value with a weight: a task's score is the weighted mean, so that perplexities and bits per byte are
sums over sums, as they should be, and still have a standard error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from oarlock.llm.eval.backends.base import Score
from oarlock.llm.eval.items import Item


@dataclass(frozen=True, slots=True)
class Scored:
    """A value and how much it weighs."""

    value: float
    weight: float = 1.0


#: Metrics whose mean is turned into what is reported, by exp.
EXPONENTIAL = {"perplexity", "byte_perplexity", "word_perplexity"}
#: Metrics of which less is better.
LESS_IS_BETTER = EXPONENTIAL | {"bits_per_byte"}


def multiple_choice(scores: Sequence[Score], item: Item) -> dict[str, Scored]:
    """Whether the right answer is the most probable one.

    ``acc``: by log-probability. ``acc_norm``: divided by the number of characters (without delimiter), as
    lm-eval does; ``acc_bytes``: by that of UTF-8 bytes. ``probability``: of the right answer among the
    choices, by log-probability; it moves before ``acc`` does. Among equals, the first counts.
    """
    logprobs = [score.logprob for score in scores]
    answers = [choice.lstrip() or choice for choice in item.choices]

    def right(values: list[float]) -> Scored:
        return Scored(float(values.index(max(values)) == item.gold))

    top = max(logprobs)
    shares = [math.exp(value - top) for value in logprobs]
    return {
        "acc": right(logprobs),
        "acc_norm": right([p / len(text) for p, text in zip(logprobs, answers)]),
        "acc_bytes": right([p / len(text.encode()) for p, text in zip(logprobs, answers)]),
        "probability": Scored(shares[item.gold] / sum(shares)),
    }


def loglikelihood(score: Score) -> dict[str, Scored]:
    """``acc``: whether the continuation is what the model would write; ``perplexity`` of continuations, exp(-mean)."""
    out = {"perplexity": Scored(-score.logprob)}
    if score.greedy is not None:
        out["acc"] = Scored(float(score.greedy))
    return out


def rolling(score: Score, text: str) -> dict[str, Scored]:
    """Of whole texts: ``bits_per_byte``, ``byte_perplexity`` 2^bits, ``word_perplexity`` (words between spaces)."""
    size, words = len(text.encode()), len(text.split())
    return {
        "bits_per_byte": Scored(-score.logprob / math.log(2) / size, size),
        "byte_perplexity": Scored(-score.logprob / size, size),
        "word_perplexity": Scored(-score.logprob / words, words),
    }
