"""Shares of a core, enforced by the kernel through a cgroup for each limited process."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from oarlock.fleet_ext.lab.commands import CommandError, LabUnavailable, run
from oarlock.fleet_ext.lab.keeper import CpuTree, cpu_tree, name_for, remove_quota

#: Microseconds within which the share holds: short, so that a slow host is slow all the time rather
#: than fast and then halted.
PERIOD = 20_000
#: The kernel's least quota is 1 ms.
LEAST_CPUS = 1_000 / PERIOD
#: Joins the cgroup that is the first argument, then becomes the command in the others.
_JOIN = 'echo $$ >"$0" && exec "$@"'


def check_cpus(cpus: float | None) -> None:
    """Raises ValueError unless `cpus` is None or a share that a kernel can hold."""
    if cpus is not None and not (math.isfinite(cpus) and cpus >= LEAST_CPUS):
        raise ValueError(f"cpus={cpus} has to be None or at least {LEAST_CPUS:g} of a core")


def within(group: Path, command: Sequence[str]) -> list[str]:
    """The command that first joins a cgroup."""
    return ["/bin/sh", "-c", _JOIN, str(group / "cgroup.procs"), *command]


def shares_unavailable() -> str | None:
    """Why processes cannot have shares of a core here, found out by trying; None where they can."""
    try:
        group = make_group(f"{name_for(os.getpid(), time.monotonic_ns())}-share", 0.5)
    except LabUnavailable as error:
        return str(error)
    try:
        run(within(group, ["true"]))
    except CommandError as error:
        return f"no process can be put into {group.parent}: {error}"
    finally:
        remove_quota(group)
    return None


def parent_of_groups(tree: CpuTree) -> Path:
    """Below this process's own cgroup (beside it in version 2), so that its limits hold as well."""
    own = "/"
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if (number == "0") if tree.version == 2 else ("cpu" in controllers.split(",")):
            own = path
    parent = tree.root / own.lstrip("/")
    if tree.version == 2 and own != "/":
        parent = parent.parent
    return parent if parent.exists() else tree.root


def make_group(name: str, cpus: float) -> Path:
    """A new cgroup whose processes together get `cpus` cores.

    Raises:
        LabUnavailable: this machine, or this user, has no CPU quotas.
    """
    tree = cpu_tree()
    if tree is None:
        raise LabUnavailable("CPU quotas need the cpu controller of cgroups, which is not mounted")
    group = parent_of_groups(tree) / name
    quota = round(cpus * PERIOD)
    try:
        group.mkdir()
        if tree.version == 2:
            (group / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
    except OSError as error:
        if group.exists():
            group.rmdir()
        raise LabUnavailable(f"no CPU quota can be set in {group.parent}: {error}") from error
    return group
