"""Which approach is fastest, and by how much over PyTorch."""

from __future__ import annotations

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report import commands
from bench_tests.harness.report.document import Block, Code, Number, Paragraph, Section, Sentence, Strong, joined, say
from bench_tests.harness.report.material import Entry, Group, fastest
from bench_tests.harness.report.picks import (
    Cell,
    best_lossless,
    eager,
    headline,
    one_at_a_time,
    over,
    ranked,
    told_apart,
)
from bench_tests.harness.report.wording import (
    change,
    cut,
    duration,
    latency,
    name,
    place,
    quality,
    rate,
    ratio,
    speedup,
)


def fastest_answer(group: Group) -> Section:
    """At the largest size, the batch with the most examples a second, and one at a time."""
    cell = headline(group)
    best = fastest(cell)
    blocks: list[Block] = [Paragraph(_first(group, best))]
    details = _details(group, cell, best)
    if details:
        blocks.append(Paragraph(joined(details, " ", " ")))
    blocks += _lacking(group, cell)
    return Section(f"fastest-{group.slug}", "Which approach is fastest, and by how much over PyTorch?", tuple(blocks))


def _first(group: Group, best: Entry) -> Sentence:
    if group.in_cycles:
        cycles = best.number_of("cycles")
        return say(
            "{best} takes the fewest cycles{count}, {time} on the chip; the plain engine with the full network takes "
            "{speedup} as many. Cycles are exact, so there is no interval.",
            best=Strong(name(best.variant).text), time=latency(best), speedup=speedup(best),
            count=() if cycles is None else say(
                ": {cycles} for a query and its first character", cycles=Number(f"{cycles:,.0f}", best.number)
            ),
        )  # fmt: skip
    where, over_reference = place(best, group), best.speedup
    if over_reference.low <= 1:
        return say(
            "Nothing that was measured at {place} is shown to be faster than PyTorch eager: the best, {best}, reaches "
            "{speedup} of its speed, {latency} a call.",
            place=where, best=name(best.variant), speedup=speedup(best), latency=latency(best),
        )  # fmt: skip
    return say(
        "{best} is fastest at {place}: {speedup} PyTorch eager in fp32, {rate}, {latency} a call{quality}.",
        best=Strong(name(best.variant).text),
        place=where,
        speedup=speedup(best),
        rate=rate(best, group),
        latency=latency(best),
        quality=_against_the_original(best),
    )


def _against_the_original(best: Entry) -> Sentence:
    """What the first quality became of what is not the original; a speed alone says nothing of a lossy method."""
    found, changed = quality(best), change(best)
    if best.lossless or found is None or changed is None:
        return ()
    return say(", with {quality}, {change} against the original", quality=found, change=changed)


def _details(group: Group, cell: Cell, best: Entry) -> list[Sentence]:
    told: list[Sentence] = []
    base = best_lossless(cell)
    if base is not None and base is not best:
        found = over(best, base)
        verdict = "" if found.low > 1 else "; their intervals do not tell them apart"
        told.append(
            say(
                "Over {base}, the fastest lossless fp32 row ({own}), which costs nothing, it gains {ratio}{verdict}.",
                base=name(base.variant), own=speedup(base), ratio=ratio(best, found), verdict=verdict,
            )
        )  # fmt: skip
    elif base is best and len(cell) > 1 and best.speedup.low > 1:
        told.append(("It is the original model in fp32, so the gain costs no quality.",))
    second = next((entry for entry in ranked(cell) if entry is not best), None)
    if second is not None and second is not base:
        told.append(_runner_up(best, second))
    shortest = min(cell, key=lambda entry: entry.call_s)
    drifted = _reference_s(best) and _reference_s(shortest) < 0.98 * _reference_s(best)
    if shortest is not best and shortest.call_s < 0.98 * best.call_s and drifted:
        told.append(
            say(
                "In plain time {other} is shorter, {its} against {mine}, but PyTorch too took {before} beside it and "
                "{after} beside the other: the machine drifts between rows, which a ratio follows better than a time; "
                "only more runs tell the two apart.",
                other=name(shortest.variant), its=latency(shortest), mine=latency(best),
                before=_reference(shortest), after=_reference(best),
            )
        )  # fmt: skip
    alone = one_at_a_time(group)
    if (alone[0].size, alone[0].batch) != (best.size, best.batch):
        told.append(_one_at_a_time(group, fastest(alone)))
    per_character = best.number_of("cycles_per_character")
    if group.in_cycles and per_character is not None:
        told.append(_characters(cell, best, per_character))
    return told


