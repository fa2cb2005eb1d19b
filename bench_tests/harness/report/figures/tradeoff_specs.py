"""The picture of quality against a cost as a Vega-Lite spec: up and to the left is better in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.figures.charts import (
    HEIGHT,
    PALETTE,
    WIDTH,
    chosen,
    legend,
    rounded,
    row_of,
    shown,
    tooltip,
)
from bench_tests.harness.report.figures.front import Cost, Judged
from bench_tests.harness.report.figures.placing import Axis, axis, labels
from bench_tests.harness.report.material import Entry
from bench_tests.harness.report.wording import cut

MOST_NAMES = 8  # in a picture
_ON, _OFF = "on the front", "beaten by one on the front"


def tradeoff_spec(points: Judged, cost: Cost, best: Sequence[Entry]) -> dict[str, Any]:
    """Points with the intervals of their quality, the front ``best`` as steps, names where there is room."""
    missing, factor = points.near_perfect, 100.0 if points.is_share else 1.0
    quality_name = cut(points.entries[0].quality_name, 30)
    heights = [[factor * (1 - end if missing else end) for end in points.quality(entry)] for entry in points.entries]
    logarithmic = missing and any(value > 0 for value, *_ in heights)
    if logarithmic:
        floor = min(value for value, *_ in heights if value > 0) / 3
        heights = [[max(end, floor) for end in ends] for ends in heights]
    flipped = missing or not points.higher_is_better
    y = axis([end for ends in heights for end in ends], HEIGHT, logarithmic=logarithmic, flipped=flipped)
    x = axis([cost.of(entry) for entry in points.entries], WIDTH, logarithmic=True)
    per = ", %" if points.is_share else ""
    words = f"1 - {quality_name}{per}" if missing else f"{quality_name}{per}"
    if flipped:
        words += " (log scale; higher up is better)" if logarithmic else " (higher up is better)"
    rows = [
        row_of(entry)
        | {
            "name": points.name(entry),
            "cost": rounded(cost.of(entry)),
            "height": rounded(value),
            "height_low": rounded(min(low, high)),
            "height_high": rounded(max(low, high)),
            "quality": rounded(factor * points.quality(entry).value),
            "quality_low": rounded(factor * points.quality(entry).low),
            "quality_high": rounded(factor * points.quality(entry).high),
            "megabytes": rounded(float(entry.record["size_bytes"]) / 1e6),
            "standing": _ON if entry in best else _OFF,
        }
        for entry, (value, low, high) in zip(points.entries, heights, strict=True)
    ]
    numbers = {entry.number for entry in best}
    steps = sorted((row for row in rows if row["record"] in numbers), key=lambda row: float(row["cost"]))
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "datasets": {"rows": rows, "front": steps, "names": _names(rows, steps, x, y)},
        "data": {"name": "rows"},
        "layer": _layers(points, x, y, f"{cost.axis}, {cost.unit} (log scale)", words),
    }


def _names(rows: list[dict[str, Any]], steps: list[dict[str, Any]], x: Axis, y: Axis) -> list[dict[str, Any]]:
    """The rows that have their name beside them: the front, the original, and of few rows all."""
    wanted = [*steps[:1], *steps[-1:], *(row for row in rows if row["recipe"] == ORIGINAL), *steps]
    wanted += rows if len(rows) <= MOST_NAMES else []
    numbers = list(dict.fromkeys(row["record"] for row in wanted))[:MOST_NAMES]
    places = {row["record"]: index for index, row in enumerate(rows)}
    named = {places[number]: str(rows[places[number]]["name"]) for number in numbers}
    pixels = [(x.pixel(row["cost"]), HEIGHT - y.pixel(row["height"])) for row in rows]
    bars = [
        (x.pixel(row["cost"]), HEIGHT - y.pixel(row[top]), x.pixel(row["cost"]), HEIGHT - y.pixel(row[bottom]))
        for row in rows
        for top, bottom in [("height_low", "height_high") if y.flipped else ("height_high", "height_low")]
    ]
    corners = [(x.pixel(row["cost"]), HEIGHT - y.pixel(row["height"])) for row in steps]
    treads = [(left, at, right, at) for (left, at), (right, _) in pairwise(corners)]
    risers = [(right, end, right, at) for (_, at), (right, end) in pairwise(corners)]
    lines = [*bars, *treads, *risers]
    return [rows[index] | placed for index, placed in labels(pixels, named, WIDTH, HEIGHT, lines).items()]


def _layers(points: Judged, x_axis: Axis, y_axis: Axis, x_title: str, y_title: str) -> list[dict[str, Any]]:
    x = {"field": "cost", "type": "quantitative", "scale": x_axis.scale, "axis": {"title": x_title, "format": ",.4~r"}}
    y = {
        "field": "height",
        "type": "quantitative",
        "scale": y_axis.scale,
        "axis": {"title": y_title, "format": ",.4~r", "tickCount": 6},
    }
    standing = {"field": "standing", "type": "nominal", "title": None, "legend": legend([_ON, _OFF])}
    scale = {"domain": [_ON, _OFF]}
    colour = standing | {"scale": scale | {"range": [PALETTE[3], PALETTE[0]]}}
    shape = standing | {"scale": scale | {"range": ["diamond", "circle"]}}
    choice = {"name": "chosen", "select": {"type": "point", "fields": ["standing"]}, "bind": "legend"}
    percent = ", %" if points.is_share else ""
    quality = cut(points.entries[0].quality_name, 30)
    more = [
        shown("quality", f"{quality}{percent}", ",.4~r"),
        shown("quality_low", f"{quality}, from", ",.4~r"),
        shown("quality_high", f"{quality}, to", ",.4~r"),
        shown("megabytes", "size, MB", ",.3~r"),
    ]
    variant = {"field": "variant", "type": "nominal", "title": "variant"}
    return [
        {
            "data": {"name": "front"},
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "color": PALETTE[3]},
            "encoding": {"x": x, "y": y, "opacity": {"value": 0.6}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {
                "x": x,
                "y": y | {"field": "height_low"},
                "y2": {"field": "height_high"},
                "color": colour,
                "opacity": chosen(0.35),
            },
        },
        {
            "params": [choice],
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "shape": shape,
                "opacity": chosen(),
                "tooltip": [variant, *tooltip(points.group), *more],
            },
        },
        {
            "data": {"name": "names"},
            "mark": {
                "type": "text",
                "baseline": "middle",
                "dx": {"expr": "datum.dx"},
                "dy": {"expr": "datum.dy"},
                "align": {"expr": "datum.align"},
            },
            "encoding": {"x": x, "y": y, "text": {"field": "name"}},
        },
    ]
