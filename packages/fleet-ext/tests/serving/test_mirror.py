"""A copy of a part of a store."""

import threading

import pytest
from fleets import LONG_S, Place, until
from oarlock.fleet_ext.serving.mirror import Mirror


@pytest.fixture
def place():
    made = Place()
    yield made
    made.close()


def test_changes_since_it_was_read_are_told_once_it_follows(place):
    place.store.set("part/a", b"1")
    place.store.set("other/a", b"1")
    mirror = Mirror(place.client(), "part/")
    assert mirror.values == {"part/a": b"1"}
    place.store.set("part/a", b"2")
    place.store.set("part/b", b"3")
    told = threading.Event()
    assert mirror.values == {"part/a": b"1"}  # nobody is told before all is there that is told
    mirror.follow(told.set)
    assert told.wait(LONG_S)
    until(lambda: mirror.values == {"part/a": b"2", "part/b": b"3"}, "both changes")
    place.store.delete("part/a")
    until(lambda: mirror.values == {"part/b": b"3"}, "what is deleted")
    mirror.close()


def test_a_router_knows_replicas_that_come_while_it_starts(place):
    class Late:
        """A store in which a replica registers just behind the router's reading."""

        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        def read(self, prefix):
            found = self._store.read(prefix)
            if not place.processes:
                place.replica("late")
            return found

    place.client = lambda make=place.client: Late(make())
    server = place.router()
    place.until_routed(server, 1)
