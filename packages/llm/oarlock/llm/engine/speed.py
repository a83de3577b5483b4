"""How fast an engine is: prompts, tokens, and how long they keep one waiting.

A repetition computes the prompts of a batch, with one token each, and then texts of the same prompts to their length:

- prefill: tokens of all prompts over the time until the last text has its first token
- first token: the time from handing in to a text's first token, all handed in at once
- decode: tokens after the first over the time from when all texts have begun to the end
- between tokens: time from one token of a text to its next in that phase

Prompts are random tokens, prefixes are not shared, and a text's own end is ignored.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from oarlock.llm.engine.engine import Engine
from oarlock.llm.engine.params import Request, SamplingParams

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What to measure.

    Args:
        batch: texts at once.
        prompt: tokens of each prompt.
        new: tokens of each text, 2 at least.
    """

    batch: int
    prompt: int
    new: int

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("prompt", 1), ("new", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer, {least} or more, got {value!r}.")

    @property
    def positions(self) -> int:
        """That the cache must hold, in whole pages of 16."""
        return self.batch * -(-(self.prompt + self.new) // 16) * 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Median of repetitions, with an interval for it that no distribution is assumed for.

    Args:
        median: of the values.
        low, high: order statistics that hold the median with 95 % confidence; of fewer than 6 repetitions, which
            give none, the least and the largest.
        values: one a repetition.
    """

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """From one value a repetition."""
        ordered = sorted(values)
        rank = _rank(len(ordered))
        return cls(
            median=float(np.median(ordered)),
            low=ordered[rank],
            high=ordered[-1 - rank],
            values=tuple(values),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured of a case; rates in tokens/s, times in s over all texts and repetitions."""

    case: Case
    prefill: Estimate
    decode: Estimate
    first_token_p50: float
    first_token_p99: float
    between_p50: float
    between_p99: float


def measure(
    engine: Engine,
    case: Case,
    *,
    repetitions: int = 5,
    warm_up: int = 1,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Speed:
    """Measure a case.

    Args:
        engine: that does nothing else, made without shared prefixes.
        case: what.
        repetitions: whose median is taken.
        warm_up: repetitions before that do not count.
        seed: of the prompts.
        progress: called after each repetition.

    Raises:
        ValueError: the engine cannot hold the case, or shares prefixes.
    """
    if engine.config.share_prefixes:
        raise ValueError("engine must not share prefixes (share_prefixes=False).")
    if case.batch > engine.config.most_texts:
        raise ValueError(
            f"batch must be at most most_texts = {engine.config.most_texts}, got {case.batch}."
        )
    for name, value, least in (("repetitions", repetitions, 1), ("warm_up", warm_up, 0)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}.")
    rng = np.random.default_rng(seed)
    prefill, decode, first, between = [], [], [], []
    for number in range(warm_up + repetitions):
        prompts = rng.integers(0, engine.model.vocab, (case.batch, case.prompt)).tolist()
        begins = _run(engine, prompts, 1)
        texts = _run(engine, prompts, case.new)
        progress()
        if number < warm_up:
            continue
        prefill.append(case.batch * case.prompt / max(times[0] for times in begins))
        first += [times[0] for times in begins]
        begun, end = max(times[0] for times in texts), max(times[-1] for times in texts)
        later = sum(sum(one > begun for one in times) for times in texts)
        decode.append(later / (end - begun))
        for times in texts:
            between += [b - a for a, b in zip(times, times[1:]) if a >= begun]
    return Speed(
        case=case,
        prefill=Estimate.of(prefill),
        decode=Estimate.of(decode),
        first_token_p50=float(np.quantile(first, 0.5)),
        first_token_p99=float(np.quantile(first, 0.99)),
        between_p50=float(np.quantile(between, 0.5)),
        between_p99=float(np.quantile(between, 0.99)),
    )


def _run(engine: Engine, prompts: list[list[int]], new: int) -> list[list[float]]:
    """Times of each text's tokens, s after all were handed in."""
    params = SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True)
    requests = [
        Request(id=str(number), prompt=tuple(prompt), params=params)
        for number, prompt in enumerate(prompts)
    ]
    for request in requests:
        engine.check(request)
    times: list[list[float]] = [[] for _ in prompts]
    begin = time.perf_counter()
    for request in requests:
        engine.add(request)
    while engine.has_work:
        deltas = engine.step()
        now = time.perf_counter() - begin
        for delta in deltas:
            times[int(delta.request)] += [now] * len(delta.tokens)
    assert all(len(one) == new for one in times)
    return times


def _rank(n: int) -> int:
    """The largest k such that the median lies between the k-th values from both ends with 95 % confidence."""
    outside, k = 2 * 0.5**n, 0
    while k + 1 < n / 2:
        outside += 2 * math.comb(n, k + 1) * 0.5**n
        if outside > 1 - CONFIDENCE:
            break
        k += 1
    return k
