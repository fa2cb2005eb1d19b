"""A report as PDF, set by Typst from ``paper.typ``: A4, tagged, with contents and an appendix of the records.

The document goes to the template as data, so that nothing of it is read as Typst's markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typst

from bench_tests.harness.report.document import (
    Block,
    Cite,
    Code,
    Document,
    Figure,
    Items,
    Listing,
    Number,
    Paragraph,
    Section,
    Sentence,
    Span,
    Strong,
    Table,
)
from bench_tests.harness.report.forms.page_width import breakable, fitted, printed
from bench_tests.harness.report.forms.paper import shown, visible, words
from bench_tests.harness.report.forms.pictures import svg
from bench_tests.harness.report.material import Material
from models.errors import SpeedproofError
from models.files import first_line

TEMPLATE = Path(__file__).with_name("paper.typ")
_MARGIN, _WIDTH, _HEIGHT = 57.0, 595.28 - 2 * 57.0, 560.0  # points: left and right of A4, and what a picture may fill
_PIXEL = 0.62  # points of a figure's pixel: two figures stand on a page, in type of 7.5 points
_RECORDS = 1000  # of the appendix
_LETTERS = 60  # of a word that no line need break

Data = Mapping[str, Any]


def pdf(document: Document, material: Material) -> bytes:
    """The report as a file; the same report gives the same bytes. Raises SpeedproofError where Typst refuses it."""
    try:
        return typst.compile(TEMPLATE, format="pdf", sys_inputs={"report": json.dumps(data(document, material))})
    except RuntimeError as error:
        raise SpeedproofError(
            f"the PDF could not be set ({first_line(error)}); leave it out: --formats html,markdown,tables"
        ) from error


def data(document: Document, material: Material) -> Data:
    """What the template sets: every text as it is printed, and the pictures as SVG."""
    linked = _linked(document)[:_RECORDS]
    return {
        "title": words(document.title),
        "lead": _sentence(document.lead, set(linked)),
        "sections": [_section(section, set(linked)) for section in document.sections],
        "records": _records(material, linked),
        "margin": _MARGIN,
    }


def _linked(document: Document) -> list[int]:
    """The numbers of the records that the report speaks of: those of its sentences first, then those of its rows."""
    spans = [span for block in document.blocks() for sentence in _sentences(block) for span in sentence]
    spoken = [span.record for span in (*document.lead, *spans) if isinstance(span, Number)]
    rows = [row.record for table in document.tables() for row in shown(table).rows if row.record is not None]
    return list(dict.fromkeys(spoken + rows))


def _sentences(block: Block) -> Iterable[Sentence]:
    match block:
        case Paragraph(sentence):
            return (sentence,)
        case Items(items):
            return items
        case Listing():
            return ()
        case Table() | Figure():
            return (block.note,)


def _records(material: Material, linked: Sequence[int]) -> Data:
    runs: dict[Path, dict[str, Any]] = {}
    for entry in (material.entries[number] for number in sorted(linked)):
        facts = [entry.run.when[:16].replace("T", " "), entry.run.commit and f"commit {entry.run.commit}"]
        run = runs.setdefault(
            entry.run.file,
            {
                "file": visible(entry.run.file.as_posix()),
                "facts": visible(", ".join(fact for fact in facts if fact)),
                "records": [],
            },
        )
        run["records"].append({"number": entry.number, "line": entry.line, "case": _code(entry.case)})
    others = len(material.entries) - len(linked)
    rest = f"{others:,} other records are in tables/records.csv." if others else ""
    return {"runs": list(runs.values()), "rest": rest}


def _section(section: Section, linked: set[int]) -> Data:
    return {
        "title": _words(section.title),
        "blocks": [_block(block, linked) for block in section.blocks],
        "parts": [_section(part, linked) for part in section.parts],
    }


def _block(block: Block, linked: set[int]) -> Data:
    match block:
        case Paragraph(sentence, kind):
            return {"kind": kind, "sentence": _sentence(sentence, linked)}
        case Items(items, numbered):
            return {"kind": "numbered" if numbered else "items", "items": [_sentence(item, linked) for item in items]}
        case Listing(text):
            return {"kind": "listing", "text": "\n".join(_code(line) for line in text.expandtabs().splitlines())}
        case Table():
            return _table(block, linked)
        case Figure(_, title, alt):
            drawn = svg(block)
            facts = {"title": _words(title), "alt": visible(alt), "note": _sentence(block.note, linked)}
            return {"kind": "figure", "svg": drawn, "width": _picture_width(drawn), **facts}


def _table(table: Table, linked: set[int]) -> Data:
    given = shown(table)
    parts = [
        {
            "size": part.size,
            "columns": [
                {
                    "label": printed(table.columns[at].label, table.columns[at], heading=True),
                    "numeric": table.columns[at].numeric,
                    "width": width,
                }
                for at, width in zip(part.places, part.widths, strict=True)
            ],
            "rows": [
                {
                    "cells": [printed(row.cells[at].text, table.columns[at]) for at in part.places],
                    "record": row.record if row.record in linked else None,
                    "best": row.best,
                }
                for row in given.rows
            ],
        }
        for part in fitted(table, given, _WIDTH)
    ]
    return {"kind": "table", "title": _words(table.title), "parts": parts, "note": _sentence(given.note, linked)}


def _picture_width(drawn: str) -> float:
    """Points: a figure's own size, or what fits on the page."""
    width, height = (float(value) for value in re.findall(r'(?:width|height)="([\d.]+)"', drawn)[:2])
    return min(width * _PIXEL, _WIDTH, _HEIGHT * width / height)


def _words(text: str) -> str:
    return breakable(words(text), _LETTERS)


def _code(text: str) -> str:
    return breakable(visible(text), _LETTERS)


def _sentence(sentence: Sentence, linked: set[int]) -> list[Data]:
    return [_span(span, linked) for span in sentence if span]


def _span(span: Span, linked: set[int]) -> Data:
    match span:
        case str():
            return {"kind": "text", "text": _words(span)}
        case Number(text, record):
            return {"kind": "number", "text": _words(text), "record": record if record in linked else None}
        case Code(text):
            return {"kind": "code", "text": _code(text)}
        case Strong(text):
            return {"kind": "strong", "text": _words(text)}
        case Cite(text, url):
            return {"kind": "cite", "text": _words(text), "url": url}
