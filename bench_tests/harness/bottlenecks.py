"""What bounds each layer of a model, and which method addresses it: a reading of measured figures, no measuring.

After Williams, Waterman & Patterson, "Roofline", CACM 52 (2009), with the measured ceiling of `harness.roofline`. A
layer's roofline time is the longer of its FLOP at the peak and its bytes at the bandwidth of a copy; that divided by
its real time is its share of what the roofline allows at its intensity, min(peak, intensity x bandwidth). Then it is

- overhead-bound, if it takes more than 5 times its roofline time, at less than 100 us an operator: the calls of the
  framework, and waking threads, cost more than the work;
- else memory-bound, if the bytes take longer than the FLOP;
- else compute-bound.

Limits: a copy's bandwidth is that of the main memory. Where activations stay in a cache a layer exceeds it, and may
stand above 100 % of its roofline. A kernel that is far from its roofline at more than 100 us an operator is a poor
kernel; its bound is the one that a good one would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench_tests.harness.layer_times import Layer, Profile
from bench_tests.harness.layers import OUTSIDE
from bench_tests.harness.roofline import Ceiling

OVERHEAD_RATIO = 5.0
OVERHEAD_OPERATOR_S = 100e-6
BOUNDS = ("compute", "memory", "overhead")
TAKE = {"compute": "INT8, prune", "memory": "fuse, INT8", "overhead": "compile"}
SIZE = "size only"
HEAVY = 0.05  # of all parameters
IDLE = 8.0  # times as large a share of the parameters as of the time
_POOR = 0.8  # of the roofline: below it, a better fp32 kernel is the first thing to try


@dataclass(frozen=True)
class Row:
    """A layer, and what its figures mean."""

    layer: Layer
    share: float  # of the sum of all rows' times
    roofline_s: float
    bound: str  # compute, memory or overhead; mixed for a sum over rows of several
    take: str  # the methods that address it, in a few words

    @property
    def intensity(self) -> float | None:
        """FLOP a byte; None where nothing is moved."""
        return self.layer.flop / self.layer.bytes_moved if self.layer.bytes_moved else None

    @property
    def gflops(self) -> float | None:
        """Reached GFLOP/s; None where no time could be measured."""
        return self.layer.flop / self.layer.time_s / 1e9 if self.layer.time_s else None

    @property
    def of_roofline(self) -> float | None:
        """Share of what the roofline allows at this intensity; None where no time could be measured."""
        return self.roofline_s / self.layer.time_s if self.layer.time_s else None

    def record(self) -> dict[str, Any]:
        """All of it as numbers and strings, units in the names."""
        return {
            **asdict(self.layer), "share": self.share, "roofline_s": self.roofline_s, "of_roofline": self.of_roofline,
            "flop_per_byte": self.intensity, "gflops": self.gflops, "bound": self.bound, "take": self.take,
        }  # fmt: skip


def terms_s(flop: int, bytes_moved: int, ceiling: Ceiling) -> tuple[float, float]:
    """Seconds of so much arithmetic at the peak, and of so many bytes at the bandwidth of a copy."""
    return flop / (ceiling.peak_gflops * 1e9), bytes_moved / (ceiling.copy_gb_per_s * 1e9)


def raised(ceiling: Ceiling, profile: Profile) -> Ceiling:
    """A ceiling no lower than what a layer has just reached: the kept one may have been measured on a busy machine."""
    reached = max((layer.flop / layer.time_s / 1e9 for layer in profile.layers if layer.time_s), default=0.0)
    return replace(ceiling, peak_gflops=reached) if reached > ceiling.peak_gflops else ceiling


def bound(layer: Layer, ceiling: Ceiling) -> str:
    """What a layer's time is bound by, by the rule above."""
    compute_s, memory_s = terms_s(layer.flop, layer.bytes_moved, ceiling)
    longest_s, operator_s = max(compute_s, memory_s), layer.time_s / max(1, layer.operators)
    if longest_s == 0 or (layer.time_s > OVERHEAD_RATIO * longest_s and operator_s < OVERHEAD_OPERATOR_S):
        return "overhead"
    return "memory" if memory_s > compute_s else "compute"


