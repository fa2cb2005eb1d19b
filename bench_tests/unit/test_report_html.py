"""The report as a page: what stands in it, escaped and whole. How it behaves in a browser is tested beside this."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness.report.document import (
    Cell,
    Column,
    Document,
    Figure,
    Items,
    Listing,
    Paragraph,
    Row,
    Table,
    say,
)  # fmt: skip
from bench_tests.harness.report.forms import html as page
from bench_tests.harness.report.forms.html import MOST_ROWS, html
from bench_tests.harness.report.material import Material
from bench_tests.unit import stored
from bench_tests.unit.documents import HOSTILE, demo, document, everything, kept, measured, rates, two_recipes


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
    written = demo(material)
    data = unpacked(html(written, material))
    assert [one["spec"]["datasets"] for one in data["figures"]] == [one.spec["datasets"] for one in written.figures()]
    table = written.tables()[0]
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
    text = html(document(Paragraph(say("Nothing.")), title="Nothing was measured"), material)
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
        return document(*everything(text), table, figure, title=text)

    text = html(hostile_document(hostile, material), material)
    tags, expected = Tags(text), Tags(html(hostile_document("tame", tame), tame))
    assert [name for name, _ in tags.tags] == [name for name, _ in expected.tags]  # not one tag is the file's
    assert [set(attributes) for _, attributes in tags.tags] == [set(attributes) for _, attributes in expected.tags]
    assert unpacked(text)["records"]["columns"]["case"][0] == kept(hostile)


@settings(max_examples=40)
@given(st.lists(st.text(), min_size=1))
def test_no_text_becomes_markup(texts):
    written = document(Listing("".join(texts)), Items((tuple(texts),)))
    tags = Tags(html(written, Material((), ())))
    plain = Tags(html(document(Listing("a"), Items((("a",),))), Material((), ())))
    assert [name for name, _ in tags.tags] == [name for name, _ in plain.tags]


def test_a_file_name_that_is_no_unicode_can_be_written(tmp_path):
    text = html(Document("run\udcff.json", (), ()), Material((), ()))
    assert "<h1>run?.json</h1>" in text
    text.encode()


def test_a_number_that_json_lacks_is_none(tmp_path):
    material = stored.material(tmp_path, stored.run([stored.record()]))
    table = Table("t", "t", (Column("a", "a"),), (Row((Cell("inf", float("inf")),)), Row((Cell("1", 1.0),))))
    data = unpacked(html(document(table), material))
    assert data["tables"][0]["values"] == [[None, 1.0]]


def test_long_tables_name_the_file_that_has_all(tmp_path):
    material = stored.material(tmp_path, stored.run(stored.record(batch=batch) for batch in range(1, MOST_ROWS + 3)))
    written = document(measured(material))
    tags = Tags(html(written, material))
    assert "These are the first 1,000 of 1,002 rows; tables/results.csv has all." in tags.words
    assert "2 more records are not listed here" in tags.words
    assert len([one for one in tags.all("tr") if "data-record" in one]) == 2 * MOST_ROWS
    assert len(unpacked(html(written, material))["tables"][0]["values"][0]) == MOST_ROWS + 2


def test_the_page_has_no_more_rows_than_it_can_bear(tmp_path, monkeypatch):
    material = stored.material(tmp_path, stored.run(stored.record(batch=batch) for batch in range(1, 301)))
    monkeypatch.setattr(page, "_PAGE_ROWS", 500)
    tables = tuple(measured(material, f"results-{at}") for at in range(2))
    tags = Tags(html(document(*tables), material))
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
