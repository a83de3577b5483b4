"""Which packets a link loses in silence: classic BPF programs for the kernel's `cls_bpf` filter.

A packet that such a filter drops is just gone. Nobody gets an error, so established connections stay
established and go quiet. Only IPv4 is looked at: address resolution always works.
"""

import ipaddress
from collections.abc import Collection

#: Words of classic BPF: load a word, jump if equal, jump if at least, return.
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
#: Where a load finds a random word, and the destination in the IPv4 header.
RANDOM = 0xFFFFF000 + 56
DESTINATION = 0xFFF00000 + 16
#: What the filter tells the kernel: nothing (ask the next filter), or to drop the packet.
PASS, DROP = 0xFFFFFFFF, 2

#: Operation, jump if so, jump if not, operand.
Step = tuple[int, int, int, int]


def to_any_of(addresses: Collection[str]) -> str:
    """Drops the packets to these IPv4 addresses."""
    steps: list[Step] = [(LOAD, 0, 0, DESTINATION)]
    for address in sorted(addresses):
        steps.append((EQUAL, 0, 1, int(ipaddress.IPv4Address(address))))
        steps.append((RETURN, 0, 0, DROP))
    return bytecode(steps)


def by_chance(fraction: float) -> str:
    """Drops each packet with that probability, in [0, 1], whatever happens to the others."""
    threshold = round(fraction * 2**32)
    if threshold >= 2**32:  # does not fit the operand
        return bytecode([(RETURN, 0, 0, DROP)])
    return bytecode(
        [(LOAD, 0, 0, RANDOM), (AT_LEAST, 1, 0, threshold), (RETURN, 0, 0, DROP)],
    )


def bytecode(steps: list[Step]) -> str:
    """The program of these steps, after which packets pass, as `tc` reads it."""
    whole = [*steps, (RETURN, 0, 0, PASS)]
    return ",".join([str(len(whole)), *(" ".join(map(str, step)) for step in whole)])
