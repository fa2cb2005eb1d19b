"""The conclusion: what was gained at which price, when to use it in production and when not, and what to try next."""

from __future__ import annotations

from collections.abc import Sequence

from bench_tests.harness.report.answers.batches import GAIN, curves_of
from bench_tests.harness.report.answers.needs import Need, recommend
from bench_tests.harness.report.answers.verdicts import Offer, offers
from bench_tests.harness.report.answers.worth import failures, quality_words
from bench_tests.harness.report.document import (
    Block,
    Code,
    Items,
    Listing,
    Number,
    Paragraph,
    Section,
    Sentence,
    Strong,
    joined,
    say,
)
from bench_tests.harness.report.material import Entry, Group, Material, fastest
from bench_tests.harness.report.picks import best_lossless, headline, one_at_a_time
from bench_tests.harness.report.sections.next_steps import next_steps
from bench_tests.harness.report.tables import describe
from bench_tests.harness.report.wording import (
    change,
    cut,
    disk,
    duration,
    latency,
    mebibytes,
    name,
    names,
    per_cent,
    place,
    quality,
    rate,
    speedup,
)

_SAME = 0.97  # of the answers: below it a reader who depends on single answers must know
_GOOD = ("worth it", "worth it with a doubt")


def conclusion(material: Material, needs: Sequence[Need] = ()) -> Section:
    """Of each group what to do; a recommendation for ``needs``, or how to ask for one."""
    if not material.groups:
        return Section(
            "conclusion", "Conclusion", (Paragraph(("No case was measured: nothing can be concluded.",), "note"),)
        )
    several = len(material.groups) > 1
    parts: list[Section] = []
    for group in material.groups:
        told = _group(material, group, needs)
        parts += [Section(f"conclusion-{group.slug}", describe(group), (), told)] if several else told
    blocks: list[Block] = []
    if not needs:
        command = 'python -m bench_tests.report RUN.json -o report/ --need "latency<=10ms" --need "drop<=0.5"'
        blocks = [
            Paragraph(("What to take depends on what is needed. With needs, a case is recommended for them:",), "note")
        ]
        blocks.append(Listing(command))
    return Section("conclusion", "Conclusion", tuple(blocks), tuple(parts))


def _group(material: Material, group: Group, needs: Sequence[Need]) -> tuple[Section, ...]:
    cell = headline(group)
    found = offers(cell)
    use, avoid, steps = _use(group, found), _avoid(group, found), next_steps(material, group)
    parts = [
        Section(f"gains-{group.slug}", "What was gained, and what it costs", (Paragraph(_gains(group, cell, found)),))
    ]
    if needs:
        parts.append(Section(f"needs-{group.slug}", "What to take for the stated needs", recommend(group, needs)))
    parts.append(Section(f"use-{group.slug}", "When to use it in production", (Items(tuple(use)),)))
    if avoid:
        parts.append(Section(f"avoid-{group.slug}", "When not", (Items(tuple(avoid)),)))
    if steps:
        parts.append(Section(f"next-{group.slug}", "What to try next", (Items(tuple(steps), numbered=True),)))
    return tuple(parts)


def _gains(group: Group, cell: Sequence[Entry], found: Sequence[Offer]) -> Sentence:
    """The lossless gain, and the best of the methods with all that it changes."""
    told: list[Sentence] = []
    base = best_lossless(cell)
    against = "the plain engine with the full network" if group.in_cycles else "PyTorch eager"
    if base is not None:
        start = "Without any loss" if base.speedup.low > 1 else "Without any loss nothing is shown to be gained:"
        told.append(
            say(
                "{start} {base} is {speedup} as fast as {against} at {place}.",
                start=start, base=name(base.variant), speedup=speedup(base), against=against, place=place(base, group),
            )
        )  # fmt: skip
    good = [offer for offer in found if offer.verdict in _GOOD]
    best = good[0] if good else None
    if best is None and found:
        told.append(("No method that was measured is shown to gain speed and to keep the quality.",))
    if best is not None:
        size: Sentence = (disk(best.entry),)
        if best.smaller is not None and best.smaller >= 1.05:
            size = (*size, f", {best.smaller:.1f}x smaller")
        told.append(
            say(
                "{best} is {speedup} as fast as {against}; {size}; {quality}.",
                best=Strong(name(best.entry.variant).text), speedup=speedup(best.entry), against=against, size=size,
                quality=quality_words(best),
            )
        )  # fmt: skip
    smallest = min(found, key=lambda offer: float(offer.entry.record["size_bytes"]), default=None)
    if smallest is not None and smallest.smaller and smallest.smaller > 1.05 and smallest is not best:
        told.append(
            say(
                "Smallest is {name}, {disk} or {ratio} less: {quality}.",
                name=name(smallest.entry.variant), disk=disk(smallest.entry), ratio=f"{smallest.smaller:.1f}x",
                quality=quality_words(smallest),
            )
        )  # fmt: skip
    return joined(told, " ", " ") or (f"{len(cell)} cases of {group.workload} were measured, none comparable.",)


def _usable(cell: Sequence[Entry]) -> Entry:
    """The fastest of a cell that is lossless or worth it; the fastest of all where nothing is."""
    good = [offer.entry for offer in offers(cell) if offer.verdict in _GOOD]
    base = best_lossless(cell)
    usable = [*good, *([base] if base is not None else [])]
    return fastest(usable or list(cell))


