"""The tables of a report: what was measured, what it took, what each recipe made of the model, what has no number.

A column that no record fills is left out. Cells are rounded for reading; CSV and JSON have the values unrounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.digits import change_text, is_share, quality_text, significant
from bench_tests.harness.report.document import NOTHING, Cell, Column, Row, Sentence, Table, say
from bench_tests.harness.report.material import Entry, Group, Material, fastest
from bench_tests.harness.report.picks import cells, headline, ranked

Made = Callable[[Entry], Cell]


@dataclass(frozen=True)
class Measure:
    """A column, and what an entry has in it."""

    column: Column
    cell: Made


def _figure(
    name: str, label: str, key: str, factor: float = 1.0, form: Callable[[float], str] = significant
) -> Measure:
    """A column of one value of the record; ``factor`` brings it into the column's unit."""

    def cell(entry: Entry) -> Cell:
        value = entry.number_of(key)
        return NOTHING if value is None else Cell(form(factor * value), factor * value)

    return Measure(Column(name, label), cell)


def _text(name: str, label: str, key: str) -> Measure:
    def cell(entry: Entry) -> Cell:
        return Cell(entry.text_of(key), entry.text_of(key)) if entry.text_of(key) else NOTHING

    return Measure(Column(name, label, numeric=False), cell)


def _speedup(entry: Entry) -> Cell:
    value, low, high = entry.speedup
    return Cell(f"{value:.2f} [{low:.2f}, {high:.2f}]" if high > low else f"{value:.2f}", value)


def _disturbance(entry: Entry) -> Cell:
    share = 100 * entry.disturbance
    return Cell(f"{share:+.0f} %", share) if entry.disturbed else NOTHING


def _quality(entry: Entry) -> Cell:
    if entry.quality is None:
        return NOTHING
    factor = 100 if is_share(entry) else 1
    return Cell(quality_text(entry.quality.value, is_share(entry)), factor * entry.quality.value)


def _change(entry: Entry) -> Cell:
    if entry.drop is None or entry.quality is None:
        return NOTHING
    factor = 100 if is_share(entry) else 1
    return Cell(change_text(entry), 0.0 - factor * entry.drop.value)


def _percentage(value: float) -> str:
    return f"{value:.0f} %" if value >= 1 else f"{value:.2g} %"


_CELL = (
    _text("recipe", "recipe", "recipe"),
    _text("backend", "backend", "backend"),
    _text("precision", "precision", "precision"),
)


def _place(group: Group) -> tuple[Measure, ...]:
    unit = group.unit
    return (_figure("size", f"size, {unit}", "size", form=lambda value: f"{value:.0f}"),
            _figure("batch", "batch", "batch", form=lambda value: f"{value:.0f}"))  # fmt: skip


def _example(group: Group) -> str:
    return "image" if group.unit == "px" else "example"


def results_table(group: Group) -> Table:
    """The main metrics of every case; the fastest of each size and batch is marked."""
    example = _example(group)
    measures = (
        *_CELL,
        *_place(group),
        _figure("mean_ms", "mean, ms", "trimmed_mean_s", 1e3),
        _figure("stddev_ms", "std. dev., ms", "stddev_s", 1e3, lambda value: significant(value, 2)),
        _figure("fps", "FPS" if group.unit == "px" else "examples/s", "fps"),
        _figure("ms_per_image", f"ms/{example}", "ms_per_image"),
        Measure(Column("speedup", "x eager [95 %]"), _speedup),
        Measure(Column("eager_off_percent", "eager off"), _disturbance),
        _figure("speedup_over_best_fp32", "x best fp32", "speedup_over_best_fp32", form="{:.2f}".format),
        Measure(Column(_unit(group, "quality"), _judged(group)), _quality),
        Measure(Column(_unit(group, "quality_change"), _changed(group)), _change),
        _figure("agreement_percent", "agree", "agreement", 100, "{:.1f} %".format),
        _figure("size_mb", "size, MB", "size_bytes", 1e-6, lambda value: significant(value, 3)),
    )
    note = say(
        "The mean leaves out the fastest and the slowest 10 % of the blocks. x eager is the paired speed-up over "
        "PyTorch eager fp32 of the original model, x best fp32 that over the fastest lossless row of the same size and "
        "batch. The fastest of each size and batch is marked. Eager off: beside this row PyTorch itself ran so much "
        "off its median of the size and batch: the machine was at other work, and the row is not to be trusted."
    )
    return _table(
        f"results-{group.slug}", f"Results: {describe(group)}", measures, _sorted(group), note, _fastest_of(group)
    )


