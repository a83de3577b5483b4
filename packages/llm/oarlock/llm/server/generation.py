"""The texts of one HTTP request: admitted, made and cancelled together."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from oarlock.llm.engine.outputs import Delta, Usage
from oarlock.llm.engine.params import Request
from oarlock.llm.engine.service import Failed, Overloaded, Stream
from oarlock.llm.server.context import Context
from oarlock.llm.server.errors import APIError, bad_request, busy, failed, stopping, timed_out
from oarlock.llm.server.record import Record

AHEAD = 64  # deltas that may wait for a client which reads slowly


class Generation:
    """Requests to the engine that answer one request of a client.

    Args:
        context: of the server.
        requests: one a prompt.
        record: of the client's request, told of tokens.
    """

    def __init__(self, context: Context, requests: Sequence[Request], record: Record):
        self._context, self._requests, self._record = context, requests, record
        self._streams: list[Stream] = []
        self._inside = False
        self._begun = time.perf_counter()
        self._deadline = asyncio.get_running_loop().time() + context.limits.request_s
        self._usages: dict[int, Usage] = {}

    @property
    def usage(self) -> Usage:
        """Of all prompts and texts, when all have ended."""
        usages = self._usages.values()
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            cached_tokens=sum(usage.cached_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
        )

    async def open(self) -> None:
        """Wait for a turn and hand the requests in; `close` must follow, also after an error.

        Raises:
            APIError: 400, the engine refuses them; 408, 429 or 503, there is no turn.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._context.gate.enter()
        except TimeoutError as error:
            raise self._timed_out() from error
        self._inside = True
        try:
            for request in self._requests:
                self._streams.append(self._context.service.submit(request))
            async with asyncio.timeout_at(self._deadline):
                for stream in self._streams:
                    await stream.accepted()
        except TimeoutError as error:
            raise self._timed_out() from error
        except ValueError as error:
            raise bad_request(str(error), code="invalid_value") from error
        except Overloaded as error:
            raise busy(str(error), retry_after_s=self._context.limits.retry_after_s) from error
        except Failed as error:
            raise failed(str(error)) from error

    def close(self) -> None:
        """Cancel what has not ended, and let the next in; nothing happens the second time."""
        for stream in self._streams:
            stream.cancel()
        self._streams = []
        if self._inside:
            self._inside = False
            self._context.gate.leave()

    async def deltas(self) -> AsyncIterator[tuple[int, Delta]]:
        """What the texts gain, each with the number of its prompt.

        Raises:
            APIError: 408, the time is over; 500, the engine failed; 503, it was stopped, or failed for good.
        """
        source = self._merged() if len(self._streams) > 1 else self._single()
        times: dict[tuple[int, int], float] = {}
        try:
            while True:
                try:
                    async with asyncio.timeout_at(self._deadline):
                        number, delta = await anext(source)
                except StopAsyncIteration:
                    break
                except TimeoutError as error:
                    raise self._timed_out() from error
                except Failed as error:
                    raise failed(str(error)) from error
                self._observe(number, delta, times)
                yield number, delta
        finally:
            await source.aclose()
        if len(self._usages) != len(self._requests):
            raise APIError(500, "The engine ended a request before its texts.", code="engine_error")
        metrics, usage = self._context.metrics, self.usage
        metrics.prompt_tokens.inc(usage.prompt_tokens)
        metrics.cached_tokens.inc(usage.cached_tokens)

    def _observe(self, number: int, delta: Delta, times: dict[tuple[int, int], float]) -> None:
        if delta.finish_reason == "error":
            raise APIError(500, f"The engine failed: {delta.error}.", code="engine_error")
        if delta.finish_reason == "abort":
            raise stopping(
                "The request was aborted before its text was whole: the server is shutting down.",
                retry_after_s=self._context.limits.retry_after_s,
            )
        if delta.usage is not None:
            self._usages[number] = delta.usage
        if not delta.tokens:
            return
        now, metrics = time.perf_counter(), self._context.metrics
        metrics.completion_tokens.inc(len(delta.tokens))
        self._record.completion_tokens += len(delta.tokens)
        if not times:
            self._record.first_token_s = now - self._begun
            metrics.first_token.observe(now - self._begun)
        before = times.get((number, delta.index))
        if before is not None:
            for _ in delta.tokens:
                metrics.inter_token.observe((now - before) / len(delta.tokens))
        times[number, delta.index] = now

    async def _single(self) -> AsyncGenerator[tuple[int, Delta], None]:
        async for delta in self._streams[0]:
            yield 0, delta

    async def _merged(self) -> AsyncGenerator[tuple[int, Delta], None]:
        queue: asyncio.Queue[tuple[int, Delta] | BaseException | None] = asyncio.Queue(AHEAD)

        async def read(number: int, stream: Stream) -> None:
            try:
                async for delta in stream:
                    await queue.put((number, delta))
            except Exception as error:
                await queue.put(error)
            else:
                await queue.put(None)

        tasks = [asyncio.create_task(read(*item)) for item in enumerate(self._streams)]
        try:
            left = len(tasks)
            while left:
                item = await queue.get()
                if item is None:
                    left -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _timed_out(self) -> APIError:
        return timed_out(
            f"The request took longer than {self._context.limits.request_s:g} s: ask for fewer tokens."
        )
