"""What a lab has on the machine, and its removal; as a program, the keeper of one lab.

Everything a lab makes bears the lab's name, ``oarlock-lab-<pid>-<start>-<serial>``: the process that
owns it, when that process started (clock ticks since boot, so that a pid used again is not mistaken
for it), and a count. Nothing is removed that a living process owns, but by that process.

As a program (run by its path, so it imports nothing but the standard library) it takes that name,
waits for the owner to end, and removes the lab. PR_SET_PDEATHSIG would not do: it acts when the
*thread* that started a process ends, and reaches no grandchildren.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

PREFIX = "oarlock-lab"
NAME = re.compile(rf"({PREFIX}-(\d+)-(\d+)-\d+)-")
NAMESPACES = Path("/run/netns")
#: Seconds that killed processes have to be gone, and then their cgroups.
PATIENCE = 10.0


class CpuTree(NamedTuple):
    """Where cgroups with the cpu controller are mounted, and the version (1 or 2) of the interface."""

    root: Path
    version: int


def cpu_tree() -> CpuTree | None:
    """None where the cpu controller is not mounted."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, source = line.partition(" - ")
        root = Path(mount.split()[4])
        kind, _, options = source.split(maxsplit=2)
        if kind == "cgroup" and "cpu" in options.split(","):
            return CpuTree(root, 1)
        controllers = root / "cgroup.controllers"
        if kind == "cgroup2" and controllers.exists() and "cpu" in controllers.read_text().split():
            return CpuTree(root, 2)
    return None


def start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is none, or it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = status.rpartition(")")[2].split()  # from field 3 of proc(5), the state, on
    return None if fields[0] in "ZX" else int(fields[19])


def name_for(pid: int, serial: int) -> str:
    return f"{PREFIX}-{pid}-{start_of(pid)}-{serial}"


def owner_of(name: str) -> tuple[int, int]:
    """The pid and the start in a lab's name, or in the name of something of a lab."""
    found = NAME.match(name + "-")
    if found is None:
        raise ValueError(f"name={name!r} is not the name of a lab")
    return int(found[2]), int(found[3])


def namespaces(name: str) -> list[Path]:
    return sorted(NAMESPACES.glob(f"{name}-*"))


def quotas(name: str) -> list[Path]:
    """The cgroups of a lab."""
    tree = cpu_tree()
    if tree is None:
        return []
    return [
        Path(path) for path, _, _ in os.walk(tree.root) if Path(path).name.startswith(f"{name}-")
    ]


def inode(path: str | Path) -> tuple[int, int] | None:
    """What tells one namespace from another; None where there is none (the process has ended)."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return status.st_dev, status.st_ino


def processes_in(spaces: set[tuple[int, int] | None]) -> list[int]:
    """The processes whose network namespace is one of these, given by their inodes."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    wanted = spaces - {None}
    return [pid for pid in pids if inode(f"/proc/{pid}/ns/net") in wanted and pid != os.getpid()]


def end_processes(spaces: set[tuple[int, int] | None]) -> None:
    """Kills what runs in those namespaces until nothing does.

    Raises:
        TimeoutError: some of it does not end.
    """
    deadline = time.monotonic() + PATIENCE
    while found := processes_in(spaces):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {found} of a lab do not end after SIGKILL")
        kill_all(found)
        time.sleep(0.01)


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # ended meanwhile


def remove_quota(group: Path) -> None:
    """Kills what is left in a cgroup, and removes it."""
    deadline = time.monotonic() + PATIENCE
    while group.exists():
        try:
            kill_all([int(pid) for pid in (group / "cgroup.procs").read_text().split()])
            group.rmdir()
        except FileNotFoundError:
            return  # someone else removed it meanwhile
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def hold(space: Path, held: ExitStack) -> bool:
    """Keeps a namespace's inode from being another namespace's as long as `held`; False if it is gone."""
    try:
        descriptor = os.open(space, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    held.callback(os.close, descriptor)
    return True


def remove(name: str) -> None:
    """Ends the processes of a lab, and removes its namespaces (its links with them) and cgroups.

    It does not mind what is gone already, nor another process that does the same.

    Raises:
        TimeoutError, OSError, RuntimeError: something could not be removed.
    """
    found = namespaces(name)
    program = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") or "ip"
    with ExitStack() as held:
        spaces = {inode(space) for space in found if hold(space, held)}
        end_processes(spaces)
        for space in found:
            done = subprocess.run(
                [program, "netns", "delete", space.name], capture_output=True, text=True
            )
            if done.returncode and space.exists():
                raise RuntimeError(f"the namespace {space.name} stays: {done.stderr.strip()}")
        end_processes(spaces)  # what was on its way in
    for group in quotas(name):
        remove_quota(group)


def clean() -> list[str]:
    """Removes the labs whose owner has ended, and returns their names.

    Raises:
        TimeoutError, OSError, RuntimeError: something could not be removed.
    """
    everything = [path.name for path in namespaces(PREFIX) + quotas(PREFIX)]
    names = {found[1] for entry in everything if (found := NAME.match(entry))}
    stale = []
    for name in sorted(names):
        pid, start = owner_of(name)
        if start_of(pid) != start:
            remove(name)
            stale.append(name)
    return stale


def keep(name: str) -> None:
    """Waits until the owner has ended, then removes the lab."""
    pid, start = owner_of(name)
    try:
        owner = os.pidfd_open(pid)
    except ProcessLookupError:
        owner = None
    if owner is not None and start_of(pid) == start:
        select.select([owner], [], [])
    remove(name)


if __name__ == "__main__":
    keep(sys.argv[1])