def _reference_s(entry: Entry) -> float:
    return entry.number_of("reference_trimmed_mean_s") or 0.0


def _reference(entry: Entry) -> Number:
    """PyTorch's time in the row of an entry."""
    return Number(duration(_reference_s(entry)), entry.number)


def _runner_up(best: Entry, second: Entry) -> Sentence:
    if not told_apart(best, second):
        if best.speedup.low == best.speedup.high == second.speedup.value:
            return say("{second} takes exactly as much.", second=name(second.variant))
        return say(
            "It is not told apart from {second}, {speedup}: the intervals overlap.",
            second=name(second.variant), speedup=speedup(second),
        )  # fmt: skip
    return say("Next is {second}, {speedup}.", second=name(second.variant), speedup=speedup(second))


def _one_at_a_time(group: Group, best: Entry) -> Sentence:
    p95 = best.number_of("p95_s")
    slowest: Sentence = () if p95 is None else (", 95th percentile ", Number(duration(p95), best.number))
    return say(
        "For latency, at {place}, it is {best}: {speedup} PyTorch, {latency} a call{slowest}.",
        place=place(best, group), best=name(best.variant), speedup=speedup(best), latency=latency(best),
        slowest=slowest,
    )  # fmt: skip


def _characters(cell: Cell, best: Entry, cycles: float) -> Sentence:
    """Of firmware, what a character costs over whole answers, and on the plain engine with the same network."""
    told = say(
        "Over whole answers a character costs it {cycles} cycles on average",
        cycles=Number(f"{cycles:,.0f}", best.number),
    )
    plain = next(
        (
            entry
            for entry in cell
            if entry.variant.recipe == best.variant.recipe and entry.variant.backend != best.variant.backend
        ),
        None,
    )
    slow = plain.number_of("cycles_per_character") if plain is not None else None
    if plain is None or not slow:
        return (*told, ".")
    same = plain.number_of("queries") in (None, best.number_of("queries"))
    return (
        *told,
        *say(
            ", and {slow} with the same network on {plain}{queries}: the engine alone gives {ratio}.",
            slow=Number(f"{slow:,.0f}", plain.number),
            plain=Code(cut(plain.variant.backend)),
            queries="" if same else f" (over {plain.number_of('queries') or 0:,.0f} queries instead of all)",
            ratio=Number(f"{slow / cycles:.1f}x", best.number),
        ),
    )


def _lacking(group: Group, cell: Cell) -> tuple[Block, ...]:
    """What a fuller answer would need."""
    if group.in_cycles:
        return ()
    backends = list(dict.fromkeys(entry.variant.backend for entry in group.entries))
    first = cell[0]
    if best_lossless(cell) is None:
        return commands.lacking(
            ("The original in fp32 was not measured here, so what is to be had for nothing is unknown. This tells:",),
            commands.measure(group, at=first, precisions=["fp32"], recipes=[ORIGINAL]),
        )
    if len(backends) == 1 and commands.other_backends(group):
        return commands.lacking(
            say(
                "Only {backend} was measured; this compares the others:",
                backend=name(cell[0].variant._replace(recipe=ORIGINAL, precision="fp32")),
            ),
            commands.measure(group, at=first),
        )
    if eager(cell) is None:
        reference = cell[0].number_of("reference_trimmed_mean_s")
        if reference is not None:
            return commands.lacking(
                say(
                    "PyTorch eager has no row of its own: as the reference beside {beside} it took {time} a call, but "
                    "its memory and size are not known; this supplies them:",
                    beside=name(cell[0].variant), time=Number(duration(reference), cell[0].number),
                ),
                commands.measure(group, at=first, backends=["eager"], precisions=["fp32"]),
            )  # fmt: skip
    return ()
