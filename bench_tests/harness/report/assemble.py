"""Puts a report together, and writes it: `assemble` says all that there is to say, `write` in the forms asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench_tests.harness.report.answers.fastest import fastest_answer
from bench_tests.harness.report.answers.needs import Need, recommend
from bench_tests.harness.report.document import Block, Code, Document, Items, Listing, Paragraph, Section, Sentence, say
from bench_tests.harness.report.forms.export import csv_text, json_text
from bench_tests.harness.report.forms.html import html
from bench_tests.harness.report.forms.markdown import markdown
from bench_tests.harness.report.forms.pdf import pdf
from bench_tests.harness.report.forms.pictures import png
from bench_tests.harness.report.material import Material
from bench_tests.harness.report.phrases import counted
from bench_tests.harness.report.sections.conclusion import conclusion
from bench_tests.harness.report.sections.discussion import discussion
from bench_tests.harness.report.sections.introduction import introduction
from bench_tests.harness.report.sections.methodology import methodology
from bench_tests.harness.report.sections.results import results
from bench_tests.harness.report.sections.sources import sources
from bench_tests.harness.report.tables import describe, records_table, summary_table, unmeasured_table
from models.errors import SpeedproofError
from models.files import check_writable, save_bytes, save_text


def assemble(material: Material, needs: Sequence[Need] = ()) -> Document:
    """The report of all that was read; ``needs`` are what a recommendation must meet."""
    sections = [
        _in_short(material, needs),
        introduction(material),
        methodology(material),
        results(material),
        discussion(material),
        conclusion(material, needs),
        _without_a_number(material),
        sources(material),
    ]
    return Document(_title(material), _lead(material), tuple(sections))


_CHECKED = (
    " Every case was compared with the original model, and judged on examples where there are any, before it was timed."
)


def _title(material: Material) -> str:
    names = list(dict.fromkeys(f"{group.workload} on {group.data}" for group in material.groups))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"How fast is it, and is it still right? {', '.join(names[:2])}{more}" if names else "Nothing was measured"


def _lead(material: Material) -> Sentence:
    machines = list(dict.fromkeys(group.fingerprint for group in material.groups))
    days = sorted({run.when[:10] for run in material.runs if run.when})
    between = "" if not days else f", {days[0]}" if len(days) == 1 else f", {days[0]} to {days[-1]}"
    missing = sum(len(run.not_measured) for run in material.runs)
    return say(
        "{cases} measured and {missing} without a number, from {runs} on {machines}{between}.{checked}",
        checked=_CHECKED if material.entries else "",
        cases=counted(len(material.entries), "case"),
        missing=str(missing),
        runs=counted(len(material.runs), "run"),
        machines=counted(len(machines), "machine"),
        between=between,
    )


def _in_short(material: Material, needs: Sequence[Need]) -> Section:
    """What is fastest, in a sentence, or in a table of several groups; and what to take for the needs."""
    if not material.groups:
        words = "No case was measured: the reasons stand under 'Cases without a number'; nothing can be recommended."
        return Section("in-short", "In short", (Paragraph(say(words), kind="note"),))
    several = len(material.groups) > 1
    told: list[Sentence] = []
    for group in material.groups:
        first = next((block for block in fastest_answer(group).blocks if isinstance(block, Paragraph)), None)
        if first is not None and not several:
            told.append(first.sentence)
        advice = _advice(recommend(group, needs)) if needs else ()
        if advice:
            told.append(say("{group}: {advice}", group=Code(describe(group)), advice=advice) if several else advice)
    blocks: list[Block] = [summary_table(material)] if several else []
    return Section("in-short", "In short", (*blocks, *([Items(tuple(told))] if told else [])))


def _advice(blocks: Sequence[Block]) -> Sentence:
    """The first sentence of a recommendation, where it stands for itself: without a command that it announces."""
    first, then = blocks[0], blocks[1] if len(blocks) > 1 else None
    alone = isinstance(first, Paragraph) and first.kind == "text" and not isinstance(then, Listing)
    return first.sentence if alone and isinstance(first, Paragraph) else ()


def _without_a_number(material: Material) -> Section:
    table = unmeasured_table(material)
    blocks: tuple[Block, ...] = (table,) if table else (Paragraph(say("Every case that was asked for has one.")),)
    return Section("not-measured", "Cases without a number", blocks)


Made = Mapping[Path, bytes | str]


def _html(material: Material, document: Document, folder: Path) -> Made:
    return {folder / "report.html": html(document, material)}


def _markdown(material: Material, document: Document, folder: Path) -> Made:
    pictures = {folder / f"{figure.name}.png": png(figure) for figure in document.figures()}
    return {folder / "report.md": markdown(document, material, folder), **pictures}


def _pdf(material: Material, document: Document, folder: Path) -> Made:
    return {folder / "report.pdf": pdf(document, material)}


def _tables(material: Material, document: Document, folder: Path) -> Made:
    made: dict[Path, str] = {}
    for table in (*document.tables(), records_table(material)):
        file = folder / "tables" / table.name
        made |= {
            file.with_name(f"{table.name}.csv"): csv_text(table),
            file.with_name(f"{table.name}.json"): json_text(table),
        }
    return made


FORMATS: Mapping[str, Callable[[Material, Document, Path], Made]] = {
    "html": _html, "markdown": _markdown, "pdf": _pdf, "tables": _tables
}  # fmt: skip


def write(material: Material, document: Document, folder: Path, formats: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write the report in ``formats`` of `FORMATS` to a folder, and return the files.

    All of it is made before the first file is written. Raises SpeedproofError where the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise SpeedproofError(f"{folder}: is a file, expected a folder for the report")
    check_writable(folder)
    made: dict[Path, bytes | str] = {}
    for name in formats:
        made |= FORMATS[name](material, document, folder)
    for file, content in made.items():
        if isinstance(content, bytes):
            save_bytes(file, content)
        else:
            save_text(file, content)
    return list(made)
