"""Figures of networks as firmware of a microcontroller: their memory, and cycles a character against quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.digits import quality_text
from bench_tests.harness.report.document import Figure
from bench_tests.harness.report.figures.charts import (
    HEIGHT,
    LEGEND,
    PALETTE,
    WIDTH,
    chosen,
    looks,
    rounded,
    row_of,
    scale_of,
    shown,
)
from bench_tests.harness.report.material import Entry, Group, Variant
from bench_tests.harness.report.phrases import counted
from bench_tests.harness.report.wording import cut, duration, per_cent

# What an Arduino UNO has: `optim.backends.avr.build.UNO`, which imports torch.
CHIP, MEMORY_BYTES = "ATmega328P", {"flash": 32_256, "SRAM": 2_048}
Row = dict[str, Any]


def firmware_figures(group: Group) -> list[Figure]:
    """The memory of each network and engine against the chip's, and cycles a character against quality."""
    entries = [entry for entry in group.entries if group.in_cycles and entry.number_of("flash_bytes") is not None]
    sized = [entry for entry in entries if entry.number_of("sram_bytes") is not None]
    judged = [entry for entry in entries if entry.quality and (entry.number_of("cycles_per_character") or 0) > 0]
    return [*([_memory(group, sized)] if sized else []), *([_cycles(group, judged)] if judged else [])]


def _memory(group: Group, entries: Sequence[Entry]) -> Figure:
    names = {"flash": "flash_bytes", "SRAM": "sram_bytes"}
    rows = [
        row_of(entry)
        | {
            "memory": memory, "used_bytes": used, "has_bytes": MEMORY_BYTES[memory], "chip": entry.text_of("chip"),
            "share": rounded(used / MEMORY_BYTES[memory]), "stack_bytes": entry.number_of("stack_bytes"),
            "label": f"{used:,.0f} bytes of {memory}",
        }
        for entry in entries
        for memory, name in names.items()
        if (used := entry.number_of(name)) is not None
    ]  # fmt: skip
    over = [row for row in rows if row["share"] > 1]
    has = " and ".join(f"{bytes_:,} bytes of {memory}" for memory, bytes_ in MEMORY_BYTES.items())
    most = {memory: max(row["share"] for row in rows if row["memory"] == memory) for memory in names}
    largest = " and ".join(f"{per_cent(part)} of the {memory}" for memory, part in most.items())
    too_big = {row["variant"] for row in over}
    if over:
        worst = max(over, key=lambda row: row["share"])
        title = (
            f"{len(too_big)} of {counted(len(entries), 'firmware', 'firmwares')} "
            f"{'does' if len(too_big) == 1 else 'do'} not fit on an {CHIP}: {cut(worst['variant'])} takes "
            f"{per_cent(worst['share'])} of its {worst['memory']}"
        )
    else:
        title = f"Every network fits on an {CHIP}: the largest take {largest}"
    told = "; ".join(f"{cut(row['variant'])}: {row['label']}, {per_cent(row['share'])}" for row in rows)
    alt = f"Bars of flash and SRAM, the stack included, as shares of what an {CHIP} has, {has}. {told}."
    note = (
        f"The rule is what an {CHIP} has: {has}, less what its boot loader takes. SRAM includes the deepest stack.",
    )
    return Figure(f"firmware-memory-{group.slug}", title, alt, _memory_spec(rows), note)


def _memory_spec(rows: Sequence[Row]) -> Row:
    kinds = list(MEMORY_BYTES)
    width = 280
    y = {"field": "variant", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 230}}
    offset = {"field": "memory", "type": "nominal", "scale": {"domain": kinds}, "sort": kinds}
    x = {
        "field": "share", "type": "quantitative", "title": "share of the chip's memory",
        "axis": {"format": ".0%", "tickCount": 5},
        "scale": {"domain": [0, max(1.0, *(row["share"] for row in rows))]},
    }  # fmt: skip
    colour = {
        "field": "memory", "type": "nominal", "title": None, "legend": LEGEND,
        "scale": {"domain": kinds, "range": list(PALETTE[: len(kinds)])},
    }  # fmt: skip
    tooltip = [
        {"field": "case", "type": "nominal", "title": "case"},
        {"field": "memory", "type": "nominal", "title": "memory"},
        shown("used_bytes", "bytes used", ",d"), shown("has_bytes", "bytes there are", ",d"),
        shown("share", "share", ".1%"), shown("stack_bytes", "bytes of stack", ",d"),
        {"field": "chip", "type": "nominal", "title": "measured on"},
    ]  # fmt: skip
    place = {"y": y, "yOffset": offset}
    return {
        "datasets": {"rows": list(rows)}, "data": {"name": "rows"}, "width": width, "height": {"step": 15},
        "layer": [
            {
                "params": [{"name": "chosen", "select": {"type": "point", "fields": ["memory"]}, "bind": "legend"}],
                "mark": "bar",
                "encoding": {**place, "x": x, "color": colour, "opacity": chosen(), "tooltip": tooltip},
            },
            {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {"x": {"datum": 1}}},
            {
                "mark": {"type": "text", "align": "left", "dx": 6},
                "encoding": {**place, "x": {"value": width}, "text": {"field": "label", "type": "nominal"}},
            },
        ],
    }  # fmt: skip


