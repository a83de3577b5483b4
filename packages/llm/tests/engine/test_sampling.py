"""Drawing tokens: distributions, exclusions, penalties, reports; stop texts; guesses."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.llm.engine import sampling
from oarlock.llm.engine.guesses import repeated
from oarlock.llm.engine.params import Constraint, SamplingParams
from oarlock.llm.engine.stops import StopTexts

LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.25, 0.2], np.float32))


def left(**options) -> dict[int, float]:
    """Tokens that may be drawn and their probabilities."""
    tokens, shares = sampling.probabilities(LOGITS, SamplingParams(**options))
    return {int(token): round(float(share), 4) for token, share in zip(tokens, shares)}


@pytest.mark.parametrize(
    "options,wanted",
    [
        ({}, {1: 0.4, 3: 0.25, 4: 0.2, 2: 0.1, 0: 0.05}),
        ({"top_k": 2}, {1: 0.6154, 3: 0.3846}),
        ({"top_p": 0.6}, {1: 0.6154, 3: 0.3846}),
        ({"top_p": 0.66}, {1: 0.4706, 3: 0.2941, 4: 0.2353}),
        ({"min_p": 0.45}, {1: 0.4706, 3: 0.2941, 4: 0.2353}),
        ({"top_k": 4, "top_p": 0.9, "min_p": 0.3}, {1: 0.4706, 3: 0.2941, 4: 0.2353}),
        ({"top_k": 1}, {1: 1.0}),
        ({"temperature": 0.5}, {1: 0.5818, 3: 0.2273, 4: 0.1455, 2: 0.0364, 0: 0.0091}),
    ],
)
def test_what_is_left_and_how_probable(options, wanted):
    found = left(**options)
    assert list(found) == list(wanted)
    assert found == pytest.approx(wanted, abs=2e-4)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 1, 3, 200, 5000]),
    st.sampled_from([1e-6, 0.1234567, 0.5678901, 0.9012345, 0.9991234, 1.0]),
    st.sampled_from([0.0, 1e-3, 0.2, 1.0]),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_each_limit_leaves_a_set_of_the_sorted_tokens(seed, top_k, top_p, min_p, ties):
    """Against sorting all; of equals the smaller id is better."""
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(4000) * rng.choice([0.1, 1, 5])).astype(np.float32)
    logits = np.round(logits) if ties else logits
    logits[rng.random(4000) < 0.2] = -np.inf
    order = np.argsort(-logits, kind="stable")[: (logits > -np.inf).sum()]
    shares = np.exp(logits[order].astype(np.float64) - logits[order[0]])
    shares /= shares.sum()
    counts = [len(order), int((shares >= min_p * shares[0]).sum())]
    counts += [] if top_k is None else [top_k]
    counts += [] if top_p == 1.0 else [int((np.cumsum(shares) < top_p).sum()) + 1]
    wanted = order[: min(counts)]
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)
    tokens, found = sampling.probabilities(logits, params)
    np.testing.assert_array_equal(tokens, wanted)
    own = shares[: len(wanted)]
    np.testing.assert_allclose(found, own / own.sum(), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 3, "min_p": 0.1}], ids=str)
def test_draws_follow_the_probabilities(options):
    params = SamplingParams(temperature=0.7, **options)
    tokens, shares = sampling.probabilities(LOGITS, params)
    counts = np.zeros(5)
    for place in range(6000):
        counts[sampling.draw(LOGITS, params, sampling.key(9, place))] += 1
    expected = 6000 * shares
    assert (np.abs(counts[tokens] - expected) < 5 * np.sqrt(expected)).all()
    assert counts.sum() == counts[tokens].sum()


def test_places_and_texts_are_drawn_independently():
    """Pairs of draws at places beside each other and of texts beside each other: products of probabilities."""
    params, shares = SamplingParams(), np.exp(LOGITS)
    seeds = [sampling.text_seed(3, index) for index in range(100)]
    drawn = np.array(
        [
            [sampling.draw(LOGITS, params, sampling.key(seed, place)) for place in range(100)]
            for seed in seeds
        ]
    )
    for first, second in ((drawn[:, ::2], drawn[:, 1::2]), (drawn[::2], drawn[1::2])):
        counts = np.zeros((5, 5))
        np.add.at(counts, (first.ravel(), second.ravel()), 1)
        expected = first.size * np.outer(shares, shares)
        assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square, 24 degrees of freedom


def test_noise_is_a_token_s_own_and_uniform():
    whole = sampling.gumbel(5, np.arange(100000))
    some = np.array([7, 99999, 3])
    np.testing.assert_array_equal(sampling.gumbel(5, some), whole[some])
    assert np.isfinite(whole).all()
    uniform = np.sort(np.exp(-np.exp(-whole)))
    assert np.abs(uniform - np.linspace(0, 1, len(uniform))).max() < 1.95 / len(uniform) ** 0.5


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.8}], ids=str)
def test_near_distributions_draw_the_same_tokens(options):
    """At least (1 - d) / (1 + d) of the time, with d the total variation."""
    rng, params = np.random.default_rng(0), SamplingParams(**options)
    for size in (0.1, 0.5, 2.0):
        first = rng.standard_normal(50).astype(np.float32)
        second = first + size * rng.standard_normal(50).astype(np.float32)
        both = np.zeros((2, 50))
        for row, logits in zip(both, (first, second)):
            tokens, shares = sampling.probabilities(logits, params)
            row[tokens] = shares
        d = np.abs(both[0] - both[1]).sum() / 2
        same = np.mean(
            [
                sampling.draw(first, params, key) == sampling.draw(second, params, key)
                for key in map(int, rng.integers(0, 2**63, 1200))
            ]
        )
        assert (1 - d) / (1 + d) - 0.06 < same < 1 - d + 0.06


def test_temperature_zero_takes_the_best():
    params = SamplingParams(temperature=0.0, top_k=3)
    assert {sampling.draw(LOGITS, params, key) for key in range(10)} == {1}
    for options in ({}, {"top_k": 4}):
        cold = SamplingParams(temperature=1e-300, **options)
        with warnings.catch_warnings(action="error"):
            assert {sampling.draw(LOGITS, cold, key) for key in range(10)} == {1}


def test_excluded_tokens_are_never_drawn():
    logits = LOGITS.copy()
    logits[[1, 3]] = -np.inf
    for options in ({}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 0.0}):
        params = SamplingParams(**options)
        assert {sampling.draw(logits, params, key) for key in range(200)} <= {0, 2, 4}
    with pytest.raises(sampling.NothingToDraw, match="no token is allowed"):
        sampling.draw(np.full(5, -np.inf, np.float32), SamplingParams(), 0)
    with pytest.raises(sampling.NothingToDraw, match="not numbers"):
        sampling.draw(np.full(5, np.nan, np.float32), SamplingParams(), 0)


def test_penalties_and_biases():
    logits = np.array([2.0, -2.0, 1.0, 0.5], np.float32)
    same = sampling.changed(logits, SamplingParams(), [0], [1])
    assert same is logits
    found = sampling.changed(logits, SamplingParams(repetition_penalty=2.0), [0], [1])
    np.testing.assert_array_equal(found, [1.0, -4.0, 1.0, 0.5])
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    found = sampling.changed(logits, params, [0], [1, 2, 1])
    np.testing.assert_array_equal(found, [2.0, -3.0, 0.25, 0.5])  # of the text only
    found = sampling.changed(logits, SamplingParams(logit_bias={3: -100.0}), [], [])
    np.testing.assert_array_equal(found, [2.0, -2.0, 1.0, -99.5])


def test_reports():
    found = sampling.report(LOGITS + 3, 4, 2)
    assert found.token == 4 and found.logprob == pytest.approx(np.log(0.2), abs=1e-6)
    assert [token for token, _ in found.top] == [1, 3]
    assert sampling.report(LOGITS, 0, 0).top == ()
    assert len(sampling.report(LOGITS, 0, 5).top) == 5


@given(
    st.text("ab", max_size=30),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_stop_texts_are_found_however_the_text_is_cut(text, stops, data):
    places = [text.find(stop) for stop in stops if stop in text]
    end = min(places, default=len(text))
    found, met, at = "", None, 0
    reader = StopTexts(stops)
    while at < len(text) and met is None:
        size = data.draw(st.integers(1, 5))
        passed, met = reader.push(text[at : at + size])
        found += passed
        at += size
    if met is None:
        found += reader.finish()
    # A stop that is complete only later may begin before one that was met first.
    assert found == text[:end] or (met is not None and text.startswith(found + met))
    assert (met is None) == (not places)


def test_guesses_repeat_what_followed():
    assert repeated([1, 2, 3, 9, 1, 2, 3], 2) == (9, 1)
    assert repeated([5, 1, 2, 7, 6, 1, 2, 8, 1, 2], 1) == (8,)  # the latest place
    assert repeated([1, 2, 3], 4) == () and repeated([], 4) == () and repeated([1, 1], 3) == ()
    assert repeated([1, 2, 9, 1, 2], 0) == ()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"temperature": -1.0}, "temperature must be a finite number, at least 0"),
        ({"top_p": 0.0}, "top_p must be a finite number, above 0 and at most 1"),
        ({"top_k": 0}, "top_k must be an integer, 1 or more"),
        ({"n": None}, "n must be an integer"),
        ({"stop": "end"}, "stop must be several texts"),
        ({"stop": ("",)}, "stop must be texts that are not empty"),
        ({"logit_bias": {"1": 2.0}}, "logit_bias must map token ids"),
        ({"min_p": 1.5}, "min_p must be a finite number, at least 0 and at most 1"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be a finite number"),
    ],
)
def test_wrong_parameters_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(**options)


def test_wrong_constraints_are_named():
    with pytest.raises(ValueError, match="kind must be one of"):
        Constraint("xml", "<a>")
    with pytest.raises(ValueError, match="source must be given"):
        Constraint("regex")
    with pytest.raises(ValueError, match="source must be given for every kind but json"):
        Constraint("json", "{}")
