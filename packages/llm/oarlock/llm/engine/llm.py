"""A model that answers: prompts in, texts out."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine.engine import EngineConfig
from oarlock.llm.engine.opening import open_engine
from oarlock.llm.engine.outputs import Completion, Delta, Result, TokenLogprob, Usage
from oarlock.llm.engine.params import Request, SamplingParams
from oarlock.llm.models import LanguageModel
from oarlock.llm.ranks import RanksConfig
from oarlock.llm.tokenizers import Tokenizer
from oarlock.llm.tokenizers.conversation import Conversations

Prompt = str | Sequence[int]
Message = Mapping[str, Any]


class LLM:
    """A language model on native kernels. For one thread; servers have ``open_service``.

    >>> llm = LLM("stories260K.bin", weights="int8")
    >>> llm.generate(["Once upon a time", "The cat"], SamplingParams(max_tokens=30, seed=0))

    Args:
        model: a path (``oarlock.llm.loading.load`` says which), or a model of ``oarlock.llm.models``.
        tokenizer: of a model, or in place of the files' own.
        weights: "fp32", "bf16", "int8" or "int4".
        max_length: positions at most, where the model's own are more than are needed.
        generation_config: "auto" draws as the model's author advises where no parameters are given, "off" as
            ``SamplingParams()`` does.
        config: sizes of the engine.
        ranks: processes that compute the model together: how many, or also where they come from. Each has a part of
            the weights and of the cache.

    Raises:
        ValueError: the model cannot be read or run, or not be cut for so many ranks.
    """

    def __init__(
        self,
        model: str | os.PathLike | LanguageModel,
        *,
        tokenizer: Tokenizer | None = None,
        weights: str = "fp32",
        max_length: int | None = None,
        generation_config: str = "auto",
        config: EngineConfig = EngineConfig(),
        ranks: int | RanksConfig = 1,
    ) -> None:
        self.opened = open_engine(
            model,
            tokenizer=tokenizer,
            weights=weights,
            max_length=max_length,
            generation_config=generation_config,
            config=config,
            ranks=ranks,
        )
        self.engine, self.text = self.opened.engine, self.opened.text
        self._numbers = itertools.count()
        self._conversations: Conversations | None = None

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Of the model; None where only tokens are known."""
        return self.text.tokenizer

    @property
    def defaults(self) -> SamplingParams:
        """How tokens are drawn where no parameters are given: as the author advises.

        >>> llm.generate(prompts, dataclasses.replace(llm.defaults, max_tokens=50))
        """
        return self.opened.defaults

    def generate(
        self,
        prompts: str | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[Result]:
        """Continue prompts.

        Args:
            prompts: texts or sequences of token ids; a single text is one prompt.
            params: how, for all or one each; None for ``defaults``.
            progress: show a bar.

        Returns:
            A result for each prompt.

        Raises:
            ValueError: a prompt or parameter does not fit; nothing was started.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if params is None:
            params = self.defaults
        if isinstance(params, SamplingParams):
            each = [params] * len(prompts)
        elif len(params) == len(prompts):
            each = list(params)
        else:
            raise ValueError(f"params must be one or {len(prompts)}, got {len(params)}.")
        return self._run(prompts, each, progress)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Delta]:
        """What is added to the texts of a prompt, as it comes. Closing the iterator ends the request."""
        request = self._request(prompt, self.defaults if params is None else params)
        self.engine.add(request)
        try:
            while self.engine.has_work:
                yield from (one for one in self.engine.step() if one.request == request.id)
        finally:
            self.engine.abort(request.id)
            self.engine.step()

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Result:
        """Answer the last message of a conversation.

        Args:
            messages: {"role": ..., "content": ...} each.
            params: how; None for ``defaults``.
            tools: descriptions of functions, for models whose template has a place for them.

        Raises:
            ValueError: the model has no chat template, or the messages do not fit it.
        """
        chosen = self.defaults if params is None else params
        return self._run([self.chat_prompt(messages, tools=tools)], [chosen], False)[0]

    def chat_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Tokens that ``chat`` begins with."""
        if self.text.chat_template is None:
            raise ValueError("chat needs a chat template, but the model has none; use generate.")
        if self._conversations is None:
            if self.tokenizer is None:
                raise ValueError("chat needs a tokenizer, but the model's files have none.")
            self._conversations = Conversations(
                self.tokenizer, self.text.chat_template, self.text.template_tokens
            )
        return list(self._conversations.tokens(messages, tools=tools))

    def score(self, prompts: Sequence[Prompt]) -> list[tuple[TokenLogprob, ...]]:
        """Log-probabilities of all tokens of texts but the first of each, given those before."""
        params = SamplingParams(max_tokens=0, prompt_logprobs=0)
        return [
            one.prompt_logprobs for one in self._run(list(prompts), [params] * len(prompts), False)
        ]

    def embed(self, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Mean of the states before the head over the tokens of texts, to length 1, [prompts, D]."""
        return self.engine.embed([self._tokens(prompt) for prompt in prompts])

    def close(self) -> None:
        """End the processes of other ranks, if there are any; nothing is computed afterwards."""
        self.engine.close()

    def _run(
        self, prompts: Sequence[Prompt], params: Sequence[SamplingParams], progress: bool
    ) -> list[Result]:
        requests = [self._request(*one) for one in zip(prompts, params)]
        for request in requests:
            self.engine.check(request)
        gathered = {request.id: Gathered(request) for request in requests}
        try:
            for request in requests:
                self.engine.add(request)
            with _Bar(len(requests), progress) as advance:
                while self.engine.has_work:
                    for delta in self.engine.step():
                        advance(gathered[delta.request].add(delta))
        except BaseException:
            for request in requests:
                self.engine.abort(request.id)
            self.engine.step()
            raise
        return [gathered[request.id].result() for request in requests]

    def _request(self, prompt: Prompt, params: SamplingParams) -> Request:
        return Request(
            id=str(next(self._numbers)), prompt=tuple(self._tokens(prompt)), params=params
        )

    def _tokens(self, prompt: Prompt) -> list[int]:
        return self.text.encode(prompt) if isinstance(prompt, str) else [int(one) for one in prompt]


class Gathered:
    """Deltas of a request, put together."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._deltas: list[list[Delta]] = [[] for _ in range(request.params.n)]
        self._usage: Usage | None = None

    def add(self, delta: Delta) -> bool:
        """Whether the request is whole now."""
        self._deltas[delta.index].append(delta)
        self._usage = self._usage or delta.usage
        return delta.usage is not None

    def result(self) -> Result:
        """Of a whole request.

        Raises:
            RuntimeError: a text could not be continued.
        """
        assert self._usage is not None
        for deltas in self._deltas:
            if deltas[-1].finish_reason == "error":
                raise RuntimeError(f"request {self.request.id}: {deltas[-1].error}")
        completions = []
        for index, deltas in enumerate(self._deltas):
            reason = deltas[-1].finish_reason
            assert reason is not None
            completions.append(
                Completion(
                    index=index,
                    text="".join(one.text for one in deltas),
                    tokens=sum((one.tokens for one in deltas), ()),
                    finish_reason=reason,
                    logprobs=sum((one.logprobs for one in deltas), ()),
                    stop=deltas[-1].stop,
                )
            )
        return Result(
            request=self.request.id,
            prompt=self.request.prompt,
            completions=tuple(completions),
            usage=self._usage,
            prompt_logprobs=self._deltas[0][0].prompt_logprobs,
        )


class _Bar:
    """A progress bar over requests, or nothing."""

    def __init__(self, total: int, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            self._bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._task = self._bar.add_task("requests", total=total)

    def __enter__(self) -> Any:
        if self._bar is not None:
            self._bar.start()
        return self._advance

    def _advance(self, done: bool) -> None:
        if done and self._bar is not None:
            self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
