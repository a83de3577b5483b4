"""A model that answers: prompts in, texts out."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine.engine import EngineConfig
from oarlock.llm.engine.opening import NO_ADAPTERS, Given, GivenAdapter, open_engine
from oarlock.llm.engine.outputs import Completion, Delta, Result, TokenLogprob, Usage
from oarlock.llm.engine.params import Request, SamplingParams
from oarlock.llm.ranks import RanksConfig
from oarlock.llm.tokenizers import Tokenizer
from oarlock.llm.tokenizers.conversation import Conversations

Prompt = str | Sequence[int]
Message = Mapping[str, Any]
Names = str | Sequence[str | None] | None


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
        adapters: LoRA adapters by the names that requests ask for, each a folder of PEFT or a
            ``loading.Adapter``.
        draft: a small model with the same vocabulary (a path or a model), whose guesses, ``config.guesses`` a step,
            make texts faster and leave them as they are; or None.
        draft_weights: format of the draft's weights; None for the model's.
        ranks: processes that compute the model together: how many, or also where they come from. Each has a part of
            the weights and of the cache.

    Raises:
        ValueError: the model, the draft or an adapter cannot be read or run, or the model not be cut for so many ranks.
    """

    def __init__(
        self,
        model: Given,
        *,
        tokenizer: Tokenizer | None = None,
        weights: str = "fp32",
        max_length: int | None = None,
        generation_config: str = "auto",
        config: EngineConfig = EngineConfig(),
        adapters: Mapping[str, GivenAdapter] = NO_ADAPTERS,
        draft: Given | None = None,
        draft_weights: str | None = None,
        ranks: int | RanksConfig = 1,
    ) -> None:
        self.opened = open_engine(
            model,
            tokenizer=tokenizer,
            weights=weights,
            max_length=max_length,
            generation_config=generation_config,
            config=config,
            adapters=adapters,
            draft=draft,
            draft_weights=draft_weights,
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

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded."""
        return self.engine.adapters.names

    def load_adapter(self, name: str, adapter: GivenAdapter) -> None:
        """Let requests ask for a LoRA adapter.

        Args:
            name: that they ask for.
            adapter: a folder of PEFT, or a ``loading.Adapter``.

        Raises:
            ValueError: the name is in use, or the adapter cannot be read or run.
        """
        self.engine.load_adapter(name, self.opened.read_adapter(adapter))

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ValueError: there is none of this name, or a stream uses it.
        """
        self.engine.unload_adapter(name)

    def generate(
        self,
        prompts: str | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapter: Names = None,
        progress: bool = False,
    ) -> list[Result]:
        """Continue prompts.

        Args:
            prompts: texts or sequences of token ids; a single text is one prompt.
            params: how, for all or one each; None for ``defaults``.
            adapter: name of an adapter, for all or one each; None for the model alone.
            progress: show a bar.

        Returns:
            A result for each prompt.

        Raises:
            ValueError: a prompt or parameter does not fit; nothing was started.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if params is None:
            params = self.defaults
        one = isinstance(params, SamplingParams)
        each = [params] * len(prompts) if one else list(params)  # type: ignore[arg-type,list-item]
        same = adapter is None or isinstance(adapter, str)
        names = [adapter] * len(prompts) if same else list(adapter)  # type: ignore[arg-type,list-item]
        for name, given in (("params", each), ("adapter", names)):
            if len(given) != len(prompts):
                raise ValueError(f"{name} must be one or {len(prompts)}, got {len(given)}.")
        return self._run(prompts, each, names, progress)  # type: ignore[arg-type]

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        adapter: str | None = None,
    ) -> Iterator[Delta]:
        """What is added to the texts of a prompt, as it comes. Closing the iterator ends the request.

        Raises:
            ValueError: the prompt or a parameter does not fit; at once, before anything is asked for.
        """
        chosen = self.defaults if params is None else params
        request = self._request(prompt, chosen, adapter)
        self.engine.check(request)
        return self._deltas(request)

    def _deltas(self, request: Request) -> Iterator[Delta]:
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
        adapter: str | None = None,
    ) -> Result:
        """Answer the last message of a conversation.

        Args:
            messages: {"role": ..., "content": ...} each.
            params: how; None for ``defaults``.
            tools: descriptions of functions, for models whose template has a place for them.
            adapter: name of an adapter; None for the model alone.

        Raises:
            ValueError: the model has no chat template, or the messages do not fit it.
        """
        chosen = self.defaults if params is None else params
        prompt = self.chat_prompt(messages, tools=tools)
        return self._run([prompt], [chosen], [adapter], False)[0]

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

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        last: Sequence[int] | None = None,
        adapter: str | None = None,
    ) -> list[tuple[TokenLogprob, ...]]:
        """Log-probabilities of tokens of texts, given those before.

        Args:
            prompts: the texts.
            last: of how many of each text's last tokens, which saves what texts have in common before; None for
                all but the first.
            adapter: name of an adapter; None for the model alone.
        """
        if last is not None and len(last) != len(prompts):
            raise ValueError(f"last must be {len(prompts)} numbers, got {len(last)}.")
        params = [
            SamplingParams(max_tokens=0, prompt_logprobs=0, prompt_logprobs_last=count)
            for count in (last if last is not None else [None] * len(prompts))
        ]
        results = self._run(list(prompts), params, [adapter] * len(prompts), False)
        return [one.prompt_logprobs for one in results]

    def embed(
        self, prompts: Sequence[Prompt], *, adapter: str | None = None
    ) -> NDArray[np.float32]:
        """Mean of the states before the head over the tokens of texts, to length 1, [prompts, D]."""
        return self.engine.embed([self._tokens(prompt) for prompt in prompts], adapter=adapter)

    def close(self) -> None:
        """End the processes of other ranks, if there are any; nothing is computed afterwards."""
        self.engine.close()

    def _run(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[SamplingParams],
        adapters: Sequence[str | None],
        progress: bool,
    ) -> list[Result]:
        requests = [self._request(*one) for one in zip(prompts, params, adapters)]
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

    def _request(self, prompt: Prompt, params: SamplingParams, adapter: str | None) -> Request:
        return Request(
            id=str(next(self._numbers)),
            prompt=tuple(self._tokens(prompt)),
            params=params,
            adapter=adapter,
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
