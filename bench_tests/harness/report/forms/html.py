"""The report as one HTML page that needs nothing else: no network, no other file, not even scripts.

Figures, tables and records travel in one compressed block, from which `page.js` draws, sorts, filters and opens a
record. Whoever has no scripts finds still pictures, the tables, and the rows of the records at the end. Whatever comes
from a file is escaped by the template or read from the block as JSON; the page's policy runs our two scripts only.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from bench_tests.harness.report.document import (
    Cite,
    Code,
    Document,
    Figure,
    Items,
    Listing,
    Number,
    Paragraph,
    Section,
    Strong,
    Table,
)  # fmt: skip
from bench_tests.harness.report.forms.pictures import framed, svg
from bench_tests.harness.report.material import Material, StoredRun
from models.errors import SpeedproofError
from models.files import cache_root, save_text

# What stands in the page itself is bounded, so that 10,000 records still open from a mail; CSV and block have all.
MOST_ROWS = 1000  # of a table
_PAGE_ROWS = 10_000  # of all tables: where they have more, each has fewer
_STILLS = 40  # pictures for a reader without scripts, who gets the words for further ones
_LARGEST_STILL = 200_000  # characters; of a larger one there are the words as well
_CHOICES = {"backend": "Backend", "recipe": "Recipe", "precision": "Precision"}
_FOLDER = Path(__file__).parent


def html(document: Document, material: Material) -> str:
    """The whole page. It can be written as UTF-8: of a file name that is none, a question mark stands in it."""
    figures, tables = document.figures(), document.tables()
    scripts = [vega(), (_FOLDER / "page.js").read_text(encoding="utf-8")]
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    page = _template().render(
        document=document,
        entries=material.entries[:MOST_ROWS],
        further=max(0, len(material.entries) - MOST_ROWS),
        most_rows=_most_rows(tables),
        choices=_choices(material),
        filters_in=_filters_in(document),
        figures={figure.name: at for at, figure in enumerate(figures)},
        stills={figure.name: _still(figure) for figure in figures[:_STILLS]},
        tables={table.name: at for at, table in enumerate(tables)},
        policy=_policy(scripts, style),
        data=_block(
            {
                "figures": [{"name": figure.name, "spec": framed(figure)} for figure in figures],
                "tables": [_columns(table) for table in tables],
                "records": _records(material),
                "choices": {name: values for name, _, values in _choices(material)},
            }
        ),
        scripts=[Markup(script) for script in scripts],
        style=Markup(style),
    )
    return page.encode(errors="replace").decode()


def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script: made once a version of vl-convert, and kept in the cache."""
    file = cache_root() / "vega" / f"embed_{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8")
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with contextlib.suppress(SpeedproofError):  # no cache: the next report makes it anew
        save_text(file, bundle)
    return bundle


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(_FOLDER),
    )
    kinds: tuple[type, ...] = (Paragraph, Items, Listing, Table, Figure, Number, Code, Strong, Cite)
    for kind in kinds:
        environment.tests[kind.__name__.lower()] = lambda value, kind=kind: isinstance(value, kind)
    return environment.get_template("page.html.j2")


def _most_rows(tables: Sequence[Table]) -> int:
    """How many rows of a table the page has."""
    fits = (most for most in (MOST_ROWS, 500, 200) if sum(min(most, len(one.rows)) for one in tables) <= _PAGE_ROWS)
    return next(fits, 100)


def _still(figure: Figure) -> str:
    """The still picture as an address; empty where it is too large."""
    drawn = svg(figure)
    if len(drawn) > _LARGEST_STILL:
        return ""
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"


def _policy(scripts: list[str], style: str) -> str:
    """What the page may do: run these scripts, use this style, show pictures of its own. Nothing may be fetched."""

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {' '.join(map(hashed, scripts))}; style-src {hashed(style)}; "
        f"img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _block(content: Mapping[str, Any]) -> str:
    """JSON, compressed, in letters that no parser of HTML takes for markup."""
    try:
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(content), separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _finite(value: Any) -> Any:
    """The same without the numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _columns(table: Table) -> dict[str, Any]:
    """All rows of a table by column: unrounded, and in the order of the page."""
    return {
        "name": table.name,
        "columns": [column.name for column in table.columns],
        "values": [[row.cells[at].value for row in table.rows] for at in range(len(table.columns))],
    }


def _records(material: Material) -> dict[str, Any]:
    """All records by column, null where one has no such value; and where each came from."""
    entries = material.entries
    names = dict.fromkeys(name for entry in entries for name in entry.record)
    runs = {id(run): at for at, run in enumerate(material.runs)}
    return {
        "columns": {name: [entry.record.get(name) for entry in entries] for name in names},
        "line": [entry.line for entry in entries],
        "run": [runs[id(entry.run)] for entry in entries],
        "runs": [_run(run) for run in material.runs],
    }


def _run(run: StoredRun) -> dict[str, str]:
    chip = run.hardware.get("gpu_name") or run.hardware.get("cpu_model")
    return {
        "file": str(run.file),
        "when": run.when,
        "commit": run.commit,
        "machine": f"{run.fingerprint} ({chip})" if chip else run.fingerprint,
        "command": run.command,
    }


def _choices(material: Material) -> list[tuple[str, str, list[str]]]:
    """What a reader may choose by: field, heading, values. Only where there is more than one value."""
    found = [
        (name, heading, list(dict.fromkeys(getattr(entry.variant, name) for entry in material.entries)))
        for name, heading in _CHOICES.items()
    ]
    return [choice for choice in found if len(choice[2]) > 1]


def _filters_in(document: Document) -> str:
    """The section that the filters head: the results, or else the first that has something to filter."""

    def filterable(section: Section) -> bool:
        return any(isinstance(block, Table | Figure) for block in section.blocks) or any(map(filterable, section.parts))

    if any(section.slug == "results" for section in document.sections):
        return "results"
    return next((section.slug for section in document.sections if filterable(section)), "")
