"""One figure, three pictures of the same spec: for a page's script, as SVG for print, as PNG for Markdown.

Text, axes and grids take the colour of the page around them (``currentColor``), so that a dark page and a print work.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import vl_convert
from PIL import Image

from bench_tests.harness.report.document import Figure

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"  # a name: nothing fetches it
_INK = "currentColor"
_TEXT = {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": 600}
# Sizes are for a picture of 640 pixels. A browser has a font for system-ui; vl_convert brings Liberation Sans.
THEME: Mapping[str, Any] = {
    "font": "system-ui, Liberation Sans, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": _TEXT
    | {
        "domainColor": _INK, "domainOpacity": 0.5, "tickColor": _INK, "tickOpacity": 0.5, "gridColor": _INK,
        "gridOpacity": 0.12, "gridWidth": 1, "titlePadding": 10, "labelPadding": 4, "labelOverlap": "greedy",
    },
    "legend": _TEXT | {"orient": "bottom", "labelLimit": 280, "symbolSize": 90, "columnPadding": 18, "rowPadding": 4},
    "header": _TEXT,
    "title": {"color": _INK, "subtitleColor": _INK, "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    "text": {"color": _INK, "fontSize": 12},
    "rule": {"color": _INK},
    "tick": {"color": _INK},
}  # fmt: skip

_SCALE = 1.5  # of a PNG: sharp on screens of twice the pixels, still small in a repository
_COLOURS = 256  # of a PNG: with fewer, bands of different colours become alike


def framed(figure: Figure) -> dict[str, Any]:
    """The whole spec of a figure: with schema, theme, description for whoever cannot see it, and no background."""
    frame = {"$schema": _SCHEMA, "config": dict(THEME), "description": figure.alt, "background": None, "padding": 8}
    return frame | dict(figure.spec)


def svg(figure: Figure) -> str:
    """A figure as SVG, without a background. Raises ValueError, with the figure's name, for a spec that is none."""
    try:
        spec = json.dumps(framed(figure), allow_nan=False, ensure_ascii=False)
        return _drawn(spec.encode(errors="replace").decode())  # half a surrogate pair, which JSON can bear, is no UTF-8
    except ValueError as error:
        reason = " ".join(str(error).splitlines()[:2])[:300]
        raise ValueError(f"the figure {figure.name} cannot be drawn: {reason}") from error


def png(figure: Figure) -> bytes:
    """A figure as PNG on white, which a dark page needs too. Raises ValueError as `svg`."""
    # White is drawn below, since what is half transparent comes out of vl_convert darker than it is.
    on_white = svg(figure).replace(">", '><rect width="100%" height="100%" fill="white"/>', 1)
    drawn, small = vl_convert.svg_to_png(on_white, scale=_SCALE), io.BytesIO()
    with Image.open(io.BytesIO(drawn)) as image:
        few = image.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(small, "PNG", optimize=True)
    return small.getvalue()


@lru_cache(maxsize=256)  # Markdown and PDF of one report draw the same figures, at a tenth of a second each
def _drawn(spec: str) -> str:
    return str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))  # data stand in the spec: nothing is fetched