def _cycles(group: Group, entries: Sequence[Entry]) -> Figure:
    least = min(entries, key=_cycles_of)
    quality, judged = cut(least.quality_name, 30), least.quality
    reached = f", with {quality} {_judged(judged.value)}" if judged else ""
    time = f" or {duration(_cycles_of(least) / hertz)}" if (hertz := least.number_of("frequency_hz")) else ""
    fewest = f"{cut(least.variant.label)} needs the fewest cycles a character, {_cycles_of(least):,.0f}{time}{reached}"
    title = "; ".join(part for part in (_ratios(entries), fewest) if part)
    alt = "Quality against cycles a character, which are logarithmic where they span a decade. "
    alt += "; ".join(
        f"{cut(entry.variant.label)}: {_cycles_of(entry):,.0f} cycles, {quality} {_judged(entry.quality.value)} "
        f"[{_judged(entry.quality.low)}, {_judged(entry.quality.high)}]"
        for entry in entries
        if entry.quality
    )
    note = (
        "Upright rules are the interval of the quality; those to the right reach the slowest character. A line joins "
        "the engines that run the same network.",
    )
    return Figure(f"firmware-cycles-{group.slug}", title, f"{alt}.", _cycles_spec(entries, quality), note)


def _cycles_of(entry: Entry) -> float:
    return float(entry.record["cycles_per_character"])


def _judged(value: float) -> str:
    return quality_text(value, 0 <= value <= 1)


def _ratios(entries: Sequence[Entry]) -> str:
    """By how much one engine needs fewer cycles than the other on the same networks; empty without such pairs."""
    pairs = []
    for recipe in dict.fromkeys(entry.variant.recipe for entry in entries):
        found = sorted((entry for entry in entries if entry.variant.recipe == recipe), key=_cycles_of)
        if len(found) > 1:
            pairs.append((found[0], found[-1]))
    engines = {(fast.variant.backend, slow.variant.backend) for fast, slow in pairs}
    if len(engines) != 1:
        return ""
    fast, slow = (cut(name) for name in engines.pop())
    factors = [_cycles_of(slow) / _cycles_of(fast) for fast, slow in pairs]
    low, high = min(factors), max(factors)
    times = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
    return f"{fast} needs {times} times fewer cycles than {slow} on the same network"


def _cycles_spec(entries: Sequence[Entry], quality: str) -> Row:
    rows = []
    labelled = {min(found, key=_cycles_of).number for found in _by_recipe(entries).values()}
    for entry in entries:
        cycles, judged, hertz = _cycles_of(entry), entry.quality, entry.number_of("frequency_hz")
        if judged is None:
            continue
        rows.append(
            row_of(entry)
            | {
                "cycles": rounded(cycles), "quality": rounded(judged.value), "quality_low": rounded(judged.low),
                "quality_high": rounded(judged.high), "engine": cut(entry.variant.backend, 40),
                "most_cycles": max(cycles, entry.number_of("most_cycles_of_a_character") or cycles),
                "character_ms": rounded(1e3 * cycles / hertz) if hertz else None,
                "label": cut(entry.variant.recipe, 40) if entry.number in labelled else "",
            }
        )  # fmt: skip
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    looked = looks(Variant(ORIGINAL, engine, "fp32") for engine in engines)
    colour, shape = ({**channel, "field": "engine"} for channel in (looked.colour(), looked.shape()))
    shares = all(0 <= row["quality"] <= 1 for row in rows)
    x = {
        "field": "cycles", "type": "quantitative", "title": "cycles a character",
        "scale": scale_of(row[name] for row in rows for name in ("cycles", "most_cycles")) | {"padding": 20},
        "axis": {"format": "~s"},
    }  # fmt: skip
    y = {
        "field": "quality", "type": "quantitative", "title": quality, "axis": {"format": ".1%" if shares else "~g"},
        "scale": {"zero": False, "nice": True},
    }  # fmt: skip
    number = ".1%" if shares else ".4~g"
    tooltip = [
        {"field": "case", "type": "nominal", "title": "case"}, shown("cycles", "cycles a character", ",.0f"),
        shown("most_cycles", "the slowest character", ",.0f"), shown("character_ms", "ms a character", ".3~g"),
        shown("quality", quality, number), shown("quality_low", f"{quality}, from", number),
        shown("quality_high", f"{quality}, to", number), shown("speedup", "x plain, full network", ".3~f"),
    ]  # fmt: skip
    looks_of = {"color": colour, "opacity": chosen()}
    interval = {"y": {**y, "field": "quality_low"}, "y2": {"field": "quality_high"}}
    return {
        "datasets": {"rows": rows}, "data": {"name": "rows"}, "width": WIDTH, "height": HEIGHT,
        "layer": [
            {
                "mark": {"type": "line", "strokeDash": [2, 3], "strokeWidth": 1, "color": "currentColor"},
                "encoding": {"x": x, "y": y, "detail": {"field": "recipe", "type": "nominal"}},
            },
            {"mark": "rule", "encoding": {"x": x, **interval, **looks_of}},
            {"mark": "rule", "encoding": {"x": x, "x2": {"field": "most_cycles"}, "y": y, **looks_of}},
            {
                "params": [{"name": "chosen", "select": {"type": "point", "fields": ["engine"]}, "bind": "legend"}],
                "mark": {"type": "point", "filled": True, "size": 90},
                "encoding": {"x": x, "y": y, **looks_of, "shape": shape, "tooltip": tooltip},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "dy": -8},
                "encoding": {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}},
            },
        ],
    }  # fmt: skip


def _by_recipe(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.variant.recipe, []).append(entry)
    return found
