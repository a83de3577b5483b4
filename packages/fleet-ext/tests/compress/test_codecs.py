"""What every code must do."""

import numpy as np
import pytest
from oarlock.fleet_ext.compress.codecs import (
    CODECS,
    Blocks,
    ChunkTopK,
    Cosines,
    RandomK,
    Signs,
    TopK,
)

COUNTS = (0, 1, 7, 4096, 10_001)
SEED = 12345


def gradient(count, seed=0):
    """Numbers with heavy tails, as gradients have them."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(count) * np.exp(rng.standard_normal(count))).astype(np.float32)


def sent(codec, acc, *, seed=SEED, rank=0, keep=False):
    """What comes out at the other end."""
    code = np.zeros(codec.size(acc.size), np.uint8)
    codec.encode(acc, code, seed=seed, rank=rank, keep=keep)
    return codec.decode(code, acc.size, seed=seed, rank=rank)


@pytest.fixture(params=CODECS, ids=str)
def codec(request):
    return CODECS[request.param]


@pytest.mark.parametrize("count", COUNTS)
def test_what_is_sent_and_what_stays_are_the_whole(codec, count):
    given = gradient(count)
    acc = given.copy()
    decoded = sent(codec, acc, keep=True)
    np.testing.assert_allclose(decoded + acc, given, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", COUNTS)
def test_without_feedback_nothing_changes(codec, count):
    acc = gradient(count)
    sent(codec, acc)
    np.testing.assert_array_equal(acc, gradient(count))


@pytest.mark.parametrize("seed", range(3))
def test_every_code_contracts(codec, seed):
    """|x - C(x)|^2 <= (1 - d) |x|^2 with d > 0, which error feedback needs; d as measured is at least what is sent."""
    given = gradient(50_000, seed)
    left = given - sent(codec, given)
    kept = float(np.square(left, dtype=np.float64).sum() / np.square(given, dtype=np.float64).sum())
    assert kept < (0.995 if isinstance(codec, RandomK) else 0.85)


def test_bytes_are_few(codec):
    floats = 4 * 100_000
    assert codec.size(100_000) <= floats
    if codec.name != "float32":
        assert codec.size(100_000) <= floats / 1.9


def test_the_same_code_for_the_same_array_and_nothing_of_the_rest(codec):
    codes = []
    for filling in (0, 255):
        code = np.full(codec.size(5000), filling, np.uint8)
        codec.encode(gradient(5000), code, seed=SEED, rank=1, keep=False)
        codes.append(codec.decode(code, 5000, seed=SEED, rank=1))
    np.testing.assert_array_equal(*codes)


def test_weights_of_a_mean(codec):
    given = gradient(6000)
    code = np.zeros(codec.size(given.size), np.uint8)
    codec.encode(given, code, seed=SEED, rank=0, keep=False)
    out = np.ones_like(given)
    codec.add(code, out, seed=SEED, rank=0, weight=0.25)
    expected = 1 + 0.25 * codec.decode(code, given.size, seed=SEED, rank=0)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CODECS if not name.startswith("random")])
def test_nan_reaches_the_other_end(name):
    codec = CODECS[name]
    given = gradient(5000)
    given[17] = np.nan
    assert np.isnan(sent(codec, given)).any()


def test_random_places_send_a_nan_in_the_end():
    given = gradient(500)
    given[17] = np.nan
    codec = RandomK(density=0.1)
    assert any(np.isnan(sent(codec, given, seed=seed)).any() for seed in range(200))


@pytest.mark.parametrize(
    "codec", (Blocks(bits=4, stochastic=True), Blocks(bits=8, stochastic=True), RandomK(density=0.2, scaled=True)),
    ids=lambda one: one.name,
)  # fmt: skip
def test_unbiased_codes_are_right_in_the_mean(codec):
    assert codec.unbiased
    given, times = gradient(512), 400
    mean = np.mean([sent(codec, given, seed=seed) for seed in range(times)], axis=0)
    if isinstance(codec, Blocks):  # between two levels, the deviation is at most half of a step
        steps = np.abs(given.reshape(2, 256)).max(axis=1) / (2 ** (codec.bits - 1) - 1)
        deviation = np.repeat(steps / 2, 256)
    else:  # one of five is sent, five times as large
        deviation = 2 * np.abs(given)
    assert (np.abs(mean - given) < 5 * deviation / np.sqrt(times) + 1e-6).all()


def test_ranks_round_at_random_each_in_its_own_way():
    codec = Blocks(bits=4, stochastic=True)
    assert (sent(codec, gradient(999), rank=0) != sent(codec, gradient(999), rank=1)).any()


def test_error_feedback_sends_everything_in_the_end(codec):
    """A constant gradient: what arrives in T steps is T times it, up to what one accumulator holds."""
    given, acc, total = gradient(3000), np.zeros(3000, np.float32), np.zeros(3000, np.float64)
    steps = 600
    for step in range(steps):
        acc += given
        total += sent(codec, acc, seed=step, keep=True)
    np.testing.assert_allclose(total + acc, steps * given.astype(np.float64), rtol=2e-3, atol=5e-2)
    lost = np.linalg.norm(total / steps - given) / np.linalg.norm(given)
    assert lost < 0.35


def test_the_largest_are_sent_exactly():
    given = gradient(8192)
    by_size = np.argsort(-np.abs(given), kind="stable")
    found = sent(TopK(density=0.01), given)
    chosen = np.flatnonzero(found)
    assert set(chosen) == set(by_size[: chosen.size]) and chosen.size == 82
    np.testing.assert_array_equal(found[chosen], given[chosen])


def test_cosines_are_those_of_waves():
    wave = np.cos(np.pi * (2 * np.arange(64) + 1) * 5 / 128).astype(np.float32)
    np.testing.assert_allclose(sent(Cosines(k=1, chunk=64), wave), wave, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    (
        (lambda: Blocks(bits=3), "bits"),
        (lambda: Blocks(block=12), "block"),
        (lambda: Signs(block=0), "block"),
        (lambda: ChunkTopK(k=10, chunk=8), "k must be"),
        (lambda: TopK(density=0.0), "density"),
        (lambda: RandomK(density=2.0), "density"),
        (lambda: Cosines(chunk=1024), "chunk"),
    ),
)
def test_what_is_not_possible_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
