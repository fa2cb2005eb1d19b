"""Figures of a per-layer profile: where the time goes, and how far each layer is from what the machine allows.

A layer's FLOP a byte and GFLOP/s are computed from its FLOP, bytes and time; what bounds it was judged by
`python -m bench_tests.profile` (`harness.bottlenecks` has the rule).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import Figure, Sentence, slug
from bench_tests.harness.report.figures.charts import HEIGHT, LEGEND, PALETTE, SHAPES, WIDTH, chosen, shown
from bench_tests.harness.report.material import Profile
from bench_tests.harness.report.phrases import counted
from bench_tests.harness.report.profile_facts import families, loads, roofline_s
from bench_tests.harness.report.wording import cut, duration, per_cent

TOP = 15  # layers with a bar of their own
_BOUNDS = ("compute", "memory", "overhead", "unknown")
_NAME_WIDTH, _BAR_WIDTH, _LABEL_WIDTH = 150, 230, 235  # pixels
Layer = Mapping[str, Any]


def layer_figures(profile: Profile) -> list[Figure]:
    """The time of the longest layers, and the roofline; without those for which the profile has no figures."""
    layers = sorted((_layer(row) for row in profile.rows if row["time_s"] > 0), key=lambda layer: -layer["time_s"])
    total_s = sum(layer["time_s"] for layer in layers)
    for layer in layers:
        layer["share"] = layer["time_s"] / total_s
    profile = replace(profile, rows=tuple(layers))
    figures = [_times(profile, total_s)] if layers else []
    points = [layer for layer in layers if layer["flop"] > 0 and layer["bytes_moved"] > 0]
    if points and min(profile.ceiling["peak_gflops"], profile.ceiling["copy_gb_per_s"]) > 0:
        figures.append(_roofline(profile, points))
    return figures


def _layer(row: Layer) -> dict[str, Any]:
    names = ("name", "kind", "family", "take", "time_s", "flop", "bytes_moved")
    bound = row["bound"] if row["bound"] in _BOUNDS else "unknown"
    return {name: row[name] for name in names} | {"name": row["name"] or "the whole model", "bound": bound}


def _times(profile: Profile, total_s: float) -> Figure:
    layers = profile.rows
    longest, others = layers[:TOP], layers[TOP:]
    unit, factor = ("ms", 1e3) if longest[0]["time_s"] >= 1e-3 else ("us", 1e6)
    rows = [
        {
            **layer, "time": factor * layer["time_s"],
            "label": f"{per_cent(layer['share'])} {layer['bound']}, {cut(layer['kind'])}",
        }
        for layer in longest
    ]  # fmt: skip
    rest = f"the other {len(others)}" if len(others) > 1 else "the other one"
    parts = [
        {"part": part, "bound": load.bound, "time": factor * load.time_s, "share": load.time_s / total_s}
        for part, members in ((f"the {len(longest)} longest", longest), (rest, others))
        for load in loads(replace(profile, rows=members))
    ]
    found = loads(profile)
    bound = found[0].bound
    what = "Layers of unknown bound" if bound == "unknown" else f"{bound.capitalize()}-bound layers"
    shares = [f"{per_cent(load.share)} is {load.bound}-bound" for load in found]
    most = _families(replace(profile, rows=tuple(layer for layer in layers if layer["bound"] == bound)))
    alt = (
        f"Bars of the time of each layer. Of {duration(total_s)}, {', '.join(shares)}. The longest is "
        f"{cut(layers[0]['name'])} ({cut(layers[0]['kind'])}) with {duration(layers[0]['time_s'])}, "
        f"{per_cent(layers[0]['share'])} of all."
    )
    if others:
        rest_share = per_cent(sum(layer["share"] for layer in others))
        alt += f" {counted(len(others), 'more layer')} without a bar: {rest_share} of the time."
    return Figure(
        f"layers-{_slug(profile)}",
        f"{what} take {per_cent(found[0].share)} of the {duration(total_s)} of {_model(profile)}, most of it in {most}",
        alt,
        _bars(rows, parts if others else [], unit),
    )


def _families(profile: Profile) -> str:
    """The families that make 80 % of the time of these layers, two at most."""
    (first, share), *more = families(profile)
    return cut(first) if not more or share >= 0.8 else f"{cut(first)} and {cut(more[0][0])}"


def _colour(layers: Sequence[Layer]) -> dict[str, Any]:
    """Of what bounds a layer; the legend names those that occur, and each has its own colour in every figure."""
    return _channel(layers, PALETTE) | {"legend": LEGEND}


def _channel(layers: Sequence[Layer], values: Sequence[str]) -> dict[str, Any]:
    occur = [place for place, bound in enumerate(_BOUNDS) if any(layer["bound"] == bound for layer in layers)]
    scale = {"domain": [_BOUNDS[place] for place in occur], "range": [values[place] for place in occur]}
    return {"field": "bound", "type": "nominal", "scale": scale, "title": "bound by"}


_CHOICE = {"name": "chosen", "select": {"type": "point", "fields": ["bound"]}, "bind": "legend"}
_TOOLTIP = [
    {"field": "name", "type": "nominal", "title": "layer"},
    {"field": "kind", "type": "nominal", "title": "kind"},
    shown("share", "share of the time", ".1%"),
    {"field": "bound", "type": "nominal", "title": "bound by"},
    {"field": "take", "type": "nominal", "title": "addressed by"},
]


def _bars(rows: Sequence[Layer], parts: Sequence[Layer], unit: str) -> dict[str, Any]:
    """The longest layers, and above them, where there are others, what share of the time both take."""
    axis = {"title": None, "labelLimit": _NAME_WIDTH}
    y = {"field": "name", "type": "nominal", "sort": None, "axis": axis}
    x = {
        "field": "time", "type": "quantitative", "title": f"time of a layer ({unit})", "axis": {"tickCount": 5},
        "scale": {"domain": [0, max(row["time"] for row in rows)]},
    }  # fmt: skip
    time = shown("time", f"time ({unit})", ",.4~g")
    size: dict[str, Any] = {"width": _BAR_WIDTH, "height": {"step": 17}}
    colour: dict[str, Any] = {"color": _colour([*rows, *parts]), "opacity": chosen()}
    text = {"type": "text", "align": "left", "dx": 4, "limit": _LABEL_WIDTH}
    bars = {
        **size,
        "layer": [
            {"params": [_CHOICE], "mark": "bar", "encoding": {"y": y, "x": x, **colour, "tooltip": [*_TOOLTIP, time]}},
            {"mark": text, "encoding": {"y": y, "x": x, "text": {"field": "label", "type": "nominal"}}},
        ],
    }
    spec: dict[str, Any] = {"datasets": {"rows": list(rows)}, "data": {"name": "rows"}}
    if not parts:
        return {**spec, **bars}
    x_share = {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1]}, "title": "share of the time"}
    together = {
        **size, "data": {"name": "parts"}, "mark": "bar",
        "encoding": {
            "y": {**y, "field": "part"}, "x": {**x_share, "axis": {"format": ".0%", "tickCount": 5}}, **colour,
            "tooltip": [{"field": "part", "type": "nominal", "title": "layers"}, *_TOOLTIP[2:4], time],
        },
    }  # fmt: skip
    return {**spec, "datasets": {"rows": list(rows), "parts": list(parts)}, "vconcat": [together, bars]}


def _roofline(profile: Profile, points: Sequence[Layer]) -> Figure:
    peak, bandwidth = profile.ceiling["peak_gflops"], profile.ceiling["copy_gb_per_s"]
    rows = [_point(profile, layer) for layer in points]
    reached = sum(row["roof_s"] for row in rows) / sum(row["time_s"] for row in rows)
    worst = max(rows, key=lambda row: row["time_s"] - row["roof_s"])
    title = f"The layers of {_model(profile)} reach {per_cent(reached)} of what the roofline allows"
    if worst["time_s"] > worst["roof_s"]:
        lost = duration(worst["time_s"] - worst["roof_s"])
        title += f"; {cut(worst['name'])} is farthest behind, {lost} slower than at its roof"
    ridge = peak / bandwidth
    right = sum(row["flop_per_byte"] >= ridge for row in rows)
    alt = (
        "GFLOP/s of each layer against its FLOP a byte, both logarithmic, under a roof of "
        f"{significant(peak, 3)} GFLOP/s that slopes with {significant(bandwidth, 3)} GB/s to the left of its ridge at "
        f"{significant(ridge, 3)} FLOP a byte. "
        f"{right} of {len(rows)} layers lie right of the ridge, where arithmetic is the limit. "
        f"{cut(worst['name'])} reaches {significant(worst['gflops'], 3)} GFLOP/s, "
        f"{per_cent(worst['of_roof'])} of its roof."
    )
    spec = _roof_spec(rows, peak, bandwidth)
    return Figure(f"roofline-{_slug(profile)}", title, alt, spec, _roof_note(rows, len(profile.rows)))


def _point(profile: Profile, layer: Layer) -> dict[str, Any]:
    """A layer under the roof; ``roof_s`` is what it would take there."""
    roof_s = roofline_s(profile, layer)
    return {
        **layer, "time_ms": 1e3 * layer["time_s"], "flop_per_byte": layer["flop"] / layer["bytes_moved"],
        "gflops": layer["flop"] / layer["time_s"] / 1e9, "roof_s": roof_s, "of_roof": roof_s / layer["time_s"],
    }  # fmt: skip


def _roof_note(rows: Sequence[Layer], layers: int) -> Sentence:
    words = "The area of a point is its share of the time."
    missing = layers - len(rows)
    if missing:
        words += (
            f" {missing} of {layers} rows of the profile have no matrix product or convolution in them and no "
            f"place here; they take {per_cent(1 - sum(row['share'] for row in rows))} of the time."
        )
    if any(row["of_roof"] > 1 for row in rows):
        words += " A layer above the slope finds in a cache what the roof has it read from memory."
    return (words,)


def _roof_spec(rows: Sequence[Layer], peak: float, bandwidth: float) -> dict[str, Any]:
    ridge = peak / bandwidth
    left = min(ridge / 16, *(row["flop_per_byte"] / 1.5 for row in rows))
    right = max(ridge * 8, *(row["flop_per_byte"] * 1.5 for row in rows))
    bottom = min(left * bandwidth, *(row["gflops"] / 1.5 for row in rows))
    top = max(peak * 2, *(row["gflops"] * 1.5 for row in rows))
    x = _log_axis("flop_per_byte", "FLOP a byte", left, right)
    y = _log_axis("gflops", "GFLOP/s", bottom, top)
    place = {"x": x, "y": y}
    middle = (left * ridge) ** 0.5
    roof = [{"flop_per_byte": at, "gflops": min(peak, at * bandwidth)} for at in (left, ridge, right)]
    labels = [  # on both sides of the ridge, and at its foot
        {"flop_per_byte": middle, "gflops": middle * bandwidth, "label": f"copy: {significant(bandwidth, 3)} GB/s"},
        {"flop_per_byte": right, "gflops": peak, "label": f"measured peak: {significant(peak, 3)} GFLOP/s"},
        {"flop_per_byte": ridge, "gflops": bottom, "label": f"ridge: {significant(ridge, 3)} FLOP a byte"},
    ]
    points = {
        "params": [_CHOICE], "mark": {"type": "point", "filled": True},
        "encoding": {
            **place, "color": _colour(rows), "shape": _channel(rows, SHAPES) | {"legend": LEGEND},
            "opacity": chosen(0.7),
            "size": {
                "field": "share", "type": "quantitative", "legend": None,
                "scale": {"type": "linear", "domain": [0, max(row["share"] for row in rows)], "range": [20, 500]},
            },
            "tooltip": [
                *_TOOLTIP, shown("time_ms", "time (ms)", ",.4~g"), shown("flop_per_byte", "FLOP a byte", ",.3~g"),
                shown("gflops", "GFLOP/s", ",.4~g"),
                shown("of_roof", "share of its roof", ".0%"),
            ],
        },
    }  # fmt: skip
    line = {"type": "line", "strokeWidth": 2, "color": PALETTE[-1]}
    text = {"type": "text", "align": "right", "baseline": "bottom", "dx": -6, "dy": -5}
    return {
        "datasets": {"rows": list(rows), "roof": roof, "labels": labels}, "data": {"name": "rows"},
        "width": WIDTH, "height": HEIGHT,
        "layer": [
            {"data": {"name": "roof"}, "mark": line, "encoding": place},
            {
                "data": {"name": "labels"}, "mark": text,
                "encoding": {**place, "text": {"field": "label", "type": "nominal"}},
            },
            {
                "mark": {"type": "rule", "strokeDash": [2, 3]},
                "encoding": {"x": {"datum": ridge}, "y": {"datum": bottom}, "y2": {"datum": peak}},
            },
            points,
        ],
    }  # fmt: skip


def _log_axis(field: str, title: str, low: float, high: float) -> dict[str, Any]:
    scale = {"type": "log", "domain": [low, high], "nice": False}
    axis = {"format": "~g", "labelOverlap": True}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _model(profile: Profile) -> str:
    return f"{cut(profile.workload)} at size {profile.size}, batch {profile.batch}"


def _slug(profile: Profile) -> str:
    place = (
        profile.workload, profile.data, profile.size, profile.batch, profile.threads, profile.device,
        profile.fingerprint, profile.file.parent.name, profile.file.name,
    )  # fmt: skip
    return slug(f"{profile.workload}-{profile.size}-{profile.batch}", place)
