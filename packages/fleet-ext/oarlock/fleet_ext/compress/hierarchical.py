"""One code for each host: exact means within hosts, codes between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from oarlock.fleet_ext.compress.averaging import (
    PIECE,
    Averager,
    Averaging,
    Left,
    Mean,
    Shape,
    Written,
)
from oarlock.fleet_ext.compress.coded import Coded
from oarlock.fleet_ext.compress.hosts import HostGroups, host_groups, numbered
from oarlock.fleet_ext.compress.states import named, part_of
from oarlock.fleet_ext.transport import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchical(Averaging):
    """Float32 within a host, whose leader sends other leaders codes of the host's mean; a slow link has one code for each host.

    Ranks of a host share memory, which is fast. The mean is that of all ranks: with H hosts and N ranks, a leader sends
    H / N times the sum of its ranks, and what codes leave out stays with it. With a single host it has a code, too.

    Args:
        between: the averaging between hosts.
        hosts: name of each rank's host; None for what ranks find when they start.
    """

    between: Averaging = field(default_factory=Coded)
    hosts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.between, Averaging) or isinstance(self.between, Hierarchical):
            raise ValueError(
                f"between must be another averaging, as averaging_of('int4'), not {self.between!r}"
            )
        if self.hosts is not None and (isinstance(self.hosts, str) or not self.hosts):
            raise ValueError(
                f"hosts must be the name of each rank's host, as ('a', 'a', 'b'), not {self.hosts!r}"
            )

    @property
    def name(self) -> str:
        return f"{self.between.name} between hosts"

    @property
    def remembers(self) -> bool:  # type: ignore[override]
        return self.between.remembers

    @property
    def momentum(self) -> float:  # type: ignore[override]
        return self.between.momentum

    @property
    def rounds(self) -> int:  # type: ignore[override]
        return self.between.rounds + 2

    def start(self, shapes: Sequence[Shape], key: int, group: Group) -> Averager:
        return _HierarchicalAverager(self.between, shapes, key, host_groups(group, self.hosts))

    def traffic(self, shapes: Sequence[Shape], size: int) -> int:
        """Bytes that each host's leader sends to the others; what stays within a host is not counted.

        Raises:
            ValueError: nobody has said which ranks are on one host.
        """
        if self.hosts is None or len(self.hosts) != size:
            raise ValueError(
                f"hosts must be given for {size} ranks to know what they send: Hierarchical(hosts=('a', 'a', 'b', ...))"
            )
        return self.between.traffic(shapes, max(numbered(self.hosts)) + 1)


class _HierarchicalAverager(Averager):
    """What ranks have inherited goes to their leaders before the first mean; from then on only these have something left."""

    def __init__(
        self, between: Averaging, shapes: Sequence[Shape], key: int, groups: HostGroups
    ) -> None:
        super().__init__(shapes, key)
        self._groups = groups
        self._ranks, count = len(groups.places), self.layout.count
        # Rows of one length for the ranks of the host, which add up one each. Then the mean; before the first, what is inherited.
        self._rows = np.zeros((groups.within.size, -(-count // groups.within.size)), np.float32)
        self._acc = self._rows.reshape(-1)[:count]
        self._velocity = np.zeros(count, np.float32) if between.momentum else None
        self._inherited = True
        self._inner: Averager | None = None
        if groups.leaders is not None:
            self._inner = between.start(shapes, key, groups.leaders)

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        try:
            if self._inherited:
                self._hand_over()
            return self._averaged(step, gradients)
        except Exception as error:
            # Ranks of this host and leaders of others may not be in a group with whom is lost.
            self._groups.abort(f"{type(error).__name__}: {error}")
            raise

    def _averaged(self, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        count, leaders = self.layout.count, self._groups.leaders
        for begin in range(0, count, PIECE):
            span = slice(begin, min(begin + PIECE, count))
            self._acc[span] = 0.0
            self.layout.add(gradients, self._acc, span)
        share = self._host_share()
        if self._inner is not None and leaders is not None and share is not None:
            mean = self._inner.average(leaders, step, self.layout.split(share))
            mean.write(self.layout.split(self._acc))
        if self._groups.within.size > 1:
            self._groups.within.broadcast(self._acc).wait()
        return Written(self.layout, self._acc)

    def _host_share(self) -> np.ndarray | None:
        """Of what the host's ranks have in their rows, so that the mean over hosts is that over ranks; at the leader."""
        within = self._groups.within
        whole: np.ndarray | None = self._rows
        if within.size > 1:
            row = within.reduce_scatter(self._rows, "mean").wait()
            whole = within.gather(row).wait()
        if whole is None:
            return None
        share = whole.reshape(-1)[: self.layout.count]
        weight = within.size * self._groups.count / self._ranks
        if weight != 1:
            share *= np.float32(weight)
        return share

    def _hand_over(self) -> None:
        """Gives the leader what the host's ranks have inherited."""
        unsent, velocity = self._host_share(), None
        if self._velocity is not None:
            unsent = None if unsent is None else unsent.copy()
            self._acc[...] = self._velocity
            velocity = self._host_share()
            self._velocity[...] = 0.0
        if self._inner is not None and unsent is not None:
            self._inner.inherit(Left(unsent, velocity))
        self._inherited = False

    def left(self, group: Group) -> Left:
        leaders = self._groups.leaders
        if self._inner is not None and leaders is not None and not self._inherited:
            return self._inner.left(leaders).scaled(self._ranks / self._groups.count)
        velocity = None if self._velocity is None else self._velocity.copy()
        return Left(self._waiting(), velocity)

    def _waiting(self) -> np.ndarray:
        """What the leader does not have yet."""
        return self._acc.copy() if self._inherited else np.zeros_like(self._acc)

    def inherit(self, left: Left) -> None:
        super().inherit(left)
        if self._velocity is not None:
            self._velocity[...] = 0.0 if left.velocity is None else left.velocity
        self._inherited = True

    def fade(self, share: float) -> None:
        if self._inherited:
            super().fade(share)
            if self._velocity is not None:
                self._velocity *= np.float32(share)
        elif self._inner is not None:
            self._inner.fade(share)

    def state(self) -> dict[str, np.ndarray]:
        found = {
            "acc": self._waiting(),
            "inherited": np.array(self._inherited),
            "hosts": np.array(self._groups.places),
        }
        if self._velocity is not None:
            found["velocity"] = self._velocity.copy()
        if self._inner is not None:
            found |= named("between", self._inner.state())
        return found

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        mine = list(self._groups.places)
        hosts = state["hosts"].tolist() if "hosts" in state else mine
        if hosts != mine:
            raise ValueError(
                f"state must be of ranks on hosts {mine}, not {hosts}: start them as"
                " they were, or without communication state"
            )
        super().load(state)

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._acc[...] = state["acc"]
        self._inherited = bool(state["inherited"])
        if self._velocity is not None:
            self._velocity[...] = state["velocity"]
        if self._inner is not None:
            self._inner.load(part_of(state, "between"))

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
        self._groups.close()
