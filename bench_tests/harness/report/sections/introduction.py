"""The introduction: which models, for what, on which hardware, what holds them up, and which methods address that."""

from __future__ import annotations

from collections import defaultdict

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report import commands
from bench_tests.harness.report.digits import is_share, quality_text, significant
from bench_tests.harness.report.document import (
    NOTHING,
    Block,
    Cell,
    Code,
    Column,
    Number,
    Paragraph,
    Row,
    Section,
    Sentence,
    Table,
    joined,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Entry, Group, Material
from bench_tests.harness.report.phrases import counted, named, share
from bench_tests.harness.report.sections.approaches import methods_section
from bench_tests.harness.report.sections.hardware import UNO_FLASH_BYTES, UNO_SRAM_BYTES, hardware
from bench_tests.harness.report.sections.profiles import bottlenecks


def introduction(material: Material) -> Section:
    """Models, target hardware, bottlenecks and methods, as far as the material tells them."""
    groups = material.groups
    if not groups:
        words = "No case was measured, so there is nothing to introduce: see the cases without a number."
        return Section("introduction", "Introduction", (Paragraph(say(words), kind="note"),))
    parts = (
        Section("introduction-models", "Models and tasks", tuple(_models(material))),
        Section("introduction-hardware", "Target hardware", tuple(hardware(groups))),
        Section("introduction-bottlenecks", "Bottlenecks", tuple(_bottlenecks(material))),
        methods_section(material),
    )
    return Section("introduction", "Introduction", (Paragraph(_question(material)),), parts)


def _question(material: Material) -> Sentence:
    groups = material.groups
    variants = {(group.workload, variant) for group in groups for variant in group.variants}
    recipes = {variant.recipe for _, variant in variants}
    counts: list[Sentence] = [
        (counted(len({getattr(variant, name) for _, variant in variants}), name),) for name in ("backend", "precision")
    ]
    if recipes - {ORIGINAL}:
        counts.append((counted(len(recipes - {ORIGINAL}), "recipe"),))
    ways = joined(counts)
    return say(
        "A trained PyTorch model shall answer sooner, or take less room, without getting worse. Which way of running "
        "{models} does that best, and what does it cost? {ways} are compared, {variants} in all; a way whose outputs "
        "or whose quality differ by more than is allowed gets no time at all.",
        models=named(dict.fromkeys(group.workload for group in groups)),
        ways=ways,
        variants=counted(len(variants), "combination"),
    )


def _models(material: Material) -> list[Block]:
    blocks: list[Block] = []
    subjects = list(dict.fromkeys((group.workload, group.data) for group in material.groups))
    for workload, data in subjects:
        blocks.append(Paragraph(say("{name}: {about}", name=Code(workload), about=_about(material, workload, data))))
    rows = _starting_rows(material)
    columns = (
        Column("model", "model", numeric=False), Column("data", "data", numeric=False), Column("size", "size"),
        Column("parameters", "parameters"), Column("gflop_per_example", "GFLOP an example"),
        Column("size_mb", "size, MB"), Column("quality", "quality [95 %]"), Column("examples", "judged on"),
        Column("latency_ms", "ms a call"), Column("batch", "batch"),
    )  # fmt: skip
    note = say(
        "Quality is the first that is judged, of the original in PyTorch eager fp32. Where no record and no profile "
        "tells the number of parameters, it is the bytes of the fp32 weights over four, which counts running means and "
        "variances of batch norm too."
    )
    title = "What there is to improve: the original model in PyTorch eager fp32, at its smallest batch"
    return [*blocks, Table("models", title, columns, rows, note)] if rows else blocks


def _about(material: Material, workload: str, data: str) -> Sentence:
    """Task, scenario and platform, from the newest run of these data that tells them."""
    for run in sorted(material.runs, key=lambda run: run.when, reverse=True):
        facts = run.workloads.get(workload)
        ours = any(entry.run is run and entry.record["data"] == data for entry in material.entries)
        if facts and ours:
            words = [str(facts[name]).strip() for name in ("task", "scenario", "platform") if facts.get(name)]
            return (" ".join(words),)
    return ("its runs do not tell its task, scenario and platform; runs of this version do.",)


def _starting_rows(material: Material) -> tuple[Row, ...]:
    """A row a size: the original in eager fp32, where it was measured; else what the records of recipes tell of it."""
    timed: dict[tuple[str, ...], Row] = {}
    others: dict[tuple[str, ...], Row] = {}
    for group in material.groups:
        by_size: dict[int, list[Entry]] = defaultdict(list)
        for entry in group.entries:
            by_size[entry.size].append(entry)
        told = next((entry for entry in group.entries if "parameters_original" in entry.record), None)
        for size, entries in sorted(by_size.items()):
            originals = [entry for entry in entries if entry.lossless and not group.in_cycles]
            eager = [entry for entry in originals if entry.variant.backend == "eager"]
            start = min(eager or originals or entries, key=lambda entry: entry.batch)
            place = (group.workload, group.data, str(size))
            if eager:
                timed[*place, group.fingerprint, str(group.threads)] = _starting_row(
                    material, group, start, told, timed=True
                )
            else:
                others[place] = _starting_row(material, group, start, told, timed=False)
    known = {key[:3] for key in timed}
    return (*timed.values(), *(row for place, row in others.items() if place not in known))


def _starting_row(material: Material, group: Group, start: Entry, told: Entry | None, timed: bool) -> Row:
    original = start.variant.recipe == ORIGINAL
    profiled = next((profile for profile in material.profiles if profile.workload == group.workload), None)
    size_bytes = start.number_of("size_bytes") if timed else told.number_of("size_bytes_original") if told else None
    parameters = told.number_of("parameters_original") if told else None
    if parameters is None and profiled is not None:
        parameters = sum(float(row.get("parameters") or 0) for row in profiled.rows)
    if not parameters and size_bytes is not None:
        parameters = size_bytes // 4
    macs = start.number_of("macs_original")
    gflop = start.number_of("gflop") if original else macs and 2e-9 * macs
    quality = start.quality if original else None
    value, share = start.number_of(f"quality_{start.quality_name}_original"), is_share(start)
    judged = "" if value is None else f"{quality_text(value, share)} {start.quality_name}"
    if quality and quality.high > quality.low:
        estimate, low, high = (quality_text(part, share) for part in quality)
        judged = f"{estimate} [{low}, {high}] {start.quality_name}"
    cells = (
        Cell(group.workload, group.workload),
        Cell(group.data, group.data),
        Cell(f"{start.size:,} {group.unit}", start.size),
        Cell(f"{parameters:,.0f}", int(parameters)) if parameters else NOTHING,
        Cell(significant(gflop / start.batch, 3), gflop / start.batch) if gflop else NOTHING,
        Cell(significant(size_bytes / 1e6, 3), size_bytes / 1e6) if size_bytes else NOTHING,
        Cell(judged, value) if judged and value is not None else NOTHING,
        _count_cell(start.number_of("quality_examples")),
        Cell(significant(1e3 * start.call_s, 3), 1e3 * start.call_s) if timed else NOTHING,
        Cell(str(start.batch), start.batch) if timed else NOTHING,
    )
    return Row(cells, record=start.number)


def _count_cell(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(f"{value:,.0f}", int(value))


def _bottlenecks(material: Material) -> list[Block]:
    blocks: list[Block] = []
    for number, profile in enumerate(material.profiles, 1):
        blocks += bottlenecks(profile, number)
    for group in material.groups:
        if group.in_cycles:
            blocks += _cycles(group)
        elif not material.profiles_of(group):
            blocks.append(Paragraph(_missing(group), kind="note"))
    return blocks


def _missing(group: Group) -> Sentence:
    eager = [entry for entry in group.entries if entry.lossless and entry.variant.backend == "eager"]
    reached = min(eager, key=lambda entry: entry.batch, default=None)
    peak = reached.number_of("share_of_peak") if reached else None
    hint = (
        say(
            "All that the records tell is that eager reaches {share} of the measured peak. ",
            share=Number(share(peak), reached.number),
        )
        if reached and peak
        else ()
    )
    return say(
        "No per-layer profile of {workload} on {machine} was given, so what holds it up is not known here. {hint}"
        "{command} supplies one: give its file to the report.",
        workload=Code(group.workload),
        machine=Code(group.fingerprint),
        hint=hint,
        command=Code(commands.profile(group, group.sizes[-1], group.batches[0])),
    )


def _cycles(group: Group) -> list[Block]:
    """What a multiply-add costs on the chip, and which memory is short: a profile of firmware."""
    counted_ones = [entry for entry in group.entries if _cycles_a_mac(entry)]
    if not counted_ones:
        return []
    least = min(counted_ones, key=_cycles_a_mac)
    most = max(counted_ones, key=_cycles_a_mac)
    costs = say(
        "On the chip time is cycles, and the network's multiply-adds are what they are spent on: {most} cycles for "
        "each of them in {slow}, {least} in {fast}{below}.",
        most=Number(significant(_cycles_a_mac(most), 3), most.number),
        slow=Code(most.variant.label),
        least=Number(significant(_cycles_a_mac(least), 3), least.number),
        fast=Code(least.variant.label),
        below=", less than one, since a weight that meets a zero is passed over" if _cycles_a_mac(least) < 1 else "",
    )
    room = [
        entry for entry in group.entries if entry.text_of("chip") == "atmega328p" and entry.number_of("flash_bytes")
    ]
    if not room:
        return [Paragraph(costs)]
    fullest = max(room, key=lambda entry: entry.number_of("flash_bytes") or 0)
    flash, sram = (fullest.number_of(name) or 0.0 for name in ("flash_bytes", "sram_bytes"))
    memory = say(
        " Memory is the other limit: {name} fills {flash} of an UNO's flash and {sram} of its SRAM.",
        name=Code(fullest.variant.label),
        flash=Number(share(flash / UNO_FLASH_BYTES), fullest.number),
        sram=Number(share(sram / UNO_SRAM_BYTES), fullest.number),
    )
    return [Paragraph((*costs, *memory))]


def _cycles_a_mac(entry: Entry) -> float:
    """Over whole answers, where they were counted, else over a query and its first character; 0 where unknown."""
    cycles, macs = entry.number_of("cycles_per_character") or entry.number_of("cycles"), entry.number_of("macs")
    return cycles / macs if cycles and macs else 0.0
