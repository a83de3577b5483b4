"""Workers that train together: as one process, some steps apart, and without those that are lost."""

import threading
import time

import numpy as np
import pytest
from oarlock.fleet_ext.parameter_server import (
    AdaGrad,
    Adam,
    Dense,
    Layout,
    Sparse,
    StaleSynchronous,
    Synchronous,
    WorkerLost,
)
from oarlock.fleet_ext.parameter_server.part import Part
from oarlock.fleet_ext.parameter_server.rows import MemoryRows

from table_servers import counting, with_each_store

LAYOUT = Layout(
    shards=4,
    tables={
        "rows": Sparse(width=2, optimizer=AdaGrad(rate=0.3)),
        "array": Dense(shape=(3,), optimizer=Adam(rate=0.1)),
    },
)
STEPS = 12


def gradients(rank, step, rows, array):
    """Of a small loss, on a rank's own keys of a step."""
    rng = np.random.default_rng([rank, step])
    keys = rng.integers(0, 20, 6)
    return keys, rows[keys] - np.float32(1.0) + rng.standard_normal((6, 2)).astype(np.float32), array - np.float32(rank)  # fmt: skip


def one_process(workers):
    """The same training without servers."""
    rows, array = (Part(table, MemoryRows(table.record)) for table in LAYOUT.tables.values())
    keys = np.arange(20)
    for step in range(STEPS):
        given = [gradients(rank, step, rows.pull(keys), array.pull(np.array([0]))[0]) for rank in range(workers)]  # fmt: skip
        rows.push(np.concatenate([one[0] for one in given]), np.concatenate([one[1] for one in given]) / np.float32(workers))  # fmt: skip
        array.push(
            np.array([0]), np.mean([one[2] for one in given], axis=0, dtype=np.float32)[None]
        )
    return rows.pull(keys), array.pull(np.array([0]))[0]


def train(client, rank, until=STEPS):
    while client.step < until:
        rows, array = client.pull("rows", np.arange(20)).wait(), client.pull_dense("array").wait()
        keys, of_rows, of_array = gradients(rank, client.step, rows, array)
        client.push("rows", keys, of_rows)
        client.push_dense("array", of_array)
        client.finish_step().wait()


def together(*acts):
    errors = []

    def run(act):
        try:
            act()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in acts]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if errors:
        raise errors[0]


def test_synchronous_workers_are_as_one_process(servers):
    one = servers(LAYOUT)
    one.start("a", "b", "c")
    clients = [one.client(consistency=Synchronous(workers=3, rank=rank)) for rank in range(3)]
    together(
        *(
            lambda client=client, rank=rank: train(client, rank)
            for rank, client in enumerate(clients)
        )
    )
    wanted = one_process(3)
    np.testing.assert_allclose(
        clients[0].pull("rows", np.arange(20)).wait(), wanted[0], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        clients[0].pull_dense("array").wait(), wanted[1], rtol=1e-5, atol=1e-6
    )


def test_who_takes_a_lost_workers_place_ends_as_if_nothing_had_happened(servers):
    one = servers(LAYOUT)
    one.start("a", "b")
    first, second = (
        one.client(consistency=Synchronous(workers=2, rank=rank, lease=60.0)) for rank in (0, 1)
    )

    def fails_and_is_replaced():
        train(second, 1, until=5)
        second.pull("rows", [1]).wait()
        second.push("rows", [1], [[50.0, 50.0]]).wait()  # of a step that it does not end
        train(one.client(consistency=Synchronous(workers=2, rank=1)), 1)

    together(lambda: train(first, 0), fails_and_is_replaced)
    np.testing.assert_allclose(
        first.pull("rows", np.arange(20)).wait(), one_process(2)[0], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(WorkerLost):
        second.finish_step().wait()


@with_each_store
def test_a_worker_that_is_gone_is_waited_for_no_longer_than_its_lease(servers):
    one = servers(counting())
    one.start("a", "b")
    first, second = (
        one.client(consistency=Synchronous(workers=2, rank=rank, lease=1.0)) for rank in (0, 1)
    )
    first.push("rows", [1], [[2.0, 2.0]])
    first.finish_step().wait()
    second._lease._over.set()  # as a process that is killed
    before = one.reader().read("rows", [1]).rows
    np.testing.assert_allclose(first.pull("rows", [1]).wait(), before - 2.0, rtol=1e-6)
    with pytest.raises(WorkerLost):
        second.finish_step().wait()


def test_stale_workers_are_at_most_so_far_apart_and_all_pushes_count(servers):
    one, bound = servers(counting()), 2
    one.start("a", "b")
    fast, slow = (
        one.client(consistency=StaleSynchronous(workers=2, rank=rank, bound=bound))
        for rank in (0, 1)
    )
    for _ in range(bound):
        fast.pull("rows", [1]).wait()
        fast.push("rows", [1], [[1.0, 1.0]])
        fast.finish_step().wait()
    fast.pull("rows", [1]).wait()  # step 2: the other is at 0
    fast.finish_step().wait()
    waits = fast.pull("rows", [1])
    assert not waits.over_within(0.5)
    slow.push("rows", [1], [[1.0, 1.0]])
    slow.finish_step().wait()
    beginning = fast.layout.table("rows").initial.rows(np.array([1]), 2)
    np.testing.assert_allclose(waits.wait(), beginning - 3.0, rtol=1e-6)


def test_who_waits_too_long_is_told_for_whom(servers):
    one = servers(counting())
    one.start("a")
    first = one.client(consistency=Synchronous(workers=2, rank=0), timeout=2.5)
    one.client(consistency=Synchronous(workers=2, rank=1))
    first.finish_step().wait()
    begin = time.monotonic()
    with pytest.raises(Exception, match="shard .*worker 1 has not ended its step"):
        first.pull("rows", [1]).wait()
    assert time.monotonic() - begin < 30.0
    with pytest.raises(Exception, match="worker 1"):  # the client is of no more use, and says why
        first.push("rows", [1], [[1.0, 1.0]]).wait()


def test_workers_of_another_consistency_are_refused(servers):
    one = servers(counting())
    one.start("a")
    one.client(consistency=Synchronous(workers=2, rank=0))
    with pytest.raises(ValueError, match="Synchronous, workers=2"):
        one.client(consistency=StaleSynchronous(workers=2, rank=1))
    with pytest.raises(ValueError, match="rank must be from 0 to 1"):
        Synchronous(workers=2, rank=2)
