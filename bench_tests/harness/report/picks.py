"""Which records answer a question: the headline's cell, the best lossless one, ratios between records.

Records of one size and batch are a cell. Within it they are compared by their paired speed-ups, since a machine's speed
drifts between the rows and each was timed in turn with the same reference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench_tests.harness.report.material import Entry, Group, Interval, Variant, fastest

Cell = tuple[Entry, ...]


def headline(group: Group) -> Cell:
    """The records of `headline_size` at the batch with the most examples a second."""
    largest = group.at(size=headline_size(group))
    busiest = max(largest, key=lambda entry: (not entry.disturbed, entry.fps.value))
    return group.at(size=busiest.size, batch=busiest.batch)


def headline_size(group: Group) -> int:
    """The largest size that the weights were trained for; of a stream the shortest chunk, which answers first."""
    own = {entry.size for entry in group.entries if entry.record.get("weights_own") is not False}
    return group.sizes[0] if streamed(group) else max(own or group.sizes)


def one_at_a_time(group: Group) -> Cell:
    """The case of latency: the headline's size at its smallest batch."""
    size = headline_size(group)
    return group.at(size=size, batch=min(entry.batch for entry in group.at(size=size)))


def streamed(group: Group) -> bool:
    """Whether its sizes are chunks of one stream, each of which must be waited for."""
    return group.unit == "ms" and len(group.sizes) > 1


def cells(group: Group) -> dict[tuple[int, int], list[Entry]]:
    """All cells by size and batch, in ascending order."""
    found: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in group.entries:
        found[entry.size, entry.batch].append(entry)
    return dict(sorted(found.items()))


def lines(group: Group) -> dict[tuple[int, Variant], list[Entry]]:
    """The records of each variant at each size, the smallest batch first."""
    found: dict[tuple[int, Variant], list[Entry]] = defaultdict(list)
    for entry in sorted(group.entries, key=lambda entry: (entry.size, entry.batch)):
        found[entry.size, entry.variant].append(entry)
    return dict(found)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """The fastest first, and last those during which the machine was at other work."""
    return sorted(entries, key=lambda entry: (entry.disturbed, -entry.speedup.value))


def best_lossless(entries: Iterable[Entry]) -> Entry | None:
    """The fastest of the original model in fp32; None where there is none."""
    lossless = [entry for entry in entries if entry.lossless]
    return fastest(lossless) if lossless else None


def over(entry: Entry, base: Entry) -> Interval:
    """How much faster one record of a cell is than another: the ratio of their paired speed-ups.

    Its interval takes both ends at their worst, which is wider than 95 %.
    """
    if entry is base:
        return Interval(1.0, 1.0, 1.0)
    mine, other = entry.speedup, base.speedup
    return Interval(mine.value / other.value, mine.low / other.high, mine.high / other.low)


def told_apart(entry: Entry, other: Entry) -> bool:
    """Whether the intervals of two speed-ups leave no doubt which one is faster."""
    return entry.speedup.low > other.speedup.high or other.speedup.low > entry.speedup.high


def eager(entries: Iterable[Entry]) -> Entry | None:
    """PyTorch eager with the original in fp32; None where it has no row of its own."""
    return next((entry for entry in entries if entry.lossless and entry.variant.backend == "eager"), None)


def spread_apart(one: Entry, other: Entry) -> bool:
    """Whether the examples a second of two records differ by more than their blocks' standard deviations."""
    return one.fps.low > other.fps.high or other.fps.low > one.fps.high


def tolerated(entries: Sequence[Entry]) -> float | None:
    """The drop of the first quality that the workload can bear, in its own unit; None where the run does not say."""
    for entry in entries:
        found = entry.run.workloads.get(str(entry.record["workload"]), {}).get("tolerated_drop")
        if isinstance(found, int | float) and not isinstance(found, bool):
            return float(found)
    return None
