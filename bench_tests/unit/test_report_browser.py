"""The report's page in a browser: a chromium by Playwright. Nothing may be fetched, and nothing complain."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench_tests.harness.report.document import (
    Block,
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
)
from bench_tests.harness.report.forms.export import csv_text, json_text
from bench_tests.harness.report.forms.html import html
from bench_tests.harness.report.material import Material
from bench_tests.unit import stored
from bench_tests.unit.documents import HOSTILE, demo, kept, rates, two_recipes

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium in the path (Debian's package chromium)")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and everything that it complained of or asked for."""

    page: Any
    trouble: list[str] = field(default_factory=list)

    def drawn(self) -> Any:
        """The page, when all of its figures are drawn."""
        self.page.wait_for_selector("html[data-drawn]", state="attached")
        return self.page

    def count(self, selector: str) -> int:
        """How many visible elements there are."""
        return self.page.locator(f"{selector} >> visible=true").count()


@pytest.fixture
def opened(browser) -> Iterator[Callable[..., Opened]]:
    """Opens a file as from a mail attachment, and fails the test that made it complain or ask for anything."""
    contexts, pages = [], []

    def open_file(file: Path, anchor: str = "", script: str = "", **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        found = Opened(context.new_page())
        pages.append(found)
        ours = file.as_uri()

        def asked(route: Any) -> None:
            if route.request.url.split("#")[0] == ours:
                route.continue_()
            else:
                found.trouble.append(f"asked for {route.request.url}")
                route.abort()

        context.route("**/*", asked)
        found.page.on("console", lambda message: found.trouble.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.trouble.append(f"error: {error}"))
        found.page.on("dialog", lambda dialog: found.trouble.append(f"ran: {dialog.message}"))
        if script:
            found.page.add_init_script(script)
        found.page.goto(ours + anchor)
        return found

    yield open_file
    for found in pages:
        assert not found.trouble
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return two_recipes(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def report(material, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(html(demo(material), material))
    return file


def checkbox(page: Any, name: str) -> Any:
    return page.get_by_role("checkbox", name=name, exact=True)


def test_every_figure_is_drawn(opened, report, material):
    page = opened(report).drawn()
    largest = [entry for entry in material.entries if entry.size == 224]
    first, second = (page.locator(".plot").nth(at) for at in (0, 1))
    assert first.locator(".mark-line.role-mark path").count() == len({entry.variant for entry in largest})
    assert first.locator(".mark-area.role-mark path").count() == len({entry.variant for entry in largest})
    assert first.locator(".mark-symbol.role-mark path").count() == len(largest)
    assert second.locator(".mark-symbol.role-mark path").count() == len(material.entries)


def test_filters_hide_and_bring_back(opened, report, material):
    found = opened(report)
    page, total = found.drawn(), len(material.entries)
    rows, marks = "#table-results tbody tr", ".plot svg .mark-symbol.role-mark path"
    before = found.count(marks)
    assert (found.count(rows), page.locator("#page-shown").inner_text()) == (total, "160 of 160 records shown")
    page.locator("#page-filters summary").press("Enter")
    box = checkbox(page, "openvino")
    box.press("Space")  # a keyboard is enough
    assert page.locator("#page-shown").inner_text() == "120 of 160 records shown"
    assert found.count(rows) == total * 3 // 4
    expect(page.locator(marks)).to_have_count(before * 3 // 4)
    for name in ("eager", "inductor", "onnxruntime"):
        checkbox(page, name).uncheck()
    expect(page.locator(".plot.empty")).to_have_count(2)
    assert (found.count(marks), found.count(rows), page.locator("#page-shown").inner_text()) == (
        0,
        0,
        "0 of 160 records shown",
    )
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".plot.empty")).to_have_count(0)
    expect(page.locator(marks)).to_have_count(before)
    assert found.count(rows) == total
    # Dates are dates again: all of one run stand in one place, within the frame.
    places = page.locator(".plot").nth(1).locator(".mark-symbol.role-mark path").evaluate_all(
        "marks => [...new Set(marks.map(mark => mark.getAttribute('transform').split(/[(,]/)[1]))]"
    )  # fmt: skip
    assert len(places) == 1
    assert 0 <= float(places[0]) <= 560


def test_long_lists_can_be_chosen_at_once(opened, tmp_path):
    recipes = ("original", *(f"recipe_{number}" for number in range(8)))
    records = stored.matrix(sizes=(224,), batches=(1,), recipes=recipes, backends=("eager",), precisions=("fp32",))
    material = stored.material(tmp_path, stored.run(records))
    file = tmp_path / "report.html"
    file.write_text(html(demo(material), material))
    page = opened(file).drawn()
    page.locator("#page-filters summary").click()
    page.get_by_role("button", name="none").click()
    checkbox(page, "recipe_3").check()
    assert page.locator("#page-shown").inner_text() == "1 of 9 records shown"
    page.get_by_role("button", name="all").click()
    assert page.locator("#page-shown").inner_text() == "9 of 9 records shown"


def test_a_number_opens_its_record(opened, report, material):
    page, entry = opened(report).drawn(), material.entries[-1]
    page.locator("a.value").first.click()
    dialog = page.locator("dialog")
    assert dialog.locator("h2").inner_text() == entry.case
    shown = dict(
        dialog.locator("tr").evaluate_all("rows => rows.map(row => [...row.cells].map(one => one.textContent))")
    )
    assert (shown["File"], shown["Line"]) == (str(entry.run.file), str(entry.line))
    assert (shown["Measured"], shown["Commit"]) == (entry.run.when, entry.run.commit)
    assert stored.FINGERPRINT in shown["Machine"]
    assert {name for name in entry.record if name not in shown} == set()
    assert float(shown["trimmed_mean_s"]) == entry.call_s
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    expect(page).not_to_have_url(re.compile("#"))
    page.locator("#table-results tbody a").nth(2).click()
    assert dialog.locator("h2").inner_text() == material.entries[2].case
    page.go_back()
    assert not dialog.is_visible()


def test_an_address_opens_its_record(opened, report, material):
    page = opened(report, "#record-7").drawn()
    assert page.locator("dialog h2").inner_text() == material.entries[7].case
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("location.hash") == ""


def test_a_mark_opens_its_record(opened, report, material):
    page = opened(report).drawn()
    mark = page.locator(".plot").first.locator(".mark-symbol.role-mark path").last
    last = [entry for entry in material.entries if entry.size == 224][-1]
    mark.click()
    assert page.locator("dialog h2").inner_text() == last.case


def test_downloads_are_the_files_of_the_table(opened, tmp_path):
    cells = {"name": ["a, b", '"quoted"', "=1+1", "two\nlines", None], "fps": [1.5, 3.0, -1e-9, None, 1e21]}
    columns = (Column("name", "name", numeric=False), Column("fps", "FPS"), Column("fits", "fits", numeric=False))
    rows = tuple(
        Row((Cell("a", name), Cell("b", fps), Cell("c", fps is None)))
        for name, fps in zip(cells["name"], cells["fps"], strict=True)
    )
    table = Table("results", "Results", columns, rows)
    file = tmp_path / "report.html"
    file.write_text(html(Document("t", (), (Section("results", "Results", (table,)),)), Material((), ())))
    page, found = opened(file).drawn(), {}
    for form in ("csv", "json"):
        with page.expect_download() as download:
            page.locator(f"#table-results [data-table-as={form}]").click()
        assert download.value.suggested_filename == f"results.{form}"
        download.value.save_as(tmp_path / form)
        with (tmp_path / form).open(newline="") as stream:
            found[form] = stream.read()

    def parsed(text: str) -> list[list[Any]]:
        heads, *lines = csv.reader(io.StringIO(text, newline=""))
        return [heads, *([name, float(fps) if fps else fps, fits] for name, fps, fits in lines)]

    assert parsed(found["csv"]) == parsed(csv_text(table))  # 3.0 and 3 are the same
    assert json.loads(found["json"]) == json.loads(json_text(table))


@pytest.mark.parametrize(("form", "start"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_figures_can_be_saved(opened, report, tmp_path, form, start):
    page = opened(report).drawn()
    with page.expect_download() as download:
        page.locator(f"[data-picture={form}]").first.click()
    assert download.value.suggested_filename == f"rates.{form}"
    download.value.save_as(tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes().startswith(start)


def test_a_heading_sorts(opened, report, material):
    page = opened(report).drawn()

    def records() -> list[int]:
        return page.locator("#table-results tbody tr").evaluate_all(
            "rows => rows.map(row => Number(row.dataset.record))"
        )

    heading = page.locator("#table-results th").nth(3)  # empty for every second
    full = [entry.number for entry in material.entries if entry.number % 2 == 0]
    empty = [entry.number for entry in material.entries if entry.number % 2]
    heading.get_by_role("button").click()
    assert (heading.get_attribute("aria-sort"), records()) == ("descending", [*reversed(full), *empty])
    heading.get_by_role("button").click()
    assert (heading.get_attribute("aria-sort"), records()) == ("ascending", [*full, *empty])
    heading.get_by_role("button").click()
    assert (heading.get_attribute("aria-sort"), records()) == (None, sorted([*full, *empty]))


WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(opened, report, scheme, width):
    page = opened(report, color_scheme=scheme, viewport={"width": width, "height": 740}).drawn()
    assert page.evaluate(WIDE) == 0
    page.locator("#page-filters summary").click()
    page.locator("a.value").first.click()
    assert page.evaluate(WIDE) == 0
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    bright = [sum(map(int, colour[4:-1].split(", "))) > 384 for colour in (ink, paper)]
    assert bright == ([False, True] if scheme == "light" else [True, False])
    assert page.locator(".plot text").first.evaluate("text => getComputedStyle(text).fill") == ink


def test_print_draws_what_nobody_has_scrolled_to(opened, material, tmp_path):
    figures = tuple(rates(material, f"figure-{number}") for number in range(8))
    file = tmp_path / "report.html"
    file.write_text(html(Document("Print", (), (Section("results", "Results", figures),)), material))
    never = """
        window.requestIdleCallback = () => 0;
        window.IntersectionObserver = class { observe() {} };
        window.addEventListener("afterprint", () => {
            document.documentElement.dataset.printed = document.querySelectorAll(".plot > svg .role-frame.root").length;
        });
    """
    page = opened(file, script=never).page
    page.locator("#page-filters").wait_for()
    assert page.locator(".plot > svg").count() == 0
    page.pdf(path=tmp_path / "report.pdf")
    assert page.evaluate("document.documentElement.dataset.printed") == "8"


def test_without_scripts_pictures_and_rows_remain(opened, report, material):
    page = opened(report, java_script_enabled=False).page
    assert page.locator("noscript img").count() == 2
    assert all(
        box["width"] > 300 and box["height"] > 100
        for box in (page.locator("noscript img").nth(at).bounding_box() for at in (0, 1))
    )
    assert not page.locator("#page-filters").is_visible()
    page.locator("a.value").first.click()
    assert page.locator("tr:target").inner_text().split()[1] == material.entries[-1].case


def test_hostile_text_is_shown_and_does_not_run(opened, tmp_path):
    records = [
        stored.record(case=text, recipe=text, backend=text, precision=text, batch=at + 1)
        for at, text in enumerate(HOSTILE)
    ]
    material = stored.material(tmp_path, stored.run(records, command=HOSTILE[0], when=HOSTILE[1]))
    blocks: list[Block] = []
    for at, text in enumerate(HOSTILE):
        blocks.append(Paragraph((text, Code(text), Number(text, at))))
        blocks.append(Table(text, text, (Column(text, text),), (Row((Cell(text, text),), at),), (text,)))
    figure = rates(material)
    blocks += [Listing("\n".join(HOSTILE)), Figure(HOSTILE[0], HOSTILE[1], HOSTILE[2], figure.spec, (HOSTILE[0],))]
    document = Document(HOSTILE[0], tuple(HOSTILE), (Section("results", HOSTILE[2], tuple(blocks)),))
    file = tmp_path / "report.html"
    file.write_text(html(document, material))
    found = opened(file, viewport={"width": 360, "height": 740})
    page = found.drawn()
    assert page.locator("h1").inner_text() == HOSTILE[0]
    assert page.locator("main img").count() == 0
    assert page.evaluate(WIDE) == 0
    page.locator(".mark-symbol.role-mark path").first.hover()  # its tooltip
    for at, text in enumerate(HOSTILE):
        page.evaluate(f"location.hash = 'record-{at}'")
        expect(page.locator("#page-record-origin td").first).to_have_text(str(at))
        assert page.locator("dialog h2").text_content() == kept(text)
    page.keyboard.press("Escape")
    assert page.locator("#page-shown").inner_text() == f"{len(HOSTILE)} of {len(HOSTILE)} records shown"
    page.locator("#page-filters summary").click()
    page.locator("#page-filters input").first.uncheck()
    page.get_by_role("button", name="none").first.click()
    assert page.locator("#page-shown").inner_text() == f"0 of {len(HOSTILE)} records shown"
    page.get_by_role("button", name="Reset").click()
    for button in page.locator("thead button").all()[:3]:
        button.click()


def test_no_record_at_all_is_a_page_without_complaint(opened, tmp_path):
    unmeasured = [{"case": "a", "status": "failed", "reason": "out of memory"}]
    material = stored.material(tmp_path, stored.run([], not_measured=unmeasured))
    file = tmp_path / "report.html"
    file.write_text(html(Document("Nothing", (), (Section("results", "Results", (Listing("a"),)),)), material))
    assert opened(file).drawn().locator("h1").inner_text() == "Nothing"
