"""The report as a page: what stands in it, escaped and whole. How it behaves in a browser is tested beside this."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness.report.document import (
    NOTHING,
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
from bench_tests.harness.report.forms import html as page
from bench_tests.harness.report.forms.html import MOST_ROWS, html
from bench_tests.harness.report.material import Entry, Material
from bench_tests.unit import stored

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</script><script>alert(3)</script>", "{{7*7}}",
    "a\nb\r\nc\td", "x" * 500, "\u202egnp.exe \U0001f600 ñ ", "' onclick='alert(4)", "<!--", "]]>", "{% raw %}",
    "=1+1",
)  # fmt: skip


def rows_of(entries: Iterable[Entry]) -> list[dict[str, Any]]:
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
    return stored.material(tmp_path, stored.run(stored.matrix(recipes=("original", "int8"), **more)))


def unpacked(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="text/plain" id="page-data">([A-Za-z0-9+/=]+)</script>', text)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


class Tags(HTMLParser):
    """All tags with their attributes, and the text of the page without its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data if self.tags and self.tags[-1][0] not in ("script", "style") else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(autouse=True)
def small_bundle(monkeypatch):
    """What Vega is made of does not matter here."""
    monkeypatch.setattr(page, "vega", lambda: "/* vega */")


def test_everything_of_the_document_stands_in_the_page(tmp_path):
    material = two_recipes(tmp_path, batches=(1, 8))
    tags = Tags(html(demo(material), material))
    for text in (
        "How fast is it?", "No GPU.", "OpenVINO bf16 is fastest", "Bands: intervals.", "Results of all cases", "Size ",
        "pytest bench_tests --size 128,224", "2.88x [2.82, 2.94]", "Okabe & Ito (2008)",
    ):  # fmt: skip
        assert text in tags.words
    anchors = {attributes["id"] for _, attributes in tags.tags if "id" in attributes}
    for link in tags.all("a"):
        assert link["href"][1:] in anchors or link["href"] == "https://jfly.uni-koeln.de/color/"
    levels = [int(name[1]) for name, _ in tags.tags if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_block_holds_specs_tables_and_records_unrounded(tmp_path):
    material = two_recipes(tmp_path, batches=(1, 8))
    document = demo(material)
    data = unpacked(html(document, material))
    assert [one["spec"]["datasets"] for one in data["figures"]] == [one.spec["datasets"] for one in document.figures()]
    table = document.tables()[0]
    values = [[row.cells[at].value for row in table.rows] for at in range(4)]
    names = ["case", "fps", "speedup", "drop_points"]
    assert data["tables"] == [{"name": "results", "columns": names, "values": values}]
    records = data["records"]
    for entry in material.entries:
        found = {name: column[entry.number] for name, column in records["columns"].items()}
        assert {name: value for name, value in found.items() if value is not None} == entry.record
        run = records["runs"][records["run"][entry.number]]
        assert (run["file"], records["line"][entry.number]) == (str(entry.run.file), entry.line)
        assert (run["when"], run["commit"]) == (entry.run.when, entry.run.commit)
        assert stored.FINGERPRINT in run["machine"]


def test_choices_are_the_variants_that_differ(tmp_path):
    material = stored.material(tmp_path, stored.run(stored.matrix(sizes=(224,), batches=(1,), precisions=("fp32",))))
    tags = Tags(html(demo(material), material))
    assert [one["data-field"] for one in tags.all("fieldset")] == ["backend"]
    assert len(tags.all("input")) == len(stored.BACKENDS)
    assert unpacked(html(demo(material), material))["choices"] == {"backend": list(stored.BACKENDS)}


def test_one_case_has_nothing_to_choose(tmp_path):
    material = stored.material(tmp_path, stored.run([stored.record()]))
    assert not Tags(html(demo(material), material)).all("fieldset")


def test_no_record_at_all_is_a_page(tmp_path):
    unmeasured = [{"case": "a", "status": "failed", "reason": "out of memory"}]
    material = stored.material(tmp_path, stored.run([], not_measured=unmeasured))
    document = Document("Nothing was measured", (), (Section("in-short", "In short", (Paragraph(say("Nothing.")),)),))
    text = html(document, material)
    assert "Nothing was measured" in Tags(text).words
    assert unpacked(text)["records"]["line"] == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_whatever_a_file_says_is_text(hostile, tmp_path):
    material = stored.material(
        tmp_path,
        stored.run([stored.record(case=hostile, recipe=hostile, backend=hostile), stored.record()], command=hostile),
    )
    tame = stored.material(tmp_path, stored.run([stored.record(case="a", recipe="b", backend="c"), stored.record()]))

    def hostile_document(text: str, material: Material) -> Document:
        table = Table(text, text, (Column(text, text),), (Row((Cell(text, text),), 0),), (text,))
        figure = Figure(text, text, text, rates(material).spec, (text,))
        blocks = (Paragraph((text, Code(text), Number(text, 0), Strong(text))), Items(((text,),)), Listing(text), table)
        return Document(text, (text,), (Section("results", text, (*blocks, figure)),))

    text = html(hostile_document(hostile, material), material)
    tags, expected = Tags(text), Tags(html(hostile_document("tame", tame), tame))
    assert [name for name, _ in tags.tags] == [name for name, _ in expected.tags]  # not one tag is the file's
    assert [set(attributes) for _, attributes in tags.tags] == [set(attributes) for _, attributes in expected.tags]
    assert unpacked(text)["records"]["columns"]["case"][0] == hostile


@settings(max_examples=40)
@given(st.lists(st.text(), min_size=1))
def test_no_text_becomes_markup(texts):
    spans = tuple(text for text in texts)
    document = Document("t", spans, (Section("s", "s", (Listing("".join(texts)), Items((spans,)))),))
    tags = Tags(html(document, Material((), ())))
    plain = Tags(html(Document("t", ("a",), (Section("s", "s", (Listing("a"), Items((("a",),)))),)), Material((), ())))
    assert [name for name, _ in tags.tags] == [name for name, _ in plain.tags]


def test_a_file_name_that_is_no_unicode_can_be_written(tmp_path):
    text = html(Document("run\udcff.json", (), ()), Material((), ()))
    assert "<h1>run?.json</h1>" in text
    text.encode()


def test_a_number_that_json_lacks_is_none(tmp_path):
    material = stored.material(tmp_path, stored.run([stored.record()]))
    table = Table("t", "t", (Column("a", "a"),), (Row((Cell("inf", float("inf")),)), Row((Cell("1", 1.0),))))
    data = unpacked(html(Document("t", (), (Section("s", "s", (table,)),)), material))
    assert data["tables"][0]["values"] == [[None, 1.0]]


def test_long_tables_name_the_file_that_has_all(tmp_path):
    material = stored.material(tmp_path, stored.run(stored.record(batch=batch) for batch in range(1, MOST_ROWS + 3)))
    document = Document("t", (), (Section("results", "Results", (measured(material),)),))
    tags = Tags(html(document, material))
    assert "These are the first 1,000 of 1,002 rows; tables/results.csv has all." in tags.words
    assert "2 more records are not listed here" in tags.words
    assert len([one for one in tags.all("tr") if "data-record" in one]) == 2 * MOST_ROWS
    assert len(unpacked(html(document, material))["tables"][0]["values"][0]) == MOST_ROWS + 2


def test_the_page_has_no_more_rows_than_it_can_bear(tmp_path, monkeypatch):
    material = stored.material(tmp_path, stored.run(stored.record(batch=batch) for batch in range(1, 301)))
    monkeypatch.setattr(page, "_PAGE_ROWS", 500)
    tables = tuple(measured(material, f"results-{at}") for at in range(2))
    tags = Tags(html(Document("t", (), (Section("results", "Results", tables),)), material))
    assert tags.words.count("These are the first 200 of 300 rows") == 2


def test_the_policy_allows_the_scripts_and_no_address(tmp_path):
    material = stored.material(tmp_path)
    text = html(demo(material), material)
    policy = Tags(text).all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    still = [one["src"] for one in Tags(text).all("img")]
    assert len(still) == 2
    assert all(base64.b64decode(one.removeprefix("data:image/svg+xml;base64,")).startswith(b"<svg") for one in still)


def test_a_picture_too_large_is_told_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_LARGEST_STILL", 100)
    material = stored.material(tmp_path)
    text = html(demo(material), material)
    assert not Tags(text).all("img")
    assert "<noscript><p>FPS grows with the batch up to 8.</p></noscript>" in text


def test_vega_is_made_once_and_without_a_cache_all_the_same(tmp_path, monkeypatch):
    monkeypatch.undo()
    made = []

    def bundle(snippet):
        made.append(snippet)
        return "vega"

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))
    assert [page.vega(), page.vega(), len(made)] == ["vega", "vega", 1]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "file"))
    assert [page.vega(), page.vega(), len(made)] == ["vega", "vega", 3]


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb by WCAG 2.1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("paper", ["paper", "sheet", "best"])
@pytest.mark.parametrize("ink", ["ink", "soft", "accent"])
def test_every_text_can_be_read_on_every_paper(scheme, paper, ink):
    style = (Path(page.__file__).parent / "page.css").read_text()
    light, dark = re.findall(r":root \{([^}]*--soft[^}]*)\}", style)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    high, low = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5
