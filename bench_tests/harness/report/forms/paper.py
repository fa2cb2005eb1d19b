"""What Markdown and PDF have in common: neither can hide, filter or scroll, so both show less of a large table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench_tests.harness.report.document import Column, Row, Sentence, Table

_ROWS = 200  # more are for a program to read, or for a page that can be searched
_PLACE = ("size", "batch")  # with the words in front, they tell which case a row is


@dataclass(frozen=True)
class Shown:
    """The rows that are shown, the places of the columns, and of those the ``keys``; ``note`` says what is left out."""

    rows: tuple[Row, ...]
    keys: tuple[int, ...]
    others: tuple[int, ...]
    note: Sentence


def shown(table: Table) -> Shown:
    """A table without what tells its rows in vain, since all of them have the same there, and without its end."""
    keys, rows = _keys(table.columns), table.rows[:_ROWS]
    same = [at for at in keys if len(table.rows) > 1 and len({row.cells[at].text for row in table.rows}) == 1]
    same = same if len(same) < len(keys) else same[1:]
    told = ", ".join(f"{table.columns[at].label} {rows[0].cells[at].text}" for at in same)
    rest = f"The first {_ROWS} of {len(table.rows):,} rows; all of them are in tables/{table.name}.csv. "
    return Shown(
        rows,
        tuple(at for at in keys if at not in same),
        tuple(range(len(keys), len(table.columns))),
        (rest if len(rows) < len(table.rows) else "", f"In all rows: {told}. " if told else "", *table.note),
    )


def _keys(columns: Sequence[Column]) -> list[int]:
    """The places of the columns that tell the rows: the words in front, and size and batch."""
    ends = (at for at, column in enumerate(columns) if column.numeric and column.name not in _PLACE)
    return list(range(max(1, next(ends, 1))))


def visible(text: str) -> str:
    """A text in one line, without characters that steer a terminal, reverse what follows, or cannot be written."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def words(text: str) -> str:
    """Visible text whose numbers keep their per cent signs."""
    return re.sub("(?<=[0-9]) (?=%)", "\u00a0", visible(text))


def unbroken(figure: str) -> str:
    """A figure that can be broken only before its interval; it is `words`, or Markdown made from them."""
    return re.sub(r" (?!\\?\[)", "\u00a0", figure)
