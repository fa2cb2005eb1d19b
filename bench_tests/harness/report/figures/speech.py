"""Figures of speech that arrives in chunks: what share of real time each variant takes.

Of a spotter of keywords in clips of fixed length `curves` and `tradeoffs` draw speed and quality, as of every model.
Its area under false alarms against false rejections is no picture of its own: that is ``1 - roc_auc``, scaled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import Figure
from bench_tests.harness.report.figures.charts import (
    HEIGHT,
    WIDTH,
    chosen,
    legend_choice,
    looks,
    rounded,
    row_of,
    scale_of,
    shown,
)
from bench_tests.harness.report.material import Entry, Group, fastest
from bench_tests.harness.report.wording import cut, duration, per_cent

Row = dict[str, Any]


def speech_figures(group: Group) -> list[Figure]:
    """What share of real time each variant takes, by the length of a chunk: a figure for each batch of several ones."""
    if group.unit != "ms":
        return []
    figures = []
    for batch in group.batches:
        entries = [entry for entry in group.at(batch=batch) if (entry.number_of("real_time_factor") or 0) > 0]
        if len({entry.size for entry in entries}) > 1:
            figures.append(_real_time(group, batch, entries))
    return figures


def _real_time(group: Group, batch: int, entries: Sequence[Entry]) -> Figure:
    sizes = sorted({entry.size for entry in entries})
    best = {size: fastest([entry for entry in entries if entry.size == size]) for size in sizes}
    first = best[sizes[0]]
    ends = [f"{per_cent(_factor(best[size]))} of real time with chunks of {size} ms" for size in (sizes[0], sizes[-1])]
    name, others = cut(first.variant.label), [cut(entry.variant.label) for entry in best.values()]
    if len({entry.variant for entry in entries}) == 1:
        title = f"{name} takes {ends[0]} and {ends[1]}"
    elif len(set(others)) == 1:
        doubt = [str(at) for at in sizes if not _clear(best[at], [entry for entry in entries if entry.size == at])]
        unclear = f", though not clearly at {', '.join(doubt)} ms" if doubt else ""
        title = f"{name} is fastest at every chunk length{unclear}: {ends[0]} and {ends[1]}"
    else:
        title = f"Which is fastest depends on the chunk: {name} takes {ends[0]}, {others[-1]} {ends[1]}"
    alt = f"Share of real time against the length of a chunk, both logarithmic where they span decades, batch {batch}."
    for variant in dict.fromkeys(entry.variant for entry in entries):
        found = sorted((entry for entry in entries if entry.variant == variant), key=lambda entry: entry.size)
        told = ", ".join(f"{per_cent(_factor(entry))} at {entry.size} ms" for entry in found)
        alt += f" {cut(variant.label)}: {told}."
    return Figure(f"real-time-{batch}-{group.slug}", title, alt, _real_time_spec(entries, sizes), _call_note(best))


def _factor(entry: Entry) -> float:
    return float(entry.record["real_time_factor"])


def _clear(best: Entry, entries: Sequence[Entry]) -> bool:
    """Whether no other variant's interval reaches that of the fastest."""
    return all(entry is best or entry.speedup.high < best.speedup.low for entry in entries)


def _call_note(best: Mapping[int, Entry]) -> tuple[str, ...]:
    """What a longer chunk costs, of the variant that is fastest with the shortest."""
    sizes = sorted(best)
    same = [size for size in sizes if best[size].variant == best[sizes[0]].variant]
    words = "Bands are one standard deviation of a call's time; a chunk is heard before it is computed."
    if len(same) > 1:
        short, long = best[same[0]], best[same[-1]]
        words += (
            f" On {cut(short.variant.label)} a call takes {duration(short.call_s)} for {short.size} ms of sound "
            f"and {duration(long.call_s)} for {long.size} ms: {significant(long.size / short.size, 3)} times the sound "
            f"for {significant(long.call_s / short.call_s, 2)} times the work."
        )
    return (words,)


def _real_time_spec(entries: Sequence[Entry], sizes: Sequence[int]) -> Row:
    rows = []
    for entry in entries:
        per_s = _factor(entry) / entry.call_s
        fps = entry.fps
        rows.append(
            row_of(entry)
            | {
                "factor": rounded(_factor(entry)), "factor_low": rounded(per_s * entry.batch / fps.high),
                "factor_high": rounded(per_s * entry.batch / fps.low), "call_ms": rounded(1e3 * entry.call_s),
                "delay_ms": rounded(entry.size + 1e3 * entry.call_s),
            }
        )  # fmt: skip
    ends = [row[end] for row in rows for end in ("factor_low", "factor_high")]
    looked = looks(entry.variant for entry in entries)
    x = {
        "field": "size", "type": "quantitative", "title": "length of a chunk (ms)", "scale": scale_of(sizes),
        "axis": {"values": list(sizes), "format": "d"},
    }  # fmt: skip
    y = {
        "field": "factor", "type": "quantitative", "title": "share of real time (%)", "scale": scale_of(ends),
        "axis": {"values": _steps(ends), "labelExpr": "format(100 * datum.value, '.3~g')"},
    }  # fmt: skip
    tooltip = [
        {"field": "case", "type": "nominal", "title": "case"}, shown("factor", "share of real time", ".3~%"),
        shown("factor_low", "share, from", ".3~%"), shown("factor_high", "share, to", ".3~%"),
        shown("call_ms", "ms a call", ",.4~g"), shown("delay_ms", "ms from first sample to answer", ",.5~g"),
        shown("speedup", "x eager", ".3~f"), shown("speedup_low", "x eager, from", ".3~f"),
        shown("speedup_high", "x eager, to", ".3~f"),
    ]  # fmt: skip
    band = {"y": {**y, "field": "factor_low"}, "y2": {"field": "factor_high"}}
    colour = looked.colour()
    return {
        "datasets": {"rows": rows}, "data": {"name": "rows"}, "width": WIDTH, "height": HEIGHT,
        "layer": [
            {"mark": "area", "encoding": {"x": x, **band, "color": colour, "opacity": chosen(0.2)}},
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {
                    "x": x, "y": y, "color": colour, "strokeDash": looked.dash(),
                    "opacity": chosen(),
                },
            },
            {
                "params": [legend_choice()], "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {
                    "x": x, "y": y, "color": colour, "shape": looked.shape(), "opacity": chosen(), "tooltip": tooltip
                },
            },
        ],
    }  # fmt: skip


def _steps(values: Sequence[float]) -> list[float]:
    """Round values for an axis that is logarithmic: 1, 2 and 5 times each power of ten within the range."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = [rounded(digit * 10.0**power) for power in range(low, high + 1) for digit in (1, 2, 5)]
    return [step for step in steps if 0.8 * min(values) <= step <= 1.25 * max(values)]
