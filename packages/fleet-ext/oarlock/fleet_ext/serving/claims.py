"""Which node takes which slot. Pure functions: all nodes see the same and decide the same."""

from collections.abc import Mapping

from oarlock.fleet_ext.serving.records import Node

def claimable(wanted: int, slots: Mapping[int, str], nodes: Mapping[str, Node], node: str) -> list[int]:  # fmt: skip
    """The free slots that a node should take: each goes to one that has a warm replica, then to who has the fewest.

    Args:
        wanted: slots in all.
        slots: those that are taken, and by whom.
        nodes: what each could take on.
        node: who asks.
    """
    held = {name: sum(owner == name for owner in slots.values()) for name in nodes}
    warm = {name: one.warm for name, one in nodes.items()}
    found = []
    for slot in range(wanted):
        if slot in slots:
            continue
        able = [name for name, one in nodes.items() if held[name] < one.capacity]
        if not able:
            break
        best = min(able, key=lambda name: (warm[name] <= 0, held[name], name))
        held[best] += 1
        warm[best] -= 1
        if best == node:
            found.append(slot)
    return found


def better_elsewhere(slots: Mapping[int, str], nodes: Mapping[str, Node], node: str) -> bool:
    """Whether another node has a warm replica and room for a slot that this one cannot fill now."""
    held = {name: sum(owner == name for owner in slots.values()) for name in nodes}
    return any(
        one.warm > 0 and held[name] < one.capacity for name, one in nodes.items() if name != node
    )
