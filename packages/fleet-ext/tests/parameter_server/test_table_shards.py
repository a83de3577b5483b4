"""A shard as a state machine: order, repetition, steps of workers, and copies."""

import numpy as np
import pytest
from oarlock.fleet_ext.parameter_server import AdaGrad, Layout, Sparse, WorkerLost
from oarlock.fleet_ext.parameter_server.operations import Operation, check
from oarlock.fleet_ext.parameter_server.shard import Shard

from table_servers import counting

LAYOUT = counting(shards=1)


def push(client, number, keys, value=1.0, **names):
    rows = np.full((len(keys), 2), value, np.float32)
    return Operation("push", client, number, {"table": "rows", **names}, (np.array(keys), rows))


class Sender:
    """A worker's changes of one shard."""

    def __init__(self, shard, rank, workers=2, averaged=True, client=None):
        self.shard, self.rank, self.number, self.client = shard, rank, 0, client or f"client {rank}"
        self.send("join", workers=workers, averaged=averaged)
        self.step = shard.clocks.clock(rank)

    def send(self, kind, arrays=(), **names):
        self.number += 1
        operation = Operation(kind, self.client, self.number, {"rank": self.rank, **names}, arrays)
        check(operation, LAYOUT, 0)
        assert self.shard.admit(operation)
        self.shard.apply(operation)

    def push(self, keys, value):
        arrays = push("", 0, keys, value).arrays
        self.send("push", arrays, table="rows", step=self.step)

    def tick(self):
        self.send("tick", step=self.step)
        self.step += 1


def value(shard, key):
    return float(shard.parts["rows"].read(np.array([key]))[0, 0] - shard.parts["rows"]._table.initial.rows(np.array([key]), 2)[0, 0])  # fmt: skip


def test_a_change_that_comes_again_is_not_applied_and_one_out_of_order_is_refused():
    shard = Shard(LAYOUT, 0, None)
    first, second = push("c", 1, [4, 5]), push("c", 2, [4])
    for one in (first, second):
        assert shard.admit(one)
        shard.apply(one)
    assert not shard.admit(first) and not shard.admit(second)
    with pytest.raises(ValueError, match="number must be 3"):
        shard.admit(push("c", 4, [4]))
    assert shard.admit(push("d", 1, [4]))
    assert value(shard, 4) == pytest.approx(-2) and shard.index == 2


def test_steps_are_averaged_when_all_have_ended_them():
    shard = Shard(LAYOUT, 0, None)
    a, b = Sender(shard, 0), Sender(shard, 1)
    a.push([1, 2], 2.0)
    a.tick()
    assert value(shard, 1) == 0 and shard.clocks.behind(1, 0) == [1]
    b.push([1], 4.0)
    assert value(shard, 1) == 0
    b.tick()
    assert value(shard, 1) == pytest.approx(-3) and value(shard, 2) == pytest.approx(-1)
    assert shard.clocks.behind(1, 0) == []


def test_the_mean_is_in_the_order_of_ranks_whoever_is_first():
    layout = Layout(shards=1, tables={"rows": Sparse(width=2, optimizer=AdaGrad())})
    found = []
    rows = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32) * 1e3
    for order in ((0, 1, 2), (2, 0, 1)):
        shard = Shard(layout, 0, None)
        senders = {rank: Sender(shard, rank, workers=3) for rank in order}
        for rank in order:
            senders[rank].send("push", (np.array([9]), rows[rank : rank + 1]), table="rows", step=0)
        for rank in order:
            senders[rank].tick()
        found.append(shard.parts["rows"].read(np.array([9])))
    np.testing.assert_array_equal(*found)


def test_others_go_on_without_a_worker_that_is_dropped_and_it_is_told():
    shard = Shard(LAYOUT, 0, None)
    a, b = Sender(shard, 0), Sender(shard, 1)
    b.push([1], 100.0)
    a.push([1], 2.0)
    a.tick()
    drop = Operation("drop", b.client, 0, {"rank": 1})
    assert shard.admit(drop) and not shard.admit(Operation("drop", "another", 0, {"rank": 1}))
    shard.apply(drop)
    assert value(shard, 1) == pytest.approx(-2)  # what it had not ended does not count
    with pytest.raises(WorkerLost):
        b.tick()
    again = Sender(shard, 1, client="client 1b")
    assert again.step == 1
    a.push([1], 2.0)
    a.tick()
    again.push([1], 4.0)
    again.tick()
    assert value(shard, 1) == pytest.approx(-5)


def test_who_takes_a_workers_place_does_its_unfinished_step_again_and_no_other():
    shard = Shard(LAYOUT, 0, None)
    a, b = Sender(shard, 0), Sender(shard, 1)
    b.push([1], 6.0)
    b.tick()
    b.push([1], 100.0)  # of step 1, which it does not end
    again = Sender(shard, 1, client="client 1b")
    again.step = 0  # other shards may not have had step 0
    again.push([1], 6.0)
    again.tick()
    again.push([1], 8.0)
    again.tick()
    for _ in range(2):
        a.push([1], 2.0)
        a.tick()
    assert value(shard, 1) == pytest.approx(-4 - 5)
    with pytest.raises(WorkerLost):
        b.tick()


def test_clocks_begin_anew_when_all_have_left():
    shard = Shard(LAYOUT, 0, None)
    senders = [Sender(shard, rank) for rank in (0, 1)]
    for one in senders:
        one.tick()
    for one in senders:
        one.send("leave")
    assert Sender(shard, 2, workers=3, averaged=False).step == 0


def test_workers_must_agree():
    shard = Shard(LAYOUT, 0, None)
    Sender(shard, 0)
    for wrong in ({"workers": 3}, {"averaged": False}):
        with pytest.raises(ValueError, match="consistency must be"):
            Sender(shard, 1, **wrong)


@pytest.mark.parametrize("averaged", (True, False))
def test_copies_of_any_moment_go_on_with_the_same_bits(averaged):
    rng = np.random.default_rng(3)
    shard = Shard(LAYOUT, 0, None)
    copies = [shard]

    class Both(Sender):
        def send(self, kind, arrays=(), **names):
            self.number += 1
            operation = Operation(
                kind, self.client, self.number, {"rank": self.rank, **names}, arrays
            )
            for one in copies:
                assert one.admit(operation)
                one.apply(operation)

    senders = [Both(shard, rank, averaged=averaged) for rank in (0, 1)]
    for _ in range(30):
        one = senders[rng.integers(2)]
        if one.step - min(other.step for other in senders) > 2:
            continue
        one.push(rng.integers(0, 9, 4).tolist(), float(rng.standard_normal()))
        if rng.random() < 0.2:
            image, copy = shard.image(), Shard(LAYOUT, 0, None)
            copy.begin(image.plain, image.staged)
            for table, keys, records in image.chunks():
                copy.parts[table].load(keys, records)
            copies.append(copy)
        if rng.random() < 0.6:
            one.tick()
    keys = np.arange(9)
    for copy in copies[1:]:
        np.testing.assert_array_equal(copy.parts["rows"].read(keys), shard.parts["rows"].read(keys))
        assert copy.image().plain == shard.image().plain
    assert len(copies) > 3
