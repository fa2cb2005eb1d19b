"""What a per-layer profile says of a model: what bounds its time, and what the roofline would leave of it.

A layer's roofline time is the longer of its FLOP at the measured peak and its bytes at the bandwidth of a copy; the
bounds themselves were judged when the profile was taken (`bench_tests.harness.bottlenecks`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from bench_tests.harness.report.material import Profile

WORDS: Mapping[str, str] = {"compute": "arithmetic", "memory": "memory traffic", "overhead": "overhead"}
BUSY = 0.95  # of a peak, from which on nothing more is to be had from the same arithmetic


class Load(NamedTuple):
    """All layers of one bound together."""

    bound: str
    share: float  # of the time
    time_s: float
    roofline_s: float
    flop: float
    operators: int


def roofline_s(profile: Profile, row: Mapping[str, Any], faster: float = 1.0, smaller: float = 1.0) -> float:
    """Seconds that the roofline allows a layer, with a peak that is higher and fewer bytes by these factors."""
    peak, copy = float(profile.ceiling["peak_gflops"]) * faster, float(profile.ceiling["copy_gb_per_s"]) * smaller
    return max(row["flop"] / peak, row["bytes_moved"] / copy) / 1e9 if peak > 0 and copy > 0 else 0.0


def possible(profile: Profile, faster: float = 1.0, smaller: float = 1.0) -> float | None:
    """How many times as fast the whole would be with every layer on its roofline; None where that is unknown."""
    least_s = sum(roofline_s(profile, row, faster, smaller) for row in profile.rows)
    return profile.total_s / least_s if least_s > 0 and profile.total_s > 0 else None


def loads(profile: Profile) -> list[Load]:
    """What each bound takes, the most first."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in profile.rows:
        found[row["bound"]].append(row)
    whole_s = sum(row["time_s"] for row in profile.rows)
    if whole_s <= 0:
        return []
    times_s = {bound: sum(row["time_s"] for row in rows) for bound, rows in found.items()}
    sums = [
        Load(
            bound,
            times_s[bound] / whole_s,
            times_s[bound],
            sum(roofline_s(profile, row) for row in rows),
            sum(row["flop"] for row in rows),
            sum(_whole(row.get("operators")) for row in rows),
        )
        for bound, rows in found.items()
    ]
    return sorted(sums, key=lambda load: -load.share)


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def families(profile: Profile) -> list[tuple[str, float]]:
    """What kinds of layers take which share of the time, the most first."""
    found: dict[str, float] = defaultdict(float)
    whole_s = sum(row["time_s"] for row in profile.rows)
    for row in profile.rows:
        found[row["family"]] += row["time_s"] / whole_s if whole_s > 0 else 0.0
    return sorted(found.items(), key=lambda item: -item[1])