def resources_table(group: Group) -> Table:
    """The other metrics of every case: memory, arithmetic and how near it is to the ceiling, and the times' spread."""
    gpu = str(group.newest.hardware.get("gpu_name") or "")
    measures = (
        *_CELL,
        *_place(group),
        _figure("median_ms", "median, ms", "median_s", 1e3),
        _figure("minimum_ms", "minimum, ms", "minimum_s", 1e3),
        _figure("p95_ms", "p95, ms", "p95_s", 1e3),
        _figure("blocks", "blocks", "blocks", form=lambda value: f"{value:.0f}"),
        _figure("build_s", "build, s", "build_s", form=lambda value: significant(value, 2)),
        _figure("first_call_ms", "first call, ms", "first_call_s", 1e3, lambda value: significant(value, 3)),
        _figure("cpu_peak_memory_mib", "CPU memory, MiB", "cpu_peak_memory_bytes", 2.0**-20, "{:,.0f}".format),
        *((Measure(Column("gpu", "GPU", numeric=False), lambda _: Cell(gpu, gpu)),) if gpu else ()),
        _figure("gpu_peak_memory_mib", "GPU memory, MiB", "gpu_peak_memory_bytes", 2.0**-20, "{:,.0f}".format),
        _figure("gpu_utilisation_percent", "GPU busy", "gpu_utilisation_percent", form="{:.0f} %".format),
        _figure("gflop", "GFLOP a call", "gflop"),
        _figure("tflop_per_s", "TFLOP/s", "gflops", 1e-3, lambda value: significant(value, 3)),
        _figure("share_of_peak_percent", "of measured peak", "share_of_peak", 100, _percentage),
        _figure("share_of_theoretical_peak_percent", "of theory", "share_of_theoretical_peak", 100, _percentage),
        _figure("real_time_percent", "of real time", "real_time_factor", 100, "{:.3f} %".format),
    )  # fmt: skip
    where = (
        f"All ran on {gpu}."
        if gpu
        else "There is no GPU in these cases: its name, memory and utilisation do not apply."
    )
    note = say(
        "CPU memory is the peak of a process that builds and runs nothing but the case. TFLOP/s counts a multiply-add "
        "as two. {where}",
        where=where,
    )
    return _table(f"resources-{group.slug}", f"Resources: {describe(group)}", measures, _sorted(group), note)


