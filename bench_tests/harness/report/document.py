"""What a report says, before it is HTML, Markdown or PDF: sections of sentences, tables and figures.

Whatever comes from a file is a value in a sentence, a cell or a spec, and never markup: each renderer escapes it in its
own way. A figure of a sentence, or the row of a table, knows the number of the record that it came from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any


@dataclass(frozen=True)
class Number:
    """A figure, or several of one record, and the number of that record (see `Material.entries`)."""

    text: str
    record: int


@dataclass(frozen=True)
class Code:
    """A name or a command within a sentence."""

    text: str


@dataclass(frozen=True)
class Strong:
    """What a reader who skims shall see."""

    text: str


@dataclass(frozen=True)
class Cite:
    """A link out of the report: a paper or a manual. The address is ours, never a file's."""

    text: str
    url: str


Span = str | Number | Code | Strong | Cite
Sentence = tuple[Span, ...]


def say(template: str, **values: Span | Sentence) -> Sentence:
    """A sentence: the template's words are ours, ``{name}`` is a value, which is never read as markup."""
    spans: list[Span] = []
    for words, name, _, _ in Formatter().parse(template):
        spans += [words] if words else []
        if name is not None:
            value = values[name]
            spans += value if isinstance(value, tuple) else (value,)
    return tuple(spans)


def joined(parts: list[Sentence], between: str = ", ", last: str = " and ") -> Sentence:
    """Several sentences or spans in one: ``a, b and c``."""
    spans: list[Span] = []
    for index, part in enumerate(parts):
        if index:
            spans.append(last if index == len(parts) - 1 else between)
        spans += part
    return tuple(spans)


def plain(sentence: Sentence) -> str:
    """A sentence without its links."""
    return "".join(span if isinstance(span, str) else span.text for span in sentence)


def slug(words: str, place: Sequence[str | int]) -> str:
    """A name for an anchor or a file: short, safe there, and the same for the same place.

    ``words`` are what a reader recognizes, ``place`` is what tells it from all others.
    """
    readable = re.sub("[^A-Za-z0-9]+", "-", words).strip("-").lower()[:40]
    return f"{readable}-{hashlib.sha256(json.dumps(place).encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class Paragraph:
    """One or several sentences. ``kind`` is text, or note: what a reader must not miss, such as missing data."""

    sentence: Sentence
    kind: str = "text"


@dataclass(frozen=True)
class Items:
    """A list of sentences; ``numbered`` where their order matters."""

    items: tuple[Sentence, ...]
    numbered: bool = False


@dataclass(frozen=True)
class Listing:
    """Commands or a program's output, as they are."""

    text: str


@dataclass(frozen=True)
class Column:
    """``name`` heads it in CSV and JSON, with the unit in it; ``label`` in the report."""

    name: str
    label: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """What is shown, and the unrounded value for CSV and JSON; None where there is none."""

    text: str
    value: float | int | str | bool | None


NOTHING = Cell("-", None)


@dataclass(frozen=True)
class Row:
    """``record`` is the number of the record it came from; ``best`` marks the row that answers the question."""

    cells: tuple[Cell, ...]
    record: int | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """``name`` is that of its files, ``<name>.csv`` and ``<name>.json``: unique in a report."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: Sentence = ()


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite spec without colours of text, fonts or size of its frame, which the renderers add.

    ``name`` is that of its picture, unique in a report; ``title`` says what it shows, the finding; ``alt`` says it to
    whoever cannot see it, with the numbers. The spec's rows stand in its top level ``datasets``. Of a row, ``record``
    is the number of its record, ``recipe``, ``backend`` and ``precision`` are what a reader may choose by.
    """

    name: str
    title: str
    alt: str
    spec: Mapping[str, Any]
    note: Sentence = ()


Block = Paragraph | Items | Listing | Table | Figure


@dataclass(frozen=True)
class Section:
    """``slug`` is its anchor: unique in a report."""

    slug: str
    title: str
    blocks: tuple[Block, ...] = ()
    parts: tuple[Section, ...] = field(default=())


@dataclass(frozen=True)
class Document:
    """A whole report. ``lead`` says what was measured, on what and when."""

    title: str
    lead: Sentence
    sections: tuple[Section, ...]

    def blocks(self) -> list[Block]:
        """All blocks of all sections, in the order in which they are read."""
        found: list[Block] = []

        def visit(section: Section) -> None:
            found.extend(section.blocks)
            for part in section.parts:
                visit(part)

        for section in self.sections:
            visit(section)
        return found

    def figures(self) -> list[Figure]:
        """All figures, in the order in which they are read."""
        return [block for block in self.blocks() if isinstance(block, Figure)]

    def tables(self) -> list[Table]:
        """All tables, in the order in which they are read."""
        return [block for block in self.blocks() if isinstance(block, Table)]
