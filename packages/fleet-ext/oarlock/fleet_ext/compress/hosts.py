"""Which ranks of a group are on one host, and the groups that follow from it."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from oarlock.fleet_ext.transport import Group
from oarlock.fleet_ext.transport.listener import this_machine


@dataclass(frozen=True, slots=True)
class HostGroups:
    """Of one rank.

    Args:
        places: number of each rank's host, in the order in which hosts come first.
        within: the ranks of this rank's host; its leader is rank 0 of it.
        leaders: one rank of each host, in the order of hosts; None on ranks that do not lead.
    """

    places: tuple[int, ...]
    within: Group
    leaders: Group | None

    @property
    def count(self) -> int:
        """Hosts."""
        return max(self.places) + 1

    def abort(self, reason: str) -> None:
        """Fails what goes on within the host, and between hosts where this rank leads."""
        for one in (self.within, self.leaders):
            if one is not None:
                one.abort(reason)

    def close(self) -> None:
        for one in (self.leaders, self.within):
            if one is not None:
                one.close()


def numbered(names: Sequence[str]) -> tuple[int, ...]:
    """Numbers of names, from 0, in the order in which they come first."""
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return tuple(order[name] for name in names)


def host_groups(group: Group, hosts: Sequence[str] | None) -> HostGroups:
    """Makes the groups; all ranks call it.

    Args:
        group: which is divided.
        hosts: name of each rank's host; None to ask the ranks, of which those are on one host that share memory.

    Raises:
        ValueError: there are not as many names as ranks, or ranks have different ones.
    """
    mine = {"machine": this_machine(), "hosts": list(hosts or []), "nonce": secrets.token_hex(8)}
    said = group.all_gather_object(mine).wait()
    others = [rank for rank, one in enumerate(said) if one["hosts"] != said[0]["hosts"]]
    if others:
        raise ValueError(
            f"hosts must be the same on all ranks: those of {others} differ from rank 0's"
        )
    if hosts is not None and len(hosts) != group.size:
        raise ValueError(
            f"hosts must name the host of each of {group.size} ranks, not of {len(hosts)}: leave it out where ranks come"
            " and go"
        )
    places = numbered([one["machine"] for one in said] if hosts is None else hosts)
    ranks = [
        [rank for rank, place in enumerate(places) if place == host]
        for host in range(max(places) + 1)
    ]
    name = f"hosts {said[0]['nonce']}"  # which no group had
    parts = [group.subgroup(one, name) for one in ranks]
    within = parts[places[group.rank]]
    assert within is not None, "this rank is on its host"
    return HostGroups(places, within, group.subgroup([one[0] for one in ranks], f"{name}, leaders"))
