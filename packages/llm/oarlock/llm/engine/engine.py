"""The engine: texts of many requests, grown together, a step at a time.

A step takes one token of each text that is being written and parts of prompts through the model in one call. What
a text gets does not depend on the others: products, attention and draws are its own, bit by bit. So greedy texts and
texts with a seed are the same whether the engine is busy or idle, and with or without guesses of what follows.
"""

import dataclasses
import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from oarlock.native import decoder, threads
from oarlock.native.decoder import PAGE, Cache, Decoder, Rows

from oarlock.llm.engine import sampling
from oarlock.llm.engine.adapters import Adapters, Packed
from oarlock.llm.engine.drafts import Draft
from oarlock.llm.engine.guesses import repeated
from oarlock.llm.engine.outputs import Delta, Usage
from oarlock.llm.engine.pages import Holding, OutOfPages, PageTable
from oarlock.llm.engine.params import Constraint, Request, SamplingParams
from oarlock.llm.engine.schedule import Part, Scheduler
from oarlock.llm.engine.sharding import Shard
from oarlock.llm.engine.texts import Matcher, Text
from oarlock.llm.loading import Adapter
from oarlock.llm.ranks.leader import Team
from oarlock.llm.tokenizers import Tokenizer

DRAFTED = 4  #: guesses of a draft, where nobody says how many
CACHE_FORMATS = ("fp32", "bf16", "int8")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Sizes of an engine.

    Args:
        most_rows: tokens that a step computes; longer prompts take several steps, between which others go on.
        most_texts: texts that run at a time.
        cache_tokens: positions that the cache holds; None for what ``most_texts`` of a quarter of the model's
            length fill, 65536 at most.
        cache_format: of keys and values: "fp32", "bf16" or "int8".
        share_prefixes: compute equal beginnings of prompts once.
        guesses: most tokens of a text that a step guesses, by the draft or without one from repetitions in the
            text so far; 0 for none, None for 4 with a draft and none without.
        threads: of the kernels; None for all physical cores.
    """

    most_rows: int = 512
    most_texts: int = 64
    cache_tokens: int | None = None
    cache_format: str = "fp32"
    share_prefixes: bool = True
    guesses: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("most_rows", 1), ("most_texts", 1)):
            _check_count(name, getattr(self, name), least)
        for name, least in (("cache_tokens", PAGE), ("guesses", 0), ("threads", 1)):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), least)
        if self.cache_format not in CACHE_FORMATS:
            raise ValueError(
                f"cache_format must be one of {', '.join(CACHE_FORMATS)}, got {self.cache_format!r}."
            )


_PROMPT_ONLY = SamplingParams(max_tokens=0)


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer, {least} or more, got {value!r}.")


class Engine:
    """Requests in, deltas of their texts out. Not for several threads at once.

    Args:
        model: native decoder, as ``packing.pack`` makes it.
        config: sizes.
        tokenizer: for texts and stop texts; None where tokens are enough.
        ends: tokens that end a text.
        constrain: makes the matcher of a constraint; None where there is no tokenizer.
        draft: native decoder of a small model with the same vocabulary, which guesses; its cache has as many
            positions as the model's.
        team: other processes that have the rest of the model; it belongs to the engine from now on.
        shards: what each rank has, where there are several.

    Raises:
        ValueError: the draft has another vocabulary, or no guesses are wanted of it.
    """

    def __init__(
        self,
        model: decoder.Model,
        config: EngineConfig = EngineConfig(),
        *,
        tokenizer: Tokenizer | None = None,
        ends: Iterable[int] = (),
        constrain: Callable[[Constraint], Matcher] | None = None,
        draft: decoder.Model | None = None,
        team: Team | None = None,
        shards: Sequence[Shard] = (),
    ) -> None:
        if draft is not None and draft.vocab != model.vocab:
            # Models of a series may have more logits than tokens, and not as many more.
            known = max(draft.vocab, model.vocab) if tokenizer is None else tokenizer.vocab_size
            if min(draft.vocab, model.vocab) < known:
                raise ValueError(
                    f"draft must have the model's vocabulary of {model.vocab} tokens, got {draft.vocab}."
                )
        guesses = config.guesses
        if guesses is None:
            guesses = 0 if draft is None else DRAFTED
        self._guesses = guesses
        if draft is not None and guesses == 0:
            raise ValueError("guesses must be 1 or more with a draft, got 0; begin with 4.")
        self.model, self.config, self.tokenizer = model, config, tokenizer
        self.ends, self._constrain = frozenset(ends), constrain
        tokens = config.cache_tokens
        if tokens is None:
            quarter = max(PAGE, model.max_length // 4)
            tokens = max(min(65536, config.most_texts * quarter), min(model.max_length, 65536))
        self.decoder: Decoder
        self.cache: Cache
        self._team, pages = team, -(-tokens // PAGE)
        if team is None:
            self.decoder = Decoder(model, config.most_rows)
            self.cache = Cache(self.decoder, pages, config.cache_format)
        else:
            self.decoder, self.cache = team.begin(
                model, config.most_rows, pages, config.cache_format
            )
        self.adapters = Adapters(self.decoder, shards)
        self.pages = PageTable(self.cache.pages, share=config.share_prefixes)
        guess = None
        if guesses:
            guess = self._guess
        self.scheduler = Scheduler(self.pages, config.most_rows, config.most_texts, guess)
        #: Tokens that a text can have: what the model and the cache hold.
        self.max_length = min(model.max_length, self.cache.pages * PAGE)
        self._threads = config.threads or threads.physical_cores()
        if team is not None:
            self._threads = team.threads(config.threads)
        self.draft: Draft | None = None
        if draft is not None:
            self.draft = Draft(
                draft,
                vocab=model.vocab,
                most_rows=config.most_rows,
                pages=self.cache.pages,
                cache_format=config.cache_format,
                share=config.share_prefixes,
                threads=self._threads,
            )
        self._drafted: Mapping[Text, tuple[int, ...]] = {}
        self._arrivals = itertools.count()
        self._requests: dict[str, list[Text]] = {}
        self._finished: dict[str, list[Text]] = {}
        self._ended: list[Delta] = []
        self._counts = dict.fromkeys(
            (
                "steps",
                "prompt_tokens",
                "cached_tokens",
                "tokens_generated",
                "tokens_guessed",
                "guesses_right",
                "requests_finished",
            ),
            0,
        )
        self._busy_s = 0.0

    @property
    def has_work(self) -> bool:
        """Whether any request is not finished."""
        return bool(self._requests or self._ended)

    def check(self, request: Request) -> None:
        """Refuse what does not fit the model.

        Raises:
            ValueError: names what does not fit.
        """
        prompt, params = request.prompt, request.params
        if not prompt:
            raise ValueError("prompt must have at least one token.")
        vocab = self.model.vocab
        for name, tokens in (
            ("prompt", prompt),
            ("logit_bias", params.logit_bias),
            ("stop_token_ids", params.stop_token_ids),
        ):
            wrong = [token for token in tokens if not 0 <= token < vocab]
            if wrong:
                raise ValueError(f"{name} must have ids in 0..{vocab - 1}, got {wrong[0]}.")
        wanted = len(prompt) + (1 if params.max_tokens is None else params.max_tokens)
        if wanted > self.max_length:
            raise ValueError(
                f"prompt and max_tokens must be at most {self.max_length} tokens together, got "
                f"{len(prompt)} and {params.max_tokens if params.max_tokens is not None else 'more'}."
            )
        for name in ("logprobs", "prompt_logprobs"):
            if (getattr(params, name) or 0) > vocab:
                raise ValueError(f"{name} must be at most {vocab}, got {getattr(params, name)}.")
        if (params.prompt_logprobs_last or 0) >= len(prompt):
            raise ValueError(
                f"prompt_logprobs_last must be below the prompt's {len(prompt)} tokens, got "
                f"{params.prompt_logprobs_last}."
            )
        if params.stop and self.tokenizer is None:
            raise ValueError("stop needs a tokenizer, but the model has none; use stop_token_ids.")
        if params.constraint is not None and self._constrain is None:
            raise ValueError("constraint needs a tokenizer, but the model has none.")
        self.adapters.number(request.adapter)

    def add(self, request: Request) -> None:
        """Take a request in.

        Raises:
            ValueError: it does not fit, its constraint cannot be read, or its id is in use.
        """
        self.check(request)
        if request.id in self._requests:
            raise ValueError(f"id must be unique, but {request.id!r} is in use.")
        params = request.params
        seed = secrets.randbits(63) if params.seed is None else params.seed
        order = (request.priority, next(self._arrivals))
        texts = []
        for index in range(params.n):
            matcher = None
            if params.constraint is not None:
                assert self._constrain is not None
                matcher = self._constrain(params.constraint)
            texts.append(
                Text.begin(
                    request,
                    index,
                    order,
                    seed=seed,
                    ends=self.ends,
                    tokenizer=self.tokenizer,
                    matcher=matcher,
                    adapter=self.adapters.number(request.adapter),
                )
            )
        self._requests[request.id], self._finished[request.id] = texts, []
        texts[0].siblings = texts[1:]
        self.scheduler.add(texts[0])
        self._counts["prompt_tokens"] += len(request.prompt)

    def abort(self, request: str) -> None:
        """End a request's texts; the next step says so. Nothing happens if it has ended."""
        for text in list(self._requests.get(request, ())):
            if not text.finished:
                self._ended.append(self._end(text, text.end("abort")))

    def load_adapter(self, name: str, adapter: Adapter | Packed) -> None:
        """Let requests ask for an adapter, packed (``adapters.pack``) or not.

        Raises:
            ValueError: the name is in use, or the adapter does not fit the model.
            ConnectionError: a rank is lost.
        """
        self.adapters.load(name, adapter)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ValueError: there is none of this name, or a request uses it.
        """
        number = self.adapters.number(name)
        users = sum(texts[0].adapter == number for texts in self._requests.values())
        if users:
            raise ValueError(
                f"adapter {name!r} is in use by {users} requests; wait for their ends or abort them."
            )
        self.adapters.unload(name)
        self.pages.forget(number)

    def step(self) -> list[Delta]:
        """Compute the next tokens and say what they add; texts without news are left out."""
        start = time.perf_counter()
        deltas, self._ended = self._ended, []
        if self.draft is not None:
            self._drafted = self.draft.guess(self.scheduler.running, self._room_for_guesses)
        parts = self.scheduler.plan()
        if parts:
            self._counts["steps"] += 1
            deltas += self._compute(parts)
        self._busy_s += time.perf_counter() - start
        return deltas

    def stats(self) -> Mapping[str, float]:
        """Numbers of the moment and since the start."""
        pages = self.cache.pages
        return self._counts | {
            "requests_running": len(self.scheduler.running),
            "requests_waiting": len(self.scheduler.waiting),
            "preemptions": self.scheduler.preemptions,
            "cache_pages": pages,
            "cache_pages_used": pages - self.pages.available,
            "busy_s": self._busy_s,
            **({} if self.draft is None else self.draft.stats()),
            **({} if self._team is None else self._team.stats()),
        }

    def close(self) -> None:
        """End the processes of other ranks, if there are any; the engine computes no more then."""
        if self._team is not None:
            self._team.close()

    def embed(
        self, prompts: Sequence[Sequence[int]], *, adapter: str | None = None
    ) -> NDArray[np.float32]:
        """Mean of the states before the head over each prompt's tokens, to length 1, [prompts, D].

        Raises:
            ValueError: a prompt is empty or too long, or has unknown ids, or there is no such adapter.
        """
        number = self.adapters.number(adapter)
        for prompt in prompts:
            self.check(Request(id="embed", prompt=tuple(prompt), params=_PROMPT_ONLY))
        found = np.empty((len(prompts), self.model.hidden), np.float32)
        for out, prompt in zip(found, prompts):
            holding, total = Holding(), np.zeros(self.model.hidden)
            self._make_room(len(prompt))
            self.pages.extend(holding, len(prompt))
            try:
                for begin in range(0, len(prompt), self.config.most_rows):
                    piece = prompt[begin : begin + self.config.most_rows]
                    rows = [Rows(piece, begin, holding.pages, number)]
                    total += self._forward(rows, range(len(piece)), hidden=True).sum(0, np.float64)
            finally:
                self.pages.release(holding)
            out[:] = total / max(float(np.linalg.norm(total)), 1e-30)
        return found

    def _make_room(self, positions: int) -> None:
        while self.pages.available * PAGE < positions:
            self.scheduler.preempt_last()

    def _room_for_guesses(self, text: Text) -> int:
        room = self.max_length - len(text.tokens) - 1
        if text.request.params.max_tokens is not None:
            room = min(room, text.request.params.max_tokens - text.drawn - 1)
        return min(self._guesses, room)

    def _guess(self, text: Text) -> tuple[int, ...]:
        if self.draft is not None:
            return self._drafted.get(text, ())
        return repeated(text.tokens, self._room_for_guesses(text))

    def _forward(
        self, rows: Sequence[Rows], wanted: Iterable[int], hidden: bool = False
    ) -> NDArray[np.float32]:
        return self.decoder.forward(
            self.cache,
            rows,
            wanted=np.fromiter(wanted, np.int32),
            hidden=hidden,
            threads=self._threads,
        )

    def _compute(self, parts: list[Part]) -> list[Delta]:
        rows: list[Rows] = []
        wanted: list[int] = []
        spans: list[tuple[int, int]] = []
        at = 0
        parts.sort(key=lambda part: part.text.adapter)  # fastest where an adapter's stand together
        for part in parts:
            text = part.text
            tokens = [*text.tokens[text.computed : text.computed + part.count], *part.guesses]
            rows.append(Rows(tokens, text.computed, text.holding.pages, text.adapter))
            complete = part.count == text.missing
            first = at + min(max(text.reported - 1 - text.computed, 0), part.count - complete)
            last = at + len(tokens) if complete else at + part.count
            spans.append((len(wanted), len(wanted) + last - first))
            wanted += range(first, last)
            at += len(tokens)
        logits = self._forward(rows, wanted)
        deltas = []
        for part, (first, last) in zip(parts, spans):
            deltas += self._take(part, logits[first:last])
        return deltas

    def _take(self, part: Part, logits: NDArray[np.float32]) -> list[Delta]:
        """What a text's logits mean: of its last token, and of guesses or the prompt's tokens."""
        text, top = part.text, part.text.request.params.prompt_logprobs
        if top is not None and text.drawn == 0:
            begin = max(text.reported, text.computed + 1)
            tokens = text.tokens[begin : text.computed + part.count + 1]
            text.prompt_logprobs += sampling.reports(logits[: len(tokens)], tokens, top)
            logits = logits[len(tokens) :]
        text.computed += part.count
        if text.missing:
            self.pages.publish(text.holding, text.tokens, text.computed)
            return []
        first = text.drawn == 0
        if first:
            self._counts["cached_tokens"] += text.cached
        self.pages.publish(text.holding, text.tokens, text.computed)
        deltas = []
        siblings, text.siblings = text.siblings, []
        for sibling in siblings:  # before the first draws: their pages are the prompt's
            self._fork(text, sibling)
            deltas.append(self._write(sibling, (), logits))
        deltas.insert(0, self._write(text, part.guesses, logits))
        return deltas

    def _write(self, text: Text, guesses: tuple[int, ...], logits: NDArray[np.float32]) -> Delta:
        """Draw tokens: one, and one more for each guess that it equals."""
        if text.request.params.max_tokens == 0:
            return self._end(text, text.end("length"))
        deltas: list[Delta] = []
        for place, row in enumerate(logits):
            try:
                drawn = text.draw(row)
            except sampling.NothingToDraw as error:
                deltas.append(self._end(text, text.end("error", str(error))))
                break
            self._counts["tokens_generated"] += 1
            deltas.append(text.add([drawn], self.max_length))
            right = place < len(guesses) and guesses[place] == drawn[0]
            if text.finished:
                deltas[-1] = self._end(text, deltas[-1])
                break
            if place < len(guesses):
                self._counts["tokens_guessed"] += 1
                self._counts["guesses_right"] += right
            if not right:
                break
            text.computed += 1
        if not text.finished:
            self.pages.publish(text.holding, text.tokens, text.computed)
        return _joined(deltas)

    def _fork(self, text: Text, sibling: Text) -> None:
        """Give a sibling the pages of the prompt that was just computed."""
        sibling.cached = text.cached
        sibling.prompt_logprobs = list(text.prompt_logprobs)
        try:
            sibling.holding, copies = self.pages.fork(text.holding)
        except OutOfPages:
            self.scheduler.add(sibling)  # draws now, computes its own pages when there is room
            return
        for source, target in copies:
            self.cache.copy_page(source, target)
        sibling.computed = text.computed
        self.scheduler.run(sibling)

    def _end(self, text: Text, delta: Delta) -> Delta:
        """A text's last delta; with the request's last one, its usage."""
        id = text.request.id
        if text in self.scheduler.running or text in self.scheduler.waiting:
            self.scheduler.remove(text)
        if self.draft is not None:
            self.draft.forget(text)
        waiting, text.siblings = text.siblings, []
        for sibling in waiting:  # only where the first text is aborted
            sibling.siblings = []
        self._finished[id].append(text)
        if len(self._finished[id]) < len(self._requests[id]):
            return delta
        texts = self._requests.pop(id)
        del self._finished[id]
        self._counts["requests_finished"] += 1
        usage = Usage(
            prompt_tokens=len(text.request.prompt),
            cached_tokens=texts[0].cached,
            completion_tokens=sum(one.drawn for one in texts),
        )
        return dataclasses.replace(delta, usage=usage)


def _joined(deltas: list[Delta]) -> Delta:
    """Deltas of one text in one step as one."""
    last = deltas[-1]
    if len(deltas) == 1:
        return last
    return dataclasses.replace(
        last,
        text="".join(one.text for one in deltas),
        tokens=sum((one.tokens for one in deltas), ()),
        logprobs=sum((one.logprobs for one in deltas), ()),
        prompt_logprobs=deltas[0].prompt_logprobs,
    )
