"""Which cases of a matrix stand in one figure: along one dimension, for a few values of the other, some variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bench_tests.harness.report.material import Entry, Group, Variant
from bench_tests.harness.report.picks import eager
from bench_tests.harness.report.wording import cut

MOST_LINES = 8  # in a figure
MOST_CHOICES = 12  # of the other dimension


@dataclass(frozen=True)
class Sweep:
    """What a group shows along one dimension.

    ``along`` is size or batch, ``across`` the other one, of which ``choices`` can be shown and ``first`` is shown.
    """

    group: Group
    along: str
    across: str
    choices: tuple[int, ...]
    first: int
    variants: tuple[Variant, ...]
    entries: tuple[Entry, ...]  # of these variants and choices

    @cached_property
    def here(self) -> list[Entry]:
        """What the picture shows."""
        return [entry for entry in self.entries if getattr(entry, self.across) == self.first]

    @cached_property
    def by_stop(self) -> dict[int, list[Entry]]:
        """What the picture shows at each of its sizes or batches, from left to right."""
        found: dict[int, list[Entry]] = {}
        for entry in sorted(self.here, key=lambda entry: int(getattr(entry, self.along))):
            found.setdefault(getattr(entry, self.along), []).append(entry)
        return found

    @property
    def fullest(self) -> int:
        """The largest of those at which most variants have a case: some fail at the last ones."""
        return max(self.by_stop, key=lambda stop: (len(self.by_stop[stop]), stop))

    def of(self, variant: Variant) -> list[Entry]:
        """A line of the picture, from left to right."""
        line = [entry for entry in self.here if entry.variant == variant]
        return sorted(line, key=lambda entry: int(getattr(entry, self.along)))

    def place(self, value: int, *, along: bool = True) -> str:
        """``224 px`` or ``batch 8``."""
        name = self.along if along else self.across
        return f"batch {value}" if name == "batch" else f"{value} {cut(self.group.unit, 12)}"


def sweep(group: Group, along: str, across: str) -> Sweep | None:
    """What to show along size or batch across the other; None where no variant has two cases along it."""
    stops: dict[tuple[int, Variant], set[int]] = {}
    for entry in group.entries:
        stops.setdefault((getattr(entry, across), entry.variant), set()).add(getattr(entry, along))
    lines = {line for line, found in stops.items() if len(found) > 1}
    choices = sorted({value for value, _ in lines})
    if not choices:
        return None
    first = choices[0] if across == "batch" else choices[-1]
    if len(choices) > MOST_CHOICES:
        choices = [choices[at * (len(choices) - 1) // (MOST_CHOICES - 1)] for at in range(MOST_CHOICES)]
    entries = [
        entry
        for entry in group.entries
        if getattr(entry, across) in choices and (getattr(entry, across), entry.variant) in lines
    ]
    here = [entry for entry in entries if getattr(entry, across) == first]
    chosen = [*most_telling(here), *most_telling(entries)]
    kept = set(list(dict.fromkeys(chosen))[:MOST_LINES])
    variants = tuple(variant for variant in group.variants if variant in kept)
    return Sweep(
        group,
        along,
        across,
        tuple(choices),
        first,
        variants,
        tuple(entry for entry in entries if entry.variant in kept),
    )


def most_telling(entries: Sequence[Entry]) -> list[Variant]:
    """PyTorch eager, then those that come nearest to the fastest at any size and batch."""
    places: dict[tuple[int, int], list[Entry]] = {}
    for entry in entries:
        places.setdefault((entry.size, entry.batch), []).append(entry)
    best: dict[Variant, tuple[int, float]] = {}
    for found in places.values():
        for place, entry in enumerate(sorted(found, key=lambda entry: -entry.speedup.value)):
            rank = (-1 if eager([entry]) else place, -entry.speedup.value)
            best[entry.variant] = min(best.get(entry.variant, rank), rank)
    return sorted(best, key=lambda variant: best[variant])
