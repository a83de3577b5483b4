"""All of the engine at once: adapters, drafts, forks, prefixes, priorities, aborts, little memory, in random order."""

from pathlib import Path

import numpy as np
import pytest
from oarlock.llm import models
from oarlock.llm.engine import Engine, EngineConfig, Request, SamplingParams, packing
from oarlock.llm.loading import Adapter, LowRank
from oarlock.llm.models.llama import LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=256, hidden_size=48, num_layers=2, num_heads=6, num_kv_heads=2, max_length=160
)


@pytest.fixture(scope="module")
def parameters():
    state = models.create("llama", CONFIG, seed=3).state_dict()
    return {
        name: value.numpy() * (1 if value.ndim == 1 else 8 if "head" in name or "embed" in name else 3)  # fmt: skip
        for name, value in state.items()
    }


@pytest.fixture(scope="module")
def packed(parameters):
    """The model, and one near it."""
    rng = np.random.default_rng(0)
    near = {name: value * (1 + 0.1 * rng.standard_normal(value.shape)) for name, value in parameters.items()}  # fmt: skip
    return [packing.pack("llama", CONFIG, one) for one in (parameters, near)]


@pytest.fixture(scope="module")
def adapters(parameters):
    found = {}
    for number in range(3):
        rng, rank, changes = np.random.default_rng(number), 3 + number, {}
        for name, value in parameters.items():
            if "blocks" in name and value.ndim == 2:
                a = rng.standard_normal((value.shape[0], rank)) * value.shape[0] ** -0.5
                b = rng.standard_normal((rank, value.shape[1])) * rank**-0.5
                changes[name] = LowRank(a=a.astype("f4"), b=b.astype("f4"), scale=0.5)
        found[f"adapter {number}"] = Adapter(source=Path(str(number)), changes=changes)
    return found


def draw_request(rng, number, beginnings, names):
    prompt = beginnings[rng.integers(3)][: rng.integers(1, 60)] + rng.integers(0, 256, 2).tolist()
    params = SamplingParams(
        temperature=float(rng.choice([0, 0.7, 1.5])),
        seed=int(rng.integers(100)),
        n=int(rng.integers(1, 4)),
        max_tokens=int(rng.integers(1, 40)),
        frequency_penalty=float(rng.choice([0, 0.3])),
        top_p=float(rng.choice([1, 0.9])),
    )
    name = [None, *names][rng.integers(4)]
    return Request(
        id=str(number),
        prompt=tuple(prompt),
        params=params,
        priority=int(rng.integers(2)),
        adapter=name,
    )


@pytest.mark.parametrize("seed", range(6))
def test_every_text_is_the_one_alone(seed, packed, adapters):
    rng = np.random.default_rng(seed)
    model, near = packed

    def engine(**options):
        made = Engine(model, options.pop("config", EngineConfig(threads=1)), **options)
        for name, adapter in adapters.items():
            made.load_adapter(name, adapter)
        return made

    busy = engine(
        draft=[model, near, None][seed % 3],
        config=EngineConfig(
            most_rows=int(rng.choice([3, 17, 64])),
            most_texts=int(rng.choice([2, 5, 16])),
            cache_tokens=int(rng.choice([160, 320, 2000])),
            share_prefixes=bool(rng.random() < 0.8),
            guesses=int(rng.integers(1, 6)),
            threads=1,
        ),
    )
    beginnings = [rng.integers(0, 256, 60).tolist() for _ in range(3)]
    requests = [draw_request(rng, number, beginnings, adapters) for number in range(10)]
    waiting, aborted, found = list(requests), set(), {}
    while waiting or busy.has_work:
        if waiting and rng.random() < 0.3:
            busy.add(waiting.pop(0))
        if rng.random() < 0.02 and busy._requests:
            gone = str(rng.choice(list(busy._requests)))
            busy.abort(gone)
            aborted.add(gone)
        for delta in busy.step():
            found.setdefault((delta.request, delta.index), []).extend(delta.tokens)
    stats = busy.stats()
    assert stats["cache_pages_used"] == stats.get("draft_pages_used", 0) == 0
    alone = engine()
    for request in requests:
        if request.id in aborted:
            continue
        alone.add(request)
        wanted = {}
        while alone.has_work:
            for delta in alone.step():
                wanted.setdefault((request.id, delta.index), []).extend(delta.tokens)
        assert wanted == {key: value for key, value in found.items() if key[0] == request.id}
