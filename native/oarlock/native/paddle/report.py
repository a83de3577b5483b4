"""What ``accelerate`` found and what it made of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One setting.

    Args:
        name: what is set.
        before: its value when ``accelerate`` was called.
        after: its value now.
        applied: True if the value this machine should have is in force now, whether this call
            set it or it was so already; False if it could not be brought about.
        reason: why, and where ``applied`` is False what to do about it.
    """

    name: str
    before: str
    after: str
    applied: bool
    reason: str

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def __str__(self) -> str:
        mark = "ok " if self.applied else "NOT"
        values = f"{self.before} -> {self.after}" if self.changed else self.after
        return f"[{mark}] {self.name}: {values} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Report:
    """The settings ``accelerate`` looked at, in order."""

    changes: tuple[Change, ...]

    @property
    def ok(self) -> bool:
        """True if every setting is as this machine should have it."""
        return all(change.applied for change in self.changes)

    def __getitem__(self, name: str) -> Change:
        for change in self.changes:
            if change.name == name:
                return change
        raise KeyError(f"no setting {name!r}; there are {[c.name for c in self.changes]}")

    def __str__(self) -> str:
        return "\n".join(str(change) for change in self.changes)
