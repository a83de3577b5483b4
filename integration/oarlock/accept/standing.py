"""Where a criterion and a topic stand, given the verdicts of their evidence.

A criterion stands where its weakest judged measurement does, and a topic where its weakest
criterion does. Standard library only: the tables are made before anything is installed.
"""

from collections.abc import Iterable

VERDICTS = ("met", "short", "info", "not yet")


def weakest(verdicts: Iterable[str]) -> str:
    """The verdict of a whole from those of its parts: one that is short makes the whole short."""
    verdicts = set(verdicts)
    for verdict in ("short", "not yet", "info"):
        if verdict in verdicts:
            return verdict
    return "met" if verdicts else "not yet"


def of_criterion(verdicts: Iterable[str], *, pending: str | None = None) -> str:
    """A criterion's verdict from those of its measurements.

    Measurements that are for information only do not count beside judged ones. While some that the
    criterion asks for are pending, it is not met, whatever the others say.
    """
    verdicts = tuple(verdicts)
    verdict = weakest([verdict for verdict in verdicts if verdict != "info"] or verdicts)
    return "not yet" if pending and verdict == "met" else verdict
