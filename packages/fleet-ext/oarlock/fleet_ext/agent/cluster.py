"""The state of an elastic job, read from its store: for agents, and for people."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from oarlock.fleet_ext.elastic import Epoch, Size, membership
from oarlock.fleet_ext.rendezvous import Store


@dataclass(frozen=True, slots=True)
class Cluster:
    """
    Args:
        epoch: the latest; None before the first.
        there: processes whose lease lives.
        lost: of these, whom the others do without.
        size: what was asked for while the job ran, if anything.
        done: whether the job is over.
    """

    epoch: Epoch | None
    there: frozenset[str]
    lost: frozenset[str]
    size: Size | None
    done: bool

    @classmethod
    def read(cls, store: Store) -> Self:
        """
        Raises:
            StoreError: the store cannot be reached.
        """
        _, found = store.read(membership.ALL)
        epoch, size = found.get(membership.EPOCH), found.get(membership.SIZE)
        return cls(
            epoch=Epoch.unpack(epoch) if epoch is not None else None,
            there=_names(found, membership.NODES),
            lost=_names(found, membership.LOST),
            size=Size(**json.loads(size)) if size is not None else None,
            done=membership.DONE in found,
        )

    def rank(self, process: str) -> int | None:
        """None where it does not train."""
        return self.epoch.rank(process) if self.epoch is not None else None

    def given_up(self, process: str) -> bool:
        """Whether the others do without a process that had come.

        Its lease is over, or it was missing in an operation. One that can move says at once again that it is there.
        """
        if self.epoch is None or self.done:
            return False
        return process not in self.there or process in self.lost


def resize(store: Store, size: Size) -> None:
    """Asks for another number of nodes: those that train give the ranks anew after their present step.

    Raises:
        StoreError: the store cannot be reached.
    """
    store.set(membership.SIZE, json.dumps({"least": size.least, "most": size.most}).encode())


def _names(found: Mapping[str, bytes], prefix: str) -> frozenset[str]:
    return frozenset(key.removeprefix(prefix) for key in found if key.startswith(prefix))
