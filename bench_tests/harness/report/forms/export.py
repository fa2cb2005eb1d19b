"""A table as files for other programs: CSV and JSON, with unrounded values and headings that have the unit in them."""

from __future__ import annotations

import csv
import io
import json
import math

from bench_tests.harness.report.document import Table

# A spreadsheet reads text that begins so as a formula (OWASP, CSV Injection): an apostrophe before it makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001, spreadsheets take wide ones too

_Value = float | int | str | bool | None


def csv_text(table: Table) -> str:
    """RFC 4180: a heading, then a line a row; empty where there is no value or one that is no number."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([_text(column.name) for column in table.columns])
    writer.writerows([_text(cell.value) for cell in row.cells] for row in table.rows)
    return out.getvalue()


def _text(value: _Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()  # half a surrogate pair, which JSON can bear, is no UTF-8
        return f"'{text}" if text.startswith(_FORMULA) else text
    kept = _finite(value)
    return "" if kept is None else str(kept)


def json_text(table: Table) -> str:
    """A list with an object a row, each in a line of its own; null where there is no value or one that is no number."""
    names = [column.name for column in table.columns]
    rows = (dict(zip(names, (_finite(cell.value) for cell in row.cells), strict=True)) for row in table.rows)
    return "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"


def _finite(value: _Value) -> _Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
