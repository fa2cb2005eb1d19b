"""Figures of the history: speed-up and latency of each case over the runs of one machine that measured it.

A change of versions between two runs is marked: an upgrade that slows a model down is what a history is for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import Figure, Sentence
from bench_tests.harness.report.figures.charts import (
    DASHES,
    LEGEND,
    PALETTE,
    SHAPES,
    WIDTH,
    chosen,
    rounded,
    row_of,
    scale_of,
    shown,
)
from bench_tests.harness.report.material import Entry, Group, Material, StoredRun
from bench_tests.harness.report.phrases import counted
from bench_tests.harness.report.picks import told_apart
from bench_tests.harness.report.wording import cut, speedup

MOST_CASES = 8  # lines that a figure bears
_MOST_CHANGES = 6  # sentences that a note bears
_MOST_UPRIGHT = 7  # runs: the labels of more stand at an angle
_PANEL_HEIGHT = 170
Row = Mapping[str, Any]


def history_figures(material: Material, group: Group) -> list[Figure]:
    """Speed-up and latency over the runs of one machine, of the cases that changed most; empty of a single run."""
    histories = material.history(group)
    if not histories:
        return []
    cases = sorted(histories, key=lambda case: -_reach(histories[case]))[:MOST_CASES]
    entries = [entry for case in cases for entry in histories[case]]
    runs = sorted({entry.run.file: entry.run for entry in entries}.values(), key=lambda run: run.when)
    labels = dict(zip((run.file for run in runs), _run_labels(runs), strict=True))
    series = dict(zip(cases, _series([histories[case][-1] for case in cases], group), strict=True))
    rows = [_history_row(entry, series[entry.case], labels[entry.run.file]) for entry in entries]
    told = [(new, _changes(old.versions, new.versions)) for old, new in pairwise(runs)]
    changes = [
        {"run": labels[new.file], "mark": f"V{place}", "text": "; ".join(found)}
        for place, (new, found) in enumerate(((new, found) for new, found in told if found), 1)
    ]
    spec = _history_spec(rows, changes, list(labels.values()), list(series.values()), group)
    title, alt = _history_words(histories, series, len(runs))
    return [Figure(f"history-{group.slug}", title, alt, spec, _history_note(histories, changes))]


def _reach(entries: Sequence[Entry]) -> float:
    """By how much a case's speed-up varied between its runs, as a logarithm."""
    values = [entry.speedup.value for entry in entries]
    return math.log(max(values) / min(values))


def _run_labels(runs: Sequence[StoredRun]) -> list[str]:
    """``0123456 2026-11-20``, and a number behind it where several runs are of one commit and day."""
    labels = [
        f"{run.commit[:7] or 'unknown'}{'*' if run.commit.endswith('-dirty') else ''} {run.when[:10] or 'undated'}"
        for run in runs
    ]
    seen: Counter[str] = Counter()
    for place, label in enumerate(labels):
        seen[label] += 1
        labels[place] = f"{label} no.{seen[label]}" if labels.count(label) > 1 or seen[label] > 1 else label
    return labels


def _series(entries: Sequence[Entry], group: Group) -> list[str]:
    """What the legend calls each case: short where that tells them apart, else the case's id."""
    names = [f"{cut(entry.variant.label, 40)}, {entry.size} {group.unit}, batch {entry.batch}" for entry in entries]
    return names if len(set(names)) == len(names) else [entry.case for entry in entries]


