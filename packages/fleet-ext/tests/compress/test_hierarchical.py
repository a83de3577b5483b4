"""Exact means within hosts, and codes between them."""

import paddle
import numpy as np
import pytest
from oarlock.fleet_ext.compress import (
    Coded,
    EveryStep,
    Exact,
    Hierarchical,
    LocalSteps,
    MomentumCorrection,
    averaging_of,
    wrap,
)
from oarlock.fleet_ext.compress.codecs import TopK
from oarlock.fleet_ext.compress.gradients import Gradients
from oarlock.fleet_ext.compress.hosts import host_groups, numbered
from oarlock.fleet_ext.compress.local_steps import Walk
from oarlock.fleet_ext.transport import TransportError

from ranks import together, well

SHAPES = [(40, 30), (17,), (8, 4, 25), ()]
COUNT = 40 * 30 + 17 + 800 + 1
LAYOUTS = ("aabb", "aaab", "abab", "abbb", "abc", "aaa", "aabbcc")
#: Of the square of what is sent, by code: what may be left out.
ERRORS = {"float32": 1e-12, "bf16": 1e-4, "int8": 1e-4, "int4": 2e-2}


def gradient(rank, step=0):
    rng = np.random.default_rng([rank, step])
    return rng.standard_normal(COUNT).astype(np.float32)


def on(hosts, between="float32"):
    return Hierarchical(between=averaging_of(between), hosts=tuple(hosts))


@pytest.mark.parametrize("hosts", LAYOUTS)
@pytest.mark.parametrize("between", ERRORS)
def test_it_is_the_mean_of_all_ranks_within_the_codes_error(hosts, between):
    """Also where hosts have different numbers of ranks; the same bits on all ranks."""
    size = len(hosts)

    def run(group):
        averager = on(hosts, between).start(SHAPES, 5, group)
        found = [averager.averaged(group, step, gradient(group.rank, step)) for step in range(3)]
        averager.close()
        return found

    found = well(together(size, run))
    for step in range(3):
        for one in found:
            np.testing.assert_array_equal(one[step], found[0][step])
    mean = np.mean([gradient(rank) for rank in range(size)], axis=0)
    error = np.square(found[0][0] - mean).sum() / np.square(mean).sum()
    # Shares of hosts are larger than the mean: what is left out of them is measured by their square.
    assert error < ERRORS[between] * max(hosts.count(one) for one in hosts) * len(set(hosts))


@pytest.mark.parametrize("hosts", ("aabb", "aaab"))
@pytest.mark.parametrize("between", ("int4", "top-1%"))
def test_it_is_an_averaging_of_the_shares_of_hosts(hosts, between):
    """Beside an averaging of two ranks, which have the shares of the hosts."""
    size = len(hosts)

    def shares(step):
        found = []
        for host in "ab":
            mine = [gradient(rank, step) for rank in range(size) if hosts[rank] == host]
            share = np.sum(mine, axis=0, dtype=np.float32) / np.float32(len(mine))
            found.append(share * np.float32(len(mine) * 2 / size))
        return found

    def run(group):
        averager = on(hosts, between).start(SHAPES, 5, group)
        found = [averager.averaged(group, step, gradient(group.rank, step)) for step in range(4)]
        averager.close()
        return found

    def plain(group):
        averager = averaging_of(between).start(SHAPES, 5, group)
        return [averager.averaged(group, step, shares(step)[group.rank]) for step in range(4)]

    for one, other in zip(well(together(size, run))[0], well(together(2, plain))[0]):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("hosts", ("aabb", "aaab", "aabbcc"))
def test_a_slow_link_has_one_code_for_each_host(hosts):
    """Counted on all connections between hosts, beside a plain averaging of all ranks."""
    size, shapes = len(hosts), [(4000, 100)]

    def sent(group):
        there = [rank for rank in range(size) if hosts[rank] != hosts[group.rank]]
        return sum(one.bytes_sent for rank in there for one in group.mesh._outgoing[rank])

    def bytes_of(averaging):
        def run(group):
            averager = averaging.start(shapes, 0, group)
            group.barrier().wait()
            before = sent(group)
            averager.averaged(group, 0, np.ones(4000 * 100, np.float32))
            group.barrier().wait()
            averager.close()
            return sent(group) - before

        return well(together(size, run))

    hierarchical = on(hosts, "int8")
    found = bytes_of(hierarchical)
    told = hierarchical.traffic(shapes, size)
    for rank, seen in enumerate(found):
        if hosts.index(hosts[rank]) == rank:
            assert told <= seen < 1.05 * told + 3000
        else:
            assert seen < 3000
    count = len(set(hosts))
    assert told == averaging_of("int8").traffic(shapes, count)
    assert sum(bytes_of(averaging_of("int8"))) > 1.4 * sum(found)


