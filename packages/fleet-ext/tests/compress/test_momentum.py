"""Momentum correction against the formulas of the paper (1712.01887), in NumPy."""

import ml_dtypes
import numpy as np
import paddle
import pytest
from oarlock.fleet_ext.compress import (
    Coded,
    EveryStep,
    Hierarchical,
    LocalSteps,
    MomentumCorrection,
    averaging_of,
    wrap,
)
from oarlock.fleet_ext.compress.codecs import (
    Blocks,
    ChunkTopK,
    Cosines,
    RandomK,
    Sparse,
    TopK,
    TwoLevels,
)
from oarlock.fleet_ext.compress.codecs.base import mixed

from ranks import together, well

SHAPES = [(30, 20), (17,), (8, 25)]
ENDS = np.cumsum([0, *(int(np.prod(one)) for one in SHAPES)])
COUNT, KEY = int(ENDS[-1]), 5
CODECS = {
    "top": TopK(density=0.02),
    "random": RandomK(density=0.05),
    "chunks": ChunkTopK(k=3, chunk=64),
    "rounded": ChunkTopK(k=3, chunk=64, values=TwoLevels()),
}


def gradients(rank, step):
    """Of three tensors: the second has none now and then, the third is bfloat16."""
    rng = np.random.default_rng([rank, step])
    flat = rng.standard_normal(COUNT).astype(np.float32) * (10.0 if step % 4 == 3 else 1.0)
    parts = [flat[begin:end] for begin, end in zip(ENDS, ENDS[1:])]
    return [
        parts[0],
        None if (rank + step) % 3 == 0 else parts[1],
        parts[2].astype(ml_dtypes.bfloat16),
    ]


def chosen(codec, array, step):
    """Which elements a rank sends."""
    found = np.zeros(array.size, bool)
    if isinstance(codec, RandomK):
        seed, code = mixed(step, KEY), np.zeros(codec.size(array.size), np.uint8)
        codec.encode(np.ones(array.size, np.float32), code, seed=seed, rank=0, keep=False)
        return codec.decode(code, array.size, seed=seed, rank=0) != 0
    if isinstance(codec, TopK):
        found[
            np.argsort(-np.abs(array), kind="stable")[: max(1, round(codec.density * array.size))]
        ] = True
        return found
    for begin in range(0, array.size, codec.chunk):
        part = np.abs(array[begin : begin + codec.chunk])
        found[begin + np.argsort(-part, kind="stable")[: codec.k]] = True
    return found


