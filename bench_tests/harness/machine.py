"""What the operating system says of this machine: its CPU, the cores it lends us and the limits of our control group.

Linux tells all of it, macOS the name of the CPU and the number of cores. The files' places are arguments, so that
tests can put others there.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_CPUINFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")

# Extensions that kernels are chosen by. Other flags come and go with the Linux kernel and its mitigations.
_COMPUTE_FLAGS = re.compile(r"sse|ssse|avx|fma|f16c|amx|bmi|asimd|neon|sve|sme|fphp|i8mm|bf16")


@dataclass(frozen=True)
class CpuInfo:
    """The first processor of /proc/cpuinfo. On ARM, ``model`` is the part number and ``flags`` its features."""

    name: str
    vendor: str = ""
    family: str = ""
    model: str = ""
    stepping: str = ""
    mhz: float | None = None
    flags: frozenset[str] = frozenset()

    def revision(self) -> str:
        """What tells two CPUs of one name apart: a virtual machine calls every generation "AMD EPYC"."""
        numbers = {"family": self.family, "model": self.model, "stepping": self.stepping}
        words = [f"{key} {value}" for key, value in numbers.items() if value]
        extensions = sorted(flag for flag in self.flags if _COMPUTE_FLAGS.match(flag))
        if extensions:
            words.append("isa " + hashlib.sha256(" ".join(extensions).encode()).hexdigest()[:8])
        return " ".join(words)


def cpu_info(cpuinfo: Path = _CPUINFO) -> CpuInfo:
    """The CPU of this machine, as far as it can be known."""
    fields: dict[str, str] = {}
    for line in _read(cpuinfo).splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    return CpuInfo(
        name=fields.get("model name") or _name_without_cpuinfo(),
        vendor=fields.get("vendor_id") or fields.get("cpu implementer", ""),
        family=fields.get("cpu family") or fields.get("cpu architecture", ""),
        model=fields.get("model") or fields.get("cpu part", ""),
        stepping=fields.get("stepping") or fields.get("cpu revision", ""),
        mhz=float(fields["cpu mhz"]) if "cpu mhz" in fields else None,
        flags=frozenset((fields.get("flags") or fields.get("features", "")).split()),
    )


def affinity() -> tuple[int, ...]:
    """The logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def physical_cores(processors: tuple[int, ...], topology: Path = _TOPOLOGY) -> int:
    """On how many cores these logical processors lie: two threads of one core share its arithmetic units."""
    siblings = {_read(topology / f"cpu{n}/topology/thread_siblings_list") or str(n) for n in processors}
    return len(siblings)


def cpu_quota(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """How many cores' worth of time the control group grants (1.5 for one and a half), None if unlimited."""
    quotas = []
    for folder in _groups("cpu", root, membership):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        quota = quota or _read(folder / "cpu.cfs_quota_us")
        period = period or _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # unlimited is "max" in version 2 and "-1" in version 1
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def usable_cores() -> int:
    """How many threads can run at once without being throttled: the affinity, within the quota."""
    quota = cpu_quota()
    return min(len(affinity()), max(1, math.floor(quota)) if quota is not None else len(affinity()))


def memory_headroom_bytes(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int | None:
    """How much more memory the control group grants, None if unlimited. Unused file cache counts as free."""
    headrooms = []
    for folder in _groups("memory", root, membership):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
            headrooms.append(max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0)))
    return min(headrooms, default=None)


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """The folders of our control group and its ancestors, of version 1 and 2: the tightest limit of them holds.

    In a container our own path may not exist below the mount; the ancestors up to the mount still do.
    """
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:depth])


def _name_without_cpuinfo() -> str:
    try:  # macOS
        brand = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        brand = ""
    return brand or platform.processor() or platform.machine() or "unknown CPU"


def _read(path: Path) -> str:
    """A file's text without surrounding space, empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
