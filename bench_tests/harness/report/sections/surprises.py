"""What a reader would not expect of a group's records: batches, backends and methods that make it slower, and the like.

Each is told only where the intervals leave no doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.answers.verdicts import offers
from bench_tests.harness.report.document import Number, Sentence, joined, say
from bench_tests.harness.report.material import Group
from bench_tests.harness.report.picks import headline, lines, spread_apart
from bench_tests.harness.report.wording import change, name, per_cent, place, rate, ratio, speedup

_MOST = 4  # of one kind


def surprises(group: Group) -> list[Sentence]:
    """One sentence for each kind of which there is any."""
    kinds = (_slower_batches, _slower_than_eager, _slower_precisions, _slower_with_less, _better, _above_theory)
    return [sentence for kind in kinds for sentence in kind(group)]


def _told(template: str, parts: Sequence[Sentence], what: str = "", **words: str) -> list[Sentence]:
    """The template with the first of the parts; nothing without any."""
    if not parts:
        return []
    more: list[Sentence] = [(f"{len(parts) - _MOST} more{what}",)] if len(parts) > _MOST else []
    return [say(template, parts=joined([*parts[:_MOST], *more]), **words)]


def _slower_batches(group: Group) -> list[Sentence]:
    """Larger batches with fewer examples a second than the smallest one."""
    found = []
    for line in lines(group).values():
        quiet = [entry for entry in line if not entry.disturbed]
        if line[0] not in quiet:
            continue
        worst = min(quiet, key=lambda entry: entry.fps.value)
        if worst is not line[0] and spread_apart(worst, line[0]):
            found.append((worst.fps.value / line[0].fps.value, worst, line[0]))
    found.sort(key=lambda one: one[0])
    parts = [
        say(
            "{name} at {size} {unit} with {rate} at batch {batch} against {alone} at batch {one}",
            name=name(worst.variant), size=str(worst.size), unit=group.unit, rate=rate(worst, group),
            batch=str(worst.batch), alone=rate(first, group), one=str(first.batch),
        )
        for _, worst, first in found
    ]  # fmt: skip
    return _told("A larger batch makes some slower by the example: {parts}.", parts)


def _slower_than_eager(group: Group) -> list[Sentence]:
    """Backends on which the original or a recipe is slower than PyTorch as it comes."""
    cell = headline(group)
    slower = [
        entry for entry in cell
        if entry.speedup.high < 1 and not (entry.lossless and entry.variant.backend == "eager")
    ]  # fmt: skip
    slower.sort(key=lambda entry: entry.speedup.value)
    against = "the plain engine" if group.in_cycles else "PyTorch eager"
    parts = [say("{name} {speedup}", name=name(entry.variant), speedup=speedup(entry)) for entry in slower]
    return _told(
        "Slower than {against} itself at {place}: {parts}.", parts, against=against, place=place(cell[0], group)
    )


def _slower_precisions(group: Group) -> list[Sentence]:
    """A lower precision that is slower than fp32 on the same backend."""
    by_cell = {(entry.variant, entry.size, entry.batch): entry for entry in group.entries}
    found = []
    for entry in group.entries:
        twin = by_cell.get((entry.variant._replace(precision="fp32"), entry.size, entry.batch))
        if twin is not None and twin is not entry and entry.speedup.high < twin.speedup.low:
            found.append((entry.speedup.value / twin.speedup.value, entry, twin))
    found.sort(key=lambda one: one[0])
    parts = [
        say(
            "{name} at {place} with {mine} against {other}",
            name=name(entry.variant), place=place(entry, group), mine=speedup(entry), other=speedup(twin),
        )
        for _, entry, twin in found
    ]  # fmt: skip
    return _told("A lower precision is slower than fp32 on the same backend: {parts}.", parts, " cases")


def _slower_with_less(group: Group) -> list[Sentence]:
    """Recipes that are smaller, or compute in int8, and slower than the lossless original."""
    if group.in_cycles:
        return []
    slower = [
        offer for offer in offers(headline(group))
        if offer.base is not None and offer.speed == "slower" and offer.entry.variant.recipe != ORIGINAL
    ]  # fmt: skip
    parts = []
    for offer in sorted(slower, key=lambda offer: offer.ratio.value):
        integers = offer.entry.number_of("int8_operators")
        why: Sentence = ()
        if integers is not None:
            count = Number(f"{integers:.0f} of {offer.entry.number_of('operators') or 0:.0f}", offer.entry.number)
            why = say(" ({count} operators in int8)", count=count)
        gain = ratio(offer.entry, offer.ratio)
        parts.append(say("{name} {gain}{why}", name=name(offer.entry.variant), gain=gain, why=why))
    return _told("A method can cost time: against the best lossless row these are slower: {parts}.", parts)


def _better(group: Group) -> list[Sentence]:
    """Recipes whose quality is surely above the original's, on the backend on which they are fastest."""
    found = [offer.entry for offer in offers(headline(group)) if offer.entry.variant.recipe != ORIGINAL]
    better = [entry for entry in found if entry.drop is not None and entry.drop.high < 0]
    parts = [say("{name} {change}", name=name(entry.variant), change=change(entry) or "") for entry in better]
    return _told(
        "Better than the original they are compared with: {parts}. Such a gain speaks of how each was trained, more "
        "than of the method: with the same training the original may have it too.",
        parts,
    )


def _above_theory(group: Group) -> list[Sentence]:
    """A share of the theoretical peak above 100 %."""
    found = [(entry.number_of("share_of_theoretical_peak") or 0.0, entry) for entry in group.entries]
    most, entry = max(found, key=lambda pair: pair[0])
    if most <= 1:
        return []
    return [
        say(
            "{name} reaches {share} of the theoretical peak: the system tells another clock than it runs at.",
            name=name(entry.variant), share=Number(per_cent(most), entry.number),
        )
    ]  # fmt: skip
