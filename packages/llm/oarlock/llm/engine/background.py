"""The engine in a thread of its own, for servers: requests from event loops, deltas back to them."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine.engine import EngineConfig
from oarlock.llm.engine.opening import NO_ADAPTERS, Given, GivenAdapter, Opened, open_engine
from oarlock.llm.engine.outputs import Delta
from oarlock.llm.engine.params import Request
from oarlock.llm.engine.service import About, Failed, Overloaded
from oarlock.llm.models import LanguageModel
from oarlock.llm.ranks import RanksConfig
from oarlock.llm.tokenizers import Tokenizer

T = TypeVar("T")
WAKE_S = 0.2  #: how often an idle engine looks whether it should stop


class RunningStream:
    """Deltas of one request, for the event loop that handed it in. See ``service.Stream``."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._deltas: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        self._cancel, self._ended = cancel, False
        self._answered = asyncio.Event()
        self._refusal: Exception | None = None

    def __aiter__(self) -> "RunningStream":
        return self

    async def __anext__(self) -> Delta:
        if self._ended:
            raise StopAsyncIteration
        found = await self._deltas.get()
        if isinstance(found, Exception):
            self._ended = True
            raise found
        self._ended = found.usage is not None
        return found

    async def accepted(self) -> None:
        """Wait until the engine has taken the request in.

        Raises:
            ValueError: it is refused after all: a constraint that cannot be read, an adapter that has gone.
            Failed: a rank is lost.
        """
        await self._answered.wait()
        if self._refusal is not None:
            raise self._refusal

    def cancel(self) -> None:
        """Stop the request; its texts end with "abort"."""
        self._cancel()

    def accept(self) -> None:
        """Say that the request is taken in; from the engine's thread."""
        self._soon(self._answered.set)

    def put(self, found: Delta | Exception) -> None:
        """From the engine's thread."""
        self._soon(self._deltas.put_nowait, found)
        if isinstance(found, Exception):
            self._soon(self._refuse, found)

    def _refuse(self, error: Exception) -> None:
        self._refusal = error
        self._answered.set()

    def _soon(self, call: Callable[..., None], *given: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *given)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self._cancel()