@pytest.mark.parametrize("hosts", ("aabb", "aaab"))
def test_what_every_rank_has_left_goes_to_the_leaders(hosts):
    """Also velocities, whose sum is what counts; the next mean is that of the averager before."""
    size = len(hosts)
    config = Hierarchical(
        between=Coded(codec=TopK(density=0.02), correction=MomentumCorrection()), hosts=tuple(hosts)
    )

    def run(group):
        plain = averaging_of("dgc-2%").start(SHAPES, 5, group)
        for step in range(3):
            plain.averaged(group, step, gradient(group.rank, step))
        given = plain.left(group)
        averager = config.start(SHAPES, 5, group)
        averager.inherit(given)
        mean = averager.averaged(group, 3, gradient(group.rank, 3))
        taken = averager.left(group)
        averager.close()
        return given, mean, taken

    found = well(together(size, run))
    unsent = np.mean([given.unsent for given, _, _ in found], axis=0, dtype=np.float64)
    speed = np.mean([given.velocity for given, _, _ in found], axis=0, dtype=np.float64)
    speed = 0.9 * speed + np.mean([gradient(rank, 3) for rank in range(size)], axis=0)
    _, mean, _ = found[0]
    left = np.mean([taken.unsent for _, _, taken in found], axis=0)
    np.testing.assert_allclose(mean + left, unsent + speed, atol=1e-5)
    # Where no leader sent, its velocity is what it was.
    quiet = mean == 0
    assert quiet.sum() > COUNT / 2
    rest = np.mean([taken.velocity for _, _, taken in found], axis=0)
    np.testing.assert_allclose(rest[quiet], speed[quiet], atol=1e-5)
    for rank, (_, _, taken) in enumerate(found):
        if hosts.index(hosts[rank]) < rank:
            assert not taken.unsent.any() and not taken.velocity.any()


def test_state_before_the_first_mean_has_what_was_inherited():
    config = on("aab", "int4")

    def run(group):
        given = averaging_of("int4").start(SHAPES, 5, group)
        given.averaged(group, 0, gradient(group.rank))
        one, other = (config.start(SHAPES, 5, group) for _ in range(2))
        one.inherit(given.left(group))
        other.load(one.state())
        outs = [it.averaged(group, 1, gradient(group.rank, 1)) for it in (one, other)]
        np.testing.assert_array_equal(*outs)
        for it in (one, other):
            it.close()

    well(together(3, run))


def test_state_of_other_hosts_is_refused():
    def run(group):
        one, other = (on(hosts, "int4").start(SHAPES, 5, group) for hosts in ("aab", "abb"))
        one.averaged(group, 0, gradient(group.rank))
        with pytest.raises(ValueError, match=r"ranks on hosts \[0, 1, 1\], not \[0, 0, 1\]"):
            other.load(one.state())
        for it in (one, other):
            it.close()

    well(together(3, run))


def test_ranks_that_share_memory_are_on_one_host():
    def run(group):
        with_names = host_groups(group, None)
        found = with_names.places, with_names.within.size, with_names.leaders is not None
        with_names.close()
        return found

    assert well(together(3, run)) == [((0, 0, 0), 3, rank == 0) for rank in range(3)]


def test_hosts_that_cannot_be_are_refused():
    for hosts, words in (((), "hosts must be the name"), ("ab", "hosts must be the name")):
        with pytest.raises(ValueError, match=words):
            Hierarchical(hosts=hosts)
    with pytest.raises(ValueError, match="between must be another"):
        Hierarchical(between=Hierarchical())
    with pytest.raises(ValueError, match="between must be another"):
        averaging_of("hosts-hosts-int4")
    with pytest.raises(ValueError, match="hosts must be given for 4 ranks"):
        averaging_of("hosts-int4").traffic(SHAPES, 4)

    def run(group):
        with pytest.raises(ValueError, match="each of 2 ranks, not of 3"):
            on("aab").start(SHAPES, 0, group)
        with pytest.raises(ValueError, match=r"those of \[1\] differ"):
            on("ab" if group.rank else "aa").start(SHAPES, 0, group)

    well(together(2, run))
    assert numbered(["b", "a", "b"]) == (0, 1, 0)


