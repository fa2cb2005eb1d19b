"""What figures have in common: colours, dashes and shapes of variants, the fields of a row, scales, selections.

A variant is told apart by its colour and, for colour-blind readers and grey prints, by its shape and its dash as well.
Colours are for marks only: text, axes and grids take those of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench_tests.harness.report.material import Entry, Group, Variant
from bench_tests.harness.report.wording import example

# Okabe & Ito, "Color Universal Design" (2008), without black and yellow, which vanish on dark and on light pages.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 2, 1, 2, 1, 2])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
# A backend has one colour in a whole report; others take what is left.
_HOMES = ("openvino", "onnxruntime", "inductor", "eager", "tensorrt", "avr")

WIDTH, HEIGHT = 560, 300  # pixels, of the plot without its axes and legend
FADED = 0.15  # opacity of what the legend has not chosen
LEGEND = {"orient": "bottom", "columns": 4, "labelLimit": 200, "symbolStrokeWidth": 2, "symbolSize": 90}
_LETTER = 6.5  # pixels, of a legend's font on average


def legend(labels: Sequence[str]) -> dict[str, Any]:
    """A legend below the plot with as many columns as its labels leave room for."""
    longest = 30 + _LETTER * max(map(len, labels), default=0)
    columns = max(1, min(4, int(WIDTH / longest)))
    return LEGEND | {"columns": columns, "labelLimit": WIDTH // columns - 30, "symbolOpacity": 1}


# Of bands and points. It has no scale, and so no part in the legend, whose hollow symbols show the dash as outline.
FILL = {"field": "colour", "type": "nominal", "scale": None}


@dataclass(frozen=True)
class Looks:
    """How each variant of a figure is drawn: the label of each, and in the same order its colour, dash and shape."""

    labels: tuple[str, ...]
    colours: tuple[str, ...]
    dashes: tuple[list[int], ...]
    shapes: tuple[str, ...]

    def colour(self) -> dict[str, Any]:
        """The encoding of ``color`` of a line; its domain is fixed, so that colours stay when rows are hidden."""
        return self._channel(self.colours)

    def paint(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with its variant's colour, for `FILL`."""
        return row | {"colour": self.colours[self.labels.index(row["variant"])]}

    def dash(self) -> dict[str, Any]:
        """The encoding of ``strokeDash``."""
        return self._channel(self.dashes)

    def shape(self) -> dict[str, Any]:
        """The encoding of ``shape``."""
        return self._channel(self.shapes)

    def _channel(self, values: Sequence[Any]) -> dict[str, Any]:
        scale = {"domain": list(self.labels), "range": list(values)}
        drawn = legend(self.labels) | {"symbolSize": 180}
        return {"field": "variant", "type": "nominal", "title": None, "scale": scale, "legend": drawn}


def looks(variants: Iterable[Variant]) -> Looks:
    """Colour and shape tell backends, the dash what else differs; of one backend they tell its recipes.

    Where there are more of either than of colours or dashes, a variant's place gives both: 36 can be told apart.
    """
    kept = list({variant.label: variant for variant in variants}.values())
    if len({variant.backend for variant in kept}) > 1:
        mains, others = [variant.backend for variant in kept], [(one.recipe, one.precision) for one in kept]
        homes = _homes(mains)
    else:
        mains, others = [variant.recipe for variant in kept], [("", one.precision) for one in kept]
        homes = [*dict.fromkeys(mains)]
    kinds = list(dict.fromkeys(others))
    if len(homes) <= len(PALETTE) and len(kinds) <= len(DASHES):
        places = [(homes.index(main), kinds.index(other)) for main, other in zip(mains, others, strict=True)]
    else:
        places = [(at % len(PALETTE), at // len(PALETTE) % len(DASHES)) for at in range(len(kept))]
    return Looks(
        tuple(variant.label for variant in kept),
        tuple(PALETTE[main] for main, _ in places),
        tuple(DASHES[other] for _, other in places),
        tuple(SHAPES[main] for main, _ in places),
    )


def _homes(backends: Iterable[str]) -> list[str | None]:
    """Backends by the place of their colour: the known ones at their own, others where there is room."""
    names = list(dict.fromkeys(backends))
    places: list[str | None] = [name if name in names else None for name in _HOMES]
    for name in names:
        if name not in places:
            free = places.index(None) if None in places else len(places)
            places[free : free + 1] = [name]
    return places


def rounded(value: float) -> float:
    """Six significant digits: no picture shows more, and a page of many records stays small."""
    return float(f"{value:.6g}")


def row_of(entry: Entry) -> dict[str, Any]:
    """The fields by which a page opens a record, hides rows and names them, and the case's measured figures."""
    fps, speedup = entry.fps, entry.speedup
    recipe, backend, precision = entry.variant
    return {
        "record": entry.number, "recipe": recipe, "backend": backend, "precision": precision,
        "variant": entry.variant.label, "case": entry.case, "size": entry.size, "batch": entry.batch,
        "fps": rounded(fps.value), "fps_low": rounded(fps.low), "fps_high": rounded(fps.high),
        "ms": rounded(1e3 * entry.call_s / entry.batch), "speedup": rounded(speedup.value),
        "speedup_low": rounded(speedup.low), "speedup_high": rounded(speedup.high),
    }  # fmt: skip


def rate_name(group: Group) -> str:
    """What a second's worth of them is called."""
    return "FPS" if group.unit == "px" else "examples/s"


def tooltip(group: Group) -> list[dict[str, Any]]:
    """What a pointer sees of a row of `row_of`."""
    rate = rate_name(group)
    return [
        {"field": "case", "type": "nominal", "title": "case"},
        shown("fps", rate, ",.4~r"),
        shown("fps_low", f"{rate}, from", ",.4~r"),
        shown("fps_high", f"{rate}, to", ",.4~r"),
        shown("ms", f"ms/{example(group)}", ",.4~r"),
        shown("speedup", "x eager", ".3~f"),
        shown("speedup_low", "x eager, from", ".3~f"),
        shown("speedup_high", "x eager, to", ".3~f"),
    ]


def shown(field: str, title: str, number_format: str) -> dict[str, Any]:
    """A quantity of a tooltip."""
    return {"field": field, "type": "quantitative", "title": title, "format": number_format}


def scale_of(values: Iterable[float], *, zero: bool = False) -> dict[str, Any]:
    """Logarithmic where positive values span more than a decade; else linear, from 0 where ``zero``."""
    found = [value for value in values if math.isfinite(value)]
    if found and min(found) > 0 and max(found) > 10 * min(found):
        return {"type": "log", "nice": False, "padding": 8}
    return {"type": "linear", "zero": zero, "nice": True}


def legend_choice() -> dict[str, Any]:
    """The parameter of a unit by which a click on the legend brings variants out; `chosen` reads it."""
    return {"name": "chosen", "select": {"type": "point", "fields": ["variant"]}, "bind": "legend"}


def chosen(opacity: float = 1.0) -> dict[str, Any]:
    """The encoding of ``opacity``: what the legend has not chosen fades."""
    return {"condition": {"param": "chosen", "value": opacity, "empty": True}, "value": FADED * opacity}
