"""What every kind of group must do."""

import functools
import threading
import time

import ml_dtypes
import numpy as np
import pytest
from oarlock.fleet_ext.transport import Aborted, PeerLost, TimedOut, TransportError

import ranks
from ranks import well

KINDS = {
    "tcp": ranks.together,
    "shared": functools.partial(ranks.together, shared=True),
    "gloo": ranks.together_by_gloo,
}
#: What a kind of group cannot do: the tests that are not for it; those at the end of this file show what it does instead.
CANNOT = {
    "gloo": {
        "test_a_rank_that_does_not_come_is_named": "it cannot tell which",
        "test_a_rank_that_leaves_fails_who_waits_for_it": "it does not tell that a rank is gone",
        "test_arrays_of_another_size_are_an_error_on_both_sides": "what comes is undefined",
    }
}
#: What needs messages, which gloo's groups have only where they are asked for.
MESSAGES = (
    "test_messages_are_told_apart_by_source_and_tag_and_keep_their_order",
    "test_messages_do_not_disturb_operations_of_three_ranks",
    "test_abort_from_another_thread_ends_all_ranks",
    "test_bad_arguments_are_told_and_nothing_is_lost",
)
#: Ranks of gloo are processes: with more of them the tests take too long.
LARGEST = {"tcp": 8, "shared": 8, "gloo": 4}
SIZES = (1, 2, 3, 4, 8)
DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int32, np.int64, np.complex64)


@pytest.fixture(params=KINDS)
def together(request):
    """Runs a function on the ranks of a new group."""
    kind = request.param
    name = request.node.originalname
    if name in CANNOT.get(kind, {}):
        pytest.skip(f"{kind}: {CANNOT[kind][name]}")
    if request.node.callspec.params.get("size", 0) > LARGEST[kind]:
        pytest.skip(f"{kind}: at most {LARGEST[kind]} ranks here")
    if kind == "gloo" and name in MESSAGES:
        return functools.partial(KINDS[kind], messages=True)
    return KINDS[kind]


def numbers(rank, shape, dtype, scale=8):
    rng = np.random.default_rng(rank)
    return rng.integers(-scale, scale, shape).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_sums_are_right_and_the_same_on_all_ranks(together, size):
    counts = (0, 1, 7, 5000, 700_001)

    def given(rank, count):
        return np.random.default_rng(rank).standard_normal(count).astype(np.float32)

    def run(group):
        arrays = [given(group.rank, count) for count in counts]
        for array in arrays:
            assert group.all_reduce(array).wait() is array
        return arrays

    found = well(together(size, run))
    for index, count in enumerate(counts):
        exact = sum(given(rank, count).astype(np.float64) for rank in range(size))
        np.testing.assert_allclose(found[0][index], exact, atol=1e-5)
        for one in found[1:]:
            np.testing.assert_array_equal(one[index], found[0][index])


