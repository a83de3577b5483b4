"""Where and from what a measurement was made: checkout, commit, versions, hardware."""

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import platform
import subprocess
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

THIRD_PARTIES = ("paddlepaddle", "paddlepaddle-gpu", "numpy")
_MARK = Path("integration/oarlock/accept/criteria.toml")
_SOURCES = (".py", ".toml", ".so")


def checkout() -> Path | None:
    """The checkout that the working folder lies in, or else these sources; None for a wheel elsewhere."""
    here = Path(__file__).resolve()
    for folder in (Path.cwd(), *Path.cwd().parents, *here.parents):
        if (folder / _MARK).exists():
            return folder
    return None


def results_root() -> Path:
    """The folder of evidence: that of the checkout, or `results` in the working folder."""
    root = checkout()
    return Path("results") if root is None else root / "integration" / "results"


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str:
    """The commit of the checkout, with `-dirty` if sources differ from it; a version elsewhere."""
    root = checkout()
    head = None if root is None else _git(root, "rev-parse", "--short=12", "HEAD")
    if root is None or head is None:
        return f"version {version('oarlock-accept') or 'unknown'}"
    sources = ("native", "packages", "integration", ":!integration/results")
    return head + ("-dirty" if _git(root, "status", "--porcelain", "--", *sources) else "")


def _packages() -> list[str]:
    """The packages of the namespace that are here, such as "oarlock.llm"."""
    namespace = importlib.import_module("oarlock")
    return sorted(f"oarlock.{module.name}" for module in pkgutil.iter_modules(namespace.__path__))


def version(distribution: str) -> str | None:
    """The version of a distribution, from its metadata or from the sources in the checkout."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        root = checkout()  # Pants runs the sources, which have no metadata
    if root is None:
        return None
    folder = distribution.removeprefix("oarlock-")
    for place in (f"packages/{folder}", "native", "integration"):
        path = root / place / "pyproject.toml"
        if path.exists():
            project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
            if project["name"] == distribution:
                return project["version"]
    return None


def versions() -> dict[str, str]:
    """The versions of Python, Paddle, NumPy and all packages of ours."""
    names = [package.replace(".", "-").replace("_", "-") for package in _packages()]
    ours = {name: version(name) or "from source" for name in names}
    third = {name: text for name in THIRD_PARTIES if (text := version(name)) is not None}
    return {"python": platform.python_version()} | third | ours


@cache
def _package_folders() -> tuple[Path, ...]:
    found = []
    for package in _packages():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            found += [Path(entry) for entry in spec.submodule_search_locations]
    return tuple(found)


def fingerprint(module: str) -> str:
    """A hash of the sources that an experiment in `module` may use: all but other experiments."""
    own = module.rsplit(".", 1)[-1] + ".py"
    digest = hashlib.sha256()
    for folder in _package_folders():
        for path in sorted(folder.rglob("*")):
            other = path.parent.name == "topics" and path.name != own
            if path.suffix in _SOURCES and path.is_file() and not other:
                digest.update(f"{folder.name}/{path.relative_to(folder)}\n".encode())
                digest.update(path.read_bytes())
    if spec := importlib.util.find_spec(module):
        if spec.origin:
            digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()[:16]


def cpu_model() -> str:
    """What the processor calls itself."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    return platform.processor() or platform.machine()


def _number(paths: Iterable[str]) -> int | None:
    for path in map(Path, paths):
        if path.exists():
            text = path.read_text(encoding="utf-8").split()[0]
            return int(text) if text.lstrip("-").isdigit() else None
    return None


def memory_limit() -> int | None:
    """Bytes that the cgroup allows, if less than the machine has."""
    limit = _number(
        ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"],
    )
    return limit if limit is not None and limit < psutil.virtual_memory().total else None


def cpu_limit() -> float | None:
    """CPUs that the cgroup allows, if it restricts them."""
    path = Path("/sys/fs/cgroup/cpu.max")
    if path.exists():
        quota, period = path.read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us = _number(["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"])
    period_us = _number(["/sys/fs/cgroup/cpu/cpu.cfs_period_us"])
    if quota_us is None or period_us is None or quota_us <= 0:
        return None
    return quota_us / period_us


def limits() -> list[str]:
    """What restricts this process, in words."""
    found = []
    allowed, installed = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    if allowed < installed:
        found.append(f"affinity to {allowed} of {installed} CPUs")
    if (cpus := cpu_limit()) is not None:
        found.append(f"cgroup: {cpus:g} CPUs")
    if (memory := memory_limit()) is not None:
        found.append(f"cgroup: {memory / 2**30:.1f} GiB memory")
    if threads := os.environ.get("OMP_NUM_THREADS"):
        found.append(f"OMP_NUM_THREADS={threads}")
    return found


def gpus() -> list[str]:
    """The names of the NVIDIA GPUs that the driver shows."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def hardware() -> dict[str, str | int]:
    """The machine, in words."""
    found: dict[str, str | int] = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "limits": "; ".join(limits()) or "none",
    }
    if cards := gpus():
        found["gpu"] = ", ".join(cards)
    return found
