"""The picture of a sweep as a Vega-Lite spec: a line, a band and points for each variant, rings where it saturates."""

from __future__ import annotations

from typing import Any

from bench_tests.harness.report.figures.charts import (
    FILL,
    HEIGHT,
    WIDTH,
    Looks,
    chosen,
    legend_choice,
    looks,
    row_of,
    scale_of,
    tooltip,
)
from bench_tests.harness.report.figures.sweeps import MOST_CHOICES, Sweep
from bench_tests.harness.report.material import Entry, Variant
from bench_tests.harness.report.wording import cut, example
from bench_tests.harness.saturation import saturation

_SATURATED = "saturation: smallest batch within 5 % of the variant's best"


def curve_spec(sweep: Sweep, field: str, axis: str) -> dict[str, Any]:
    """Lines of fps or speedup; ``axis`` is the title of theirs."""
    style = looks(sweep.variants)
    rows = [style.paint(row) for row in _rows(sweep, field)]
    y_scale = scale_of((row[end] for row in rows for end in (f"{field}_low", f"{field}_high")), zero=True)
    params: list[dict[str, Any]] = []
    transform: list[dict[str, Any]] = []
    if len(sweep.choices) > 1:
        name = "batch" if sweep.across == "batch" else f"size, {cut(sweep.group.unit, 12)}"
        bind = {"input": "select", "options": list(sweep.choices), "name": f"{name} "}
        params = [{"name": "shown_value", "value": sweep.first, "bind": bind}]
        transform = [{"filter": f"datum.{sweep.across} == shown_value"}]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "datasets": {"rows": rows},
        "data": {"name": "rows"},
        "params": params,
        "transform": transform,
        "layer": _layers(sweep, field, axis, y_scale, style),
    }


def _rows(sweep: Sweep, field: str) -> list[dict[str, Any]]:
    saturated: set[int] = set()
    if (sweep.along, field) == ("batch", "fps"):
        lines: dict[tuple[int, Variant], list[Entry]] = {}
        for entry in sweep.entries:
            lines.setdefault((entry.size, entry.variant), []).append(entry)
        for line in lines.values():
            batch = saturation({entry.batch: entry.fps.value for entry in line}).batch
            saturated |= {entry.number for entry in line if entry.batch == batch and len(line) > 1}
    return [
        row_of(entry) | ({"mark": _SATURATED} if entry.number in saturated else {})
        for entry in sorted(sweep.entries, key=lambda entry: (entry.size, entry.batch))
    ]


def _along(sweep: Sweep) -> dict[str, Any]:
    stops = sorted({getattr(entry, sweep.along) for entry in sweep.entries})
    scale = scale_of(stops)
    if sweep.along == "batch":
        scale = {"type": "log", "base": 2}
        title = f"batch, {example(sweep.group)}s a call (log scale)"
    else:
        logarithmic = " (log scale)" if scale["type"] == "log" else ""
        title = f"size, {cut(sweep.group.unit, 12)}{logarithmic}"
    axis: dict[str, Any] = {"title": title, "format": "d", "labelOverlap": True}
    if len(stops) <= MOST_CHOICES:
        axis["values"] = stops
    scale |= {"domain": [stops[0], stops[-1]], "nice": False, "padding": 20}
    return {"field": sweep.along, "type": "quantitative", "scale": scale, "axis": axis}


def _layers(sweep: Sweep, field: str, axis: str, scale: dict[str, Any], style: Looks) -> list[dict[str, Any]]:
    title = f"{axis} (log scale)" if scale["type"] == "log" else axis
    y = {"field": field, "type": "quantitative", "scale": scale, "axis": {"title": title, "format": ",.4~r"}}
    x = _along(sweep)
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area"},
            "encoding": {
                "x": x,
                "y": y | {"field": f"{field}_low"},
                "y2": {"field": f"{field}_high"},
                "fill": FILL,
                "detail": {"field": "variant", "type": "nominal"},
                "opacity": chosen(0.18),
            },
        },
        {
            "params": [legend_choice()],
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"x": x, "y": y, "color": style.colour(), "strokeDash": style.dash(), "opacity": chosen()},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60},
            "encoding": {
                "x": x,
                "y": y,
                "fill": FILL,
                "shape": style.shape(),
                "opacity": chosen(),
                "tooltip": tooltip(sweep.group),
            },
        },
    ]
    if (sweep.along, field) == ("batch", "fps"):
        layers.append(_saturation_marks(x, y, style))
    if field == "speedup":
        layers.insert(0, {"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"y": {"datum": 1}}})
    return layers


def _saturation_marks(x: dict[str, Any], y: dict[str, Any], style: Looks) -> dict[str, Any]:
    legend = {"orient": "top", "labelLimit": WIDTH, "symbolStrokeWidth": 2, "symbolFillColor": "transparent"}
    size = {
        "field": "mark",
        "type": "ordinal",
        "title": None,
        "scale": {"type": "ordinal", "domain": [_SATURATED], "range": [260]},
        "legend": legend,
    }
    return {
        "transform": [{"filter": "isValid(datum.mark)"}],
        "mark": {"type": "point", "filled": False, "strokeWidth": 2, "shape": "circle"},
        "encoding": {"x": x, "y": y, "color": style.colour(), "size": size, "opacity": chosen()},
    }