@pytest.mark.parametrize("op", ("sum", "mean", "max", "min", "prod"))
def test_reductions_of_every_type(together, op):
    def refused(dtype):
        return (op == "mean" and np.dtype(dtype).kind == "i") or (
            op in ("max", "min") and dtype is np.complex64
        )

    def parts(dtype, count):
        return [numbers(rank, count, dtype, 4) for rank in range(3)]

    def run(group):
        found = {}
        for dtype in DTYPES:
            if refused(dtype):
                with pytest.raises(ValueError, match="op"):
                    group.all_reduce(np.ones(2, dtype), op)
                continue
            for count in (5, 20_000):
                array = parts(dtype, count)[group.rank]
                found[dtype, count] = group.all_reduce(array, op).wait()
        return found

    for (dtype, count), reduced in well(together(3, run))[2].items():
        wide = np.complex128 if dtype is np.complex64 else np.float64
        expected = getattr(np, op)(
            np.stack([one.astype(wide) for one in parts(dtype, count)]), axis=0
        )
        assert reduced.dtype == dtype
        np.testing.assert_allclose(reduced.astype(wide), expected, rtol=1e-2, err_msg=str(dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("width", (3, 400_003))
def test_rows_of_a_reduction_are_scattered(together, size, width):
    inputs = [numbers(rank, (size, width), np.float32) for rank in range(size)]
    kept = [one.copy() for one in inputs]
    found = well(together(size, lambda group: group.reduce_scatter(inputs[group.rank]).wait()))
    for rank, one in enumerate(found):
        np.testing.assert_array_equal(one, sum(kept)[rank])
        np.testing.assert_array_equal(inputs[rank], kept[rank])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", ((), (3, 5), (600_000,)))
def test_everybody_gets_everybodys(together, size, shape):
    inputs = [numbers(rank, shape, np.float32) for rank in range(size)]
    for one in well(
        together(size, lambda group: group.all_gather(inputs[group.rank].copy()).wait())
    ):
        np.testing.assert_array_equal(one, np.stack(inputs))


@pytest.mark.parametrize("size", SIZES)
def test_parts_of_any_size_go_to_their_ranks(together, size):
    def run(group):
        parts = [np.full((group.rank + to, 2), 10 * group.rank + to) for to in range(size)]
        out = [np.empty((group.rank + source, 2), np.int64) for source in range(size)]
        group.all_to_all(parts, out).wait()
        return all((one == 10 * source + group.rank).all() for source, one in enumerate(out))

    assert well(together(size, run)) == [True] * size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", (1, 900_001))
def test_the_roots_array_comes_to_all(together, size, count):
    for root in {0, size - 1}:
        given = numbers(root + 5, count, np.float32)

        def run(group):
            array = given.copy() if group.rank == root else np.zeros(count, np.float32)
            return group.broadcast(array, root).wait()

        for one in well(together(size, run)):
            np.testing.assert_array_equal(one, given)


@pytest.mark.parametrize("size", (1, 3))
def test_the_root_reduces_gathers_and_scatters(together, size):
    inputs = [numbers(rank, (4, 2), np.float32) for rank in range(size)]

    def run(group):
        root = size - 1
        mine = inputs[group.rank].copy()
        group.reduce(mine, root=root).wait()
        expected = sum(inputs) if group.rank == root else inputs[group.rank]
        np.testing.assert_array_equal(mine, expected)
        rows = group.gather(inputs[group.rank].copy(), root).wait()
        assert (rows is None) == (group.rank != root)
        out = np.empty((4, 2), np.float32)
        group.scatter(rows, out, root).wait()
        np.testing.assert_array_equal(out, inputs[group.rank])

    well(together(size, run))


def test_messages_are_told_apart_by_source_and_tag_and_keep_their_order(together):
    def run(group):
        other = (group.rank + 1) % group.size
        before = (group.rank - 1) % group.size
        for value in range(3):
            group.send(np.array([value, group.rank]), other, tag=7).wait()
        group.send(np.array([9.0]), other, tag=1).wait()
        assert group.receive(np.empty(1), before, tag=1).wait() == [9.0]
        return [
            group.receive(np.empty(2, np.int64), before, tag=7).wait().tolist() for _ in range(3)
        ]

    assert well(together(3, run)) == [
        [[value, (rank - 1) % 3] for value in range(3)] for rank in range(3)
    ]


def test_messages_do_not_disturb_operations_of_three_ranks(together):
    """Stock Paddle's gloo hangs here."""

    def run(group):
        if group.rank == 0:
            group.send(np.ones(3), 1).wait()
        elif group.rank == 1:
            group.receive(np.empty(3), 0).wait()
        return group.all_reduce(np.ones(2)).wait().tolist()

    assert well(together(3, run)) == [[3.0, 3.0]] * 3


def test_half_precision_sums_do_not_overflow(together):
    """Stock Paddle's gloo gives inf for 1 + 2."""
    found = well(
        together(2, lambda group: group.all_reduce(np.full(4, 1 + group.rank, np.float16)).wait())
    )
    assert found[0].tolist() == [3.0] * 4


def test_many_groups_at_once(together):
    """Stock Paddle's gloo fails with the first few: they share one key in the store."""

    def run(group):
        members = [group.subgroup([0, 1 + index % 3], f"pair {index}") for index in range(12)]
        works = [
            one.all_reduce(np.full(1000, float(index))) for index, one in enumerate(members) if one
        ]
        sums = [work.wait()[0] for work in works]
        for one in members:
            if one:
                one.close()
        return sums

    found = well(together(4, run))
    assert found[0] == [2.0 * index for index in range(12)]
    assert found[2] == [2.0 * index for index in range(1, 12, 3)]


def test_objects_are_plain_values(together):
    value = {"a": [1, 2.5, None], (1, 2): b"\x00\xff", "x": np.arange(6).reshape(2, 3)}

    def run(group):
        found = group.all_gather_object([group.rank, value] * group.rank).wait()
        assert [len(one) for one in found] == [0, 2, 4]
        sent = group.broadcast_object(value if group.rank == 1 else None, root=1).wait()
        assert sent["a"] == value["a"] and sent[1, 2] == b"\x00\xff"
        np.testing.assert_array_equal(sent["x"], value["x"])
        with pytest.raises(ValueError, match="object"):
            group.all_gather_object(object())

    well(together(3, run))


def test_operations_go_on_in_the_background(together):
    def run(group):
        if group.rank == 0:
            time.sleep(0.3)
        begin = time.monotonic()
        work = group.all_reduce(np.ones(10))
        begun = time.monotonic() - begin
        over = work.done()
        work.wait()
        return begun, over

    found = well(together(2, run))
    assert found[1][0] < 0.1 and not found[1][1]


def test_a_rank_that_does_not_come_is_named(together):
    def run(group):
        if group.rank == 2:
            time.sleep(1.5)
            return None
        with pytest.raises((TimedOut, Aborted)) as caught:
            group.all_reduce(np.ones(3), timeout=0.5).wait()
        assert "2" in str(caught.value) and "not there yet" in str(caught.value)
        with pytest.raises(TransportError):
            group.barrier().wait()
        return caught.value

    found = together(3, run)
    assert any(
        isinstance(one, TimedOut) and one.missing == (2,) and one.silent == () for one in found[:2]
    )


def test_an_abort_is_told_to_who_joins_later():
    def run(group):
        if group.rank == 1:
            group.subgroup([0, 1], "late").abort("no disk left")
        group.barrier().wait()
        if group.rank == 0:
            with pytest.raises(Aborted, match="no disk left") as caught:
                group.subgroup([0, 1], "late").barrier().wait(5.0)
            assert caught.value.elsewhere
        group.barrier().wait()

    well(ranks.together(2, run))


def test_abort_from_another_thread_ends_all_ranks(together):
    def run(group):
        if group.rank == 0:
            threading.Timer(0.2, group.abort, ("enough",)).start()
        begin = time.monotonic()
        with pytest.raises(Aborted, match="enough") as caught:
            group.receive(np.empty(3), 1 - group.rank).wait()
        assert caught.value.elsewhere == (group.rank == 1)
        return time.monotonic() - begin

    assert max(well(together(2, run))) < 2.0


def test_a_rank_that_leaves_fails_who_waits_for_it(together):
    def run(group):
        if group.rank == 1:
            return "left"
        with pytest.raises(PeerLost, match="rank 1"):
            group.receive(np.empty(3), 1).wait(10.0)

    well(together(2, run))


def test_arrays_of_another_size_are_an_error_on_both_sides(together):
    def run(group):
        with pytest.raises(TransportError, match="expected|said"):
            group.all_reduce(np.ones(3 + group.rank)).wait(10.0)

    well(together(2, run))


BAD = (
    (lambda group: group.all_reduce(np.ones(3), "product"), "op must be one of"),
    (lambda group: group.all_reduce([1.0]), "array must be a NumPy array"),
    (lambda group: group.all_reduce(np.ones((4, 4)).T), "array must be contiguous"),
    (lambda group: group.all_reduce(np.array([None])), "all_gather_object"),
    (lambda group: group.broadcast(np.ones(2), root=2), "root must be between 0 and 1"),
    (lambda group: group.reduce_scatter(np.ones((3, 2))), "2 rows"),
    (lambda group: group.all_to_all([np.ones(2)], [np.ones(2)]), "parts must have 2"),
    (lambda group: group.all_to_all([np.ones(2)] * 2, [np.ones(3)] * 2), "must be like parts"),
    (lambda group: group.scatter(None, np.ones(2), root=group.rank), "parts must be given"),
    (lambda group: group.scatter(np.ones((2, 3)), np.ones(2), root=group.rank), "out must be"),
    (lambda group: group.send(np.ones(2), 1, tag=-1), "tag must be"),
    (lambda group: group.all_reduce(np.ones(2), timeout=0), "timeout must be"),
)


def test_bad_arguments_are_told_and_nothing_is_lost(together):
    def run(group):
        for call, words in BAD:
            with pytest.raises(ValueError, match=words):
                call(group)
            assert group.all_reduce(np.ones(2)).wait().tolist() == [2.0, 2.0]

    well(together(2, run))


def test_several_sockets_carry_one_array():
    def run(group):
        return group.all_reduce(np.full(3_000_000, group.rank + 1.0, np.float32)).wait()

    assert (well(ranks.together(2, run, sockets=3))[0] == 3.0).all()


def test_gloo_does_not_name_who_is_missing():
    def run(group):
        if group.rank == 2:
            time.sleep(2.0)
            return None
        with pytest.raises((TimedOut, Aborted), match="gloo cannot tell which rank is missing"):
            group.all_reduce(np.ones(3), timeout=0.5).wait()
        with pytest.raises(TransportError):
            group.barrier().wait()

    well(ranks.together_by_gloo(3, run))


def test_gloo_has_messages_only_where_they_are_asked_for():
    def run(group):
        with pytest.raises(ValueError, match="messages=True"):
            group.send(np.ones(3), 1 - group.rank)

    well(ranks.together_by_gloo(2, run))


def test_gloo_fails_who_waits_for_a_rank_that_left_after_its_timeout():
    def run(group):
        if group.rank == 1:
            return
        with pytest.raises(TimedOut, match="gloo cannot tell"):
            group.all_reduce(np.ones(3), timeout=1.0).wait()

    well(ranks.together_by_gloo(2, run))


@pytest.mark.parametrize(
    "call",
    (
        lambda group: group.all_reduce(np.ones(4, np.float32 if group.rank else np.int32)),
        lambda group: group.all_reduce(np.ones(4), "max" if group.rank else "sum"),
        lambda group: group.broadcast(np.ones(4), group.rank),
        lambda group: group.broadcast(np.ones(4)) if group.rank else group.all_reduce(np.ones(4)),
        lambda group: group.all_reduce(np.ones(500_000, np.float32 if group.rank else np.int32)),
        lambda group: (
            group.receive(np.ones(2), 0) if group.rank else group.send(np.ones(2, int), 1)
        ),
    ),
    ids=("type", "op", "root", "operation", "type of a large array", "type of a message"),
)
def test_ranks_that_do_not_agree_are_told(call):
    """Over our own connections; gloo adds up what comes."""

    def run(group):
        call(group).wait(10.0)
        group.barrier().wait(10.0)

    found = ranks.together(2, run)
    errors = [one for one in found if isinstance(one, TransportError)]
    assert errors and any("does something else" in str(one) for one in errors)