def recipes_table(group: Group) -> Table | None:
    """What each recipe made of the model, on the backend on which it is fastest.

    At the largest size, and its smallest batch, that have several recipes; None where none has.
    """
    shared = {place: cell for place, cell in cells(group).items() if len({one.variant.recipe for one in cell}) > 1}
    if not shared:
        return None
    size, batch = min(shared, key=lambda place: (-place[0], place[1]))
    found: dict[str, Entry] = {}
    for entry in ranked(shared[size, batch]):
        found.setdefault(entry.variant.recipe, entry)
    entries = [found[recipe] for recipe in group.recipes if recipe in found]
    measures = (
        *_CELL,
        _figure("size_mb", "size, MB", "size_bytes", 1e-6, lambda value: significant(value, 3)),
        Measure(Column("smaller", "smaller"), _smaller),
        _figure("million_parameters", "million parameters", "parameters", 1e-6, lambda value: significant(value, 3)),
        _figure("million_macs", "million MACs", "gflop", 500, lambda value: significant(value, 3)),
        _figure("sparsity_percent", "zeros", "sparsity", 100, "{:.0f} %".format),
        _figure("mean_ms", "mean, ms", "trimmed_mean_s", 1e3),
        Measure(Column("speedup", "x eager [95 %]"), _speedup),
        Measure(Column("int8_operators", "int8 operators", numeric=False), _int8),
        Measure(Column(_unit(group, "quality"), _judged(group)), _quality),
        Measure(Column(_unit(group, "quality_change"), _changed(group)), _change),
        _figure("agreement_percent", "agree", "agreement", 100, "{:.1f} %".format),
    )
    note = say(
        "At {size} {unit}, batch {batch}, each recipe on the backend on which it is fastest. Smaller: against the "
        "original's tensors.", size=str(size), unit=group.unit, batch=str(batch),
    )  # fmt: skip
    title = f"Recipes: {describe(group)}"
    return _table(f"recipes-{group.slug}", title, measures, entries, note, {fastest(entries).number})


def firmware_table(group: Group) -> Table:
    """Networks as firmware: how good, how large, how fast, and whether they fit; cycles are exact."""
    measures = (
        *_CELL[:2],
        _text("chip", "chip", "chip"),
        Measure(Column(_unit(group, "quality"), _judged(group)), _quality),
        Measure(Column(_unit(group, "quality_change"), _changed(group)), _change),
        _figure("parameters", "parameters", "parameters", form="{:,.0f}".format),
        _figure("flash_bytes", "flash, bytes", "flash_bytes", form="{:,.0f}".format),
        _figure("sram_bytes", "SRAM, bytes", "sram_bytes", form="{:,.0f}".format),
        _figure("cycles_per_character", "cycles a character", "cycles_per_character", form="{:,.0f}".format),
        _figure("cycles", "cycles of a query and its first character", "cycles", form="{:,.0f}".format),
        _figure("mean_ms", "ms of these", "trimmed_mean_s", 1e3),
        Measure(Column("speedup", "x plain engine, full network"), _speedup),
        _text("fits", "fits", "fits"),
    )
    note = say("Cycles are counted by a simulator of the chip and exact: there is no interval.")
    return _table(f"firmware-{group.slug}", f"Firmware: {describe(group)}", measures, _sorted(group), note)


def answers_table(group: Group) -> Table | None:
    """Some answers of networks that were asked on the chip; None where none was kept."""
    kept = [entry for entry in group.entries if entry.text_of("answers")]
    rows = tuple(
        Row((Cell(entry.variant.label, entry.variant.label), Cell(answer, answer)), entry.number)
        for entry in kept
        for answer in entry.text_of("answers").splitlines()
    )
    columns = (Column("network", "network", numeric=False), Column("answer", "query → answer", numeric=False))
    return Table(f"answers-{group.slug}", f"Answers on the chip: {describe(group)}", columns, rows) if rows else None


def summary_table(material: Material) -> Table:
    """A row a group: what is fastest there, at the headline's size and batch, and what it costs."""
    rows = []
    for group in material.groups:
        best = fastest(headline(group))
        words = describe(group)
        megabytes = float(best.record["size_bytes"]) / 1e6
        rows.append(
            Row(
                (
                    Cell(words, words),
                    Cell(best.variant.label, best.variant.label),
                    _speedup(best),
                    _change(best),
                    Cell(significant(1e3 * best.call_s), 1e3 * best.call_s),
                    Cell(significant(megabytes, 3), megabytes),
                    _quality(best),
                    Cell(f"{best.size} {group.unit}, batch {best.batch}", f"{best.size}, {best.batch}"),
                ),
                best.number,
            )
        )
    columns = (
        Column("group", "what", numeric=False), Column("fastest", "fastest", numeric=False),
        Column("speedup", "x reference [95 %]"), Column("quality_change", "change [95 %]"),
        Column("mean_ms", "mean, ms"),
        Column("size_mb", "size, MB"), Column("quality", "quality"), Column("place", "at", numeric=False),
    )  # fmt: skip
    note = say(
        "The reference is PyTorch eager fp32 of the original model, and in clock cycles the plain engine with the full "
        "network. A change of a share is in points."
    )
    return Table("summary", "What is fastest, and what it costs", columns, tuple(rows), note)


