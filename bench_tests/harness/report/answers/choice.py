"""Which measured case meets a reader's needs best, by a rule that is stated.

Of the cases that meet all needs those come first that meet them at the unfavourable end of the interval too: the 95th
percentile of a latency, the interval of a drop, a quality or a speed-up, one standard deviation of a throughput. Of
these the largest input, of a stream the shortest chunk, unless a need is about the input or the quality; there the
batch with the most examples a second, or with the shortest call where a throughput is among the needs; within that cell
the largest paired speed-up. A record during which the machine was at other work meets nothing surely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench_tests.harness.report.answers.quantities import Need
from bench_tests.harness.report.material import Entry, Group
from bench_tests.harness.report.picks import ranked, streamed


@dataclass(frozen=True)
class Choice:
    """The recommended record, whether it surely meets the needs, and the next best ones."""

    entry: Entry
    sure: bool
    others: tuple[Entry, ...]


def choose(group: Group, needs: Sequence[Need]) -> Choice | None:
    """The record to take, by the rule above; None where no record meets all needs."""
    meeting = [entry for entry in group.entries if all(need.met(entry) for need in needs)]
    if not meeting:
        return None
    about = {need.name for need in needs}
    by_input, by_call = not about & {"input", "quality"}, "throughput" in about
    cells: dict[tuple[bool, int, int], list[Entry]] = {}
    for entry in meeting:
        sure = not entry.disturbed and all(need.surely_met(entry) for need in needs)
        cells.setdefault((sure, entry.size, entry.batch), []).append(entry)

    def rank(cell: tuple[bool, int, int]) -> tuple[float, ...]:
        speed = max(-entry.call_s if by_call else entry.fps.value for entry in cells[cell])
        return (cell[0], (-cell[1] if streamed(group) else cell[1]) if by_input else 0, speed)

    ordered = sorted(cells, key=rank, reverse=True)
    first, *others = (entry for cell in ordered for entry in ranked(cells[cell]))
    return Choice(first, ordered[0][0], tuple(others))


def closest(group: Group, needs: Sequence[Need]) -> Entry | None:
    """The record that misses the needs by least, taking its worst one; None where none has all figures."""
    known = [entry for entry in group.entries if all(need.value(entry) is not None for need in needs)]
    if not known:
        return None
    return min(known, key=lambda entry: max(need.missed_by(entry) for need in needs))
