"""Is the method worth it, and under which conditions not: every recipe and lower precision against the original."""

from __future__ import annotations

from collections.abc import Sequence

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report import commands
from bench_tests.harness.report.answers.verdicts import VERDICTS, Offer, offers
from bench_tests.harness.report.digits import is_share
from bench_tests.harness.report.document import (
    Block,
    Code,
    Items,
    Number,
    Paragraph,
    Section,
    Sentence,
    Strong,
    joined,
    say,
)
from bench_tests.harness.report.material import Entry, Group
from bench_tests.harness.report.picks import cells, headline
from bench_tests.harness.report.wording import (
    change,
    cut,
    disk,
    latency,
    mebibytes,
    name,
    place,
    points,
    ratio,
    speedup,
)  # fmt: skip

_MOST = 8  # of one verdict are told with their figures, the others by name
_TITLES = {
    "worth it": "Worth it: surely faster, and the quality surely within what is tolerated",
    "worth it with a doubt": "Faster, with a doubt: the interval of the quality reaches beyond what is tolerated",
    "faster, not judged": "Faster, but its quality was not judged",
    "costs quality": "Faster at a price: the quality drops by more than is tolerated",
    "only smaller": "Only smaller: not surely faster than what is to be had for nothing",
    "not worth it": "Not worth it here",
}


def worth_answer(group: Group) -> Section:
    """The verdicts at the headline's cell, with their figures; where they do not hold; and what failed."""
    slug, title = f"worth-{group.slug}", "Is the method worth it, and under which conditions not?"
    cell = headline(group)
    found = offers(cell)
    blocks: list[Block] = []
    if found:
        blocks.append(Paragraph(_first(group, found)))
        for verdict in VERDICTS:
            members = [offer for offer in found if offer.verdict == verdict]
            if members:
                blocks.append(Paragraph((Strong(f"{_title(verdict, members[0])} ({len(members)})"),)))
                blocks.append(Items(tuple(_items(group, members))))
        elsewhere = _elsewhere(group, found)
        if elsewhere:
            blocks.append(Paragraph(joined(elsewhere, " ", " ")))
    failed = failures(group)
    if failed:
        blocks.append(Paragraph((f"Without a number ({len(failed)}), and so not to be used as they are:",)))
        told = [say("{case}: {reason}", case=cut(case, 120), reason=cut(reason, 240)) for case, reason in failed[:5]]
        more = [(f"{len(failed) - 5} more, listed among the cases without a number.",)] if len(failed) > 5 else []
        blocks.append(Items((*told, *more)))
    if not any(offer.entry.variant.recipe != ORIGINAL for offer in found):
        blocks += _no_recipe(group, cell)
    return Section(slug, title, tuple(blocks))


def _title(verdict: str, offer: Offer) -> str:
    """The verdict in words, with the drop that is tolerated, where the run says it."""
    allowed = "" if offer.tolerated is None or offer.kept == "unjudged" else f": {points(offer.tolerated, offer.entry)}"
    return _TITLES[verdict].replace("is tolerated", f"is tolerated{allowed}")


def _no_recipe(group: Group, cell: Sequence[Entry]) -> tuple[Block, ...]:
    recipes = commands.other_recipes(group)
    if not recipes:
        return (Paragraph(("No recipe was measured here.",), "note"),)
    command = commands.measure(group, at=cell[0], recipes=[ORIGINAL, *recipes], examples="all")
    return commands.lacking(("No recipe was measured here. This compares some with the original:",), command)


def _first(group: Group, found: Sequence[Offer]) -> Sentence:
    """How many are worth it, and the best of them."""
    where = place(found[0].entry, group)
    lower = sum(offer.entry.variant.recipe == ORIGINAL for offer in found)
    kinds = "recipes" if not lower else "lower precisions" if lower == len(found) else "recipes and precisions"
    of = f"the {len(found)} {kinds}"
    base = found[0].base
    against = "the plain engine" if group.in_cycles else "the reference"
    against_what: Sentence = (against,) if base is None else (name(base.variant), ", the fastest lossless fp32 row")
    good = [offer for offer in found if offer.verdict in ("worth it", "worth it with a doubt")]
    best = found[0]
    if not good and len(found) == 1:
        return say(
            "At {where}, {best} is not shown to be faster than {against} without a drop: it has {ratio} of its speed.",
            where=where, best=name(best.entry.variant), against=against_what, ratio=ratio(best.entry, best.ratio),
        )  # fmt: skip
    if not good:
        return say(
            "At {where}, of {of} none is shown to be faster than {against} without a drop; the fastest, {best}, has "
            "{ratio} of its speed and is {verdict}.",
            where=where, of=of, against=against_what, best=name(best.entry.variant),
            ratio=ratio(best.entry, best.ratio), verdict=f"'{best.verdict}'",
        )  # fmt: skip
    best = good[0]
    sure = sum(offer.verdict == "worth it" for offer in good)
    doubt = "" if sure == len(good) else f", {len(good) - sure} of them with a doubt about the quality"
    doubt = doubt if sure else ", with a doubt about the quality"
    if len(found) == 1:
        return say(
            "At {where}, {best} is worth it{doubt}: it is {ratio} as fast as {against}.",
            where=where, best=Strong(name(best.entry.variant).text), doubt=doubt,
            ratio=ratio(best.entry, best.ratio), against=against_what,
        )  # fmt: skip
    return say(
        "At {where}, {good} of {of} {are} worth it{doubt}. The fastest of them is {best}, {ratio} as fast as "
        "{against}.",
        where=where, good=str(len(good)), of=of, are="is" if len(good) == 1 else "are", doubt=doubt,
        best=Strong(name(best.entry.variant).text), ratio=ratio(best.entry, best.ratio), against=against_what,
    )  # fmt: skip


