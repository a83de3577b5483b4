"""A model of `oarlock.llm.models` as a backend, by plain forward passes."""

import hashlib
from collections.abc import Sequence

import numpy as np
import paddle

from oarlock.llm.eval.backends.base import Continuation, Prompt, Score, Value, cut_at_stop
from oarlock.llm.eval.backends.encoding import Encoder, Row
from oarlock.llm.models import LanguageModel, registry
from oarlock.llm.tokenizers import Tokenizer

BUCKET = 32  # lengths are rounded up to multiples of it, so that few shapes occur


class LanguageModelBackend:
    """Scores and generates with a Paddle model.

    What a score depends on: with ``rows=1``, each text is a pass of its own, of a shape that follows from its own
    length. Its score is then a function of the text and the model alone, to the last bit, whatever else is
    evaluated, in whatever order and portions (on one machine, with one number of threads). With
    more rows, passes have a fixed number of rows and matrix products of another shape, whose sums the
    library may order otherwise: scores move by about 1e-6 of a nat per token (measured; tests allow 1e-4).
    The number of rows is part of the description for that reason.

    Args:
        model: in eval mode or not; it is left as it was.
        tokenizer: its own.
        name: how reports call it.
        start: id of the token that begins every text; None for none.
        end: id of the token that ends a text; None for none.
        rows: texts a pass.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        name: str,
        start: int | None = None,
        end: int | None = None,
        rows: int = 1,
    ):
        if rows < 1:
            raise ValueError(f"rows must be 1 or more, got {rows}.")
        vocabulary = int(model.config.vocab_size)
        if tokenizer.vocab_size > vocabulary:
            raise ValueError(
                f"tokenizer has {tokenizer.vocab_size} tokens, the model {vocabulary}: they do not belong together."
            )
        self._model, self._rows, self._end = model, rows, end
        limit = getattr(model.config, "max_length", None)
        self._encoder = Encoder(tokenizer, start=start, max_length=limit)
        self.description: dict[str, Value] = {
            "backend": "language_model",
            "model": name,
            "family": registry.name_of(model),
            "weights": _hash(model),
            "dtype": str(next(iter(model.parameters())).dtype).removeprefix("paddle."),
            "tokenizer": type(tokenizer).__name__,
            "start": start,
            "rows": rows,
            "device": str(paddle.get_device()),
        }

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[Score]:
        """As `Backend`; raises ValueError for a continuation that does not fit the model."""
        return self._score([self._encoder.pair(context, text) for context, text in requests])

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[Score]:
        """As `Backend`."""
        windows = [list(self._encoder.windows(text)) for text in texts]
        scores = iter(self._score([row for rows in windows for row in rows]))
        out = []
        for rows in windows:
            parts = [next(scores) for _ in rows]
            out.append(
                Score(
                    logprob=float(sum(part.logprob for part in parts)),
                    greedy=all(part.greedy for part in parts),
                    tokens=sum(part.tokens for part in parts),
                )
            )
        return out

    def generate(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """As `Backend`: each prompt by itself, with a cache."""
        return [self._continue(prompt) for prompt in prompts]

    def _score(self, rows: Sequence[Row]) -> list[Score]:
        # rows that predict from the same tokens are passed once, such as answers of one token each
        inputs: dict[tuple[int, ...], list[int]] = {}
        for number, row in enumerate(rows):
            inputs.setdefault(row.tokens[:-1], []).append(number)
        order = sorted(inputs, key=lambda tokens: (-self._bucket(len(tokens)), tokens))
        scores: dict[int, Score] = {}
        was_training = self._model.training
        self._model.eval()
        try:
            while order:
                length = self._bucket(len(order[0]))
                chosen = [t for t in order[: self._rows] if self._bucket(len(t)) == length]
                order = order[len(chosen) :]
                for tokens, logits_TV in zip(chosen, self._pass(chosen, length), strict=True):
                    for number in inputs[tokens]:
                        scores[number] = _judge(rows[number], logits_TV)
        finally:
            if was_training:
                self._model.train()
        return [scores[number] for number in range(len(rows))]

    def _bucket(self, length: int) -> int:
        rounded = -(-length // BUCKET) * BUCKET
        limit = self._encoder.max_length
        return rounded if limit is None else min(rounded, limit)

    @paddle.no_grad()
    def _pass(self, chosen: Sequence[tuple[int, ...]], length: int) -> list[np.ndarray]:
        # what follows a text in its row, and rows that only fill, are seen by nothing that counts
        tokens_BT = np.zeros([self._rows, length], np.int64)
        for row, tokens in zip(tokens_BT, chosen):
            row[: len(tokens)] = tokens
        logits_BTV = self._model(paddle.to_tensor(tokens_BT))
        return [logits_BTV[i, : len(t)].astype("float32").numpy() for i, t in enumerate(chosen)]

    @paddle.no_grad()
    def _continue(self, prompt: Prompt) -> Continuation:
        tokens, truncated = self._encoder.prompt(prompt.text, prompt.max_tokens)
        was_training = self._model.training
        self._model.eval()
        cache, new = self._model.new_cache(), list(tokens)  # type: ignore[operator]
        made: list[int] = []
        text, stopped = "", False
        while len(made) < prompt.max_tokens and not stopped:
            logits_1TV = self._model(paddle.to_tensor([new], dtype="int64"), cache)
            token = int(logits_1TV[0, -1].astype("float32").numpy().argmax())
            if token == self._end:
                stopped = True
                break
            made.append(token)
            new = [token]
            text, stopped = cut_at_stop(self._text(tokens, made), prompt.stop)
        if was_training:
            self._model.train()
        return Continuation(
            text=text,
            finish="stop" if stopped else "length",
            tokens=len(made),
            truncated=truncated,
        )

    def _text(self, prompt: Sequence[int], made: Sequence[int]) -> str:
        # a tokenizer may spell the begin of a text otherwise: decode with the last tokens before it
        tokenizer, before = self._encoder.tokenizer, [
            t for t in prompt[-4:] if t != self._encoder.start
        ]
        known = tokenizer.vocab_size
        ids = [token for token in (*before, *made) if token < known]
        return tokenizer.decode(ids)[len(tokenizer.decode(before)) :]


def _judge(row: Row, logits_TV: np.ndarray) -> Score:
    begin = len(row.tokens) - 1 - row.scored
    z_SV = logits_TV[begin:].astype(np.float64)
    targets = np.asarray(row.tokens[-row.scored :])
    top = z_SV.max(-1)
    total = top + np.log(np.exp(z_SV - top[:, None]).sum(-1))
    chosen = z_SV[np.arange(row.scored), targets]
    return Score(
        logprob=float((chosen - total).sum()),
        greedy=bool((z_SV.argmax(-1) == targets).all()),
        tokens=row.scored,
        truncated=row.truncated,
    )


def _hash(model: LanguageModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()[:16]
