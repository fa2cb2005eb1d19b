"""A report as Markdown that renders on a code host, GitHub-flavoured, with its pictures beside it as ``<name>.png``.

What comes from a file is escaped so that it is neither markup nor HTML nor an address. A figure of a sentence, and the
first cell of a row, link to the line of their record in its stored run, which a code host shows.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

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
from bench_tests.harness.report.forms.paper import shown, unbroken, visible, words
from bench_tests.harness.report.material import Material

_WIDTH = 130
_MARKUP = re.compile(r"[\\`*\[\]<#~|$!]|&(?=[#\w])|(?<![^\W_])_|_(?![^\W_])")
_ADDRESS = re.compile(r"(:)(?=//)|(?<=www)(\.)", re.IGNORECASE)  # code hosts link these without being asked
_BLOCK = re.compile(r"^(\d*)([-+=:>]|(?<=\d)[.)](?= |$))")  # what makes a line a list, a heading or a table
_HELD = "\0"  # a space at which no line may break; no visible text has one


def markdown(document: Document, material: Material, folder: Path) -> str:
    """The report as the text of a file in ``folder``; links to the stored runs are relative to it."""
    return _Writer(material, folder).document(document)


@dataclass(frozen=True)
class _Writer:
    material: Material
    folder: Path

    def document(self, document: Document) -> str:
        parts = [
            f"# {_escaped(document.title).strip()}",
            self._prose(document.lead),
            *self._contents(document.sections),
        ]
        for section in document.sections:
            parts += self._section(section, 2)
        return "\n\n".join(part for part in parts if part) + "\n"

    def _contents(self, sections: Sequence[Section]) -> list[str]:
        lines = [
            f"{indent}- [{_escaped(one.title).strip()}](#{one.slug})"
            for section in sections
            for indent, one in [("", section), *(("  ", part) for part in section.parts)]
        ]
        return ["**Contents**", "\n".join(lines)] if lines else []

    def _section(self, section: Section, level: int) -> list[str]:
        anchor = f'<a id="{section.slug}"></a>'  # ours: what a code host makes of a heading differs
        parts = [f"{'#' * min(level, 6)} {anchor}{_escaped(section.title).strip()}"]
        for block in section.blocks:
            parts += self._block(block)
        for part in section.parts:
            parts += self._section(part, level + 1)
        return parts

    def _block(self, block: Block) -> list[str]:
        match block:
            case Paragraph(sentence, kind):
                return [self._prose(sentence, "> " if kind == "note" else "")]
            case Items(items, numbered):
                marks = [f"{at}. " if numbered else "- " for at in range(1, len(items) + 1)]
                return ["\n".join(self._prose(item, mark) for item, mark in zip(items, marks, strict=True))]
            case Listing(text):
                return [_fenced(text)]
            case Table():
                return self._table(block)
            case Figure(name, title, alt):
                picture = f"![{_escaped(alt)}]({quote(name)}.png)"
                return [self._prose((Strong(title),)), picture, self._prose(block.note)]

    def _table(self, table: Table) -> list[str]:
        given = shown(table)
        columns = [(at, table.columns[at]) for at in (*given.keys, *given.others)]
        lines = [[_cell(column.label) for _, column in columns]]
        lines.append(["---:" if column.numeric else "---" for _, column in columns])
        for row in given.rows:
            texts = [(_cell(row.cells[at].text), column.numeric) for at, column in columns]
            cells = [unbroken(text) if numeric else text for text, numeric in texts]
            if row.record is not None:
                cells[0] = f"[{cells[0]}]({self._address(row.record)})"
            lines.append([cell and f"**{cell}**" for cell in cells] if row.best else cells)
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return [self._prose((Strong(table.title),)), drawn, self._prose(given.note)]

    def _prose(self, sentence: Sentence, mark: str = "") -> str:
        """A sentence in lines, after the mark of a list or of a quote; empty where it says nothing."""
        text = "".join(self._span(span) for span in sentence).strip()
        lines = textwrap.wrap(text, _WIDTH - len(mark), break_long_words=False, break_on_hyphens=False)
        follow = mark if mark == "> " else " " * len(mark)
        lines = [_BLOCK.sub(r"\1\\\2", line).replace(_HELD, " ") for line in lines]
        return "\n".join(f"{follow if at else mark}{line}" for at, line in enumerate(lines))

    def _span(self, span: Span) -> str:
        match span:
            case str():
                return _escaped(span)
            case Number(text, record):
                return f"[{_escaped(text)}]({self._address(record)})"
            case Code(text):
                return _code(text)
            case Strong(text):
                return f"**{_escaped(text).strip()}**" if text.strip() else ""
            case Cite(text, url):
                return f"[{_escaped(text)}]({quote(url, safe=':/?#[]@!$&*+,;=%~')})"

    def _address(self, record: int) -> str:
        """Of a record's line in its stored run, as a code host numbers them."""
        entry = self.material.entries[record]
        return f"{quote(Path(os.path.relpath(entry.run.file, self.folder)).as_posix())}#L{entry.line}"


def _escaped(text: str) -> str:
    """Text that stays text within a line."""
    escaped = _MARKUP.sub(r"\\\g<0>", re.sub(" +", " ", words(text)))
    return _ADDRESS.sub(r"\\\g<0>", escaped)


def _cell(text: str) -> str:
    """Escaped text of a cell: hosts disagree on a backslash before the bar that ends a cell, not on its number."""
    return _escaped(text).replace(r"\|", "&#124;").strip()


def _code(text: str) -> str:
    """A code span, between more backticks than it has in a row; no line may break in it."""
    line = visible(text)
    if not line.strip():
        return ""
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{ticks}{pad}{line}{pad}{ticks}".replace(" ", _HELD)


def _fenced(text: str) -> str:
    lines = [visible(line) for line in text.expandtabs().splitlines()]
    fence = "`" * max(3, _longest_run(text) + 1)
    return "\n".join([fence, *lines, fence])


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
