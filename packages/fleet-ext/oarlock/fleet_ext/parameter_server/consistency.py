"""How far workers may be apart."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asynchronous:
    """Every push is applied when it comes, and nobody waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """
    Args:
        workers: how many there are.
        rank: of this one, from 0 on.
        lease: seconds after which a worker that is gone is not waited for. One that comes in its place before goes on
            where it was.
    """

    workers: int
    rank: int
    lease: float = 10.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")
        if not 0 <= self.rank < self.workers:
            raise ValueError(f"rank must be from 0 to {self.workers - 1}, not {self.rank}")
        if not self.lease > 0:
            raise ValueError(f"lease must be above 0 s, not {self.lease}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchronous(_Ranked):
    """Pushes of a step are averaged over all workers and applied once, as if one process had computed them.

    A pull gives what all steps before have made, and waits for them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleSynchronous(_Ranked):
    """Pushes are applied when they come; a worker waits where it is more than so many steps ahead of another.

    Args:
        bound: steps; 0 lets all begin each step together.

    Source: Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server", 2013.
    """

    bound: int = 1

    def __post_init__(self) -> None:
        # Classes with slots have no zero-argument super() here.
        _Ranked.__post_init__(self)
        if self.bound < 0:
            raise ValueError(f"bound must be at least 0, not {self.bound}")


Consistency = Asynchronous | Synchronous | StaleSynchronous