def _use(group: Group, found: Sequence[Offer]) -> list[Sentence]:
    """For a bound on latency, throughput, size, memory, quality: what to run."""
    alone = _usable(one_at_a_time(group))
    p95 = alone.number_of("p95_s")
    worst: Sentence = (
        ()
        if p95 is None or group.in_cycles
        else say(", 95 of 100 within {p95}", p95=Number(duration(p95), alone.number))
    )
    told = [
        say(
            "Where one input comes at a time and latency counts: {name}, {latency} a call{worst}, at {place}.",
            name=name(alone.variant), latency=latency(alone), worst=worst, place=place(alone, group),
        )
    ]  # fmt: skip
    largest = group.sizes[-1]
    curves = [curve for curve in curves_of(group) if curve.first.size == largest]
    busiest = _usable(headline(group))
    mine = next((curve for curve in curves if curve.first.variant == busiest.variant), None)
    if mine is not None:
        point = mine.saturated
        told.append(
            say(
                "Where inputs wait in a queue and throughput counts: {name} at batch {batch}, {rate}, if {latency} a "
                "call are borne.",
                name=name(point.variant), batch=Number(str(point.batch), point.number), rate=rate(point, group),
                latency=latency(point),
            )
        )  # fmt: skip
    kept = [offer for offer in found if offer.kept in ("kept", "open") and offer.smaller is not None]
    smallest = min(kept, key=lambda offer: float(offer.entry.record["size_bytes"]), default=None)
    if smallest is not None and (smallest.smaller or 0) > 1.05:
        told.append(
            say(
                "Where {what} counts: {name}, {disk}, quality {change}.",
                what="flash" if group.in_cycles else "the size on disk", name=name(smallest.entry.variant),
                disk=disk(smallest.entry), change=change(smallest.entry) or "not judged",
            )
        )  # fmt: skip
    told += _memory(group)
    base = best_lossless(headline(group))
    if base is not None and found:
        told.append(
            say(
                "Where no answer may change: {name}, the original in fp32, {speedup} PyTorch{quality}.",
                name=name(base.variant), speedup=speedup(base),
                quality=say(", {quality}", quality=judged) if (judged := quality(base)) else "",
            )
        )  # fmt: skip
    return told


def _memory(group: Group) -> list[Sentence]:
    """Which variant of the latency's cell needs least memory, where that differs by more than a tenth."""
    cell = one_at_a_time(group)
    known = [(found, entry) for entry in cell if (found := entry.number_of("cpu_peak_memory_bytes"))]
    if group.in_cycles or len(known) < 2:
        return []
    (least, entry), (most, hungry) = min(known, key=lambda one: one[0]), max(known, key=lambda one: one[0])
    small, large = mebibytes(entry), mebibytes(hungry)
    if most < 1.1 * least or small is None or large is None:
        return []
    return [
        say(
            "Where memory counts: {name} peaks at {least}, {hungry} at {most}.",
            name=name(entry.variant), least=small, hungry=name(hungry.variant), most=large,
        )
    ]  # fmt: skip


def _avoid(group: Group, found: Sequence[Offer]) -> list[Sentence]:
    """What costs quality, what costs time, and batches that gain nothing."""
    told: list[Sentence] = []
    lossy = [offer for offer in found if offer.kept == "lost"]
    if lossy:
        mildest = min(lossy, key=lambda offer: offer.entry.drop.value if offer.entry.drop else 0.0)
        told.append(
            say(
                "Where the quality must stay: not {names}; {which} changes it by {change}.",
                which="it" if len(lossy) == 1 else "the mildest of them",
                names=names([offer.entry.variant for offer in lossy]), change=change(mildest.entry) or "",
            )
        )  # fmt: skip
    good = [offer for offer in found if offer.verdict in _GOOD]
    same = good[0].entry.number_of("agreement") if good else None
    if same is not None and same < _SAME:
        told.append(
            say(
                "Where single answers must stay: {name} answers {share} of the examples otherwise than the original, "
                "whatever the quality over all.",
                name=name(good[0].entry.variant), share=Number(per_cent(1 - same), good[0].entry.number),
            )
        )  # fmt: skip
    slow = [offer for offer in found if offer.speed != "faster"]
    if slow:
        slower = names([offer.entry.variant for offer in slow])
        base = slow[0].base
        against = name(base.variant) if base is not None else "the plain engine"
        told.append(
            say("For speed: not {slower}, not shown to be faster than {against}.", slower=slower, against=against)
        )
    failed = failures(group)
    if failed:
        cases = joined([(Code(cut(case)),) for case, _ in failed[:3]])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        told.append(say("Not as they are: {cases}{more}, which failed or ran out of memory.", cases=cases, more=more))
    behind = [
        entry
        for entry in headline(group)
        if entry.lossless and entry.variant.backend != "eager" and entry.speedup.high < 1
    ]
    if behind:
        told.append(
            say("Not {names}: slower than PyTorch eager itself.", names=names([entry.variant for entry in behind]))
        )
    largest = group.sizes[-1]
    curves = [curve for curve in curves_of(group) if curve.first.size == largest]
    flat = [curve.first.variant for curve in curves if curve.gain < GAIN]
    if flat:
        told.append(
            say(
                "Not in batches: {names} gain less than 5 % from them at {size} {unit}.",
                names=names(flat),
                size=str(largest),
                unit=group.unit,
            )
        )
    return told