def _items(group: Group, members: Sequence[Offer]) -> list[Sentence]:
    told = [_item(group, offer) for offer in members[:_MOST]]
    if len(members) > _MOST:
        rest = [say("{name} {gain}", name=name(offer.entry.variant), gain=_short(offer)) for offer in members[_MOST:]]
        told.append(say("and {rest}.", rest=joined(rest)))
    return told


def _short(offer: Offer) -> Number:
    return Number(f"{offer.ratio.value:.2f}x", offer.entry.number)


def _item(group: Group, offer: Offer) -> Sentence:
    """One recipe or precision: speed, size, quality, memory."""
    entry, base = offer.entry, offer.base
    speed: Sentence = (speedup(entry), " over the plain engine" if group.in_cycles else " over PyTorch")
    if base is not None:
        speed = (ratio(entry, offer.ratio), " the lossless row's speed, ", *speed)
    if offer.speed == "same":
        speed = (*speed, " (not told apart from it)" if base is not None else " (not told apart)")
    parts: list[Sentence] = [speed, (latency(entry), " a call")]
    size: Sentence = (disk(entry), " on disk")
    if offer.smaller is not None:
        size = (*size, f", {offer.smaller:.1f}x smaller" if offer.smaller >= 1.05 else ", no smaller")
    parts += [size, quality_words(offer, within=False)]
    mine, other = entry.number_of("cpu_peak_memory_bytes"), base and base.number_of("cpu_peak_memory_bytes")
    peak, before = mebibytes(entry), base and mebibytes(base)
    if mine and other and peak and before and abs(mine / other - 1) > 0.1:
        parts.append(say("{peak} of memory against {before}", peak=peak, before=before))
    flash, sram, fits = entry.number_of("flash_bytes"), entry.number_of("sram_bytes"), entry.text_of("fits")
    if flash is not None and sram is not None:
        fit = f" (fits: {cut(fits, 40)})" if fits else ""
        parts.append((Number(f"flash {flash:,.0f} and SRAM {sram:,.0f} bytes", entry.number), fit))
    return say("{name}: {parts}.", name=name(entry.variant), parts=joined(parts, "; ", "; "))


def quality_words(offer: Offer, within: bool = True) -> Sentence:
    """What happened to the quality, with as much doubt as its interval leaves; ``within`` says that it is tolerated."""
    entry, drop = offer.entry, offer.entry.drop
    changed = change(entry)
    if drop is None or changed is None:
        return ("its quality was not judged",)
    unit = " points" if is_share(entry) else ""

    def figure(value: float) -> str:
        return points(value, entry).removesuffix(" points")

    if drop.low == drop.high == 0:
        return ("the quality is the original's",)
    if drop.low > 0 or drop.high < 0:
        ends = sorted((abs(drop.low), abs(drop.high)))
        interval = "" if drop.low == drop.high else f" [{figure(ends[0])}, {figure(ends[1])}]"
        figures = Number(f"{figure(drop.value)}{unit}{interval}", entry.number)
        verdict = say("quality {falls} by {figures}", falls="drops" if drop.low > 0 else "rises", figures=figures)
    else:
        verdict = say("no drop can be shown ({changed})", changed=changed)
    if offer.tolerated is None or drop.high < 0 or (offer.kept == "kept" and not within):
        return verdict
    allowed = points(offer.tolerated, entry)
    bound = {
        "kept": f"within the tolerated {allowed}", "open": f"but more than the tolerated {allowed} cannot be ruled out",
        "lost": f"beyond the tolerated {allowed}",
    }[offer.kept]  # fmt: skip
    return say("{verdict}, {bound}", verdict=verdict, bound=bound)


def _elsewhere(group: Group, found: Sequence[Offer]) -> list[Sentence]:
    """At which other sizes and batches what is faster here is not."""
    by_place = cells(group)
    judged = [offers(cell) for cell in by_place.values()] if len(by_place) > 1 else []
    told: list[Sentence] = []
    for offer in [offer for offer in found if offer.speed == "faster"][:3]:
        twins = [one for cell in judged for one in cell if one.way == offer.way and one.base is not None]
        others = [one for one in twins if one.entry is not offer.entry]
        slower = [one for one in others if one.speed != "faster"]
        label = Code(cut(offer.way[0] if offer.way[1] == "fp32" else " ".join(offer.way)))
        if slower:
            parts = [
                say("{ratio} at {place}", ratio=ratio(one.entry, one.ratio), place=place(one.entry, group))
                for one in slower[:6]
            ]
            told.append(
                say(
                    "Not so everywhere: in {n} of {others} {label} is not shown to be faster than the best lossless "
                    "row: {parts}.",
                    n=str(len(slower)), others=_places(others), label=label, parts=joined(parts),
                )
            )  # fmt: skip
        elif others:
            where = f"all {_places(others)}" if len(others) > 1 else "the one other size and batch"
            words = "On its fastest backend {label} beats the best lossless row at {where} too."
            told.append(say(words, label=label, where=where))
    return told


def _places(others: Sequence[object]) -> str:
    return f"{len(others)} other sizes and batches" if len(others) > 1 else "one other size and batch"


def failures(group: Group) -> list[tuple[str, str]]:
    """The cases of a group's workload, data and machine that failed or ran out of memory, with their reasons."""
    prefix = f"{group.workload}-{group.data}-"
    measured = {entry.case for entry in group.entries}
    runs = {id(entry.run): entry.run for entry in group.entries}
    found: dict[str, str] = {}
    for run in runs.values():
        for row in run.not_measured:
            if row["case"].startswith(prefix) and row["case"] not in measured and row["status"] != "skipped":
                found[row["case"]] = f"{row['status']}: {row['reason']}"
    return list(found.items())
