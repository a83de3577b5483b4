"""Servers as processes that are killed and stopped: what was acknowledged stays, and is there once."""

import signal
import threading
import time

import numpy as np
import pytest

from table_servers import counting, sleep_until, with_each_store

KEYS = np.arange(64)
ONES = np.ones((64, 2), np.float32)
MOMENTS = (
    "admitted",
    "applied",
    "passed on",
    "acknowledged by the backup",
    "applied by the backup",
)


def counts(client, keys=KEYS):
    """How often each key was pushed."""
    beginnings = client.layout.table("rows").initial.rows(keys, 2)
    return np.round((beginnings - client.pull("rows", keys).wait())[:, 0]).astype(int)


@pytest.mark.parametrize(
    ("servers", "moment"),
    [*(("built-in", one) for one in MOMENTS), ("etcd", "passed on")],
    indirect=["servers"],
)
def test_every_push_is_applied_once_whenever_its_server_dies(servers, moment):
    one = servers(counting())
    one.spawn("a", "b")
    one.until_copied("a", "b")
    one.spawn("c", kills=moment)
    one.until_copied("a", "b", "c")
    client, rng, wanted = one.client(), np.random.default_rng(0), np.zeros(64, int)
    for _ in range(40):
        keys = rng.integers(0, 64, 30)
        client.push("rows", keys, np.ones((30, 2)))
        np.add.at(wanted, keys, 1)
    client.flush()
    assert one.processes["c"].wait(30.0) == -signal.SIGKILL  # the moment came
    assert counts(client).tolist() == wanted.tolist()
    one.until_copied("a", "b")
    np.testing.assert_array_equal(
        one.reader().read("rows", KEYS).rows, client.pull("rows", KEYS).wait()
    )


@with_each_store
def test_one_that_is_stopped_is_replaced_and_does_no_harm_when_it_moves_again(servers):
    one = servers(counting())
    one.spawn("a", "b", "c")
    one.until_copied("a", "b", "c")
    client = one.client()
    client.push("rows", KEYS, ONES).wait()
    led = one.led_by("a")
    one.kill("a", signal.SIGSTOP)
    for _ in range(3):
        client.push("rows", KEYS, ONES).wait()
    one.until_copied("b", "c")
    assert led and not one.led_by("a")
    one.kill("a", signal.SIGCONT)
    one.until_copied("a", "b", "c")
    client.push("rows", KEYS, ONES).wait()
    assert counts(client).tolist() == [5] * 64
    reader = one.reader()
    for _ in range(4):
        np.testing.assert_array_equal(
            reader.read("rows", KEYS).rows, client.pull("rows", KEYS).wait()
        )


@pytest.mark.parametrize("servers", ("etcd",), indirect=True)
def test_while_the_store_is_away_pushes_go_to_both_copies_and_pulls_wait(servers, etcd):
    one = servers(counting())
    one.start("a", "b")
    one.until_copied("a", "b")
    client, started = one.client(), one.threads.values()
    one.until_at_rest()  # who has yet to hear of a shard that it leads could not while the store is away
    etcd.stop()
    try:
        sleep_until(lambda: all(each._membership.left < 0 for each in started), "ends of leases")
        client.push("rows", KEYS, ONES).wait()
        pulled = client.pull("rows", KEYS)
        assert not pulled.over_within(0.5)
    finally:
        etcd.start()
    beginnings = client.layout.table("rows").initial.rows(KEYS, 2)
    np.testing.assert_allclose(pulled.wait(), beginnings - 1, rtol=1e-6)


def test_reads_are_answered_all_the_time_while_servers_are_killed_and_stopped(servers):
    one = servers(counting())
    one.spawn("a", "b", "c", "d")
    one.until_copied("a", "b", "c", "d")
    client, reader = one.client(), one.reader(timeout=20.0)
    client.push("rows", KEYS, ONES).wait()
    over, longest, errors, reads, acknowledged = (
        threading.Event(),
        [0.0],
        [],
        [0],
        [time.monotonic()],
    )
    beginnings = client.layout.table("rows").initial.rows(KEYS, 2)

    def read_all():
        while not over.is_set():
            begin = time.monotonic()
            try:
                found = reader.read("rows", KEYS)
                known = time.monotonic() - found.age
                least = sum(one <= known for one in list(acknowledged))
                count = np.round((beginnings - found.rows)[:, 0]).min()
                if count < least:
                    errors.append(
                        f"{count} pushes, {found.age:.2f} s after {least} were acknowledged"
                    )
            except Exception as error:  # a failed read is what this test is about
                errors.append(repr(error))
            longest[0] = max(longest[0], time.monotonic() - begin)
            reads[0] += 1

    reading = threading.Thread(target=read_all)
    reading.start()
    try:
        for name, number in (("a", signal.SIGKILL), ("b", signal.SIGSTOP)):
            one.kill(name, number)
            for _ in range(10):
                client.push("rows", KEYS, ONES).wait()
                acknowledged.append(time.monotonic())
            one.until_copied(*sorted({"c", "d", *({"b"} if name == "a" else ())}))
            done = reads[0] + 20
            one.until(lambda view, done=done: reads[0] > done, "reads")
    finally:
        over.set()
        reading.join()
    print(f"{reads[0]} reads, the longest {longest[0]:.2f} s")
    assert not errors
