"""Which servers have which shards, and what should change. Pure functions; `membership` keeps the map in a store.

Each change of a shard is proposed by one that has it. The primary takes a lost backup out, and names who joins and
who takes over; the backup of a lost primary promotes itself. So whoever leads has every change that was ever
acknowledged, whatever others believe.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

MOVES = 4  #: joins that a server leads at a time, for balance


@dataclass(frozen=True, slots=True)
class Place:
    """Where a shard is.

    Args:
        version: which grows with every change of this.
        epoch: which grows whenever primary or backup change.
        primary: server that clients talk to.
        backup: server that has every acknowledged change, too; None without one.
        joining: server that is being given the shard.
    """

    version: int
    epoch: int
    primary: str
    backup: str | None = None
    joining: str | None = None

    def led(self, primary: str, backup: str | None, joining: str | None = None) -> "Place":
        """The next place, of other servers."""
        return Place(self.version + 1, self.epoch + 1, primary, backup, joining)

    def asked(self, joining: str | None) -> "Place":
        """The next place, where another server joins, or none."""
        return Place(self.version + 1, self.epoch, self.primary, self.backup, joining)

    @property
    def copies(self) -> tuple[str, ...]:
        return (self.primary,) if self.backup is None else (self.primary, self.backup)


@dataclass(frozen=True, slots=True)
class Map:
    """All shards' places.

    Args:
        number: which grows with each change.
        places: by shard.
    """

    number: int
    places: tuple[Place, ...]

    @classmethod
    def first(cls, server: str, shards: int) -> "Map":
        """All shards, empty, on one server."""
        return cls(1, (Place(1, 1, server),) * shards)

    def changed(self, places: Mapping[int, Place]) -> "Map":
        return Map(
            self.number + 1,
            tuple(places.get(shard, place) for shard, place in enumerate(self.places)),
        )

    def pack(self) -> bytes:
        """Servers' names once, and numbers for them."""
        names = sorted({name for one in self.places for name in (*one.copies, one.joining) if name})
        number = {name: place for place, name in enumerate(names)}
        rows = [
            [one.version, one.epoch, number[one.primary], number.get(one.backup or "", -1),
             number.get(one.joining or "", -1)]
            for one in self.places
        ]  # fmt: skip
        return json.dumps([self.number, names, rows], separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> "Map":
        number, names, rows = json.loads(packed)
        named = [*names, None]
        return cls(
            number,
            tuple(
                Place(version, epoch, *(named[one] for one in rest))
                for version, epoch, *rest in rows
            ),
        )


def loads(map: Map, servers: Collection[str]) -> dict[str, int]:
    """Copies of each server, as they will be when those that join have joined."""
    counts = dict.fromkeys(servers, 0)
    for one in map.places:
        for name in _will_be(one):
            if name in counts:
                counts[name] += 1
    return counts


def _will_be(place: Place) -> tuple[str, ...]:
    return place.copies if place.joining is None else (place.primary, place.joining)


def proposal(
    map: Map, me: str, servers: Mapping[str, bool], replicas: int, distrusted: Collection[str] = ()
) -> Map | None:
    """The map with all changes that a server may make and should.

    Args:
        servers: that are there, and whether each is to be emptied.
        replicas: copies that a shard should have.
        distrusted: servers that this one cannot work with now.

    Returns:
        None where there are none.
    """
    there = {name: leaving for name, leaving in servers.items() if name not in distrusted}
    there[me] = servers.get(me, True)
    changes: dict[int, Place] = {}
    for shard, place in enumerate(map.places):
        mended = _mended(place, me, servers, there)
        if mended != place:
            changes[shard] = mended
    mended_map = map.changed(changes)
    counts = loads(mended_map, [name for name, leaving in there.items() if not leaving])
    moves = sum(one.primary == me and one.joining is not None for one in mended_map.places)
    for shard, place in enumerate(mended_map.places):
        if place.primary != me or place.joining is not None:
            continue
        missing = replicas == 2 and place.backup is None
        if not missing and moves >= MOVES:
            continue
        joining = _joining(place, counts, servers, replicas)
        if joining is None:
            continue
        changes[shard] = place.asked(joining)
        moves += 1
        counts[joining] += 1
        if not missing:
            left = place.primary if replicas == 1 else place.backup
            if left in counts:
                counts[left] -= 1
    return map.changed(changes) if changes else None


def handovers(map: Map, me: str, servers: Mapping[str, bool]) -> list[int]:
    """Shards of which this server should leave the lead to their backup: it is to be emptied, or leads many more."""
    leads = dict.fromkeys(servers, 0)
    for one in map.places:
        if one.primary in leads:
            leads[one.primary] += 1
    found = []
    for shard, one in enumerate(map.places):
        if one.primary != me or one.backup not in servers or one.joining is not None:
            continue
        assert one.backup is not None
        if servers[one.backup]:
            continue
        if servers.get(me, True) or leads[me] - leads[one.backup] >= 2:
            found.append(shard)
            leads[one.backup] += 1
            if me in leads:
                leads[me] -= 1
    return found


def joined(place: Place, replicas: int) -> Place:
    """A shard's place when who joins has all of it: a second backup takes the place of the first."""
    assert place.joining is not None
    if replicas == 1:
        return place.led(place.joining, None)
    return place.led(place.primary, place.joining)


def handed_over(place: Place) -> Place:
    """A shard's place when its backup takes the lead."""
    assert place.backup is not None
    return place.led(place.backup, place.primary)


def _mended(place: Place, me: str, servers: Mapping[str, bool], there: Mapping[str, bool]) -> Place:
    """Without those who are lost."""
    if place.backup == me and place.primary not in servers:
        return place.led(me, None)
    if place.primary != me:
        return place
    if place.backup is not None and place.backup not in there:
        place = place.led(me, None, place.joining)
    if place.joining is not None and place.joining not in there:
        place = place.asked(None)
    return place


def _joining(
    place: Place, counts: Mapping[str, int], servers: Mapping[str, bool], replicas: int
) -> str | None:
    """Who should be given a shard; None where it is well where it is."""
    others = {name: count for name, count in counts.items() if name not in place.copies}
    if not others:
        return None
    least = min(others, key=lambda name: (others[name], name))
    if replicas == 2 and place.backup is None:
        return least
    # Another takes the place of the backup; where there is one copy only, that of the primary.
    leaves = place.primary if replicas == 1 else place.backup
    assert leaves is not None
    if servers.get(leaves, True) or counts.get(leaves, 0) - others[least] >= 2:
        return least
    return None
