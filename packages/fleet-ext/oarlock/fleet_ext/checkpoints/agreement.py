"""Steps of a checkpoint that succeed on all ranks, or fail on all."""

from collections.abc import Callable
from typing import Any

from oarlock.fleet_ext.transport import Group

FILES_S = 3600.0  #: until the slowest rank has written, read or checked its files


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, found or read; the message names ranks, files or tensors, and why."""


class Mismatch(CheckpointError, ValueError):
    """What was asked does not fit: to what other ranks have, or to what is stored."""


def place(group: Group | None) -> tuple[int, int]:
    """Rank and size; a process without a group is alone."""
    return (0, 1) if group is None else (group.rank, group.size)


def attempt(
    group: Group | None, function: Callable[[], Any], *, timeout: float | None = None
) -> list[Any]:
    """What `function()` returns on each rank, in plain values. All ranks call it.

    Args:
        timeout: seconds for the slowest rank; the group's where none is given.

    Raises:
        CheckpointError: it failed on a rank, which the message names; on all ranks. Mismatch where all that failed are.
        TransportError: a rank is missing.
    """
    error: Exception | None = None
    said: dict[str, Any]
    try:
        said = {"value": function()}
    except Exception as failed:  # whatever it is: the others wait, and must know
        error = failed
        said = {"error": told(failed), "mismatch": isinstance(failed, Mismatch)}
    everyone = [said] if group is None else group.all_gather_object(said, timeout=timeout).wait()
    failures = {rank: one for rank, one in enumerate(everyone) if "error" in one}
    if not failures:
        return [one["value"] for one in everyone]
    kind = Mismatch if all(one["mismatch"] for one in failures.values()) else CheckpointError
    ranks: dict[str, list[int]] = {}
    for rank, one in failures.items():
        ranks.setdefault(one["error"], []).append(rank)
    if len(everyone) == 1:
        raise kind(said["error"]) from error
    raise kind(
        "; ".join(
            f"rank{'s' * (len(those) > 1)} {', '.join(map(str, those))}: {text}"
            for text, those in ranks.items()
        )
    ) from error


def told(error: Exception) -> str:
    """An error in words; its type where the words alone would not do."""
    plain = isinstance(error, (CheckpointError, OSError)) or type(error) is ValueError
    return str(error) if plain else f"{type(error).__name__}: {error}"
