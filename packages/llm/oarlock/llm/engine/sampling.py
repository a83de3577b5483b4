"""Drawing a token from logits.

The token with the largest sum of log-probability and Gumbel noise is a draw from the distribution. The noise belongs to
the text's seed, the place in it and the token, not to the logits: two models that draw with the same noise draw the same
token with probability (1 - d) / (1 + d) at least, where d is the total variation of their distributions. So a
draft's guesses meet the model's draws as often as they can, and the draws do not depend on the draft.

Source: Daliri, Musco & Suresh, 2408.07978; SplitMix64 of Steele, Lea & Flood, OOPSLA 2014.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine.outputs import TokenLogprob
from oarlock.llm.engine.params import SamplingParams

Floats = NDArray[np.float32]
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of SplitMix64
MOST_SORTED = 2048  #: tokens that a nucleus is looked for in, before all are sorted
#: Rows that are reported at a time: with a large vocabulary more would not stay in the processor's cache.
ROWS = 32


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
    if not params.changes_logits:
        return logits
    logits = logits.copy()
    if params.repetition_penalty != 1.0:
        seen = np.unique(np.array([*prompt, *text], np.int64))
        values = logits[seen]
        factor = np.float32(params.repetition_penalty)
        logits[seen] = np.where(values > 0, values / factor, values * factor)
    if (params.presence_penalty != 0.0 or params.frequency_penalty != 0.0) and len(text):
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
    scores = _scores(logits, params)
    kept = np.flatnonzero(scores > -np.inf)
    weights = np.exp(scores[kept])  # of the best token 1
    total = weights.sum()
    # What is certainly left out goes before the rest is sorted; tokens as probable as the last one stay, so that
    # of equals those with the smaller ids are left.
    if params.min_p > 0.0:
        kept = kept[weights >= params.min_p]
    if params.top_k is not None:
        kept = _best(kept, scores, params.top_k)
    if params.top_p < 1.0:
        kept = _heaviest(kept, scores, params.top_p * total)
    order = kept[np.argsort(-scores[kept], kind="stable")][: params.top_k]
    weights = np.exp(scores[order])
    if params.top_p < 1.0:
        count = int(np.searchsorted(np.cumsum(weights / total), params.top_p)) + 1
        order, weights = order[:count], weights[:count]
    return order, weights / weights.sum()


def _scores(logits: Floats, params: SamplingParams) -> NDArray[np.float64]:
    """Logarithms of weights of which the largest is 1."""
    wide = logits.astype(np.float64)
    return (wide - wide.max()) / params.temperature


def _best(tokens: NDArray[np.int64], scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """So many tokens with the largest scores, and those equal to the last."""
    if count >= len(tokens):
        return tokens
    own = scores[tokens]
    return tokens[own >= np.partition(own, -count)[-count]]


def _heaviest(
    tokens: NDArray[np.int64], scores: NDArray[np.float64], weight: float
) -> NDArray[np.int64]:
    """Best tokens whose weights exp(scores) sum to ``weight`` at least, where so many do."""
    best = _best(tokens, scores, MOST_SORTED)
    enough = np.exp(scores[best]).sum() >= weight * (1 + 1e-9)  # however sums are rounded
    return best if enough else tokens


def text_seed(seed: int, index: int) -> int:
    """Of one of a request's texts, 64 bits."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def key(seed: int, place: int) -> int:
    """Of the noise at a place of a text: a number of SplitMix64, 64 bits.

    Args:
        seed: of the text.
        place: how many tokens were drawn before.
    """
    return int(_numbers(seed, np.array([place]))[0])


def gumbel(key: int, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Noise of each token; it does not depend on which others are asked for."""
    uniform = ((_numbers(key, tokens) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(-np.log(uniform))


def _numbers(seed: int, places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Numbers of SplitMix64 that began at a seed."""
    z = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def draw(logits: Floats, params: SamplingParams, key: int) -> int:
    """A token by changed and constrained logits [V].

    Args:
        logits: -inf excludes a token.
        params: how.
        key: of the noise.

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
    if params.top_k is None and params.top_p == 1.0 and params.min_p == 0.0:
        return int((_scores(logits, params) + gumbel(key, np.arange(len(logits)))).argmax())
    tokens, shares = probabilities(logits, params)
    with np.errstate(divide="ignore"):  # a share may be too small for a number
        return int(tokens[(np.log(shares) + gumbel(key, tokens)).argmax()])


def reports(logits: Floats, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """`report` of each row of logits [T, V] and its token."""
    found: list[TokenLogprob] = []
    for begin in range(0, len(tokens), ROWS):
        part = tokens[begin : begin + ROWS]
        logprobs = log_softmax(logits[begin : begin + len(part)])
        found += [_report(row, token, top) for row, token in zip(logprobs, part)]
    return found


def report(logits: Floats, token: int, top: int) -> TokenLogprob:
    """Log-probability of a token by the model's own logits [V], and the most probable ones."""
    return _report(log_softmax(logits), token, top)


def _report(logprobs: Floats, token: int, top: int) -> TokenLogprob:
    best: tuple[tuple[int, float], ...] = ()
    if top:
        most = np.argpartition(-logprobs, min(top, len(logprobs)) - 1)[:top]
        most = most[np.argsort(-logprobs[most], kind="stable")]
        best = tuple((int(one), float(logprobs[one])) for one in most)
    return TokenLogprob(token, float(logprobs[token]), best)
