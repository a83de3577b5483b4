"""Which process is to be ended because it does nothing."""

from pathlib import Path

from oarlock.fleet_ext.agent.cluster import Cluster
from oarlock.fleet_ext.agent.progress import Phase, Progress


class Watchdog:
    """Tells a process that hangs from one that loads, compiles, or waits for others.

    It hangs where it is stopped (SIGSTOP, state T) for a while; or where it had taken part, the others have
    given it up (its lease is over, or it was missing in an operation), and it does not come back by itself, which a
    process does at once that can move. Who loads has not taken part yet, and who waits for others is not given up:
    neither is ended, however long it takes.

    Args:
        process: its name in the job.
        stopped: seconds for which it may be stopped.
        hung: seconds for which it may be given up.
    """

    def __init__(self, process: str, *, stopped: float, hung: float) -> None:
        self._process = process
        self._limits = {"stopped": stopped, "hung": hung}
        self._since: dict[str, float] = {}

    def look(
        self, now: float, states: str, progress: Progress, cluster: Cluster | None
    ) -> str | None:
        """Why it is to be ended; None where it is not.

        Args:
            now: seconds, of any clock.
            states: of its processes, letters as in /proc/PID/stat.
            cluster: None while the store cannot be reached, in which time nothing is known of the others.
        """
        self._note("stopped", now, "T" in states)
        alone = (
            cluster is not None
            and progress.phase is not Phase.OUTSIDE
            and cluster.given_up(self._process)
        )
        self._note("hung", now, alone)
        for what, begun in self._since.items():
            if now - begun >= self._limits[what]:
                return _WORDS[what].format(now - begun, progress.steps)
        return None

    def _note(self, what: str, now: float, so: bool) -> None:
        if so:
            self._since.setdefault(what, now)
        else:
            self._since.pop(what, None)


_WORDS = {
    "stopped": "it was stopped for {:.1f} s, after {} steps",
    "hung": "the others have done without it for {:.1f} s, and it does not move, after {} steps",
}


def state_of(pid: int) -> str:
    """The letter of a process's state; empty where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat[stat.rindex(")") + 2]
