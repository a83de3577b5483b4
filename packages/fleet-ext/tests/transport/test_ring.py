"""Memory that ranks of one machine share."""

import os
import threading
import time

import numpy as np
import pytest
from oarlock.fleet_ext.transport import Listener, connect, new_token
from oarlock.fleet_ext.transport.ring import Ring, new_file

from ranks import Memory, together, well


def ends(size=10_000):
    """Both ends of a ring."""
    file = new_file(size)
    return Ring(os.dup(file)), Ring(file)


@pytest.mark.parametrize("size", (1, 999, 10_000))
def test_bytes_come_out_as_they_went_in(size):
    writer, reader = ends(size)
    given = [
        np.random.default_rng(count).integers(0, 255, count, np.uint8)
        for count in (0, 1, 5000, 20_001)
    ]

    def write():
        for one in given:
            writer.write(one.data, lambda: True)

    thread = threading.Thread(target=write)
    thread.start()
    for one in given:
        out = np.empty_like(one)
        reader.read(out.data, lambda: True)
        np.testing.assert_array_equal(out, one)
    thread.join()


def test_who_waits_for_a_dead_process_is_told():
    writer, reader = ends()
    for waits in (
        lambda: reader.read(memoryview(bytearray(1)), lambda: False),
        lambda: writer.write(memoryview(bytes(10_001)), lambda: False),
    ):
        with pytest.raises(ConnectionError, match="gone"):
            waits()


def test_a_file_that_is_too_short_is_refused():
    file = new_file(0)
    with pytest.raises(ValueError, match="more than"):
        Ring(file)
    with pytest.raises(OSError):
        os.fstat(file)


@pytest.mark.parametrize("size", (2, 4))
def test_ranks_that_share_memory_do_all_that_others_do(size):
    count = 3_000_000  # more bytes than a ring has

    def run(group):
        array = np.arange(1_000_001, dtype=np.float32) + group.rank
        group.all_reduce(array).wait()
        rows = group.all_gather(np.full(700_000, group.rank)).wait()
        out = [np.empty(50_000) for _ in range(size)]
        parts = [np.full(50_000, 10.0 * group.rank + to) for to in range(size)]
        group.all_to_all(parts, out).wait()
        if group.rank == 0:
            group.send(np.full(count, 5), 1).wait()
        if group.rank == 1:
            assert (group.receive(np.empty(count, np.int64), 0).wait() == 5).all()
        return array[-1], rows[:, -1].tolist(), [one[0] for one in out]

    total = size * 1_000_000 + size * (size - 1) / 2
    for rank, found in enumerate(well(together(size, run, shared=True))):
        came = [10.0 * source + rank for source in range(size)]
        assert found == (total, list(range(size)), came)


def test_nothing_of_the_payload_goes_over_sockets_of_one_machine():
    """Ranks of one machine find each other's memory by themselves, and close without a rest."""
    before = len(os.listdir("/proc/self/fd"))

    def run(group):
        links = [one for many in group.mesh._outgoing.values() for one in many]
        return all(one._ring is not None for one in links)

    assert well(together(3, run, shared=True)) == [True] * 3
    assert well(together(3, run, shared=False)) == [False] * 3
    until = time.monotonic() + 5.0
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < until:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_ranks_of_other_machines_use_tcp():
    store, token = Memory(), new_token()
    listeners = [Listener(job="test", token=token, shared=rank == 0) for rank in range(2)]
    found = [None, None]

    def run(rank):
        with connect(store, listeners[rank], rank=rank, size=2, token=token) as mesh:
            found[rank] = [one._ring for many in mesh._outgoing.values() for one in many]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [[None], [None]]
    for one in listeners:
        one.close()
