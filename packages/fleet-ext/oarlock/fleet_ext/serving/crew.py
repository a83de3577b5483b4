"""The replicas of one node: they are started, watched and ended, and those that died or hang are told."""

import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from oarlock.fleet_ext.children import Lines
from oarlock.fleet_ext.serving.process import Command, ReplicaProcess
from oarlock.fleet_ext.serving.records import Replica, State

_EARLY_S = 10.0  #: an end sooner than this, or before it ever answered, is a failure of the command
_BACKOFF_S = (0.5, 30.0)  #: between starts when they fail: the first, and the longest
GIVE_UP = 5  #: failures in a row, before any replica ever answered


class NeverAnswered(RuntimeError):
    """The command does not make a replica: it ended, or answered no health request, again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """
    Args:
        start: seconds until a replica answers for the first time.
        stuck: seconds for which no request of a replica gets on, until it is hung.
        drain: seconds for requests to end at a replica that is drained.
        end: seconds between SIGTERM and SIGKILL.

    Raises:
        ValueError: one is not above 0.
    """

    start: float = 300.0
    stuck: float = 300.0
    drain: float = 60.0
    end: float = 10.0

    def __post_init__(self) -> None:
        for name in ("start", "stuck", "drain", "end"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, not {getattr(self, name)}")


@dataclass(slots=True)
class Member:
    """A replica of this node."""

    process: ReplicaProcess
    state: State = "starting"
    slot: int | None = None
    answered: float | None = None  #: when it first did
    draining: float = 0.0  #: since when
    ending: float | None = field(default=None)  #: since when it is asked to end

    @property
    def id(self) -> str:
        return self.process.id

    def record(self, node: str) -> Replica:
        return Replica(id=self.id, node=node, host=self.process.host, port=self.process.port,
                       state=self.state, slot=self.slot)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loss:
    """A replica that is no longer there, and was not asked to go."""

    member: Member
    why: str


class Crew:
    """
    Args:
        command: of each replica.
        node: on which they are.
        patience: limits.
        lines: where what they write goes.
    """

    def __init__(self, command: Command, node: str, patience: Patience, lines: Lines) -> None:
        self._command, self._node, self._patience, self._lines = command, node, patience, lines
        self._numbers, self._run = itertools.count(1), secrets.token_hex(2)
        self._failures, self._next_start = 0, 0.0
        self._ever = False  #: whether any replica has answered
        self.members: list[Member] = []

    def start(self) -> bool:
        """Starts one more, if commands that failed lately do not forbid it."""
        if time.monotonic() < self._next_start:
            return False
        id = f"{self._node}-{self._run}-{next(self._numbers)}"
        self.members.append(Member(ReplicaProcess(self._command, id, self._lines)))
        return True

    def watch(self, quiet: Callable[[str], float]) -> list[Loss]:
        """Looks at all; who died or hangs is ended and no longer a member.

        Args:
            quiet: seconds for which no request of a replica has got on.

        Raises:
            NeverAnswered: there is no sense in going on.
        """
        lost = []
        for member in list(self.members):
            why = self._wrong(member, quiet)
            if why is not None:
                asked = member.ending is not None
                member.process.close()
                self.members.remove(member)
                if not asked:
                    self._count(member)
                    lost.append(Loss(member, why))
            elif member.state == "starting" and member.process.answers:
                member.state, member.answered, self._ever = "spare", time.monotonic(), True
        if not self._ever and self._failures >= GIVE_UP and lost:
            said = "\n".join(f"    {line}" for line in lost[-1].member.process.last_lines)
            raise NeverAnswered(f"{self._failures} replicas in a row did not begin: the last one {lost[-1].why};"
                                f" its last lines:\n{said or '    (none)'}")  # fmt: skip
        return lost

    def end(self, member: Member) -> None:
        """Asks it to end; `watch` sees that it does."""
        if member.ending is None:
            member.state, member.ending = "draining", time.monotonic()
            member.process.end()

    def close(self) -> None:
        """Ends all at once."""
        for member in self.members:
            member.process.close()
        self.members.clear()

    def _wrong(self, member: Member, quiet: Callable[[str], float]) -> str | None:
        """Why it does not count any more."""
        process, now, patience = member.process, time.monotonic(), self._patience
        if process.code is not None:
            return process.how()
        if member.ending is not None:
            return "took too long to end" if now > member.ending + patience.end else None
        if process.stopped:
            return "was stopped"
        if member.answered is None:
            late = now > process.begun + patience.start
            return f"did not answer within {patience.start:g} s" if late else None
        if process.silent > self._command.silent:
            return f"answered no health request for {process.silent:.1f} s"
        if quiet(member.id) > patience.stuck:
            return f"got on with no request for {quiet(member.id):.0f} s"
        return None

    def _count(self, member: Member) -> None:
        """A command that keeps failing is started ever more rarely."""
        now = time.monotonic()
        if member.answered is not None and now > member.answered + _EARLY_S:
            self._failures = 0
            return
        if member.answered is not None and self._failures == 0:
            self._failures = 1  # one that has answered may be killed once without a pause
            return
        pause = min(_BACKOFF_S[0] * 2**self._failures, _BACKOFF_S[1])
        self._failures, self._next_start = self._failures + 1, now + pause
