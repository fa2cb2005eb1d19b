"""What a processor could do at most by its documents: cores x clock x operations per cycle, or a card's data sheet.

The tables know x86-64 with AVX2 and a few cards. What is not in them has no figure, and the sentence says so.
"""

from __future__ import annotations

import psutil

from bench_tests.harness.machine import CpuInfo

# Dense peaks of the data sheets in GFLOP/s: bf16 and fp16 on tensor cores (int8: twice as many), fp32 without TF32.
# Matched in the name.
_CARDS = {
    "H100 80GB HBM3": (989e3, 67e3),  # the SXM card; PCIe and NVL are slower and not listed
    "H200 NVL": (836e3, 60e3),
    "H200": (989e3, 67e3),
    "A100": (312e3, 19.5e3),
}


def card_gflops(name: str, precision: str) -> tuple[float | None, str]:
    """GFLOP/s of a known card by its data sheet, and a sentence on it."""
    for known, (half, single) in _CARDS.items():
        if known in name:
            gflops = {"fp32": single, "int8": 2 * half}.get(precision, half)
            return gflops, f"data sheet of {known}, dense, no TF32"
    return None, f"no data sheet at hand for {name or 'this card'}"


def cpu_gflops(cpu: CpuInfo, precision: str, cores: int, maximum_mhz: float | None) -> tuple[float | None, str]:
    """GFLOP/s of ``cores`` cores, cores x clock x operations per cycle, and a sentence on what was taken for each."""
    per_cycle, units = _operations_per_cycle(cpu, precision)
    mhz = maximum_mhz or cpu.mhz
    if per_cycle is None or mhz is None:
        return None, units if per_cycle is None else "the system reports no clock"
    clock = f"{'the maximum of cpufreq' if maximum_mhz else 'the clock in /proc/cpuinfo'}, which turbo may exceed"
    gflops = cores * mhz / 1e3 * per_cycle
    return gflops, f"{cores} cores x {mhz / 1e3:.2f} GHz ({clock}) x {per_cycle} FLOP/cycle ({units})"


def _operations_per_cycle(cpu: CpuInfo, precision: str) -> tuple[int | None, str]:
    """FLOP per cycle and core, with the units that do them. Conversions to a wider type are taken as free."""
    single, units = _single_per_cycle(cpu)
    if single is None or precision == "fp32":
        return single, units
    if precision == "int8":
        if "amx_int8" in cpu.flags:
            return 2048, "AMX tiles in int8"
        if {"avx512_vnni", "avx_vnni"} & cpu.flags:
            return 4 * single, f"{units}, four times as many in int8"
    elif f"amx_{precision}" in cpu.flags:
        return 1024, f"AMX tiles in {precision}"
    elif f"avx512_{precision}" in cpu.flags:
        return 2 * single, f"{units}, twice as many in {precision}"
    return single, f"{units}; no {precision} instructions, so fp32's"


def _single_per_cycle(cpu: CpuInfo) -> tuple[int | None, str]:
    """In fp32: 2 FLOP x lanes x pipes. Sources: the vendors' optimisation guides and Agner Fog's tables."""
    model = int(cpu.model) if cpu.model.isdigit() else -1
    if "fma" not in cpu.flags or "avx2" not in cpu.flags:
        return None, "unknown: no AVX2 with FMA, and other instruction sets are not in the table"
    if cpu.vendor == "AuthenticAMD" and cpu.family == "23" and model < 0x30:
        return 16, "Zen 1, 2 x 128-bit FMA"
    # Zen 4 has AVX-512 but splits it in halves; the mobile Zen 5 cores do as well.
    narrow_zen5 = range(0x20, 0x30), range(0x60, 0x70)
    wide_amd = cpu.family == "26" and not any(model in models for models in narrow_zen5)
    # Intel's client cores have one 512-bit FMA unit, made of the two 256-bit ones.
    narrow_intel = model in {0x66, 0x7D, 0x7E, 0x8C, 0x8D, 0xA7}
    wide = wide_amd if cpu.vendor == "AuthenticAMD" else not narrow_intel
    if "avx512f" in cpu.flags and wide:
        return 64, "2 x 512-bit FMA"
    return 32, "2 x 256-bit FMA"


def maximum_mhz() -> float | None:
    """The highest clock that the system admits to, None where it does not, as on most virtual machines."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):  # psutil on some virtual machines and ARM Macs
        return None
    return frequency.max if frequency and frequency.max > 0 else None
