"""A Python callable as a backend."""

from collections.abc import Callable, Sequence

from oarlock.llm.eval.backends.base import (
    Continuation,
    NotSupported,
    Prompt,
    Score,
    Value,
    cut_at_stop,
)


class FunctionBackend:
    """Functions of yours, one for each kind of request you want to answer.

    >>> backend = FunctionBackend(name="echo", generate=lambda prompt: prompt.text[-10:])

    Args:
        name: stands for the function in fingerprints and caches; change it when the function changes.
        generate: a prompt's continuation; cut at the stop texts here.
        loglikelihood: log-probability in nats of the second text after the first, and whether it is the most
            probable one (or None).
        version: of the function.
    """

    def __init__(
        self,
        *,
        name: str,
        generate: Callable[[Prompt], str] | None = None,
        loglikelihood: Callable[[str, str], tuple[float, bool | None]] | None = None,
        version: str = "1",
    ):
        if generate is None and loglikelihood is None:
            raise ValueError("generate or loglikelihood must be given, got neither.")
        self._generate, self._loglikelihood = generate, loglikelihood
        self.description: dict[str, Value] = {
            "backend": "function",
            "model": name,
            "version": version,
        }

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[Score]:
        if self._loglikelihood is None:
            raise NotSupported(
                f"loglikelihood was not given to the backend {self.description['model']!r}: it only generates."
            )
        found = [self._loglikelihood(context, text) for context, text in requests]
        return [Score(logprob=float(p), greedy=greedy, tokens=1) for p, greedy in found]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[Score]:
        return self.loglikelihood([("", text) for text in texts])

    def generate(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        if self._generate is None:
            raise NotSupported(
                f"generate was not given to the backend {self.description['model']!r}: it only scores."
            )
        out = []
        for prompt in prompts:
            text, stopped = cut_at_stop(self._generate(prompt), prompt.stop)
            out.append(Continuation(text=text, finish="stop" if stopped else "length", tokens=0))
        return out