def oracle(codec, correction, size, steps):
    """Means, and what ranks keep, of the paper's Algorithm 4 with momentum factor masking and local clipping."""
    speeds, kept = np.zeros((2, size, COUNT))
    for step in range(steps):
        share = 0.0
        if correction.warm_up:
            share = 0.25 ** (step // correction.warm_up + 1)
        now = codec.at_least(share)
        mean = np.zeros(COUNT)
        for rank in range(size):
            whole = np.zeros(COUNT)
            for given, begin, end in zip(gradients(rank, step), ENDS, ENDS[1:]):
                if given is None:
                    continue
                part = given.astype(np.float64) / size  # of the mean
                norm, most = np.linalg.norm(part), (correction.clip or np.inf) * size**-0.5
                whole[begin:end] = size * part * min(1.0, most / norm)
            speeds[rank] = correction.momentum * speeds[rank] + whole
            kept[rank] += speeds[rank]
            mask = chosen(now, kept[rank], step)
            mean += np.where(mask, kept[rank], 0.0) / size
            kept[rank][mask] = speeds[rank][mask] = 0.0
        yield mean, speeds.copy(), kept.copy()


@pytest.mark.parametrize("size", (1, 3))
@pytest.mark.parametrize("name", ("top", "random", "chunks"))
@pytest.mark.parametrize(
    "correction",
    (
        MomentumCorrection(momentum=0.9),
        MomentumCorrection(momentum=0.5, clip=3.0),
        MomentumCorrection(momentum=0.9, warm_up=2),
    ),
    ids=("plain", "clipped", "warm"),
)
def test_it_is_the_papers(name, correction, size):
    codec = CODECS[name]

    def run(group):
        averager = Coded(codec=codec, correction=correction).start(SHAPES, KEY, group)
        seen = []
        for step in range(9):
            out = np.empty(COUNT, np.float32)
            mean = averager.average(group, step, gradients(group.rank, step))
            mean.write(averager.layout.split(out))
            left = averager.left(group)
            seen.append((out, left.velocity, left.unsent))
        return seen

    found = well(together(size, run))
    for step, (mean, speeds, kept) in enumerate(oracle(codec, correction, size, 9)):
        for rank in range(size):
            np.testing.assert_array_equal(found[rank][step][0], found[0][step][0])
            np.testing.assert_allclose(found[rank][step][0], mean, atol=1e-4)
            np.testing.assert_allclose(found[rank][step][1], speeds[rank], atol=1e-4)
            np.testing.assert_allclose(found[rank][step][2], kept[rank], atol=1e-4)


def test_clipping_is_of_each_tensor_and_by_the_number_of_ranks():
    """Two ranks whose gradients have a norm of 10, in a limit of 1 of the mean's: each is cut to sqrt(2)."""
    config = Coded(codec=TopK(density=1.0), correction=MomentumCorrection(clip=1.0))

    def run(group):
        averager = config.start([(4,), (4,)], 0, group)
        given = np.array([5.0, 5.0, 5.0, 5.0, 0.1, 0.0, 0.0, 0.0], np.float32)
        return averager.averaged(group, 0, given)

    for one in well(together(2, run)):
        np.testing.assert_allclose(np.linalg.norm(one[:4]), 2**0.5, rtol=1e-6)
        np.testing.assert_allclose(one[4:], [0.1, 0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("name", CODECS)
def test_velocity_of_what_was_sent_begins_anew_also_where_values_are_rounded(name):
    codec = CODECS[name]

    def run(group):
        averager = Coded(codec=codec, correction=MomentumCorrection()).start(SHAPES, KEY, group)
        speed = np.zeros(COUNT)
        for step in range(3):
            given = np.random.default_rng(step).standard_normal(COUNT).astype(np.float32)
            sent = averager.averaged(group, step, given) != 0
            speed = np.where(sent, 0.0, 0.9 * speed + given)
        assert 0 < sent.sum() < 0.1 * COUNT
        np.testing.assert_allclose(averager.left(group).velocity, speed, atol=1e-5)

    well(together(1, run))


def test_warm_up_is_the_papers_schedule():
    """75, 93.75, 98.4, 99.6 and 99.9 % are not sent, an epoch of 10 steps each."""
    correction = MomentumCorrection(warm_up=10)
    densities = [
        correction.codec_at(TopK(density=0.001), step).density
        for step in (0, 9, 10, 25, 39, 40, 999)
    ]
    assert densities == [0.25, 0.25, 0.0625, 0.015625, 0.00390625, 0.001, 0.001]
    assert MomentumCorrection().codec_at(TopK(density=0.001), 0).density == 0.001
    chunks = [correction.codec_at(ChunkTopK(k=4, chunk=4096), step).k for step in (0, 10, 50)]
    assert chunks == [1024, 256, 4]
    assert correction.codec_at(TopK(density=0.5), 0).density == 0.5


def test_it_goes_on_exactly_within_the_warm_up():
    config = Coded(codec=TopK(density=0.01), correction=MomentumCorrection(warm_up=2, clip=5.0))

    def run(group):
        one, other = (config.start(SHAPES, KEY, group) for _ in range(2))
        for step in range(3):
            one.average(group, step, gradients(group.rank, step))
        other.load(one.state())
        for step in range(3, 8):
            outs = []
            for it in (one, other):
                outs.append(np.empty(COUNT, np.float32))
                mean = it.average(group, step, gradients(group.rank, step))
                mean.write(it.layout.split(outs[-1]))
            np.testing.assert_array_equal(*outs)

    well(together(2, run))


def test_an_averaging_without_momentum_takes_what_is_not_sent():
    def run(group):
        one = averaging_of("dgc-1%").start(SHAPES, KEY, group)
        one.average(group, 0, gradients(0, 0))
        other = averaging_of("float32").start(SHAPES, KEY, group)
        left = one.left(group)
        other.inherit(left)
        np.testing.assert_array_equal(
            other.averaged(group, 1, np.zeros(COUNT, np.float32)), left.unsent
        )
        one.inherit(other.left(group))
        assert not one.left(group).velocity.any() and not one.left(group).unsent.any()

    well(together(1, run))


@pytest.mark.parametrize(
    ("make", "words"),
    (
        (
            lambda: Coded(codec=Blocks(bits=4), correction=MomentumCorrection()),
            "correction is for codes",
        ),
        (
            lambda: Coded(codec=Cosines(), correction=MomentumCorrection()),
            "correction is for codes",
        ),
        (
            lambda: Coded(
                codec=RandomK(scaled=True), error_feedback=False, correction=MomentumCorrection()
            ),
            "error_feedback must be on",
        ),
        (lambda: MomentumCorrection(momentum=0.0), "momentum must be"),
        (lambda: MomentumCorrection(momentum=1.0), "momentum must be"),
        (lambda: MomentumCorrection(clip=0.0), "clip must be"),
        (lambda: MomentumCorrection(warm_up=-1), "warm_up must not"),
        (lambda: LocalSteps(averaging=averaging_of("dgc-1%"), momentum=0.9), "momentum must be 0"),
    ),
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
    assert LocalSteps(averaging=averaging_of("dgc-1%")).averaging.momentum == 0.9


@pytest.mark.parametrize("name", ("dgc-5%", "hosts-dgc-5%"))
def test_an_optimizer_with_momentum_of_its_own_is_refused(name):
    def run(group):
        net = paddle.nn.Linear(4, 3)
        parameters = net.parameters()
        for optimizer, words in (
            (
                paddle.optimizer.Momentum(0.1, 0.9, parameters=parameters),
                "Momentum has momentum=0.9",
            ),
            (paddle.optimizer.Adam(0.1, parameters=parameters), "Adam has beta1=0.9"),
            (paddle.optimizer.RMSProp(0.1, momentum=0.5, parameters=parameters), "momentum=0.5"),
        ):
            with pytest.raises(ValueError, match=words):
                wrap(net, optimizer, group, name)
        for optimizer in (
            paddle.optimizer.SGD(0.1, parameters=parameters),
            paddle.optimizer.Momentum(0.1, 0.0, parameters=parameters),
        ):
            wrapped = wrap(net, optimizer, group, name)
            assert "with momentum 0.9" in wrapped.report()
            wrapped.close()
        adam = paddle.optimizer.Adam(0.1, parameters=parameters)
        wrap(net, adam, group, EveryStep(averaging=averaging_of("top-1%"))).close()

    well(together(1, run))


def test_names():
    found = averaging_of("dgc-0.1%")
    assert found == Coded(codec=TopK(density=0.001), correction=MomentumCorrection())
    assert found.name == "top 0.1 % with momentum 0.9" and isinstance(found.codec, Sparse)
    assert Hierarchical(between=found).momentum == 0.9 and averaging_of("top-1%").momentum == 0.0
