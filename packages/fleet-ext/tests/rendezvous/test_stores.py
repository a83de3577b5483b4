"""What holds for every store."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from oarlock.fleet_ext.rendezvous import Change, Closed, LeaseLost, Outdated, Unreachable
from oarlock.fleet_ext.rendezvous.store import KEY_BYTES, VALUE_BYTES

#: Seconds that something may take that should be at once, on a machine that does much else.
AT_ONCE = 0.5


def collect(store, prefix, since, count, seconds=10.0):
    """That many changes, and the revision after them."""
    found, until = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        since, changes = store.watch(prefix, since, timeout=1.0)
        found += changes
    return since, found


def in_threads(function, arguments):
    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(function, arguments))


class TestValues:
    def test_set_get_delete(self, store):
        assert store.get("a") is None
        store.set("a", b"1")
        store.set("a", b"2")
        assert store.get("a") == b"2"
        assert store.delete("a") and not store.delete("a")
        assert store.get("a") is None

    @pytest.mark.parametrize(
        "value", [b"", b"\x00\xff\n", bytes(range(256)) * (VALUE_BYTES // 256)]
    )
    def test_values_come_back(self, store, value):
        store.set("v", value)
        assert store.get("v") == value
        assert store.read("v")[1] == {"v": value}
        assert store.compare_set("v", value, b"next")

    def test_keys_and_read(self, store):
        for key in ("b/2", "a/ü 漢/x", "b/1", "b", "c"):
            store.set(key, key.encode())
        assert store.keys("b/") == ["b/1", "b/2"]
        assert store.keys("") == ["a/ü 漢/x", "b", "b/1", "b/2", "c"]
        revision, found = store.read("b")
        assert found == {"b": b"b", "b/1": b"b/1", "b/2": b"b/2"}
        assert store.read("none") == (revision, {})

    @pytest.mark.parametrize("key", ["", 5, "k" * (KEY_BYTES + 1), "\ud800"])
    def test_bad_keys(self, store, key):
        for call in (store.get, store.delete, lambda key: store.set(key, b""),
                     lambda key: store.add(key, 1), lambda key: store.wait([key], 1.0),
                     lambda key: store.compare_set(key, None, b"")):  # fmt: skip
            with pytest.raises(ValueError):
                call(key)

    @pytest.mark.parametrize("value", ["text", None, 5, b"x" * (VALUE_BYTES + 1)])
    def test_bad_values(self, store, value):
        for call in (lambda: store.set("k", value), lambda: store.compare_set("k", None, value)):
            with pytest.raises(ValueError, match="value must"):
                call()

    def test_bad_numbers(self, store):
        for call in (lambda: store.add("k", 1.5), lambda: store.add("k", 1 << 63),
                     lambda: store.lease(0.0), lambda: store.lease(1e9),
                     lambda: store.watch("", 0, 1.0), lambda: store.watch("", 5, -1.0),
                     lambda: store.wait(["k"], float("nan"))):  # fmt: skip
            with pytest.raises(ValueError, match="must"):
                call()


class TestCounters:
    def test_add(self, store):
        assert [store.add("n", amount) for amount in (5, -7, 0)] == [5, -2, -2]
        assert store.get("n") == b"-2"

    def test_what_is_no_counter(self, store):
        store.set("n", b"five")
        with pytest.raises(ValueError, match="'n' holds b'five', which is no counter"):
            store.add("n", 1)
        assert store.get("n") == b"five"

    def test_beyond_64_bits(self, store):
        store.add("n", (1 << 63) - 1)
        with pytest.raises(ValueError, match="beyond 64 bits"):
            store.add("n", 1)

    def test_eight_threads(self, backend):
        stores = [backend.store() for _ in range(4)] * 2  # two threads share each
        sums = in_threads(lambda store: [store.add("n", 1) for _ in range(10)], stores)
        assert sorted(total for one in sums for total in one) == list(range(1, 81))


class TestCompareSet:
    def test_expected(self, store):
        assert not store.compare_set("k", b"", b"x")
        assert store.compare_set("k", None, b"1")
        assert not store.compare_set("k", None, b"2")
        assert not store.compare_set("k", b"2", b"3")
        assert store.compare_set("k", b"1", b"2")
        assert store.get("k") == b"2"

    def test_one_leader(self, backend):
        stores = [backend.store() for _ in range(8)]
        gate = threading.Barrier(8)

        def run(number):
            gate.wait()
            return stores[number].compare_set("leader", None, str(number).encode())

        for _ in range(5):
            won = in_threads(run, range(8))
            assert won.count(True) == 1
            assert stores[0].get("leader") == str(won.index(True)).encode()
            stores[0].delete("leader")

    def test_a_leader_that_is_gone_is_replaced(self, backend):
        first, second = backend.store(), backend.store()
        assert first.compare_set("leader", None, b"first", lease=first.lease(backend.shortest))
        revision, _ = second.read("leader")
        assert not second.compare_set("leader", None, b"second")
        _, changes = second.watch("leader", revision, timeout=5.0)
        assert [change.value for change in changes] == [None]
        assert second.compare_set("leader", None, b"second")


class TestWait:
    def test_what_is_there(self, store):
        store.set("a", b"1")
        store.set("b", b"")
        assert store.wait(iter(["a", "b"]), timeout=0.0) == {"a": b"1", "b": b""}

    def test_missing_keys_are_named(self, store):
        store.set("rank/1", b"")
        with pytest.raises(TimeoutError, match=r"after 0.3 s at .*: 'rank/0', 'rank/2'$"):
            store.wait(["rank/0", "rank/1", "rank/2"], timeout=0.3)

    def test_wakes_at_once(self, backend):
        waiting, setting = backend.store(), backend.store()
        setting.set("rank/0", b"first")
        found = {}

        def wait():
            found.update(waiting.wait(["rank/0", "rank/1"], timeout=20.0))
            found["at"] = time.monotonic()

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.25)
        setting.set("other", b"")
        begun = time.monotonic()
        setting.set("rank/1", b"second")
        thread.join()
        assert found.pop("at") - begun < AT_ONCE
        assert found == {"rank/0": b"first", "rank/1": b"second"}

    def test_all_are_there_together(self, backend):
        store, waiting = backend.store(), backend.store()
        store.set("a", b"1")
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(waiting.wait, ["a", "b"], 10.0)
            time.sleep(0.2)
            store.delete("a")
            store.set("b", b"2")
            time.sleep(0.2)
            assert not result.done()
            store.set("a", b"3")
            assert result.result() == {"a": b"3", "b": b"2"}

    def test_many_keys(self, store):
        keys = [f"rank/{number}" for number in range(150)]
        for key in keys:
            store.set(key, key.encode())
        assert store.wait(keys, timeout=5.0) == {key: key.encode() for key in keys}


class TestWatch:
    def test_changes_in_order(self, store):
        store.set("m/0", b"before")
        since, _ = store.read("m/")
        store.set("m/1", b"1")
        store.set("other", b"")
        store.delete("m/0")
        store.delete("m/none")
        store.compare_set("m/1", b"1", b"2")
        store.compare_set("m/1", b"1", b"3")
        store.add("m/n", 4)
        revision, changes = collect(store, "m/", since, 4)
        assert [(one.key, one.value) for one in changes] == [
            ("m/1", b"1"), ("m/0", None), ("m/1", b"2"), ("m/n", b"4"),
        ]  # fmt: skip
        revisions = [one.revision for one in changes]
        assert revisions == sorted(set(revisions)) and since < revisions[0]
        assert revision >= revisions[-1]
        assert isinstance(changes[0], Change)

    def test_nothing_changes(self, store):
        store.set("a", b"")
        since, _ = store.read("")
        assert store.watch("", since, timeout=0.0) == (since, [])
        begun = time.monotonic()
        assert store.watch("", since, timeout=0.4) == (since, [])
        assert 0.35 < time.monotonic() - begun < 0.4 + AT_ONCE

    def test_what_was_before_without_waiting(self, store):
        store.set("a", b"1")
        since, _ = store.read("")
        store.set("a", b"2")
        assert [one.value for one in store.watch("a", since, timeout=0.0)[1]] == [b"2"]

    def test_wakes_at_once(self, backend):
        watching, setting = backend.store(), backend.store()
        setting.set("m", b"")
        since, _ = watching.read("m")
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(lambda: (watching.watch("m", since, 20.0), time.monotonic()))
            time.sleep(0.25)
            setting.set("n", b"")
            begun = time.monotonic()
            setting.set("m", b"2")
            (_, changes), at = result.result()
        assert [one.value for one in changes] == [b"2"] and at - begun < AT_ONCE

    def test_misses_nothing_when_lines_are_cut(self, backend):
        proxy, count = backend.proxy(), 120
        writer, watcher = backend.store(), backend.store(proxy.port)
        writer.set("x/n", b"-1")
        since, _ = watcher.read("x/")

        def write():
            for number in range(count):
                writer.set("x/n", str(number).encode())
                time.sleep(0.005)
                if number % 10 == 5:
                    proxy.cut()

        thread = threading.Thread(target=write)
        thread.start()
        _, changes = collect(watcher, "x/", since, count, 30.0)
        thread.join()
        assert [int(one.value) for one in changes] == list(range(count))

    def test_a_revision_that_has_not_been(self, store):
        revision, _ = store.read("")
        with pytest.raises(Outdated, match="lost its keys"):
            store.watch("", revision + 1000, timeout=2.0)


class TestLeases:
    def test_keys_disappear_and_watchers_see_it(self, backend):
        store, watching = backend.store(), backend.store()
        lease = store.lease(backend.shortest)
        store.set("node/1", b"here", lease=lease)
        store.set("node/2", b"here", lease=lease)
        store.set("node/3", b"stays")
        since, found = watching.read("node/")
        assert len(found) == 3 and 0 < lease.left <= lease.seconds
        begun = time.monotonic()
        _, changes = watching.watch("node/", since, timeout=10.0)
        took = time.monotonic() - begun
        assert {(one.key, one.value) for one in changes} == {("node/1", None), ("node/2", None)}
        assert len({one.revision for one in changes}) == 1
        assert lease.seconds - 0.3 < took < lease.seconds + 1.0
        assert watching.keys("node/") == ["node/3"]
        with pytest.raises(LeaseLost, match="expired"):
            lease.keep()
        with pytest.raises(LeaseLost, match="expired"):
            store.set("node/1", b"again", lease=lease)
        assert store.get("node/1") is None

    def test_kept_by_hand_and_in_the_background(self, backend):
        store = backend.store()
        kept, renewed = store.lease(backend.shortest), store.lease(backend.shortest).renew()
        with pytest.raises(ValueError, match="already"):
            renewed.renew()
        store.set("kept", b"", lease=kept)
        store.set("renewed", b"", lease=renewed)
        until = time.monotonic() + kept.seconds + backend.shortest
        while time.monotonic() < until:
            time.sleep(0.1)
            kept.keep()
        assert store.keys("") == ["kept", "renewed"] and renewed.left > 0
        renewed.release()
        assert store.keys("") == ["kept"]

    def test_release(self, store):
        lease = store.lease(60.0)
        store.set("node", b"", lease=lease)
        since, _ = store.read("")
        lease.release()
        lease.release()
        assert store.get("node") is None
        assert [one.value for one in collect(store, "node", since, 1)[1]] == [None]

    def test_a_later_value_has_its_own_lease(self, store):
        lease, other = store.lease(60.0), store.lease(60.0)
        for key in ("free", "counted", "other", "same"):
            store.set(key, b"1", lease=lease)
        store.set("free", b"2")
        store.add("counted", 1)
        store.compare_set("other", b"1", b"2", lease=other)
        store.set("same", b"2", lease=lease)
        lease.release()
        assert store.keys("") == ["counted", "free", "other"]

    def test_who_is_lost_is_told(self, backend):
        store = backend.store()
        lost = []
        lease = store.lease(backend.shortest).renew(lost.append)
        store.release(lease.id)
        until = time.monotonic() + 5.0
        while not lost and time.monotonic() < until:
            time.sleep(0.02)
        assert [type(one) for one in lost] == [LeaseLost] and lease.left <= 0


class TestTrouble:
    def test_each_change_is_made_once_though_answers_are_lost(self, backend):
        proxy = backend.proxy(losing=0.15)
        stores = [backend.store(proxy.port) for _ in range(4)]
        watcher = backend.store()
        watcher.set("n", b"0")
        since, _ = watcher.read("")

        def work(number):
            store = stores[number % 4]
            added = [store.add("n", 1) for _ in range(10)]
            assert store.compare_set(f"t/{number}", None, b"1")
            assert store.compare_set(f"t/{number}", b"1", b"2")
            store.set(f"t/{number}", b"3")
            assert store.delete(f"t/{number}")
            return added

        sums = in_threads(work, range(8))
        assert proxy.lost > 10
        assert sorted(total for one in sums for total in one) == list(range(1, 81))
        _, changes = collect(watcher, "", since, 80 + 32)
        assert len(changes) == 80 + 32
        for number in range(8):
            values = [one.value for one in changes if one.key == f"t/{number}"]
            assert values == [b"1", b"2", b"3", None]

    def test_a_restart_is_survived(self, backend):
        if backend.kind == "memory":
            pytest.skip("without a journal, keys are not kept")
        store = backend.store(timeout=20.0)
        lease = store.lease(2.0).renew()
        store.set("node", b"here", lease=lease)
        since, _ = store.read("")
        done, found = threading.Event(), []

        def count():
            while not done.is_set():
                found.append(store.add("n", 1))
                time.sleep(0.005)

        threads = [threading.Thread(target=count) for _ in range(3)]
        waiter = ThreadPoolExecutor(1)
        waiting = waiter.submit(store.wait, ["late"], 30.0)
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        backend.stop()
        time.sleep(0.5)
        backend.start()
        time.sleep(1.0)
        done.set()
        for thread in threads:
            thread.join()
        store.set("late", b"")
        assert waiting.result() == {"late": b""}
        waiter.shutdown()
        count = len(found)
        assert sorted(found) == list(range(1, count + 1)) and store.get("n") == str(count).encode()
        _, changes = collect(store, "n", since, count)
        counts = [int(one.value) for one in changes if one.key == "n"]
        assert counts == list(range(1, count + 1))
        assert store.get("node") == b"here" and lease.left > 0
        lease.release()

    def test_leases_begin_anew_after_a_restart(self, backend):
        if backend.kind == "memory":
            pytest.skip("without a journal, keys are not kept")
        store = backend.store()
        store.set("node", b"", lease=store.lease(backend.shortest))
        since, _ = store.read("")
        backend.restart()
        assert store.get("node") == b""
        assert [one.value for one in collect(store, "node", since, 1)[1]] == [None]

    def test_nobody_is_there(self, backend):
        proxy = backend.proxy()
        proxy.close()
        port = proxy.port
        store = backend.store(port, timeout=0.3)
        for call in (lambda: store.get("k"), lambda: store.set("k", b""), lambda: store.read(""),
                     lambda: store.wait(["k"], 0.1), lambda: store.lease(1.0)):  # fmt: skip
            begun = time.monotonic()
            with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
                call()
            assert time.monotonic() - begun < 0.3 + AT_ONCE

    def test_closed_by_another_thread(self, backend):
        store = backend.store()
        store.set("k", b"")
        since, _ = store.read("")
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(store.watch, "k", since, 1.0)
            time.sleep(0.3)
            store.close()
            with pytest.raises(Closed):
                store.get("k")
            if backend.kind != "etcd":  # there it ends when its time is over
                with pytest.raises(Closed):
                    result.result()

    def test_as_a_context(self, backend):
        with backend.store() as store:
            store.set("k", b"")
        with pytest.raises(Closed):
            store.get("k")