def take(found: str, time_share: float, parameter_share: float) -> str:
    """The methods that address a layer; of one with many parameters and little time only the size can be won."""
    if parameter_share >= HEAVY and parameter_share >= IDLE * time_share:
        return SIZE
    return TAKE[found]


def judged(profile: Profile, ceiling: Ceiling) -> list[Row]:
    """All layers and the rest, the longest first. Shares add up to 1."""
    total_s, parameters = profile.total_s, sum(part.parameters for part in profile.parts)
    rows = []
    for part in profile.parts:
        found, share = bound(part, ceiling), part.time_s / total_s
        methods = take(found, share, part.parameters / parameters if parameters else 0.0)
        rows.append(Row(part, share, max(terms_s(part.flop, part.bytes_moved, ceiling)), found, methods))
    return _sorted(rows)


def shown(rows: Sequence[Row], top: int | None) -> list[Row]:
    """The rows of a table: the ``top`` longest layers, or all that hold parameters; the others in one row.

    What lies outside of the layers always has a row of its own.
    """
    layers = [row for row in rows if row.layer.name != OUTSIDE]
    kept = [row for row in layers if row.layer.parameters] if top is None else layers[:top]
    others = [row for row in layers if row not in kept]
    together = [_summed(others)] if len(others) > 1 else others
    return _sorted([*kept, *together, *(row for row in rows if row.layer.name == OUTSIDE)])


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.layer.time_s, reverse=True)


def _summed(rows: Sequence[Row]) -> Row:
    layers, bounds, takes = [row.layer for row in rows], {row.bound for row in rows}, {row.take for row in rows}
    families = dict.fromkeys(layer.family for layer in layers)
    words = ", ".join(f"{sum(layer.family == name for layer in layers)} {name}" for name in families)
    names = ("calls", "operators", "time_s", "flop", "bytes_moved", "parameters")
    sums = {name: sum(getattr(layer, name) for layer in layers) for name in names}
    return Row(
        Layer(f"({len(rows)} other layers)", words, "other layers", **sums),
        sum(row.share for row in rows),
        sum(row.roofline_s for row in rows),
        bounds.pop() if len(bounds) == 1 else "mixed",
        takes.pop() if len(takes) == 1 else "-",
    )


def answer(rows: Sequence[Row], ceiling: Ceiling) -> str:
    """The class that takes most of the time, in one line, and what to take first."""
    times_s = {found: sum(row.layer.time_s for row in rows if row.bound == found) for found in BOUNDS}
    found = max(BOUNDS, key=lambda name: times_s[name])
    members, time_s, total_s = [row for row in rows if row.bound == found], times_s[found], sum(times_s.values())
    gflops = sum(row.layer.flop for row in members) / time_s / 1e9
    gb_per_s = sum(row.layer.bytes_moved for row in members) / time_s / 1e9
    reached = sum(row.roofline_s for row in members) / time_s
    if found == "compute":
        how = f"at {gflops / ceiling.peak_gflops:.0%} of the peak"
        first = "take a compiled backend first, then" if reached < _POOR else "fp32 kernels are near their limit, take"
        advice = f"{first} INT8 or structured pruning"
    elif found == "memory":
        how = f"at {gb_per_s / ceiling.copy_gb_per_s:.0%} of the copy bandwidth"
        advice = "take a compiled backend, which fuses, first, then INT8 or fewer channels"
    else:
        how = f"of which the roofline explains {reached:.1%}"
        advice = "take a compiled graph or larger batches; less arithmetic will not help"
    ms = f"{1e3 * total_s:.3g}" if total_s < 1 else f"{1e3 * total_s:.0f}"
    return f"{time_s / total_s:.0%} of {ms} ms is {found}-bound: {_main_families(members)}, {how}: {advice}"


def _main_families(rows: Iterable[Row]) -> str:
    """The families that make 80 % of the time of these rows, three at most."""
    times_s: dict[str, float] = {}
    for row in rows:
        times_s[row.layer.family] = times_s.get(row.layer.family, 0.0) + row.layer.time_s
    names: list[str] = []
    for name in sorted(times_s, key=lambda name: -times_s[name]):
        if len(names) == 3 or sum(times_s[one] for one in names) >= 0.8 * sum(times_s.values()):
            break
        names.append(name)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
