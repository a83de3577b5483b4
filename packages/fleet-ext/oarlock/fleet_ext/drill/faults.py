"""What happens to the nodes of a drill, and when."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = {
    "kill": "a training process is killed (SIGKILL)",
    "stop": "a training process is stopped (SIGSTOP)",
    "link": "a node's network cable is pulled for a while",
    "slow": "a node's link has a fiftieth of its rate for a while",
    "disk": "the disk that a node saves checkpoints on is full for a while",
    "store": "the store is killed, and begins again from its journal",
    "power": "all training processes are killed at once, and go on from their checkpoints",
}
WITHOUT_LAB = ("kill", "stop", "store", "power")  #: that need no root


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Args:
        at: seconds behind the beginning.
        kind: of `KINDS`.
        lasts: seconds, of what lasts for a while.
    """

    at: float
    kind: str
    lasts: float = 8.0


def schedule(kinds: Sequence[str], every: float, seconds: float, seed: int) -> list[Fault]:
    """Faults of these kinds in turn, each within its interval at a time that the seed tells; none in the last one.

    Raises:
        ValueError: there is no such kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"faults must be of {', '.join(KINDS)}, not {kind!r}")
    if not every > 0:
        raise ValueError(f"every must be above 0 seconds, not {every}")
    draw = random.Random(seed)
    count = int(seconds / every) - 1
    return [
        Fault((number + draw.uniform(0.4, 0.8)) * every, kinds[number % len(kinds)])
        for number in range(max(0, count) + (1 if count < 1 else 0))
    ]
