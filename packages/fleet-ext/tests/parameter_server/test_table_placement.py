"""Maps of shards: what servers propose, and where that ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.fleet_ext.parameter_server.placement import (
    Map,
    Place,
    handed_over,
    handovers,
    joined,
    loads,
    proposal,
)

SHARDS = 24


def settled(map, servers, replicas=2, rounds=400):
    """The map when nobody wants to change it any more; each server does what it may, in turn."""
    for _ in range(rounds):
        before = map
        for me in servers:
            map = proposal(map, me, servers, replicas) or map
            for shard in [
                number for number, one in enumerate(map.places) if one.primary == me and one.joining
            ]:
                map = map.changed({shard: joined(map.places[shard], replicas)})
            for shard in handovers(map, me, servers)[:1]:
                map = map.changed({shard: handed_over(map.places[shard])})
        if map == before:
            return map
    raise AssertionError(f"not settled: {map}")


def test_maps_come_back_from_the_store():
    map = Map(7, (Place(3, 2, "a", "b", "c"), Place(1, 1, "a"), Place(9, 4, "c", None, "a")))
    assert Map.unpack(map.pack()) == map


@pytest.mark.parametrize("replicas", (1, 2))
@pytest.mark.parametrize("count", (1, 2, 3, 5))
def test_shards_spread_evenly_over_servers_that_come(count, replicas):
    servers = {f"s{number}": False for number in range(count)}
    map = settled(Map.first("s0", SHARDS), servers, replicas)
    copies = min(count, replicas)
    assert all(len(one.copies) == copies for one in map.places)
    counts = loads(map, servers).values()
    assert max(counts) - min(counts) <= 1
    leads = [sum(one.primary == name for one in map.places) for name in servers]
    assert max(leads) - min(leads) <= 2


def test_a_server_that_is_to_be_emptied_is():
    servers = {"a": False, "b": False, "c": False}
    map = settled(Map.first("a", SHARDS), servers)
    map = settled(map, servers | {"a": True})
    assert all("a" not in one.copies and len(one.copies) == 2 for one in map.places)


def test_only_the_backup_takes_the_place_of_a_lost_primary_and_only_the_primary_lets_its_backup_go():
    map = Map(1, (Place(5, 3, "a", "b"),))
    assert proposal(map, "c", {"c": False}, 2) is None
    assert proposal(map, "b", {"b": False}, 2).places[0] == Place(6, 4, "b")
    assert proposal(map, "a", {"a": False}, 2).places[0] == Place(6, 4, "a")
    assert proposal(map, "a", {"a": False, "b": False}, 2, {"b"}).places[0] == Place(6, 4, "a")
    assert proposal(map, "b", {"a": False, "b": False}, 2, {"a"}) is None


def test_who_joins_is_given_up_when_it_is_lost():
    map = Map(1, (Place(5, 3, "a", "b", "c"),))
    assert proposal(map, "a", {"a": False, "b": False}, 2).places[0] == Place(6, 3, "a", "b")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(("come", "die", "leave")), st.integers(0, 9)), max_size=12)
)
def test_as_long_as_one_copy_of_each_shard_is_there_all_have_two_in_the_end(events):
    servers = {"s0": False, "s1": False}
    map, serial = settled(Map.first("s0", SHARDS), servers), 2
    for what, number in events:
        names = sorted(servers)
        chosen = names[number % len(names)]
        staying = [name for name in names if not servers[name]]
        if what == "come":
            servers[f"s{serial}"] = False
            serial += 1
        elif what == "die":
            if any(one.copies == (chosen,) for one in map.places):
                continue  # the last copy of some, as where only those to be emptied are left
            del servers[chosen]
        elif len(staying) > 2:
            servers[staying[number % len(staying)]] = True
        before = map
        map = settled(map, servers)
        epochs = zip(before.places, map.places, strict=True)
        assert all(old.epoch <= new.epoch for old, new in epochs)
        assert all(name in servers for one in map.places for name in one.copies)
        staying = [name for name, leaving in servers.items() if not leaving]
        if len(staying) >= 2:
            assert all(
                len(one.copies) == 2 and set(one.copies) <= set(staying) for one in map.places
            )
