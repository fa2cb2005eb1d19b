"""CSV and JSON of a table, read back by Python's own readers."""

import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_tests.harness.report.document import NOTHING, Cell, Column, Row, Table
from bench_tests.harness.report.forms.export import csv_text, json_text

COLUMNS = (Column("case", "case", numeric=False), Column("fps", "FPS"), Column("fits", "fits"))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())


def table(*rows):
    return Table(
        "results", "Results", COLUMNS, tuple(Row(tuple(Cell("shown", value) for value in row)) for row in rows)
    )


ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=5)


def missing(value):
    return value is None or (isinstance(value, float) and not math.isfinite(value))


@given(ROWS)
def test_json_keeps_every_value_and_knows_no_nan(rows):
    def fail(name):
        raise AssertionError(name)

    read = json.loads(json_text(table(*rows)), parse_constant=fail)
    wanted = [[None if missing(value) else value for value in row] for row in rows]
    assert [list(row.values()) for row in read] == wanted
    assert all(list(row) == ["case", "fps", "fits"] for row in read)


@given(ROWS)
def test_csv_keeps_every_value_but_runs_no_formula(rows):
    text = csv_text(table(*rows))
    text.encode()
    head, *read = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert head == ["case", "fps", "fits"]
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        for cell, value in zip(line, row, strict=True):
            if missing(value):
                assert cell == ""
            elif isinstance(value, bool):
                assert cell == str(value).lower()
            elif isinstance(value, str):
                assert cell.removeprefix("'" if cell[1:] else "") in (value, value.removeprefix("'")) or "?" in cell
                assert cell[:1] not in tuple("=+-@\t\r\n")
            else:
                assert type(value)(cell) == value


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+1", "-1", "\t=1", "\r=1", "＝1"])  # noqa: RUF001
def test_text_like_a_formula_is_marked_as_text_and_a_negative_number_is_none(text):
    _, row = csv.reader(io.StringIO(csv_text(table((text, -0.25, True))), newline=""))
    assert row == [f"'{text}", "-0.25", "true"]


def test_headings_are_names_with_units_and_lines_end_as_the_rfc_says():
    assert csv_text(Table("t", "T", (Column("mean_ms", "mean, ms"),), (Row((NOTHING,)),))) == 'mean_ms\r\n""\r\n'
    assert csv_text(table(('a "b",\nc', 0.1 + 0.2, None))) == (
        'case,fps,fits\r\n"a ""b"",\nc",0.30000000000000004,\r\n'
    )
