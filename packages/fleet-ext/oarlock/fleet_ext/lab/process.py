"""A process on a host of a lab."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from oarlock.fleet_ext.lab.keeper import NAMESPACES, inode, processes_in


class Process:
    """A process group on a host; made by `Host.start`.

    Attributes:
        argv: the command.
        pid: of the process, and the number of its group.
        log: the file with what it writes to its standard output and error.
    """

    def __init__(
        self, argv: Sequence[str], log: Path, popen: subprocess.Popen[bytes], space: str
    ) -> None:
        self.argv = list(argv)
        self.pid = popen.pid
        self.log = log
        self._popen = popen
        self._space = NAMESPACES / space

    def poll(self) -> int | None:
        """The exit status, −signal if a signal ended it, None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the exit status, −signal if a signal ended it.

        Raises:
            TimeoutError: it still runs after `timeout` seconds.
        """
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            command = " ".join(self.argv)
            raise TimeoutError(
                f"process {self.pid} still runs after {timeout} s ({command}); its log: {self.log}"
            ) from None

    def kill(self) -> None:
        """SIGKILL to the process and all of its group; nothing if they have ended."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP to the group: it hangs, with its connections open, until `cont`."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT to the group."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is None or self._survivors():
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return  # the last of them ended meanwhile

    def _survivors(self) -> bool:
        """Whether the ended process left others of its group; if so the number is still theirs."""
        for pid in processes_in({inode(self._space)}):
            try:
                if os.getpgid(pid) == self.pid:
                    return True
            except ProcessLookupError:
                continue  # ended meanwhile
        return False
