"""The engine as a service: event loops, cancellation, overload, shutting down."""

import asyncio
import threading
import time

import numpy as np
import pytest
from oarlock.llm import models
from oarlock.llm.engine import (
    LLM,
    Constraint,
    EngineConfig,
    Request,
    SamplingParams,
    open_service,
)
from oarlock.llm.engine.service import Failed, Overloaded
from oarlock.llm.tokenizers import ByteTokenizer

LONG = SamplingParams(temperature=0.0, max_tokens=400)


@pytest.fixture(scope="module")
def model():
    config = models.llama.LlamaConfig(
        vocab_size=256, hidden_size=32, num_layers=2, num_heads=4, max_length=512
    )
    return models.create("llama", config, seed=1).eval()


@pytest.fixture
def service(model):
    made = open_service(
        model, tokenizer=ByteTokenizer(), config=EngineConfig(most_texts=4), most_waiting=4
    )
    yield made
    made.close()


@pytest.fixture
def slow_steps(monkeypatch):
    """Each step takes 20 ms more, so that a LONG request still runs when a busy machine lets us."""

    def slow(service):
        forward = service._engine._forward

        def later(*arguments, **options):
            time.sleep(0.02)
            return forward(*arguments, **options)

        monkeypatch.setattr(service._engine, "_forward", later)

    return slow


def request(name, prompt=(1, 2, 3), params=LONG):
    return Request(id=name, prompt=tuple(prompt), params=params)


async def gathered(stream):
    return [delta async for delta in stream]


def test_many_streams_are_what_each_would_be_alone(service, model):
    prompts = [[i, i + 1, i + 2] for i in range(8)]
    params = SamplingParams(temperature=0.0, max_tokens=40)
    wanted = LLM(model, tokenizer=ByteTokenizer()).generate(prompts, params)

    async def run():
        streams = [service.submit(request(str(i), p, params)) for i, p in enumerate(prompts)]
        return await asyncio.gather(*map(gathered, streams))

    for result, deltas in zip(wanted, asyncio.run(run())):
        assert sum((one.tokens for one in deltas), ()) == result.completions[0].tokens
        assert "".join(one.text for one in deltas) == result.completions[0].text
        assert deltas[-1].usage == result.usage
    assert service.stats()["requests_running"] == 0


def test_two_event_loops_in_two_threads(service):
    params = SamplingParams(temperature=0.0, max_tokens=30)
    found = {}

    def run(name):
        async def one():
            return await gathered(service.submit(request(name, params=params)))

        found[name] = asyncio.run(one())

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [[one.tokens for one in found[name]] for name in "ab"]
    assert sum(texts[0], ()) == sum(texts[1], ()) and len(sum(texts[0], ())) == 30


def test_a_cancelled_stream_ends_and_frees_its_pages(service, slow_steps):
    slow_steps(service)

    async def run():
        stream = service.submit(request("a"))
        first = await stream.__anext__()
        stream.cancel()
        rest = await gathered(stream)
        stream.cancel()  # nothing happens
        return first, rest

    first, rest = asyncio.run(run())
    assert first.tokens and rest[-1].finish_reason == "abort"
    assert sum(len(one.tokens) for one in rest) < 399
    assert service.stats()["cache_pages_used"] == 0


def test_a_closed_loop_ends_its_requests(service):
    async def run():
        stream = service.submit(request("a"))
        await stream.__anext__()

    asyncio.run(run())  # the loop is closed while the request runs

    async def wait():
        for _ in range(200):
            if not service.stats()["requests_running"]:
                return True
            await asyncio.sleep(0.02)
        return False

    assert asyncio.run(wait())


def test_requests_are_refused_at_once(service, slow_steps):
    slow_steps(service)

    async def run():
        with pytest.raises(ValueError, match="prompt must have at least one token"):
            service.submit(request("a", ()))
        streams = [service.submit(request(str(i))) for i in range(8)]
        with pytest.raises(Overloaded, match="8 requests run or wait"):
            service.submit(request("more"))
        with pytest.raises(ValueError, match="id must be unique"):
            service._most_waiting += 1
            service.submit(request("3"))
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*map(gathered, streams))

    asyncio.run(run())


