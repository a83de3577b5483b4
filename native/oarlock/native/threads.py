"""How many threads a kernel uses: as asked, as Paddle, or the physical cores of this process."""

import functools
import math
import os
from pathlib import Path

from oarlock.native import _library

MAX_THREADS = 1024


def physical_cores(
    topology: Path = Path("/sys/devices/system/cpu"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Physical cores this process may use: CPU affinity, hyper-threads once, cgroup quota."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores: set[tuple[str, str]] = set()
    for cpu in os.sched_getaffinity(0):
        folder = topology / f"cpu{cpu}" / "topology"
        if not folder.is_dir():
            cores.add(("logical", str(cpu)))
            continue
        package = (folder / "physical_package_id").read_text().strip()
        core = (folder / "core_id").read_text().strip()
        cores.add((package, core))
    quota = _quota(cgroup)
    return len(cores) if quota is None else max(1, min(len(cores), math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """CPUs that the cgroup grants (version 2's cpu.max, version 1's cfs_quota), None for no limit."""
    version2, version1 = cgroup / "cpu.max", cgroup / "cpu" / "cpu.cfs_quota_us"
    if version2.exists():
        quota, period = version2.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    if version1.exists():
        granted = int(version1.read_text())
        period_us = int((version1.parent / "cpu.cfs_period_us").read_text())
        return None if granted < 0 else granted / period_us
    return None


def count(threads: int | None) -> int:
    """The number of threads of a kernel call.

    Args:
        threads: 1 to 1024. None for as many as Paddle's operators use when called from this
            thread, if Paddle is loaded (``accelerate()`` sets it, and 1 is what it comes with);
            otherwise for the physical cores, as they were at the first call.

    Raises:
        ValueError: ``threads`` is not such a number.
    """
    if threads is None:
        team = _library.load().functions.oarlock_team_size()
        return min(team, MAX_THREADS) if team else _default()
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise ValueError(f"threads must be a positive integer or None, not {threads!r}")
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads must be between 1 and {MAX_THREADS}, not {threads}")
    return threads


@functools.cache
def _default() -> int:
    return physical_cores()
