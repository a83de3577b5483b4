"""What a rank says that fails, so that the first failure is seen, and not what follows from it on other ranks.

An uncaught error of a rank ends the job on the others, too, with its words. They say so in one line each instead of a
traceback of their own (all of it with OARLOCK_FLEET_TRACEBACKS=1), and leave a note for who launched them.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from oarlock.fleet_ext.rendezvous import StoreError
from oarlock.fleet_ext.transport import Aborted, NotConnected, PeerLost

NOTES, TRACEBACKS = "OARLOCK_FLEET_NOTES", "OARLOCK_FLEET_TRACEBACKS"
_CHAIN = 20  #: errors behind an error


@dataclass(frozen=True, slots=True)
class Note:
    """Why a rank ended.

    Args:
        time: seconds since 1970.
        words: type and message of the error.
        follows: whether another rank's failure came first.
    """

    time: float
    words: str
    follows: bool

    def write(self, folder: Path, rank: int) -> None:
        part = folder / f".{rank}"
        part.write_text(json.dumps(asdict(self)))
        part.replace(folder / f"{rank}.json")

    @classmethod
    def read(cls, folder: Path, rank: int) -> Self | None:
        """None where the rank has left none."""
        try:
            return cls(**json.loads((folder / f"{rank}.json").read_text()))
        except FileNotFoundError:
            return None


class FailureWatch:
    """Lets this process say of an uncaught error what is said above; a launched process has one.

    Attributes:
        abort: tells the other ranks why; None while there is no way to them.
    """

    def __init__(self, rank: int) -> None:
        self.abort: Callable[[str], None] | None = None
        self._rank, self._before = rank, sys.excepthook
        folder = os.environ.get(NOTES)
        self._folder = Path(folder) if folder is not None else None
        self._whole = os.environ.get(TRACEBACKS) == "1"
        sys.excepthook = self._failed
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            # Paddle's handler prints a stack of C++ for it, though nothing is wrong with who is told to end.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _failed(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        cause = consequence_of(error)
        words = f"{kind.__name__}: {error}" if cause is None else str(cause)
        if self._folder is not None:
            Note(time.time(), words, cause is not None).write(self._folder, self._rank)
        # The words of these say all; the way to them is ours, not the script's.
        brief = cause is not None or isinstance(error, NotConnected | StoreError)
        if brief and not self._whole:
            print(f"rank {self._rank} ends: {words}", file=sys.stderr, flush=True)
        else:
            self._before(kind, error, trace)
        if cause is None and self.abort is not None:
            self.abort(words)


def consequence_of(error: BaseException | None) -> PeerLost | Aborted | None:
    """Another rank's failure, where an error came of it; hooks of gradients wrap it."""
    for _ in range(_CHAIN):
        if error is None or isinstance(error, PeerLost):
            return error
        if isinstance(error, Aborted) and error.elsewhere:
            return error
        error = error.__cause__ or error.__context__
    return None
