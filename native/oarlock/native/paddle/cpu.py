"""What the processor offers, as the operating system reports it."""

import os
from dataclasses import dataclass
from pathlib import Path

INTEL = "GenuineIntel"
_AVX2 = frozenset({"avx2", "fma"})
_AVX512 = frozenset({"avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl"})
_AVX512_BF16 = _AVX512 | {"avx512_bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A processor: ``vendor`` (cpuid leaf 0) and the ``flags`` usable under this kernel."""

    vendor: str
    flags: frozenset[str]

    @property
    def avx2(self) -> bool:
        return self.flags >= _AVX2

    @property
    def avx512(self) -> bool:
        return self.flags >= _AVX512

    @property
    def avx512_bf16(self) -> bool:
        return self.flags >= _AVX512_BF16


def parse(cpuinfo: str) -> Cpu:
    """Read the first processor of a ``/proc/cpuinfo`` text.

    Linux lists there what cpuid reports less what it does not enable (a kernel that does not
    save the AVX-512 registers shows no avx512 flag), so no separate check of XCR0 is needed.
    """
    fields = {}
    for line in cpuinfo.strip().split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    flags = fields.get("flags") or fields.get("Features", "")
    return Cpu(vendor=fields.get("vendor_id", "unknown"), flags=frozenset(flags.split()))


def this_cpu() -> Cpu:
    """The processor this process runs on; without ``/proc/cpuinfo``, one without features."""
    path = Path("/proc/cpuinfo")
    return parse(path.read_text()) if path.exists() else Cpu(vendor="unknown", flags=frozenset())


def physical_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Physical cores this process may run on: its CPU affinity, hyper-threads counted once."""
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
    return len(cores)
