"""Documents with made-up words, with whatever a file might say in place of them; for the tests of a report's forms."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench_tests.harness.report.document import (
    NOTHING,
    Block,
    Cell,
    Cite,
    Code,
    Column,
    Document,
    Figure,
    Items,
    Listing,
    Number,
    Paragraph,
    Row,
    Section,
    Strong,
    Table,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Entry, Material
from bench_tests.unit import stored

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</script><script>alert(3)</script>", "{{7*7}}",
    "a\nb\r\nc\td", "x" * 500, "\u202egnp.exe \U0001f600 ñ ", "' onclick='alert(4)", "<!--", "]]>", "{% raw %}",
    "=1+1", "a|b", "\\|", "`", "``a`", "* a", "_a_ b_c", "**a**", "[a](b)", "![a](b)", "1. a", "- a", "+ a", "# a",
    "a #", "> a", "---", "===", ":--", "~~a~~", "a\n\nb", "    a", "&lt;&#60;", "\\", "$x$", "``` py",
    "http://a.bc/d", "www.a.bc", "\0", "\ud800", "word " * 80,
)  # fmt: skip


def reference(text: str) -> str:
    """What a reader sees of a text: one line without doubled spaces, and a sign for what cannot be seen."""
    seen = (" " if char.isspace() else char if char.isprintable() else "\ufffd" for char in text)
    return " ".join("".join(seen).split())


def kept(text: str) -> str:
    """A text of a run as the report has it: what no picture can bear is a sign."""
    return text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")


def document(*blocks: Block, title: str = "Title", parts: tuple[Section, ...] = ()) -> Document:
    """A report of one section."""
    return Document(title, say("lead"), (Section("part", title, blocks, parts),))


def material(records: int = 3, file: Path = Path("runs/x.json")) -> Material:
    """Records in lines 10, 11 and so on of a run: all that a form must know of them."""
    run: Any = SimpleNamespace(file=file, when="2026-11-20T10:00:00+00:00", commit="0123abc")
    entries: Any = [SimpleNamespace(number=at, run=run, line=10 + at, case=f"case-{at}") for at in range(records)]
    return Material(tuple(entries), (run,))


def table(columns: tuple[Column, ...], rows: Iterable[tuple[str, ...]], best: bool = False, **more: Any) -> Table:
    """Of texts, each row of record 1, and all of them marked where ``best``."""
    made = tuple(Row(tuple(Cell(text, text) for text in row), 1, best) for row in rows)
    return Table("results", "Results", columns, made, **more)


def everything(text: str) -> tuple[Block, ...]:
    """Each kind of block but a figure, with a text in each place; its sentence stands five times."""
    columns = (Column("name", f"h{text}", numeric=False), Column("fps", "FPS"))
    sentence = say(
        "a {plain} b {strong} c {number} d {code} e {cite} f", plain=text, strong=Strong(f"s{text}s"),
        number=Number(f"n{text}", 0), code=Code(f"c{text}"), cite=Cite(f"l{text}", "https://a.b/(c) d"),
    )  # fmt: skip
    rows = [(f"k{text}", f"v{text}"), ("other", "1 [1, 2]")]
    return (
        Paragraph(sentence),
        Paragraph(sentence, "note"),
        Items((sentence, (text,))),
        Items((sentence,), numbered=True),
        Paragraph((text,)),
        Listing(text),
        table(columns, rows, best=True, note=sentence),
    )


def figure(**more: Any) -> Figure:
    """Two lines of eight points; ``more`` replaces parts of its spec."""
    rows = [{"size": size, "fps": 100 * size, "variant": name} for size in range(1, 9) for name in ("a", "b")]
    spec = {
        "width": 560, "height": 300, "datasets": {"rows": rows}, "data": {"name": "rows"}, "mark": "line",
        "encoding": {
            "x": {"field": "size", "type": "quantitative"}, "y": {"field": "fps", "type": "quantitative"},
            "color": {"field": "variant"},
        },
    }  # fmt: skip
    return Figure("rate", "It is fast", "Two lines rise.", spec | more)


def rows_of(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """The rows of a figure, with what a page opens and hides them by."""
    return [
        {
            "record": entry.number, "recipe": entry.variant.recipe, "backend": entry.variant.backend,
            "precision": entry.variant.precision, "variant": entry.variant.label, "case": entry.case,
            "batch": entry.batch, "fps": entry.fps.value, "fps_low": entry.fps.low, "fps_high": entry.fps.high,
            "when": entry.run.when,
        }
        for entry in entries
    ]  # fmt: skip


def rates(material: Material, name: str = "rates") -> Figure:
    """FPS against batch at the largest size: interval bands, lines and points."""
    largest = max(entry.size for entry in material.entries)
    x = {"field": "batch", "type": "quantitative", "scale": {"type": "log", "base": 2}, "title": "batch"}
    colour = {"field": "variant", "type": "nominal", "title": None, "legend": {"orient": "bottom", "columns": 4}}
    line = {"field": "fps", "type": "quantitative", "title": "FPS", "scale": {"type": "log"}}
    band = {"y": {**line, "field": "fps_low"}, "y2": {"field": "fps_high"}}
    spec = {
        "datasets": {"rows": rows_of(entry for entry in material.entries if entry.size == largest)},
        "data": {"name": "rows"}, "width": 560, "height": 300,
        "encoding": {"x": x, "color": colour},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.2}, "encoding": band},
            {"mark": "line", "encoding": {"y": line}},
            {"mark": {"type": "point", "filled": True, "size": 60},
             "encoding": {"y": line, "tooltip": [{"field": "case"}, {"field": "fps", "format": ".1f"}]}},
        ],
    }  # fmt: skip
    return Figure(name, "OpenVINO bf16 is fastest", "FPS grows with the batch up to 8.", spec, say("Bands: intervals."))


def over_time(material: Material) -> Figure:
    """A case over commits, whose x axis is time."""
    spec = {
        "datasets": {"rows": rows_of(material.entries)}, "data": {"name": "rows"}, "width": 560, "height": 120,
        "mark": "point",
        "encoding": {"x": {"field": "when", "type": "temporal"}, "y": {"field": "fps", "type": "quantitative"},
                     "color": {"field": "backend", "type": "nominal"}},
    }  # fmt: skip
    return Figure("over-time", "Nothing has changed", "One run.", spec)


def measured(material: Material, name: str = "results") -> Table:
    """A row for each record, the fastest marked."""
    columns = (
        Column("case", "case", numeric=False), Column("fps", "FPS"), Column("speedup", "x eager [95 %]"),
        Column("drop_points", "drop, points"),
    )  # fmt: skip
    best = max(material.entries, key=lambda entry: entry.speedup.value, default=None)
    rows = tuple(
        Row(
            (
                Cell(entry.case, entry.case), Cell(f"{entry.fps.value:.1f}", entry.fps.value),
                Cell(f"{entry.speedup.value:.2f}", entry.speedup.value),
                NOTHING if entry.number % 2 else Cell("0.1", 0.1 + entry.number),
            ),
            entry.number,
            entry is best,
        )
        for entry in material.entries
    )  # fmt: skip
    return Table(name, "Results of all cases", columns, rows, say("The fastest is marked."))


def demo(material: Material) -> Document:
    """A report with every kind of block."""
    number = len(material.entries) - 1
    answer = say(
        "{best} is {fastest}, {x} over PyTorch: see {paper}.", best=Code("openvino bf16"), fastest=Strong("fastest"),
        x=Number("2.88x [2.82, 2.94]", number), paper=Cite("Okabe & Ito (2008)", "https://jfly.uni-koeln.de/color/"),
    )  # fmt: skip
    part = Section(
        "results-all", "resnet18 on imagenette, 2 threads",
        (Paragraph(answer), measured(material), rates(material), over_time(material)),
    )  # fmt: skip
    return Document(
        "How fast is it?",
        say("{count} cases on one machine.", count=str(len(material.entries))),
        (
            Section("in-short", "In short", (Items((answer, say("Size matters."))), Items((say("1"),), numbered=True))),
            Section("methodology", "Methodology", (Listing("pytest bench_tests --size 128,224"),)),
            Section("results", "Results", (Paragraph(say("No GPU."), kind="note"),), (part,)),
        ),
    )  # fmt: skip


def two_recipes(tmp_path: Path, **more: Any) -> Material:
    """Every case of a matrix with and without a recipe."""
    return stored.material(tmp_path, stored.run(stored.matrix(recipes=("original", "int8"), **more)))