def unmeasured_table(material: Material) -> Table | None:
    """Every case without a number, with its reason; None where there is none."""
    rows = tuple(
        Row(tuple(Cell(text, text) for text in (entry["case"], entry["status"], entry["reason"], run.file.name)))
        for run in material.runs
        for entry in run.not_measured
    )
    columns = tuple(Column(name, name, numeric=False) for name in ("case", "status", "reason", "run"))
    return Table("not-measured", "Cases without a number", columns, rows) if rows else None


def records_table(material: Material) -> Table:
    """Every value of every record, and where it stands; for CSV and JSON alone."""
    names = list(dict.fromkeys(name for entry in material.entries for name in entry.record))
    columns = tuple(Column(name, name) for name in ("run", "line", *names))
    rows = tuple(
        Row(
            tuple(
                Cell(str(value), value)
                for value in (str(entry.run.file), entry.line, *(entry.record.get(name) for name in names))
            ),
            entry.number,
        )
        for entry in material.entries
    )
    return Table("records", "Records", columns, rows)


def describe(group: Group) -> str:
    """A group in a few words: ``resnet18 on imagenette, 2 threads``; a made-up data set is called so."""
    synthetic = " (synthetic data)" if group.synthetic else ""
    threads = "" if group.in_cycles else f", {group.threads} thread{'s' if group.threads > 1 else ''}"
    among = f", {group.among}" if group.among else ""
    return f"{group.workload} on {group.data}{synthetic}{threads}{among}"


def _judged(group: Group) -> str:
    names = {entry.quality_name for entry in group.entries} - {""}
    return names.pop() if len(names) == 1 else "quality"


def _shares(group: Group) -> bool:
    return all(is_share(entry) for entry in group.entries if entry.quality is not None)


def _unit(group: Group, name: str) -> str:
    """The heading of a column in CSV and JSON: shares are in per cent, their changes in points."""
    unit = "_points" if name.endswith("change") else "_percent"
    return name + unit if _shares(group) else name


def _changed(group: Group) -> str:
    return "change, points [95 %]" if _shares(group) else "change [95 %]"


def _smaller(entry: Entry) -> Cell:
    whole = entry.number_of("size_bytes_original")
    if whole is None or entry.variant.recipe == ORIGINAL:
        return NOTHING
    times = whole / float(entry.record["size_bytes"])
    return Cell(f"{times:.1f}x", times)


def _int8(entry: Entry) -> Cell:
    if "int8_operators" not in entry.record or "operators" not in entry.record:
        return NOTHING
    text = f"{entry.record['int8_operators']} of {entry.record['operators']}"
    return Cell(text, text)


def _sorted(group: Group) -> list[Entry]:
    return sorted(group.entries, key=lambda entry: (entry.size, entry.batch))


def _fastest_of(group: Group) -> set[int]:
    return {fastest(cell).number for cell in cells(group).values()}


def _table(
    name: str,
    title: str,
    measures: Sequence[Measure],
    entries: Sequence[Entry],
    note: Sentence,
    best: Set[int] = frozenset(),
) -> Table:
    rows = [
        Row(tuple(measure.cell(entry) for measure in measures), entry.number, entry.number in best) for entry in entries
    ]
    kept = [at for at in range(len(measures)) if any(row.cells[at] is not NOTHING for row in rows)]
    return Table(
        name,
        title,
        tuple(measures[at].column for at in kept),
        tuple(Row(tuple(row.cells[at] for at in kept), row.record, row.best) for row in rows),
        note,
    )
