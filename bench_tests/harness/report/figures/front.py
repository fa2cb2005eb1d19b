"""The points of quality against a cost, and their Pareto front: those that no other beats in both respects at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.material import Entry, Group, Interval, fastest
from bench_tests.harness.report.wording import cut

NEAR_PERFECT = 0.9


@dataclass(frozen=True)
class Cost:
    """What a picture weighs quality against. ``factor`` brings a value of a record into ``unit``."""

    name: str
    field: str
    factor: float
    unit: str
    axis: str
    alone: str  # how the one with the least of it is called
    shared: str  # and one of several with as little

    def of(self, entry: Entry) -> float:
        """In its unit."""
        return self.factor * float(entry.record[self.field])

    def text(self, entry: Entry) -> str:
        """With its unit."""
        return f"{significant(self.of(entry), 3)} {self.unit}"


@dataclass(frozen=True)
class Judged:
    """The points of a picture: entries of one size and batch, all judged by the same quality."""

    group: Group
    entries: tuple[Entry, ...]
    recipes: bool  # one point a recipe; else one a variant

    def quality(self, entry: Entry) -> Interval:
        """Of one of its entries."""
        assert entry.quality is not None  # `judged` keeps no other
        return entry.quality

    @property
    def higher_is_better(self) -> bool:
        """Whether a quality is one of which there cannot be too much."""
        return self.entries[0].record.get("quality_higher_is_better", True) is not False

    @property
    def near_perfect(self) -> bool:
        """Whether what is missing to 1 tells them apart better than what they have."""
        return self.is_share and all(self.quality(entry).value > NEAR_PERFECT for entry in self.entries)

    @property
    def is_share(self) -> bool:
        """Whether the qualities are shares, which are told in per cent."""
        return self.higher_is_better and all(0 <= end <= 1 for entry in self.entries for end in self.quality(entry))

    def name(self, entry: Entry) -> str:
        """In a label, and in a sentence."""
        return cut(entry.variant.recipe if self.recipes else entry.variant.label, 34)

    def error(self, entry: Entry) -> float:
        """Less is better, whatever the quality."""
        value = self.quality(entry).value
        return -value if self.higher_is_better else value


def front(found: Sequence[tuple[float, float]]) -> list[int]:
    """Which of some (cost, error) no other beats in one respect without being worse in the other; by cost."""
    order = sorted(range(len(found)), key=lambda index: found[index])
    kept: list[int] = []
    for index in order:
        if not kept or found[index][1] < found[kept[-1]][1]:
            kept.append(index)
    return kept


def judged(group: Group) -> Judged | None:
    """At the largest size, and its smallest batch, that have at least two recipes, or three variants of one."""
    places: dict[tuple[int, int], list[Entry]] = {}
    for entry in group.entries:
        if entry.quality is not None:
            places.setdefault((-entry.size, entry.batch), []).append(entry)
    cells = []
    for _, cell in sorted(places.items()):
        cells.append([entry for entry in cell if entry.quality_name == cell[0].quality_name])
    for cell in cells:
        recipes: dict[str, list[Entry]] = {}
        for entry in cell:
            recipes.setdefault(entry.variant.recipe, []).append(entry)
        if len(recipes) > 1:
            return Judged(group, tuple(fastest(found) for found in recipes.values()), recipes=True)
    largest = next((cell for cell in cells if len(cell) > 2), None)
    return Judged(group, tuple(largest), recipes=False) if largest else None


def costs(points: Judged) -> list[Cost]:
    """Latency, and of recipes the size: what one model takes on disk differs by its backends' formats only."""
    slowest = max(entry.call_s for entry in points.entries)
    unit, factor = ("us", 1e6) if slowest < 1e-3 else ("ms", 1e3)
    found = [Cost("latency", "trimmed_mean_s", factor, unit, "latency of a call", "fastest", "as fast as")]
    if points.recipes:
        largest = max(float(entry.record["size_bytes"]) for entry in points.entries)
        unit, factor = ("kB", 1e-3) if largest < 1e6 else ("MB", 1e-6)
        found.append(Cost("size", "size_bytes", factor, unit, "size on disk", "smallest", "as small as"))
    return found
