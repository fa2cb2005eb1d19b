"""The report as Markdown, read back by markdown-it."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench_tests.harness.report.document import (
    Cell,
    Code,
    Column,
    Document,
    Figure,
    Listing,
    Number,
    Paragraph,
    Row,
    Section,
    Table,
    say,
)  # fmt: skip
from bench_tests.harness.report.forms.markdown import markdown
from bench_tests.unit import stored
from bench_tests.unit.documents import HOSTILE, document, everything, material, reference, table

FOLDER = Path("reports/all")
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
COLUMNS = (Column("name", "name", numeric=False), Column("fps", "FPS"))


def write(*blocks, title="Title", given=None):
    return markdown(document(*blocks, title=title), given or material(), FOLDER)


def seen(token):
    """The text of an inline token, as a reader sees it; addresses and pictures apart."""
    apart = {"softbreak": " ", "image": "", "html_inline": ""}
    text = "".join(apart.get(child.type, child.content) for child in token.children)
    return " ".join(text.split())


def inlines(text):
    return [token for token in READER.parse(text) if token.type == "inline"]


def hostile(test):
    for text in HOSTILE:
        test = example(text)(test)
    return settings(max_examples=60, deadline=None)(given(st.text())(test))


@hostile
def test_whatever_a_file_says_stays_text(text):
    picture = Figure("picture", f"T{text}T", f"A{text}", {})
    written = write(*everything(text), picture, title=text)
    written.encode()
    blank = not reference(text)
    if not blank:
        calm = write(*everything("x"), picture, title="x")
        assert [token.type for token in READER.parse(written)] == [token.type for token in READER.parse(calm)]
    children = [child for token in inlines(written) for child in token.children]
    assert [child.content for child in children if child.type == "html_inline"] == ['<a id="part">', "</a>"]
    assert {child.type for child in children} <= {
        "text", "text_special", "softbreak", "html_inline", "code_inline", "strong_open", "strong_close", "link_open",
        "link_close", "image",
    }  # fmt: skip
    addresses = {child.attrs["href"] for child in children if child.type == "link_open"}
    assert addresses == {"#part", "../../runs/x.json#L10", "../../runs/x.json#L11", "https://a.b/%28c%29%20d"}
    whole = reference(f"a {text} b s{text}s c n{text} d c{text} e l{text} f")
    texts = [seen(token) for token in inlines(written)]
    assert texts.count(whole) == 5
    assert reference(f"T{text}T") in texts
    assert reference(f"k{text}") in texts
    if not blank:
        assert texts[0] == reference(text)
        assert texts.count(reference(text)) >= 5  # title, contents, heading, item, paragraph
    pictures = [child for child in children if child.type == "image"]
    assert [picture.attrs["src"] for picture in pictures] == ["picture.png"]
    assert seen(pictures[0]) == reference(f"A{text}")


@hostile
def test_a_listing_is_kept_line_by_line(text):
    [fence] = [token for token in READER.parse(write(Listing(f"x{text}\n  y"))) if token.type == "fence"]
    lines = f"x{text}\n  y".expandtabs().splitlines()
    assert [reference(line) for line in fence.content.split("\n")[:-1]] == [reference(line) for line in lines]
    assert fence.content.endswith("\n  y\n")


def test_addresses_in_a_text_are_not_linked_by_a_code_host():
    assert "http\\://a.bc and www\\.a.bc" in write(Paragraph(say("{x}", x="http://a.bc and www.a.bc")))


def test_records_are_linked_from_the_folder_whatever_their_file_is_called():
    given = material(file=Path("reports/all/a b:c)#?.json"))
    written = write(Paragraph(say("{x}", x=Number("3x", 1))), given=given)
    assert "[3x](a%20b%3Ac%29%23%3F.json#L11)" in written


def test_prose_is_wrapped_but_neither_code_nor_a_table():
    code = "python -m bench_tests.report " + "run.json " * 20 + "-o report"
    written = write(Paragraph(say("word " * 200 + "{code} " + "- 1. # word " * 50, code=Code(code))))
    lines = written.splitlines()
    assert f"`{code}`" in lines
    assert all(len(line) <= 130 for line in lines if code not in line)
    assert not [token for token in READER.parse(written) if "list" in token.type][8:]  # those of the contents


def test_a_long_table_says_where_the_rest_is_and_a_row_names_what_differs():
    rows = [(f"name{at}", str(at)) for at in range(1234)]
    written = write(table(COLUMNS, rows))
    assert "| [name199](../../runs/x.json#L11) | 199 |" in written
    assert "name200" not in written
    assert "The first 200 of 1,234 rows; all of them are in tables/results.csv." in written
    columns = (Column("recipe", "recipe", False), Column("backend", "backend", False), Column("fps", "FPS"))
    cells = [tuple(Cell(text, text) for text in ("original", name, "1 [1, 2]")) for name in ("eager", "openvino")]
    written = write(Table("t", "T", columns, tuple(Row(row, 0) for row in cells)))
    assert "| [openvino](../../runs/x.json#L10) | 1 \\[1,\u00a02\\] |" in written
    assert "In all rows: recipe original." in written


@pytest.mark.parametrize("rows", [[], [("", "")]])
def test_empty_tables_are_tables(rows):
    assert "table_open" in [token.type for token in READER.parse(write(table(COLUMNS, rows, best=True)))]


def test_sections_and_their_parts_are_in_the_contents_and_can_be_reached():
    deep = Section("deep", "Deep")
    inner = Section("inner", "Inner", (Paragraph(say("x")),), (deep,))
    whole = Document("T", say("lead"), (Section("one", "One", (), (inner,)), Section("two", "Two")))
    written = markdown(whole, material(), FOLDER)
    for slug in ("one", "inner", "two"):
        assert written.count(f"](#{slug})") == written.count(f'<a id="{slug}"></a>') == 1
    assert "](#deep)" not in written
    levels = [token.tag for token in READER.parse(written) if token.type == "heading_open"]
    assert levels == ["h1", "h2", "h3", "h4", "h2"]


def test_the_line_of_a_real_record_is_that_of_its_file(tmp_path):
    found = stored.material(tmp_path)
    written = write(Paragraph(say("{x}", x=Number("3x", 7))), given=found)
    line = int(written.split("#L")[1].split(")")[0])
    text = found.entries[7].run.file.read_text().splitlines()
    assert text[line - 1].strip() == '"extra_info": {'
    assert f'"{found.entries[7].case}"' in text[line]
