"""How the batch matters: from which one on larger ones only add latency, and what the best one gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench_tests.harness.report import commands
from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import (
    Block,
    Cell,
    Column,
    Number,
    Paragraph,
    Row,
    Section,
    Sentence,
    Table,
    joined,
    say,
)
from bench_tests.harness.report.material import Entry, Group, fastest
from bench_tests.harness.report.picks import headline, lines, spread_apart
from bench_tests.harness.report.wording import latency, name, names, rate
from bench_tests.harness.saturation import saturation

GAIN = 0.05  # less is what `saturation` calls close to the best


@dataclass(frozen=True)
class Curve:
    """A variant at one size over its batches: ``saturated`` is the smallest one within 5 % of the ``best``."""

    first: Entry
    saturated: Entry
    best: Entry
    largest: Entry

    @property
    def gain(self) -> float:
        """Of examples a second, from the smallest batch to saturation; 0 for none."""
        return self.saturated.fps.value / self.first.fps.value - 1

    @property
    def open_ended(self) -> bool:
        """Whether the largest batch that was measured is where it saturates, so that a larger one may gain more."""
        return self.saturated is self.largest


def curves_of(group: Group) -> list[Curve]:
    """Of every variant and size with several batches, sizes ascending, the fastest variant first."""
    found = [_curve(line) for line in lines(group).values() if line[0].batch < line[-1].batch]
    return sorted(found, key=lambda curve: (curve.first.size, -curve.best.fps.value))


def _curve(entries: Sequence[Entry]) -> Curve:
    by_batch = {entry.batch: entry for entry in entries}
    point = saturation({batch: entry.fps.value for batch, entry in by_batch.items()})
    batches = list(by_batch)
    return Curve(by_batch[batches[0]], by_batch[point.batch], by_batch[point.best_batch], by_batch[batches[-1]])


def batches_answer(group: Group) -> Section:
    """Saturation of the headline's variant in words, of all in a table, and who gains nothing."""
    slug, title = f"batch-{group.slug}", "How does the batch matter, and which one is best?"
    found = curves_of(group)
    if not found:
        return Section(slug, title, _one_batch(group))
    variant = fastest(headline(group)).variant
    at_largest = [curve for curve in found if curve.first.size == found[-1].first.size]
    main = next((curve for curve in at_largest if curve.first.variant == variant), at_largest[0])
    blocks: list[Block] = [Paragraph(_first(group, main)), Paragraph(joined(_others(group, found), " ", " "))]
    if main.open_ended and not group.in_cycles:
        words = f"Batch {main.largest.batch} is the largest that was measured; a larger one may gain more. This tells:"
        sizes, batches = [main.first.size], commands.more_batches(group)
        blocks += commands.lacking((words,), commands.measure(group, sizes=sizes, batches=batches))
    return Section(slug, title, (*blocks, _table(group, found)))


def _one_batch(group: Group) -> tuple[Block, ...]:
    if group.in_cycles:
        return (Paragraph(("It does not: the chip answers one query at a time.",)),)
    batches = ", ".join(str(batch) for batch in group.batches)
    words = f"No variant has several batches (only {batches}), so saturation cannot be told. This measures it:"
    return commands.lacking(
        (words,), commands.measure(group, sizes=[group.sizes[-1]], batches=commands.more_batches(group))
    )


def _first(group: Group, curve: Curve) -> Sentence:
    """The saturation of one variant: what it gains, and what it costs in latency."""
    first, point, best = curve.first, curve.saturated, curve.best
    start = say("{variant} at {size} {unit}", variant=name(first.variant), size=str(first.size), unit=group.unit)
    if point is first:
        return (
            *start,
            *say(
                " gains nothing from batches: {rate} at batch {batch}, and no larger one is more than 5 % above it "
                "(the best, {best}, has {most}).",
                rate=rate(first, group), batch=str(first.batch), best=str(best.batch), most=rate(best, group),
            ),
        )  # fmt: skip
    doubt = "" if spread_apart(first, point) else ", which is within the spread of the blocks"
    told = say(
        " saturates at batch {batch}: {rate} against {alone} at batch {one}, {gain} more{doubt}, while a call takes "
        "{call} instead of {short}.",
        batch=Number(str(point.batch), point.number), rate=rate(point, group), alone=rate(first, group),
        one=str(first.batch), gain=Number(f"{100 * curve.gain:.0f} %", point.number), doubt=doubt,
        call=latency(point), short=latency(first),
    )  # fmt: skip
    if best is point:
        return (*start, *told, " It is also the batch with the most.")
    more = say(" The most, {most}, it has at batch {best}.", most=rate(best, group), best=str(best.batch))
    return (*start, *told, *more)


def _others(group: Group, found: Sequence[Curve]) -> list[Sentence]:
    """Who gains nothing, who gains most, and what batches cost where they cost."""
    flat = [curve for curve in found if curve.gain < GAIN]
    told: list[Sentence] = []
    if flat and len(found) > 1:
        variants = list(dict.fromkeys(curve.first.variant for curve in flat))
        told.append(
            say(
                "Of {all} lines of a variant at a size, {flat} gain less than 5 % over their smallest batch: {names}.",
                all=str(len(found)), flat=str(len(flat)), names=names(variants),
            )
        )  # fmt: skip
    elif len(found) > 1:
        told.append((f"All {len(found)} lines of a variant at a size gain at least 5 % over their smallest batch.",))
    most = max(found, key=lambda curve: curve.gain)
    if most.gain >= GAIN and len(found) > 1:
        told.append(
            say(
                "Most is gained by {variant} at {size} {unit}: {gain} more at batch {batch} than at {one}.",
                variant=name(most.first.variant), size=str(most.first.size), unit=group.unit,
                gain=Number(f"{100 * most.gain:.0f} %", most.saturated.number), batch=str(most.saturated.batch),
                one=str(most.first.batch),
            )
        )  # fmt: skip
    told.append(("A batch is worth its latency only where that many inputs are there at once.",))
    return told


_COLUMNS = (
    "size", "batch", "best_batch", "fps_at_smallest", "fps_at_saturation", "gain_percent", "latency_ms",
    "latency_at_smallest_ms",
)  # fmt: skip
_LABELS = (
    "size, {unit}", "saturates at batch", "best batch", "{thing}s/s, smallest batch", "{thing}s/s, saturated",
    "gain, %", "ms a call, saturated", "ms a call, smallest batch",
)  # fmt: skip


def _table(group: Group, found: Sequence[Curve]) -> Table:
    thing = "image" if group.unit == "px" else "example"
    labels = [label.format(unit=group.unit, thing=thing) for label in _LABELS]
    columns = (Column("variant", "variant", numeric=False), *map(Column, _COLUMNS, labels))
    rows = []
    for curve in found:
        first, point = curve.first, curve.saturated
        figures = (
            first.size, point.batch, curve.best.batch, first.fps.value, point.fps.value, 100 * curve.gain,
            1e3 * point.call_s, 1e3 * first.call_s,
        )  # fmt: skip
        whole = [Cell(str(value), value) for value in figures[:3]]
        cells = [*whole, *(Cell(significant(float(value), 3), value) for value in figures[3:])]
        rows.append(Row((Cell(first.variant.label, first.variant.label), *cells), point.number))
    return Table(f"saturation-{group.slug}", "Where each variant saturates", columns, tuple(rows))
