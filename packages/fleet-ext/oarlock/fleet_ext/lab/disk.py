"""A small disk that only some processes of a host have, and that can be full."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Mounts on its second argument a disk of the size that is the first, then becomes the command in the others. Within
#: `ip netns exec`, whose mounts nobody else sees and which end with its last process.
MOUNT = 'mount -t tmpfs -o "size=$0" lab "$1" && shift && exec "$@"'
BALLAST = ".ballast"
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Disk:
    """
    Args:
        folder: where it is; has to exist.
        size: bytes, in memory.

    Raises:
        ValueError: there is no such folder, or the size is not positive.
    """

    folder: Path
    size: int

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise ValueError(f"folder={str(self.folder)!r} has to be a directory")
        if self.size < _PIECE:
            raise ValueError(f"size={self.size} has to be at least {_PIECE} bytes")

    def command(self, argv: Sequence[str]) -> list[str]:
        """Runs a command with the disk."""
        return ["/bin/sh", "-c", MOUNT, str(self.size), str(self.folder.absolute()), *argv]

    def seen_from(self, pid: int) -> Path:
        """The folder as a process sees it that has the disk, for others."""
        return Path(f"/proc/{pid}/root") / self.folder.absolute().relative_to("/")

    def fill(self, pid: int) -> None:
        """Leaves no byte free."""
        with open(self.seen_from(pid) / BALLAST, "ab", buffering=0) as file:
            for piece in (_PIECE, 1):
                try:
                    while True:
                        file.write(bytes(piece))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self, pid: int) -> None:
        """Gives back what `fill` took."""
        path = self.seen_from(pid) / BALLAST
        if path.exists():
            os.unlink(path)
