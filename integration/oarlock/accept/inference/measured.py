"""Rounds of all arms in turns, and what they say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from time import sleep
from typing import Any

import numpy as np

from oarlock.accept.inference.arms import Opened
from oarlock.accept.measure.stats import Ratio, bootstrap_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """So many texts at once, each with a prompt of so many tokens and so many new ones."""

    texts: int
    prompt: int
    new: int

    @property
    def name(self) -> str:
        return f"b{self.texts}-p{self.prompt}"


@dataclass(frozen=True, slots=True)
class Rounds:
    """Seconds of one arm: to the first tokens in each round, and of each step after them."""

    case: Case
    first_s: list[float] = field(default_factory=list)
    steps_s: list[list[float]] = field(default_factory=list)

    @property
    def step_s(self) -> list[float]:
        """The mean step of each round."""
        return [float(np.mean(one)) for one in self.steps_s]

    @property
    def decoded(self) -> float:
        """Tokens a second behind the first ones."""
        return self.case.texts / median(self.step_s)

    @property
    def read(self) -> float:
        """Tokens of prompts a second."""
        return self.case.texts * self.case.prompt / median(self.first_s)

    def latency(self) -> str:
        """Milliseconds for people."""
        steps = np.concatenate([np.asarray(one) for one in self.steps_s]) * 1e3
        first = np.asarray(self.first_s) * 1e3
        return (
            f"first {np.median(first):.1f} ms (longest {first.max():.1f}), then"
            f" {np.median(steps):.2f} ms (p99 {np.quantile(steps, 0.99):.2f})"
        )


def rounds(
    arms: Mapping[str, Opened],
    case: Case,
    *,
    count: int,
    vocabulary: int,
    settle_s: float,
    on_round: Callable[[int], Any] = lambda number: None,
) -> dict[str, Rounds]:
    """Every arm once a round, in an order that reverses; one round before does not count."""
    chosen = {name: one for name, one in arms.items() if case.texts <= one.arm.most_texts}
    for one in chosen.values():
        one.worker.call("prepare", texts=case.texts, positions=case.prompt + case.new)
    rng = np.random.default_rng(case.texts * case.prompt)
    prompts = rng.integers(3, vocabulary, (case.texts, case.prompt)).tolist()
    found = {name: Rounds(case) for name in chosen}
    for number in range(count + 1):
        for name in list(chosen) if number % 2 else list(chosen)[::-1]:
            sleep(settle_s)
            told = chosen[name].worker.call("generate", prompts=prompts, new=case.new)
            if any(len(text) != case.new for text in told["tokens"]):
                raise AssertionError(f"{name} did not write {case.new} tokens for every prompt")
            if number:
                found[name].first_s.append(told["first_s"])
                found[name].steps_s.append(told["steps_s"])
        on_round(number)
    return found


def ratio(base: list[float], ours: list[float], seed: int) -> Ratio:
    """Median of base / ours over the rounds, with its interval."""
    return bootstrap_ratio(base, ours, paired=True, statistic="median", seed=seed)
