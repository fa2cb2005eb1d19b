"""The table of firmware at the end of a run, in Markdown: how good, how large, how fast, and whether it fits.

Cycles and milliseconds are of a character over whole answers; the last column compares a query and its first character
with the same on the plain engine with the full network.
"""

from __future__ import annotations

from collections.abc import Mapping

from tabulate import tabulate

from bench_tests.harness.record import Record

_HEADERS = [
    "network", "chip", "next character", "parameters", "flash, bytes", "SRAM, bytes", "cycles a character", "ms",
    "fits an UNO", "x plain, full",
]  # fmt: skip


def firmware(records: Mapping[str, Record]) -> list[str]:
    """A row for each network and engine that ran as firmware, and some of its answers; nothing where none did."""
    rows = [row for row in records.values() if "flash_bytes" in row]
    if not rows:
        return []
    lines = tabulate(
        [_cells(row) for row in rows], _HEADERS, "pipe", disable_numparse=True, colalign=["left"] * 2 + ["right"] * 8
    ).splitlines()
    for row in rows:
        if row["backend"] == "avr" and "answers" in row:
            lines += ["", f"{row['recipe']} answers {row['queries']} queries as the integer reference does, such as"]
            lines += [f"- {answer}" for answer in str(row["answers"]).splitlines()]
    return [*lines, ""]


def _cells(row: Record) -> list[str]:
    cycles = float(row["cycles_per_character"])
    return [
        f"{row['recipe']}, {row['backend']}",
        str(row["chip"]),
        f"{row['quality_next_char']:.1%} of {row['quality_examples']:,}" if "quality_next_char" in row else "-",
        f"{row['parameters']:,}",
        f"{row['flash_bytes']:,}",
        f"{row['sram_bytes']:,}",
        f"{cycles:,.0f}",
        f"{1e3 * cycles / float(row['frequency_hz']):.2f}",
        str(row["fits"]),
        f"{row['speedup']:.1f}",
    ]
