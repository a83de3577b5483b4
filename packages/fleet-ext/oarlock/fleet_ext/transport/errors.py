"""What can go wrong between ranks. All are `TransportError`."""

from collections.abc import Sequence
from typing import Any


class TransportError(RuntimeError):
    """An operation between ranks failed; the group it belongs to is of no more use."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies have the words and attributes, and are not made anew: arguments differ from kind to kind."""
        return _copied, (type(self), self.args, self.__dict__)


class PeerLost(TransportError):
    """The connection to a rank is over: its process or its machine is gone, or it closed its groups and left.

    Attributes:
        rank: which.
        left: whether it said farewell; what it had sent is still received then.
    """

    def __init__(self, rank: int, why: str, *, left: bool = False) -> None:
        super().__init__(f"rank {rank} is lost: {why}")
        self.rank, self.left = rank, left


class TimedOut(TransportError):
    """An operation took too long.

    Attributes:
        missing: ranks that have not begun the operation, or do not answer at all.
    """

    def __init__(self, what: str, seconds: float, missing: Sequence[int], silent: Sequence[int]):
        said = []
        if silent:
            said.append(f"{_ranks(silent)} not answering (stopped, or cut off)")
        behind = [rank for rank in missing if rank not in silent]
        if behind:
            said.append(f"{_ranks(behind)} not there yet")
        words = "; ".join(said) or "all ranks are there and answer: the link is slow"
        super().__init__(f"{what} was not done in {seconds:g} s: {words}")
        self.missing, self.silent = tuple(missing), tuple(silent)


class NotConnected(TransportError):
    """Ranks did not come, or could not be reached.

    Attributes:
        missing: which.
    """

    def __init__(self, words: str, missing: Sequence[int]) -> None:
        super().__init__(words)
        self.missing = tuple(missing)


class Aborted(TransportError):
    """Somebody called `abort`, here or on another rank.

    Attributes:
        elsewhere: whether it was another rank.
    """

    def __init__(self, words: str, *, elsewhere: bool = False) -> None:
        super().__init__(words)
        self.elsewhere = elsewhere


class Disagreement(TransportError):
    """Ranks do not do the same.

    Attributes:
        rank: that does something else.
    """

    def __init__(self, rank: int) -> None:
        super().__init__(
            f"rank {rank} does something else here: call the same operations in the same order on all ranks, with the"
            " same op, root and type"
        )
        self.rank = rank


class Refused(TransportError):
    """A connection was refused: another job, epoch or token, or not of this protocol at all."""


def _ranks(given: Sequence[int]) -> str:
    one = len(given) == 1
    return f"rank{'' if one else 's'} {', '.join(map(str, given))} {'is' if one else 'are'}"


def _copied(
    kind: type[TransportError], arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> TransportError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(attributes)
    return error
