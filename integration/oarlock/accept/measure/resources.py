"""Memory and CPU time of this process and its children, and limits on what they may use."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_CGROUP_MOUNTS = Path("/proc/self/mountinfo")
_PERIOD_US = 100_000


class LimitUnavailable(RuntimeError):
    """A limit that cannot be set on this machine; the message says why."""


def _high_water(pid: int | str) -> int:
    """The most memory that a process held at once, in bytes; 0 for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def peak_memory() -> int:
    """Bytes that this process and its children held at most, each counted at its own peak.

    An upper bound of the joint peak, as the peaks may lie at different times; of the children that
    have ended only the greatest is known.
    """
    own = _high_water("self") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    running = sum(_high_water(child.pid) for child in psutil.Process().children(recursive=True))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return own + max(running, ended)


def cpu_seconds() -> float:
    """CPU time of this process, all threads, and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def limited(*, cpus: float | None = None, memory: int | None = None) -> Iterator[None]:
    """Restricts this process, and the children that it starts meanwhile.

    A whole number of CPUs is a matter of affinity, which works everywhere: it takes the first ones
    that this process may use. Threads that exist already keep theirs, so set it before a library
    starts its threads, or start a worker inside. A share of a CPU, and memory, need a cgroup v2
    that this user may make.

    Args:
        cpus: CPUs, such as 1 or 0.5.
        memory: bytes; what exceeds them is killed by the kernel.
    Raises:
        ValueError: not positive, or more CPUs than there are.
        LimitUnavailable: this machine does not permit it; says why.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if cpus is not None and not 0 < cpus <= len(allowed):
        raise ValueError(f"cpus must lie above 0 and at most at {len(allowed)}, got {cpus}")
    if memory is not None and memory <= 0:
        raise ValueError(f"memory must be above 0 bytes, got {memory}")
    values: dict[str, str] = {}
    if memory is not None:
        values |= {"memory.max": str(int(memory)), "memory.swap.max": "0"}
    whole = cpus is not None and float(cpus).is_integer()
    if cpus is not None and not whole:
        values["cpu.max"] = f"{int(cpus * _PERIOD_US)} {_PERIOD_US}"
    if values:
        with _cgroup(values):
            yield
        return
    if cpus is not None:
        os.sched_setaffinity(0, allowed[: int(cpus)])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _own_cgroup() -> Path:
    """The folder of this process's cgroup v2."""
    mounts = [line.split() for line in _CGROUP_MOUNTS.read_text(encoding="utf-8").splitlines()]
    roots = [fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"]
    if not roots:
        raise LimitUnavailable("no cgroup v2 is mounted on this machine")
    groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    own = next((line[len("0::/") :] for line in groups if line.startswith("0::/")), None)
    if own is None:
        raise LimitUnavailable("this process is in no cgroup v2")
    return Path(roots[0]) / own


@contextmanager
def _cgroup(values: dict[str, str]) -> Iterator[None]:
    """Puts this process into a new cgroup with these settings, and back at the end."""
    own = _own_cgroup()
    needed = {name.split(".")[0] for name in values}
    # A group with processes cannot hand controllers down, so the new one lies beside it; in the root.
    base = own.parent if (own / "cgroup.type").exists() else own
    try:
        offered = set((base / "cgroup.subtree_control").read_text(encoding="utf-8").split())
    except OSError as error:
        raise LimitUnavailable(f"cannot read the cgroup {base}: {error.strerror}") from error
    if missing := needed - offered:
        raise LimitUnavailable(
            f"the cgroup {base} hands down no controller for {', '.join(sorted(missing))}"
        )
    group = base / f"oarlock-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise LimitUnavailable(f"cannot make the cgroup {group}: {error.strerror}") from error
    try:
        for name, value in values.items():
            if name != "memory.swap.max" or (group / name).exists():
                (group / name).write_text(value, encoding="utf-8")
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
    except OSError as error:
        group.rmdir()
        raise LimitUnavailable(f"cannot set up the cgroup {group}: {error.strerror}") from error
    try:
        yield
    finally:
        (own / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
        try:
            group.rmdir()
        except OSError:
            pass  # a child still lives in it; the kernel keeps the empty group until reboot
