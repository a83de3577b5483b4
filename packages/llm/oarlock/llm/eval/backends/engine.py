"""The inference engine as a backend, or whatever generates and scores as it does."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from oarlock.llm.engine.outputs import Result, TokenLogprob
from oarlock.llm.engine.params import SamplingParams
from oarlock.llm.eval.backends.base import Continuation, Prompt, Score, Value, cut_at_stop
from oarlock.llm.eval.backends.encoding import Encoder, Row
from oarlock.llm.tokenizers import Tokenizer


class Engine(Protocol):
    """What is needed of an engine: prompts as token ids."""

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams
    ) -> Sequence[Result]:
        """Continue prompts."""

    def score(
        self, prompts: Sequence[Sequence[int]], *, last: Sequence[int] | None = None
    ) -> Sequence[Sequence[TokenLogprob]]:
        """Log-probabilities of so many last tokens, with the most probable one in its place or none."""


class EngineBackend:
    """Scores and generates through an engine, which forms batches by itself.

    Scores agree with those of `LanguageModelBackend` as far as the engine's kernels do; whether they depend on
    what else runs is the engine's promise, not this one's.

    Args:
        engine: the engine.
        tokenizer: of its model.
        description: what identifies model, weights and the way they are run; "model" is needed.
        max_length: tokens that the model takes at once, prompt and text together. The last of a text that is
            scored counts among them, so that windows of long texts are one token shorter than those of a
            plain pass.
        start: id of the token that begins every text; None for none.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        description: Mapping[str, Value],
        max_length: int,
        start: int | None = None,
    ):
        if "model" not in description:
            raise ValueError(f"description must name the model, got {dict(description)}.")
        self._engine = engine
        self._prompts = Encoder(tokenizer, start=start, max_length=max_length)
        self._encoder = Encoder(tokenizer, start=start, max_length=max_length - 1)
        self.description: dict[str, Value] = {"backend": "engine", "start": start, **description}

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[Score]:
        """As `Backend`; raises ValueError for a continuation that does not fit the model."""
        return self._score([self._encoder.pair(context, text) for context, text in requests])

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[Score]:
        """As `Backend`."""
        windows = [list(self._encoder.windows(text)) for text in texts]
        scores = iter(self._score(list(itertools.chain.from_iterable(windows))))
        out = []
        for rows in windows:
            parts = [next(scores) for _ in rows]
            out.append(
                Score(
                    logprob=sum(part.logprob for part in parts),
                    greedy=(
                        None
                        if any(p.greedy is None for p in parts)
                        else all(p.greedy for p in parts)
                    ),
                    tokens=sum(part.tokens for part in parts),
                )
            )
        return out

    def generate(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """As `Backend`; prompts that stop alike go to the engine together."""
        found: dict[int, Continuation] = {}
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for number, prompt in enumerate(prompts):
            groups.setdefault((prompt.stop, prompt.max_tokens), []).append(number)
        for (stop, most), numbers in groups.items():
            encoded = [self._prompts.prompt(prompts[number].text, most) for number in numbers]
            params = SamplingParams(max_tokens=most, temperature=0.0, stop=stop)
            results = self._engine.generate([tokens for tokens, _ in encoded], params)
            for number, (_, truncated), result in zip(numbers, encoded, results, strict=True):
                completion = result.completions[0]
                if completion.finish_reason not in ("stop", "length"):
                    raise RuntimeError(
                        f"the engine ended prompt {number} with {completion.finish_reason!r}."
                    )
                text, stopped = cut_at_stop(completion.text, stop)
                ended = stopped or completion.finish_reason == "stop"
                found[number] = Continuation(
                    text=text,
                    finish="stop" if ended else "length",
                    tokens=len(completion.tokens),
                    truncated=truncated,
                )
        return [found[number] for number in range(len(prompts))]

    def _score(self, rows: Sequence[Row]) -> list[Score]:
        # the first text of each context goes first, so that the others find the context computed
        contexts: set[tuple[int, ...]] = set()
        leading: list[int] = []
        following: list[int] = []
        for number, row in enumerate(rows):
            context = row.tokens[: -row.scored]
            (following if context in contexts else leading).append(number)
            contexts.add(context)
        scores: dict[int, Score] = {}
        for numbers in (leading, following):
            found = self._engine.score(
                [rows[number].tokens for number in numbers],
                last=[rows[number].scored for number in numbers],
            )
            for number, logprobs in zip(numbers, found, strict=True):
                scores[number] = _sum(rows[number], logprobs)
        return [scores[number] for number in range(len(rows))]


def _sum(row: Row, logprobs: Sequence[TokenLogprob]) -> Score:
    if len(logprobs) != row.scored:
        raise RuntimeError(f"the engine scored {len(logprobs)} tokens, {row.scored} are needed.")
    known = all(one.top for one in logprobs)
    return Score(
        logprob=float(sum(one.logprob for one in logprobs)),
        greedy=all(one.top[0][0] == one.token for one in logprobs) if known else None,
        tokens=row.scored,
        truncated=row.truncated,
    )