def test_a_constraint_that_cannot_be_read_ends_its_stream_only(service):
    async def run():
        params = SamplingParams(max_tokens=5, constraint=Constraint("regex", "("))
        bad, good = service.submit(request("bad", params=params)), service.submit(request("good"))
        with pytest.raises(ValueError, match="constraint cannot be read"):
            await bad.accepted()
        with pytest.raises(ValueError, match="constraint cannot be read"):
            await gathered(bad)
        await good.accepted()
        assert await gathered(bad) == []
        return await gathered(good)

    assert asyncio.run(run())[-1].finish_reason == "length"


def test_draining_waits_and_then_aborts(service, slow_steps):
    slow_steps(service)

    async def run(timeout_s):
        streams = [
            service.submit(request(name, params=params))
            for name, params in (("short", SamplingParams(max_tokens=2)), ("long", LONG))
        ]
        tasks = [asyncio.ensure_future(gathered(stream)) for stream in streams]
        done = await service.drain(timeout_s)
        with pytest.raises(Overloaded, match="shutting down"):
            service.submit(request("late"))
        return done, await asyncio.gather(*tasks)

    done, (_, long) = asyncio.run(run(0.0))
    assert not done and long[-1].finish_reason == "abort"


def test_draining_lets_requests_end(service):
    async def run():
        task = asyncio.ensure_future(gathered(service.submit(request("a"))))
        return await service.drain(60.0), await task

    done, deltas = asyncio.run(run())
    assert done and deltas[-1].finish_reason == "length"


def test_embeddings_beside_texts(service, model):
    async def run():
        stream = service.submit(request("a"))
        found = await service.embed([[1, 2, 3], [4]])
        with pytest.raises(ValueError, match="at least one token"):
            await service.embed([[]])
        stream.cancel()
        await gathered(stream)
        return found

    wanted = LLM(model).embed([[1, 2, 3], [4]])
    np.testing.assert_array_equal(asyncio.run(run()), wanted)


def test_closing_aborts_what_runs(model, slow_steps):
    service = open_service(model, name="mine", tokenizer=ByteTokenizer())
    slow_steps(service)
    assert service.about.name == "mine" and service.about.max_length == 512

    async def run():
        stream = service.submit(request("a"))
        await stream.accepted()
        await asyncio.to_thread(service.close)
        return await gathered(stream)

    assert asyncio.run(run())[-1].finish_reason == "abort"


def test_a_failing_engine_tells_everyone(service, monkeypatch):
    async def run():
        def fail(*_, **__):
            raise MemoryError("no room")

        stream = service.submit(request("a"))
        await stream.__anext__()
        monkeypatch.setattr(service._engine, "_forward", fail)
        with pytest.raises(RuntimeError, match="the engine failed: no room"):
            await gathered(stream)
        monkeypatch.undo()
        again = service.submit(request("b", params=SamplingParams(max_tokens=3)))
        return await gathered(again)

    assert asyncio.run(run())[-1].finish_reason == "length"


def test_a_service_needs_a_tokenizer(model):
    with pytest.raises(ValueError, match="tokenizer is absent"):
        open_service(model)


def test_a_lost_rank_is_told_to_all_and_for_good(model):
    made = open_service(
        model, tokenizer=ByteTokenizer(), config=EngineConfig(threads=1), ranks=2, most_waiting=4
    )

    async def run():
        streams = [made.submit(request(str(i))) for i in range(3)]
        await anext(streams[0])
        made._engine._team.processes[1].kill()
        for stream in streams:
            with pytest.raises(Failed, match="rank 1"):
                await gathered(stream)
        with pytest.raises(Failed, match="rank 1"):
            made.submit(request("later"))
        with pytest.raises(Failed, match="rank 1"):
            await made.embed([[1, 2]])

    async def embed():
        made._lost = None  # as if it were the first to notice
        with pytest.raises(Failed, match="rank 1"):
            await made.embed([[1, 2]])

    try:
        assert made.stats()["failed"] == 0
        asyncio.run(run())
        assert made.stats()["failed"] == 1
        asyncio.run(embed())
        assert made.stats()["failed"] == 1
    finally:
        made.close()
