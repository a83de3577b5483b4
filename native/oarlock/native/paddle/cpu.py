"""What the processor offers, as the operating system reports it."""

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
