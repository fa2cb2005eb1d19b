"""The report as PDF: what Typst makes of it, and how tables fit on its pages."""

import json
import re
import string

import pytest
import typst
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench_tests.harness.report.document import Column, Document, Figure, Items, Number, Paragraph, Section, say
from bench_tests.harness.report.forms import pdf as module
from bench_tests.harness.report.forms.page_width import fitted
from bench_tests.harness.report.forms.paper import shown
from bench_tests.harness.report.forms.pdf import TEMPLATE, data, pdf
from bench_tests.harness.report.tables import resources_table, results_table
from bench_tests.unit import stored
from bench_tests.unit.documents import HOSTILE, document, everything, figure, material, reference, table
from models.errors import SpeedproofError


def found(selector, written, given=None):
    """The elements of the set document that a selector of Typst's finds."""
    inputs = {"report": json.dumps(data(written, given or material()))}
    return json.loads(typst.query(TEMPLATE, selector, sys_inputs=inputs))


def texts(node):
    """Every text in what Typst says of an element."""
    if isinstance(node, dict):
        return ([node["text"]] if isinstance(node.get("text"), str) else []) + texts(list(node.values()))
    return [text for child in node for text in texts(child)] if isinstance(node, list) else []


def printed(text):
    """A text without what only tells where it may be broken."""
    return reference(text.replace("\u200b", "").replace("\u00a0", " "))


def sections(names):
    return tuple(Section("part", f"T{name}", everything(name)) for name in names)


def pages(made):
    return len(re.findall(rb"/Type\s*/Page\b", made))


def test_it_is_a_pdf_for_readers_who_listen_and_the_same_each_time():
    written = document(*everything("x"), figure())
    made = pdf(written, material())
    assert made.startswith(b"%PDF")
    assert pdf(written, material()) == made
    inputs = {"report": json.dumps(data(written, material()))}
    typst.compile(TEMPLATE, format="pdf", sys_inputs=inputs, pdf_standards="ua-1")  # title, language, alt, headings


@example(list(HOSTILE))
@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_whatever_a_file_says_stays_text(names):
    written = Document("Title", say("lead"), sections(names))
    elements = found("selector(heading).or(table).or(link)", written)
    kinds = {kind: [one for one in elements if one["func"] == kind] for kind in ("heading", "table", "link")}
    headings = [printed("".join(texts(one["body"]))) for one in kinds["heading"]]
    assert headings == ["Contents", *(reference(f"T{name}") for name in names), "Records"]
    for given_table, name in zip(kinds["table"][:-1], names, strict=True):
        wanted = (f"h{name}", "FPS", f"k{name}", f"v{name}", "other", "1 [1, 2]")
        assert [printed(cell) for cell in texts(given_table)] == [reference(cell) for cell in wanted]
    assert {link["dest"] for link in kinds["link"]} == {"https://a.b/(c) d", "<record-0>", "<record-1>"}


def test_hostile_names_make_a_pdf():
    made = pdf(Document(HOSTILE[0], HOSTILE[1:5], sections(HOSTILE)), material())
    assert pages(made) > len(HOSTILE) // 4


def test_the_records_that_are_spoken_of_are_listed_with_their_lines():
    written = document(Paragraph(say("{x}", x=Number("3x", 2))))
    [given] = found("table", written)
    assert texts(given) == ["number", "case", "line", "2", "case-2", "12"]
    assert data(written, material())["records"]["runs"][0]["facts"] == "2026-11-20 10:00, commit 0123abc"
    assert data(document(Paragraph(say("none"))), material())["records"]["runs"] == []


def test_at_most_a_thousand_records_are_listed_those_of_sentences_first():
    rows = [Items(tuple(say("{x}", x=Number("1", at)) for at in range(1100))), Paragraph(say("{x}", x=Number("1", 3)))]
    records = data(document(*rows), material(1200))["records"]
    assert len(records["runs"][0]["records"]) == 1000
    assert records["rest"] == "200 other records are in tables/records.csv."


def test_a_long_table_ends_and_has_its_heading_on_every_page():
    columns = (Column("name", "name", numeric=False), Column("fps", "FPS"))
    long = document(table(columns, [(f"name{at}", str(at)) for at in range(1234)]))
    [given, _] = found("table", long)
    assert len(texts(given)) == 2 * 201
    assert given["children"][0]["func"] == "header"
    assert "The first 200 of 1,234 rows" in str(data(long, material()))
    assert pages(pdf(long, material())) > pages(pdf(document(table(columns, [("a", "1")])), material()))


def test_typsts_refusal_is_one_sentence(monkeypatch, tmp_path):
    template = tmp_path / "broken.typ"
    template.write_text("#nonsense")
    monkeypatch.setattr(module, "TEMPLATE", template)
    with pytest.raises(SpeedproofError, match=r"the PDF could not be set \(unknown variable: nonsense.*leave it out"):
        pdf(document(), material())


NAMES = st.text(string.ascii_letters + string.digits + "-_ .[]%,", max_size=40)


@settings(deadline=None)
@given(st.data())
def test_tables_of_any_width_fit_the_page_and_every_column_is_printed(drawn):
    count = drawn.draw(st.integers(1, 24))
    columns = tuple(Column(f"c{at}", drawn.draw(NAMES), drawn.draw(st.booleans())) for at in range(count))
    rows = drawn.draw(st.lists(st.tuples(*(NAMES for _ in range(count))), max_size=3))
    made = table(columns, [tuple(re.sub(" ", "", cell)[:14] for cell in row) for row in rows])
    given = shown(made)
    parts = fitted(made, given, 480.0)
    for part in parts:
        assert part.places[0] == given.keys[0]
        assert list(part.places) == sorted(part.places)
        assert len(part.widths) == len(part.places)
        assert 6.5 <= part.size <= 9
        if len(given.keys) < 5:
            assert sum(part.widths) <= 480.1
    assert {at for part in parts for at in part.places} == {*given.keys, *given.others}


@example(["12.07 [11.97, 12.37]", "openvino", "million parameters", "MMMMWWWW", "mmmmwwww", "0123456789"])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(string.ascii_letters + string.digits + " -_.,[]%+", min_size=6, max_size=14), min_size=1))
def test_estimated_widths_hold_what_typst_sets(names):
    made = table(tuple(Column(name, name) for name in names), [tuple(names)])
    [part] = fitted(made, shown(made), 1e6)
    source = """#set text(font: "Libertinus Serif", size: 9pt, number-width: "tabular")
    #context [#metadata(json(bytes(sys.inputs.names)).map(name => measure(name).width / 1pt)) <widths>]"""
    inputs = {"names": json.dumps(names)}
    real = json.loads(typst.query(source.encode(), "<widths>", field="value", one=True, sys_inputs=inputs))
    assert part.size == 9
    for width, estimate, name in zip(real, part.widths, names, strict=True):
        assert width <= estimate, name


def test_the_tables_of_a_run_fit_in_one_part(tmp_path):
    [group] = stored.material(tmp_path).groups
    for made in (results_table(group), resources_table(group)):
        assert len(fitted(made, shown(made), 481.0)) == 1


def test_pictures_are_no_wider_than_the_page_and_keep_their_alt():
    wide, tall = figure(), Figure("tall", "T", "Alt", figure(height=2000).spec)
    [first, second] = data(document(wide, tall), material())["sections"][0]["blocks"]
    assert 300 < first["width"] <= 482
    assert second["width"] < 250
    assert [image["alt"] for image in found("image", document(wide, tall))] == ["Two lines rise.", "Alt"]
