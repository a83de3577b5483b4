"""A process on a host of a lab."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from oarlock.fleet_ext.lab.keeper import NAMESPACES, inode, processes_in
from oarlock.fleet_ext.lab.quota import check_cpus, make_group, within


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

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        command: Sequence[str],
        *,
        log: str | Path,
        env: Mapping[str, str] | None,
        cwd: str | Path | None,
        cpus: float | None,
        space: str,
        quota: str,
    ) -> Self:
        """Runs a command in a session and process group of its own; its output is appended to `log`.

        Args:
            argv: the command as the caller wants it.
            command: `argv` with what has to come before it.
            space: the network namespace, by name.
            quota: a name for its share of the processor; needed with `cpus`.

        Raises:
            ValueError: there is no such program or directory, or `cpus` is too small.
            LabUnavailable: with `cpus`, where there are no CPU quotas.
        """
        if isinstance(argv, str) or not argv:
            raise ValueError(f"argv={argv!r} has to be a list of a program and its arguments")
        if cwd is not None and not Path(cwd).is_dir():
            raise ValueError(f"cwd={str(cwd)!r} has to be a directory")
        check_cpus(cpus)
        file = Path(log).absolute()
        if not file.parent.is_dir():
            raise ValueError(f"log={str(log)!r} has to be in a directory that exists")
        program = argv[0] if "/" not in argv[0] else str(Path(cwd or ".") / argv[0])
        if shutil.which(program, path=None if env is None else env.get("PATH", "")) is None:
            raise ValueError(f"argv[0]={argv[0]!r} is not a program that can be found and run")
        if cpus is not None:
            command = within(make_group(quota, cpus), command)
        with file.open("ab") as output:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        return cls(argv, file, popen, space)

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
