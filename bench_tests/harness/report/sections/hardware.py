"""The target hardware: machines with their measured and theoretical ceilings, and simulated chips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import (
    NOTHING,
    Block,
    Cell,
    Code,
    Column,
    Number,
    Paragraph,
    Row,
    Sentence,
    Table,
    say,
)  # fmt: skip
from bench_tests.harness.report.figures.firmware import MEMORY_BYTES
from bench_tests.harness.report.material import Entry, Group
from bench_tests.harness.report.phrases import counted, named

UNO_FLASH_BYTES, UNO_SRAM_BYTES = MEMORY_BYTES["flash"], MEMORY_BYTES["SRAM"]


def hardware(groups: Sequence[Group]) -> list[Block]:
    """The machines, what they can do at most, and the simulated chips."""
    blocks: list[Block] = []
    for group in {group.fingerprint: group for group in groups if not group.in_cycles}.values():
        blocks.append(Paragraph(say("{name}: {machine}.", name=Code(group.fingerprint), machine=_machine(group))))
    rows = [row for group in groups if not group.in_cycles for row in _ceilings(group)]
    unique = {tuple(cell.text for cell in row.cells): row for row in rows}
    if unique:
        blocks += [_ceiling_table(tuple(unique.values())), *_over_theory(list(unique.values()))]
    chips = dict.fromkeys(_chip(group) for group in groups if group.in_cycles)
    return [*blocks, *(Paragraph(sentence) for sentence in chips)]


def _machine(group: Group) -> str:
    """The hardware of a group, in one sentence without its end."""
    told = group.newest.hardware
    affinity = told.get("affinity")
    numbers = f" ({', '.join(map(str, affinity))})" if isinstance(affinity, list | tuple) and affinity else ""
    cores = told.get("cores_used")
    words = [
        " ".join(str(told.get(name, "")) for name in ("cpu_model", "cpu_revision")).strip(),
        f"{cores} {'core' if cores == 1 else 'cores'}{numbers}" if cores else "",
        counted(group.threads, "thread"),
        f"GPU {told['gpu_name']}" if told.get("gpu_name") else "no GPU" if told else "",
    ]
    return ", ".join(word for word in words if word)


def _ceilings(group: Group) -> Iterable[Row]:
    """A row for each precision, or int8, that a case of the group was held against."""
    newest: dict[str, Entry] = {}
    for entry in group.entries:
        if entry.number_of("peak_gflops"):
            newest[entry.text_of("peak_precision") or entry.variant.precision] = entry
    for precision, entry in newest.items():
        peak, copy = (entry.number_of(name) or 0.0 for name in ("peak_gflops", "copy_gb_per_s"))
        theory = entry.number_of("peak_theoretical_gflops")
        how = entry.text_of("peak_theoretical_how")
        yield Row(
            (
                Cell(group.fingerprint, group.fingerprint),
                Cell(precision, precision),
                Cell(significant(peak, 3), peak),
                Cell(significant(theory, 3), theory) if theory else NOTHING,
                Cell(significant(copy, 3), copy) if copy else NOTHING,
                Cell(significant(peak / copy, 2), peak / copy) if copy else NOTHING,
                Cell(how, how) if how else NOTHING,
            ),
            record=entry.number,
        )


def _ceiling_table(rows: tuple[Row, ...]) -> Table:
    columns = (
        Column("machine", "machine", numeric=False), Column("precision", "precision", numeric=False),
        Column("measured_peak_gflop_per_s", "measured peak, GFLOP/s"),
        Column("theoretical_peak_gflop_per_s", "theoretical, GFLOP/s"), Column("copy_gb_per_s", "copy, GB/s"),
        Column("balance_flop_per_byte", "balance, FLOP/byte"), Column("theory", "theory", numeric=False),
    )  # fmt: skip
    note = say(
        "Balance is peak over bandwidth: a layer that does fewer FLOP for each byte that it moves waits for memory, "
        "whatever its kernel. A copy's bytes count twice, read and written."
    )
    return Table("ceilings", "What the hardware can do at most", columns, rows, note)


def _over_theory(rows: Sequence[Row]) -> list[Block]:
    over = [row for row in rows if row.cells[3].value and float(row.cells[2].value or 0) > float(row.cells[3].value)]
    if not over:
        return []
    found = max(over, key=lambda row: float(row.cells[2].value or 0) / float(row.cells[3].value or 1))
    excess = float(found.cells[2].value or 0) / float(found.cells[3].value or 1)
    words = say(
        "The measured peak of {precision} is {excess} times the theoretical one: theory multiplies the clock that the "
        "system reports, and the processor runs faster than that. Shares of the measured peak are the ones to go by.",
        precision=found.cells[1].text,
        excess=Number(significant(excess, 3), found.record) if found.record is not None else significant(excess, 3),
    )
    return [Paragraph(words)]


def _chip(group: Group) -> Sentence:
    """The simulated chips of a group whose clock counts cycles."""
    chips = list(dict.fromkeys(entry.text_of("chip") for entry in group.entries if entry.text_of("chip")))
    hertz = next((entry.number_of("frequency_hz") for entry in group.entries if entry.number_of("frequency_hz")), None)
    room = (
        f", of which an Arduino UNO's atmega328p leaves {UNO_FLASH_BYTES:,} bytes of flash to a program and has "
        f"{UNO_SRAM_BYTES:,} bytes of SRAM"
        if "atmega328p" in chips
        else ""
    )
    return say(
        "{workload} runs as firmware on {chips}{clock}{room}. The chip is simulated cycle by cycle; the computer on "
        "which the simulator runs decides nothing but how long that takes.",
        workload=Code(group.workload),
        chips=named(chips) if chips else ("a simulated chip",),
        clock=f" at {hertz / 1e6:g} MHz" if hertz else "",
        room=room,
    )
