"""What a load is made of."""

import dataclasses
import math
from typing import Literal, get_args
from urllib.parse import urlsplit

import numpy as np

#: stream and whole: read as fast as they come; cancel: closed after some tokens; slow: read with pauses;
#: malformed: must be refused.
Kind = Literal["stream", "whole", "cancel", "slow", "malformed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORDS = "the cat sat on a red mat and then it saw nine small birds go by".split()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Requests to ``/v1/completions``, drawn by a seed.

    Args:
        url: of the server, ``http://host:port``.
        model: as the server calls it.
        key: to show; None for none.
        duration_s: for how long requests are begun, seconds.
        streams: requests at once, at most.
        rate: of a Poisson process by which requests arrive, 1/s (an open loop; those that find all
            streams busy are counted, not sent); None for a new request as soon as one ends (closed).
        max_tokens: of a text.
        prompt_words: of a prompt, about.
        prompts: different ones.
        cancel: share of requests whose client goes away.
        slow: share of those whose client pauses.
        pause_s: of slow readers, after each piece of 4096 bytes, seconds.
        malformed: share of those that must be refused.
        whole: share of those that ask for no stream.
        check_texts: compare each text with that of the same prompt asked alone before the load; needs
            a server whose greedy texts do not depend on what else it does.
        request_s: after which a request counts as lost, seconds.
        pid: of the server's process on this machine, whose memory is watched; None to watch none.
        terminate_after_s: send SIGTERM to ``pid`` after so many seconds; None not to.
        seed: of kinds, prompts and arrivals.

    Raises:
        ValueError: a value is out of range.
    """

    url: str
    model: str
    key: str | None = dataclasses.field(default=None, repr=False)
    duration_s: float = 10.0
    streams: int = 64
    rate: float | None = None
    max_tokens: int = 64
    prompt_words: int = 16
    prompts: int = 16
    cancel: float = 0.1
    slow: float = 0.05
    pause_s: float = 0.05
    malformed: float = 0.05
    whole: float = 0.2
    check_texts: bool = True
    request_s: float = 120.0
    pid: int | None = None
    terminate_after_s: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"url must be http://host:port, got {self.url!r}.")
        for name in ("streams", "max_tokens", "prompt_words", "prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("duration_s", "request_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be above 0, got {self.rate}.")
        shares = self.shares()
        if min(shares.values()) < 0:
            raise ValueError(
                f"cancel, slow, malformed and whole must be shares whose sum is at most 1, got {shares}."
            )
        if self.terminate_after_s is not None and self.pid is None:
            raise ValueError("terminate_after_s needs pid, the process to end.")

    def shares(self) -> dict[Kind, float]:
        """Of each kind."""
        others = self.cancel + self.slow + self.malformed + self.whole
        return {
            "stream": round(1 - others, 9),
            "whole": self.whole,
            "cancel": self.cancel,
            "slow": self.slow,
            "malformed": self.malformed,
        }

    def prompt_texts(self) -> list[str]:
        """The different prompts."""
        rng = np.random.default_rng([self.seed, 1])
        texts = []
        for number in range(self.prompts):
            count = max(1, int(rng.integers(self.prompt_words // 2, 2 * self.prompt_words)))
            texts.append(f"{number}: " + " ".join(rng.choice(WORDS, count)))
        return texts
