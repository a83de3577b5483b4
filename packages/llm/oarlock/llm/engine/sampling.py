"""Drawing a token from logits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine.outputs import TokenLogprob
from oarlock.llm.engine.params import SamplingParams

Floats = NDArray[np.float32]


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities along the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class NothingToDraw(ValueError):
    """Logits leave no token: they are not numbers, or all are excluded."""


def changed(
    logits: Floats, params: SamplingParams, prompt: Sequence[int], text: Sequence[int]
) -> Floats:
    """Logits [V] after penalties and biases; a copy where anything changes.

    Args:
        logits: of the model.
        params: what to do.
        prompt, text: tokens so far.
    """
    penalised = params.repetition_penalty != 1.0
    counted = params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
    if not (penalised or counted or params.logit_bias):
        return logits
    logits = logits.copy()
    if penalised:
        seen = np.unique(np.array([*prompt, *text], np.int64))
        values = logits[seen]
        factor = np.float32(params.repetition_penalty)
        logits[seen] = np.where(values > 0, values / factor, values * factor)
    if counted and len(text):
        tokens, counts = np.unique(np.array(text, np.int64), return_counts=True)
        logits[tokens] -= params.presence_penalty + params.frequency_penalty * counts
    for token, bias in params.logit_bias.items():
        logits[token] += bias
    return logits


def probabilities(
    logits: Floats, params: SamplingParams
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens that may be drawn and their probabilities, which sum to 1; most probable first.

    Args:
        logits: [V], after ``changed`` and the constraint; -inf excludes a token.
        params: temperature above 0; top_k, top_p and min_p.
    """
    scores = logits.astype(np.float64) / params.temperature
    allowed = np.flatnonzero(scores > -np.inf)
    if params.top_k is not None and params.top_k < len(allowed):
        # All that are as probable as the last of the k, so that ties do not depend on the order.
        least = np.partition(scores[allowed], -params.top_k)[-params.top_k]
        kept = allowed[scores[allowed] >= least]
    else:
        kept = allowed
    order = kept[np.argsort(-scores[kept], kind="stable")]
    if params.top_k is not None:
        order = order[: params.top_k]
    weights = np.exp(scores[order] - scores[order[0]])
    total = np.exp(scores[allowed] - scores[order[0]]).sum()
    shares = weights / total  # among all allowed tokens
    count = len(order)
    if params.top_p < 1.0:
        count = min(count, int(np.searchsorted(np.cumsum(shares), params.top_p)) + 1)
    if params.min_p > 0.0:
        count = min(count, int((shares >= params.min_p * shares[0]).sum()))
    return order[:count], weights[:count] / weights[:count].sum()


def draw(logits: Floats, params: SamplingParams, rng: np.random.Generator) -> int:
    """A token by changed and constrained logits [V].

    Raises:
        NothingToDraw: no token is left, or logits are NaN.
    """
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):
        if np.isnan(logits[best]):
            raise NothingToDraw("the model's logits are not numbers")
        raise NothingToDraw("no token is allowed here")
    if params.temperature == 0.0:
        return best
    tokens, shares = probabilities(logits, params)
    place = int(np.searchsorted(np.cumsum(shares), rng.random()))
    return int(tokens[min(place, len(tokens) - 1)])


def report(logits: Floats, token: int, top: int) -> TokenLogprob:
    """Log-probability of a token by the model's own logits [V], and the most probable ones."""
    logprobs = log_softmax(logits)
    best: tuple[tuple[int, float], ...] = ()
    if top:
        most = np.argpartition(-logprobs, min(top, len(logprobs)) - 1)[:top]
        most = most[np.argsort(-logprobs[most], kind="stable")]
        best = tuple((int(one), float(logprobs[one])) for one in most)
    return TokenLogprob(token, float(logprobs[token]), best)
