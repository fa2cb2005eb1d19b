"""What a gain costs: quality against latency and against size on disk, with the Pareto front.

On the front are those that no other beats in both respects at once. How near each variant comes to the machine's peak
is in `peaks`.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.digits import change_text, quality_text, significant
from bench_tests.harness.report.document import Figure, Sentence, say
from bench_tests.harness.report.figures.front import Cost, Judged, costs, front, judged
from bench_tests.harness.report.figures.peaks import peak_figures
from bench_tests.harness.report.figures.tradeoff_specs import tradeoff_spec
from bench_tests.harness.report.material import Entry, Group
from bench_tests.harness.report.picks import eager, told_apart
from bench_tests.harness.report.wording import cut

MOST_TOLD = 8  # of the front, to whoever cannot see it


def tradeoffs(group: Group) -> list[Figure]:
    """Quality against latency and size on disk, where several were judged, and shares of the peak. Cycles have none."""
    if group.in_cycles:
        return []
    found = judged(group)
    figures = [] if found is None else [_figure(found, cost) for cost in costs(found)]
    return [*figures, *peak_figures(group)]


def _figure(points: Judged, cost: Cost) -> Figure:
    found = [(cost.of(entry), points.error(entry)) for entry in points.entries]
    best = [points.entries[index] for index in front(found)]
    return Figure(
        name=f"quality-{cost.name}-{points.group.slug}",
        title=_title(points, cost, best),
        alt=_alt(points, cost, best),
        spec=tradeoff_spec(points, cost, best),
        note=_note(points),
    )


def _title(points: Judged, cost: Cost, best: Sequence[Entry]) -> str:
    """Of those whose cost cannot be told apart from the lowest, the best; and how many are on the front."""
    alike = [entry for entry in points.entries if entry is best[0] or _as_cheap(cost, entry, best[0])]
    first = min(alike, key=points.error)
    how = cost.alone if len(alike) == 1 else f"{cost.shared} any other"
    kind = "recipes" if points.recipes else "variants"
    front_words = f"{len(best)} of {len(points.entries)} {kind} {'is' if len(best) == 1 else 'are'} on the front"
    gain = f"{cost.text(first)}{_gain(points, cost, first)}"
    return f"{points.name(first)} is {how}, {gain}, with {_told(points, first)}; {front_words}"


def _as_cheap(cost: Cost, entry: Entry, cheapest: Entry) -> bool:
    """Times are told apart by their paired intervals, sizes from a hundredth on."""
    if cost.name == "latency":
        return not told_apart(entry, cheapest)
    return cost.of(entry) <= 1.01 * cost.of(cheapest)


def _gain(points: Judged, cost: Cost, entry: Entry) -> str:
    """Against PyTorch eager, or what the original takes on disk."""
    if eager([entry]) is not None:
        return ""
    if cost.name == "latency":
        return f" ({significant(entry.speedup.value, 3)}x PyTorch eager)"
    original = next((other for other in points.entries if other.variant.recipe == ORIGINAL), None)
    if original is None or original is entry:
        return ""
    return f" (the original {cost.text(original)})"


def _told(points: Judged, entry: Entry) -> str:
    """A quality, and what is known of its change against the original."""
    value = points.quality(entry).value
    text = quality_text(value, points.is_share)
    name = cut(entry.quality_name, 24)
    if entry.drop is None or entry.variant.recipe == ORIGINAL or not points.is_share:
        return f"{name} {text}"
    doubt = "" if entry.drop.low > 0 or entry.drop.high < 0 else ", no certain difference"
    return f"{name} {text} ({change_text(entry)} points{doubt})"


def _alt(points: Judged, cost: Cost, best: Sequence[Entry]) -> str:
    place = points.entries[0]
    unit = cut(points.group.unit, 12)
    told = [f"{points.name(entry)} {cost.text(entry)}, {_told(points, entry)}" for entry in best[:MOST_TOLD]]
    more = f"; and {len(best) - MOST_TOLD} more" if len(best) > MOST_TOLD else ""
    return (
        f"Points of quality against {cost.axis}, at {place.size} {unit} and batch {place.batch}, "
        f"of {len(points.entries)} {'recipes' if points.recipes else 'variants'}. "
        f"On the front, by {cost.name}: {'; '.join(told)}{more}."
    )


def _note(points: Judged) -> Sentence:
    place = points.entries[0]
    what = "each recipe on the backend on which it is fastest" if points.recipes else "a point for each variant"
    words = (
        f"At {place.size} {cut(points.group.unit, 12)}, batch {place.batch}: {what}. Bars are the 95 % "
        "intervals of the quality, where they are known. The line is the front: what lies below and to the right of "
        "it is beaten by one that is no worse in either respect. It is that of all points, whatever is hidden."
    )
    if points.near_perfect and any(end == 1 for entry in points.entries for end in points.quality(entry)):
        words += " A logarithmic axis has no 0: what misses nothing, and the ends of such intervals, stand at the top."
    return say("{words}", words=words)