@pytest.mark.parametrize("who", (0, 1, 3))
def test_a_failure_on_one_host_is_told_on_all(who):
    """A leader, a rank of its host, and one of another host that does not come."""

    def run(group):
        averager = on("aabb", "int4").start(SHAPES, 5, group)
        averager.averaged(group, 0, gradient(group.rank))
        if group.rank == who:
            averager._groups.abort("no disk left")
            return "aborted"
        with pytest.raises(TransportError, match="no disk left"):
            averager.averaged(group, 1, gradient(group.rank, 1))
        return "told"

    found = well(together(4, run, timeout=300.0))
    assert found == ["aborted" if rank == who else "told" for rank in range(4)]


def model(seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(one).astype(np.float32) for one in ((8, 6), (6,))]


def test_ranks_meet_after_steps_of_their_own():
    def run(group):
        parameters = model(0)
        config = LocalSteps(period=3, averaging=on("aab", "int8"), fragments=2, delay=1)
        walk = Walk(parameters, group, config)
        for step in range(7):
            rng = np.random.default_rng([group.rank, step])
            for one in parameters:
                one -= 0.1 * rng.standard_normal(one.shape).astype(np.float32)
            walk.after_step()
        walk.meet()
        walk.close()
        return np.concatenate([one.reshape(-1) for one in parameters])

    found = well(together(3, run))
    for one in found:
        np.testing.assert_array_equal(one, found[0])
    assert (found[0] != np.concatenate([one.reshape(-1) for one in model(0)])).all()


def net_of(group):
    """Linear, with a gradient that depends on rank and step only."""
    return paddle.create_parameter(
        [30, 20], "float32", default_initializer=paddle.nn.initializer.Constant(0.0)
    )


def test_training_in_buckets_and_lanes_is_that_of_exact_means():
    def run(group):
        ends = []
        for averaging in (on("aaab"), Exact()):
            net = paddle.nn.Layer()
            for number in range(5):
                net.add_parameter(f"w{number}", net_of(group))
            optimizer = paddle.optimizer.SGD(1.0, parameters=net.parameters())
            wrapped = wrap(net, optimizer, group, EveryStep(averaging=averaging, bucket_bytes=2400))
            for step in range(3):
                for one in net.parameters():
                    given = np.random.default_rng([group.rank, step]).standard_normal((30, 20))
                    (one * paddle.to_tensor(given.astype(np.float32))).sum().backward()
                wrapped.step()
                wrapped.clear_grad()
            wrapped.close()
            ends.append(np.concatenate([one.numpy().reshape(-1) for one in net.parameters()]))
        return ends

    for one, other in well(together(4, run)):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_smaller_group_takes_over_where_hosts_are_found():
    """As after the loss of the leader, with whom goes what it had left."""

    def run(group):
        parameter = net_of(group)
        gradients = Gradients([parameter], group, averaging_of("hosts-top-1%"), restorable=True)
        given = np.random.default_rng(group.rank).standard_normal((30, 20)).astype(np.float32)

        def step():
            parameter.clear_gradient()
            (parameter * paddle.to_tensor(given)).sum().backward()
            gradients.finish()
            return parameter.grad.numpy().reshape(-1).copy()

        first = step()
        rest = group.subgroup([1, 2], "rest")
        if rest is None:
            gradients.close()
            return first, None
        gradients.move(rest, 1)
        found = first, step()
        gradients.close()
        return found

    found = well(together(3, run))
    np.testing.assert_array_equal(found[1][1], found[2][1])
    whole = np.mean([np.random.default_rng(rank).standard_normal(600) for rank in (1, 2)], axis=0)
    sent = found[1][1] != 0
    assert sent.sum() == 6
    np.testing.assert_allclose(found[1][1][sent], whole[sent], atol=1e-5)
