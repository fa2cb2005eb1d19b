"""Pictures of figures: their frame, what they are drawn with, and how large they are."""

import io
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from PIL import Image

from bench_tests.harness.report.document import Figure
from bench_tests.harness.report.figures.charts import PALETTE
from bench_tests.harness.report.forms.pictures import THEME, framed, png, svg

SPEC = {
    "width": 560,
    "height": 300,
    "datasets": {
        "rows": [{"size": size, "fps": 100 * size, "variant": name} for size in range(1, 9) for name in ("a", "b")]
    },
    "data": {"name": "rows"},
    "mark": {"type": "line", "point": True},
    "encoding": {
        "x": {"field": "size", "type": "quantitative", "title": "size, px"},
        "y": {"field": "fps", "type": "quantitative", "title": "FPS"},
        "color": {"field": "variant", "scale": {"domain": ["a", "b"], "range": list(PALETTE[:2])}, "title": None},
    },
}


def figure(**more):
    return Figure("rate", "It is fast", "Two lines rise.", SPEC | more)


def test_a_framed_spec_is_the_figures_with_theme_and_description():
    spec = framed(figure())
    assert {name: spec[name] for name in SPEC} == SPEC
    assert spec["description"] == "Two lines rise."
    assert spec["config"] == THEME
    assert "vega-lite/v6" in spec["$schema"]


def test_text_takes_the_colour_of_the_page_and_nothing_hides_it():
    drawn = ElementTree.fromstring(svg(figure()))
    texts = [node for node in drawn.iter() if node.tag.endswith("}text")]
    assert {"size, px", "FPS", "a", "b"} <= {node.text for node in texts}
    assert {node.get("fill") for node in texts} == {"currentColor"}
    first = next(node for node in drawn.iter() if node.tag.endswith(("}rect", "}path")) and node.get("fill"))
    assert first.get("fill") not in ("white", "#fff", "#ffffff")


def test_a_png_is_small_black_on_white_and_has_the_figures_colours():
    drawn = png(figure())
    assert len(drawn) < 60_000
    with Image.open(io.BytesIO(drawn)) as image:
        colours: Any = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or ()}
        assert image.width < 1.5 * 700
    assert (255, 255, 255) in colours
    assert min(sum(colour) for colour in colours) < 3 * 40  # the text
    for wanted in PALETTE[:2]:
        red, green, blue = (int(wanted[at : at + 2], 16) for at in (1, 3, 5))
        assert any(abs(r - red) + abs(g - green) + abs(b - blue) < 24 for r, g, b in colours)


def test_names_of_a_file_are_text_in_a_picture():
    name = "<script>alert(1)</script>\"'&\ud800"
    rows = [{"size": 1, "fps": 2, "variant": name}]
    drawn = svg(figure(datasets={"rows": rows}, encoding=SPEC["encoding"] | {"color": {"field": "variant"}}))
    tree = ElementTree.fromstring(drawn)
    assert not [node for node in tree.iter() if node.tag.endswith("script")]
    assert any("<script>alert(1)" in (node.text or "") for node in tree.iter())


@pytest.mark.parametrize(
    "broken",
    [
        {"mark": "nonsense"},
        {"datasets": {"rows": [{"size": float("nan")}]}},
        {"data": {"url": "http://127.0.0.1:9/rows.json"}},
    ],
    ids=["mark", "nan", "network"],
)
def test_a_spec_that_cannot_be_drawn_names_its_figure(broken):
    with pytest.raises(ValueError, match="the figure rate cannot be drawn"):
        png(figure(**broken))