def _history_row(entry: Entry, series: str, run: str) -> dict[str, Any]:
    return {
        **row_of(entry), "series": series, "run": run, "call_ms": rounded(1e3 * entry.call_s),
        "call_ms_low": rounded(1e3 * entry.batch / entry.fps.high),
        "call_ms_high": rounded(1e3 * entry.batch / entry.fps.low),
        "when": entry.run.when[:19],
    }  # fmt: skip


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What changed between the versions of two runs; nothing where one of them kept none. Commits stand below."""
    if not old or not new:
        return []
    found = []
    for name in sorted({*old, *new} - {"commit"}):
        before, now = (cut(versions.get(name, "absent")) for versions in (old, new))
        found += [f"{cut(name)} changed from {before} to {now}"] if old.get(name) != new.get(name) else []
    return found


def _history_words(histories: Mapping[str, Sequence[Entry]], series: Mapping[str, str], runs: int) -> tuple[str, str]:
    """The title and the text for whoever cannot see the figure."""
    ends = {case: (entries[0], entries[-1]) for case, entries in histories.items()}
    changed = [case for case, (old, new) in ends.items() if told_apart(old, new)]
    drawn = [case for case in series if case in changed] or list(series)
    most = max(drawn, key=lambda case: abs(math.log(ends[case][1].speedup.value / ends[case][0].speedup.value)))
    finding = f"{cut(series[most])} from {speedup(ends[most][0]).text} to {speedup(ends[most][1]).text}"
    beyond = f"changed by more than the intervals of {'its speed-up' if len(histories) == 1 else 'their speed-ups'}"
    if len(histories) == 1:
        what = f"the only case {beyond if changed else beyond.replace('changed', 'did not change')}"
    else:
        what = f"{len(changed) or 'none'} of {len(histories)} cases {beyond}; the most"
    title = f"Over {runs} runs, {what}: {finding}"
    alt = f"Speed-up and latency of {counted(len(series), 'case')} over {runs} runs, the oldest on the left."
    for case, name in series.items():
        old, new = ends[case]
        alt += f" {cut(name)}: {speedup(old).text} at first and {speedup(new).text} at last, {_ms(old)} and "
        alt += f"{_ms(new)} ms."
    return title, alt


def _ms(entry: Entry) -> str:
    return significant(1e3 * entry.call_s, 3)


def _history_note(histories: Mapping[str, Sequence[Entry]], changes: Sequence[Mapping[str, str]]) -> Sentence:
    words = "Bars are the interval of the speed-up, and one standard deviation of the latency."
    if len(histories) > MOST_CASES:
        words += (
            f" {len(histories) - MOST_CASES} of {len(histories)} cases, whose speed-up changed least, are left out."
        )
    for change in changes[:_MOST_CHANGES]:
        words += f" {change['mark']}: {change['text']}."
    if len(changes) > _MOST_CHANGES:
        words += f" Versions changed {len(changes) - _MOST_CHANGES} times more."
    if not changes:
        words += " No change of versions between these runs is on record."
    return (words,)


def _history_spec(
    rows: Sequence[Row], changes: Sequence[Row], runs: Sequence[str], series: Sequence[str], group: Group
) -> dict[str, Any]:
    over = "the plain engine" if group.in_cycles else "PyTorch"
    axis = (
        {"labelAngle": -50} if len(runs) > _MOST_UPRIGHT else {"labelExpr": "split(datum.label, ' ')", "labelAngle": 0}
    )
    x = {
        "field": "run", "type": "ordinal", "title": "commit and date (* with uncommitted changes)", "axis": axis,
        "scale": {"type": "band", "domain": list(runs), "padding": 0},
    }  # fmt: skip
    upper = _panel(rows, "speedup", f"speed-up over {over}", {**x, "axis": {"labels": False, "title": None}}, series)
    upper["layer"][-1]["params"] = [
        {"name": "chosen", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"}
    ]
    lower = _panel(rows, "call_ms", "ms a call", x, series)
    for panel in (upper, lower) if changes else ():
        panel["layer"].insert(0, _change_layer("rule", panel["layer"][0]["encoding"]["x"]))
    if changes:
        upper["layer"].insert(1, _change_layer("text", upper["layer"][0]["encoding"]["x"]))
    return {
        "datasets": {"rows": list(rows), "changes": list(changes)}, "data": {"name": "rows"}, "vconcat": [upper, lower]
    }  # fmt: skip


def _change_layer(mark: str, x: Row) -> dict[str, Any]:
    """A rule, or its name above it, between two runs of different versions."""
    encoding = {"x": {**x, "bandPosition": 0}, "tooltip": {"field": "text", "type": "nominal", "title": "versions"}}
    if mark == "rule":
        return {"data": {"name": "changes"}, "mark": {"type": "rule", "strokeDash": [2, 3]}, "encoding": encoding}
    encoding |= {"y": {"value": -8}, "text": {"field": "mark", "type": "nominal"}}
    return {"data": {"name": "changes"}, "mark": "text", "encoding": encoding}


def _panel(rows: Sequence[Row], field: str, title: str, x: Row, series: Sequence[str]) -> dict[str, Any]:
    """A line a case; the intervals are rules."""
    ends = [row[f"{field}_{end}"] for row in rows for end in ("low", "high")]
    y = {"field": field, "type": "quantitative", "title": title, "scale": scale_of(ends), "axis": {"format": "~g"}}
    looks = _looks(series)
    colour = {"color": looks["color"], "opacity": chosen()}
    tooltip = [
        {"field": "case", "type": "nominal", "title": "case"}, {"field": "run", "type": "nominal", "title": "run"},
        {"field": "when", "type": "nominal", "title": "measured"}, shown("speedup", "speed-up", ".3~f"),
        shown("speedup_low", "speed-up, from", ".3~f"), shown("speedup_high", "speed-up, to", ".3~f"),
        shown("call_ms", "ms a call", ",.4~g"),
    ]  # fmt: skip
    interval = {"y": {**y, "field": f"{field}_low"}, "y2": {"field": f"{field}_high"}}
    return {
        "width": WIDTH, "height": _PANEL_HEIGHT,
        "layer": [
            {"mark": "rule", "encoding": {"x": x, **interval, **colour}},
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"x": x, "y": y, **colour, "strokeDash": looks["strokeDash"]},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {"x": x, "y": y, **colour, "shape": looks["shape"], "tooltip": tooltip},
            },
        ],
    }  # fmt: skip


def _looks(series: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, shape and dash of each case: no two have the same colour and shape."""
    turns = [divmod(place, len(PALETTE)) for place in range(len(series))]
    ranges = {
        "color": [PALETTE[place] for _, place in turns],
        "shape": [SHAPES[(turn + place) % len(SHAPES)] for turn, place in turns],
        "strokeDash": [DASHES[(turn + place) % len(DASHES)] for turn, place in turns],
    }
    legend = {**LEGEND, "columns": 2, "labelLimit": 270, "symbolStrokeWidth": 0}  # a dashed outline is no shape
    return {
        channel: {
            "field": "series", "type": "nominal", "title": None, "scale": {"domain": list(series), "range": values},
            "legend": legend,
        }
        for channel, values in ranges.items()
    }  # fmt: skip