class EngineService:
    """An engine that runs until it is closed. See ``service.Service``.

    Args:
        opened: the engine and its model. It belongs to the service from now on.
        name: as clients call the model.
        most_waiting: requests that may wait for their turn.
    """

    def __init__(self, opened: Opened, name: str, *, most_waiting: int = 256) -> None:
        if opened.text.tokenizer is None:
            raise ValueError("tokenizer is absent: the model's files have none, so give one.")
        if name in opened.engine.adapters.names:
            raise ValueError(f"adapters must not be named as the model is, got {name!r}.")
        self._name, self._opened = name, opened
        self.tokenizer: Tokenizer = opened.text.tokenizer
        self.chat_template: str | None = opened.text.chat_template
        self.template_tokens: Mapping[str, str] = opened.text.template_tokens
        self.begin = opened.text.begin
        self.rounded_anew = opened.rounded_anew  #: see ``Opened``
        self.generation: Mapping[str, Any] = opened.generation
        self._engine, self._most_waiting = opened.engine, most_waiting
        self._streams: dict[str, RunningStream] = {}
        self._calls: deque[Callable[[], object]] = deque()  # for the engine's thread
        self._changed = threading.Condition()
        self._open, self._stopping = True, False
        self._lost: str | None = None  # why nothing can be computed any more
        self._thread = threading.Thread(target=self._run, name="oarlock-engine", daemon=True)
        self._thread.start()

    @property
    def about(self) -> About:
        """What it runs now."""
        opened = self._opened
        return About(
            name=self._name,
            family=opened.family,
            parameters=opened.parameters,
            weights=opened.weights,
            max_length=opened.engine.max_length,
            adapters=opened.engine.adapters.names,
        )

    def load_adapter(self, name: str, adapter: GivenAdapter) -> None:
        """Let requests ask for a LoRA adapter; texts go on while it is read.

        Raises:
            ValueError: the name is in use, or the adapter cannot be read or run.
        """
        if name == self._name:
            raise ValueError(f"name must not be the model's, got {name!r}.")
        packed = self._engine.adapters.pack(self._opened.read_adapter(adapter))
        self._ask(lambda: self._engine.load_adapter(name, packed)).result()

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; waits for the engine's thread.

        Raises:
            ValueError: there is none of this name, or a request uses it.
        """
        self._ask(lambda: self._engine.unload_adapter(name)).result()

    def submit(self, request: Request) -> RunningStream:
        """Hand in a request, in a running event loop.

        Raises:
            ValueError: the request does not fit the model, or its id is in use.
            Overloaded: too many wait, or the service takes no more.
            Failed: a rank is lost.
        """
        self._engine.check(request)
        with self._changed:
            self._check_ranks()
            if not self._open:
                raise Overloaded("the server is shutting down")
            if request.id in self._streams:
                raise ValueError(f"id must be unique, but {request.id!r} is in use.")
            running = self._engine.config.most_texts
            if len(self._streams) >= running + self._most_waiting:
                raise Overloaded(f"{len(self._streams)} requests run or wait")
            stream = RunningStream(lambda: self._call(lambda: self._engine.abort(request.id)))
            self._streams[request.id] = stream
        self._call(lambda: self._add(request))
        return stream

    async def embed(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Mean of the states before the head over each prompt's tokens, to length 1, [prompts, D]."""
        self._check_ranks()
        return await asyncio.wrap_future(self._ask(lambda: self._engine.embed(prompts)))

    def stats(self) -> Mapping[str, float]:
        """Numbers of the moment and since the start."""
        return {**self._engine.stats(), "failed": float(self._lost is not None)}

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for the others; whether all ended in time (the rest is aborted)."""
        with self._changed:
            self._open = False
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while self._streams and loop.time() < end:
            await asyncio.sleep(0.02)
        left = list(self._streams)
        for id in left:
            self._call(lambda id=id: self._engine.abort(id))  # type: ignore[misc]
        while self._streams and self._thread.is_alive():
            await asyncio.sleep(0.02)
        return not left

    def close(self) -> None:
        """End the thread; requests that are not finished are aborted."""
        with self._changed:
            self._open, self._stopping = False, True
            self._changed.notify()
        self._thread.join()
        self._engine.close()

    def _failure(self, error: Exception) -> Exception:
        """What those who wait are told of an error that ended a step; of a lost rank, for good."""
        if not isinstance(error, ConnectionError):
            return RuntimeError(f"the engine failed: {error}")
        self._lost = str(error)
        return Failed(f"the engine has failed: {error}")

    def _check_ranks(self) -> None:
        if self._lost is not None:
            raise Failed(f"the engine has failed: {self._lost}")

    def _ask(self, call: Callable[[], T]) -> "Future[T]":
        """What a call in the engine's thread returns or raises."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(call())
            except Exception as error:
                if isinstance(error, ConnectionError):
                    error = self._failure(error)
                done.set_exception(error)

        with self._changed:
            if self._stopping:
                raise Overloaded("the server is shutting down")
            self._calls.append(run)
            self._changed.notify()
        return done

    def _call(self, call: Callable[[], object]) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify()

    def _add(self, request: Request) -> None:
        stream = self._streams.get(request.id)
        if stream is None:  # a step has failed meanwhile, and all were told
            return
        try:
            self._engine.add(request)
        except Exception as error:  # a constraint that cannot be read, an adapter that has gone
            self._end(request.id, error)
        else:
            stream.accept()

    def _end(self, id: str, error: Exception | None = None) -> None:
        with self._changed:
            stream = self._streams.pop(id, None)
        if stream is not None and error is not None:
            stream.put(error)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._calls or self._engine.has_work or self._stopping):
                    self._changed.wait(WAKE_S)
                calls, self._calls = self._calls, deque()
                stopping = self._stopping
            for call in calls:
                call()
            if stopping:
                for id in list(self._streams):
                    self._engine.abort(id)
            try:
                deltas = self._engine.step()
            except Exception as error:  # whatever it was, nobody may wait for ever
                for id in list(self._streams):
                    self._engine.abort(id)
                    self._end(id, self._failure(error))
                deltas = []
            for delta in deltas:
                stream = self._streams.get(delta.request)
                if stream is not None:
                    stream.put(delta)
                if delta.usage is not None:
                    self._end(delta.request)
            if stopping and not self._engine.has_work:
                return


def open_service(
    model: Given,
    *,
    name: str | None = None,
    tokenizer: Tokenizer | None = None,
    weights: str = "fp32",
    max_length: int | None = None,
    generation_config: str = "auto",
    config: EngineConfig = EngineConfig(),
    adapters: Mapping[str, GivenAdapter] = NO_ADAPTERS,
    draft: Given | None = None,
    draft_weights: str | None = None,
    ranks: int | RanksConfig = 1,
    most_waiting: int = 256,
) -> EngineService:
    """Open a model for a server.

    Args:
        model, tokenizer, weights, max_length, generation_config, config, adapters, draft, draft_weights, ranks: as of ``LLM``.
        name: as clients call it; None for the file's or folder's name.
        most_waiting: requests that may wait for their turn.

    Raises:
        ValueError: the model cannot be read or run, or has no tokenizer.
    """
    opened = open_engine(
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
    if name is None:
        name = opened.family if isinstance(model, LanguageModel) else Path(model).stem
    try:
        return EngineService(opened, name, most_waiting=most_waiting)
    except BaseException:
        opened.engine.close()
        raise
