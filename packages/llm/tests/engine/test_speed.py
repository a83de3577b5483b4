"""What `bench` measures."""

import pytest

from oarlock.llm import models
from oarlock.llm.engine import LLM, EngineConfig, packing
from oarlock.llm.engine.shapes import SHAPES, RandomParameters
from oarlock.llm.engine.speed import Case, Estimate, _rank, measure


@pytest.fixture(scope="module")
def engine():
    config = models.llama.LlamaConfig(
        vocab_size=64, hidden_size=32, num_layers=1, num_heads=2, max_length=64
    )
    sizes = EngineConfig(most_texts=3, share_prefixes=False, most_rows=16, threads=1)
    return LLM(models.create("llama", config, seed=0), config=sizes).engine


def test_all_tokens_are_timed(engine):
    before, calls = engine.stats(), []
    case = Case(batch=3, prompt=20, new=8)
    speed = measure(engine, case, repetitions=4, warm_up=2, progress=lambda: calls.append(1))
    after = engine.stats()
    assert len(calls) == 6 and len(speed.prefill.values) == len(speed.decode.values) == 4
    assert after["prompt_tokens"] - before["prompt_tokens"] == 6 * 2 * 3 * 20
    assert after["tokens_generated"] - before["tokens_generated"] == 6 * 3 * (1 + 8)
    assert after["cached_tokens"] == before["cached_tokens"]
    assert 0 < speed.first_token_p50 <= speed.first_token_p99
    assert 0 < speed.between_p50 <= speed.between_p99
    assert speed.prefill.low <= speed.prefill.median <= speed.prefill.high


def test_rates_are_tokens_over_time(engine, monkeypatch):
    """With a clock on which a step takes a second."""
    from oarlock.llm.engine import speed

    clock = [0.0]
    step = type(engine).step

    def slow(self):
        clock[0] += 1
        return step(self)

    monkeypatch.setattr(type(engine), "step", slow)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    found = measure(engine, Case(batch=1, prompt=32, new=5), repetitions=1, warm_up=0)
    assert found.prefill.median == 16.0  # two steps of 16 rows
    assert found.decode.median == 1.0 and found.between_p50 == found.between_p99 == 1.0
    assert found.first_token_p50 == 2.0


def test_bad_cases_are_refused(engine):
    for fields, message in (
        ({"batch": 0}, "batch must be an integer, 1 or more"),
        ({"new": 1}, "new must be an integer, 2 or more"),
        ({"prompt": 1.5}, "prompt must be an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            Case(**{"batch": 1, "prompt": 4, "new": 4} | fields)
    with pytest.raises(ValueError, match="batch must be at most most_texts = 3"):
        measure(engine, Case(batch=4, prompt=4, new=4))
    with pytest.raises(ValueError, match="at most 64 tokens together"):
        measure(engine, Case(batch=1, prompt=64, new=4))
    with pytest.raises(ValueError, match="repetitions must be 1 or more"):
        measure(engine, Case(batch=1, prompt=4, new=4), repetitions=0)


def test_intervals_hold_the_median_with_95_percent():
    """The known table of order statistics: 6 to 8 values the extremes, 9 the second from both ends..."""
    assert [_rank(n) for n in (1, 2, 5, 6, 8, 9, 11, 12, 15, 20, 25)] == [0, 0, 0, 0, 0, 1, 1, 2, 3, 5, 7]  # fmt: skip
    found = Estimate.of([3.0, 1.0, 2.0, 9.0, 5.0, 4.0, 6.0, 8.0, 7.0])
    assert (found.median, found.low, found.high) == (5.0, 2.0, 8.0)


def test_shapes_have_about_the_numbers_in_their_names():
    import math
    import re

    from oarlock.llm.loading.others import shapes

    for name, (family, config) in SHAPES.items():
        number, unit = re.search(r"([\d.]+)([mb])$", name).groups()
        count = sum(map(math.prod, shapes(family, config).values()))
        assert count == pytest.approx(float(number) * {"m": 1e6, "b": 1e9}[unit], rel=0.1), name


def test_random_parameters_are_the_same_by_name_and_seed():
    family, config = SHAPES["llama-15m"]
    one, other = (RandomParameters(family, config, seed=seed) for seed in (0, 1))
    name = "blocks.3.attention.query.weight"
    assert (one[name] == RandomParameters(family, config)[name]).all()
    assert (one[name] != other[name]).any() and (one["norm.weight"] == 1).all()
    assert one[name].std() == pytest.approx(288**-0.5, rel=0.02)
    packing.pack(family, config, one, weights="int4")
