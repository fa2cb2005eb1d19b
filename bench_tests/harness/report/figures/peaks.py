"""How busy the machine is: what share of its measured and of its theoretical peak each variant reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import Figure, Number, Sentence, joined, say
from bench_tests.harness.report.figures.charts import (
    PALETTE,
    chosen,
    legend,
    rounded,
    row_of,
    scale_of,
    shown,
    tooltip,
)
from bench_tests.harness.report.material import Entry, Group, Variant
from bench_tests.harness.report.profile_facts import BUSY
from bench_tests.harness.report.wording import cut, per_cent

MOST_ROWS = 20
_MEASURED, _THEORETICAL = "of the measured peak", "of the theoretical peak"
_SHARES = {_MEASURED: "share_of_peak", _THEORETICAL: "share_of_theoretical_peak"}
_WIDTH, _LABELS = 370, 230  # pixels of the plot, and beside it


def peak_figures(group: Group) -> list[Figure]:
    """One figure, each variant where it comes nearest to the measured peak; none where no arithmetic was counted."""
    best: dict[Variant, Entry] = {}
    for entry in group.entries:
        if _share(entry) > _share(best.get(entry.variant)):
            best[entry.variant] = entry
    entries = sorted(best.values(), key=lambda entry: -_share(entry))
    if len(entries) < 2:
        return []
    told = entries[:MOST_ROWS]
    return [
        Figure(
            f"peak-{group.slug}",
            _title(group, told),
            _alt(group, told),
            _spec(group, told),
            _note(entries, told),
        )
    ]


def _share(entry: Entry | None) -> float:
    return _value(entry, "share_of_peak")


def _where(group: Group, entry: Entry) -> str:
    return f"{entry.size} {cut(group.unit, 12)}, batch {entry.batch}"


def _label(entry: Entry) -> str:
    return cut(entry.variant.label, 40)


def _title(group: Group, told: Sequence[Entry]) -> str:
    busy = [entry for entry in told if _share(entry) >= BUSY]
    first = told[0]
    reached = f"{_label(first)} reaches {per_cent(_share(first))} of the measured peak of {_peak(first)}"
    reached += f" ({_where(group, first)})"
    if busy:
        count = f"{len(busy)} of {len(told)} variants keep the machine busy"
        return f"{count if len(busy) > 1 else 'One variant keeps the machine busy'}: {reached}"
    return f"No variant keeps the machine busy: {reached}"


def _peak(entry: Entry) -> str:
    precision = cut(entry.text_of("peak_precision"), 12)
    return f"{significant(entry.number_of('peak_gflops') or 0.0, 3)} GFLOP/s {precision}".strip()


def _alt(group: Group, told: Sequence[Entry]) -> str:
    shares = [f"{_label(entry)} {per_cent(_share(entry))} ({_where(group, entry)})" for entry in told[:8]]
    return (
        f"Dots of the share of the peak that each of {len(told)} variants reaches at its best, the highest first. "
        f"Of the measured peak: {', '.join(shares)}{', and so on' if len(told) > 8 else ''}."
    )


def _note(entries: Sequence[Entry], told: Sequence[Entry]) -> Sentence:
    hows = dict.fromkeys(cut(how, 120) for entry in told if (how := entry.text_of("peak_theoretical_how")))
    theory = _ceilings(told, "peak_theoretical_gflops")
    beyond = f" ({'; '.join(hows)})" if hows else ""
    return (
        *say(
            "Each variant at the size and batch at which it comes nearest to the measured peak: that of matrix "
            "products and convolutions in the precision in which most is computed, {ceilings}. ",
            ceilings=_ceilings(told, "peak_gflops"),
        ),
        *(
            say("The theoretical one is {theory}{beyond}. ", theory=theory, beyond=beyond)
            if theory
            else say("The theoretical one is not known. ")
        ),
        *say("From {busy} on, the dashed line, the machine is busy.", busy=per_cent(BUSY)),
        *(
            say(
                " The picture has the first {told} of {all} variants; the table of resources has all.",
                told=str(len(told)),
                all=str(len(entries)),
            )
            if len(entries) > len(told)
            else ()
        ),
    )


def _ceilings(told: Sequence[Entry], field: str) -> Sentence:
    """``251 GFLOP/s in fp32 and 1,078 GFLOP/s in int8``: the highest that was found of each precision."""
    found: dict[str, Entry] = {}
    for entry in told:
        precision = cut(entry.text_of("peak_precision"), 12)
        if (value := entry.number_of(field)) and value > (_value(found.get(precision), field)):
            found[precision] = entry
    return joined(
        [
            say("{peak} in {precision}", peak=Number(f"{significant(_value(entry, field), 3)} GFLOP/s", entry.number),
                precision=precision)
            for precision, entry in found.items()
        ]
    )  # fmt: skip


def _value(entry: Entry | None, field: str) -> float:
    return 0.0 if entry is None else entry.number_of(field) or 0.0


def _spec(group: Group, told: Sequence[Entry]) -> dict[str, Any]:
    rows = [
        row_of(entry)
        | {
            "place": place,
            "peak": kind,
            "percent": rounded(100 * share),
            "gflops": rounded(entry.number_of("gflops") or 0.0),
        }
        for place, entry in enumerate(told)
        for kind, name in _SHARES.items()
        if (share := entry.number_of(name)) is not None
    ]
    kinds = [kind for kind in _SHARES if any(row["peak"] == kind for row in rows)]
    shares = [100.0, *(float(row["percent"]) for row in rows)]
    scale = scale_of(shares, zero=True)
    logarithmic = scale["type"] == "log"
    domain = [min(shares) / 1.2 if logarithmic else 0, 1.1 * max(shares)]
    title = f"share of the peak, %{' (log scale)' if logarithmic else ''}"
    x = {
        "field": "percent",
        "type": "quantitative",
        "scale": {"type": scale["type"], "domain": domain, "nice": False},
        "axis": {"title": title, "format": ",.4~r"},
    }
    axis = {"title": None, "labelLimit": _LABELS}
    y = {"field": "variant", "type": "nominal", "sort": {"field": "place", "op": "min"}, "axis": axis}
    kind = {"field": "peak", "type": "nominal", "title": None, "legend": legend(kinds)}
    colour = kind | {"scale": {"domain": kinds, "range": [PALETTE[0], PALETTE[3]][: len(kinds)]}}
    shape = kind | {"scale": {"domain": kinds, "range": ["circle", "diamond"][: len(kinds)]}}
    choice = {"name": "chosen", "select": {"type": "point", "fields": ["peak"]}, "bind": "legend"}
    more = [shown("percent", "share of the peak, %", ",.3~r"), shown("gflops", "GFLOP/s", ",.4~r")]
    return {
        "width": _WIDTH,
        "height": {"step": 20},
        "datasets": {"rows": rows},
        "data": {"name": "rows"},
        "layer": [
            {
                "mark": {"type": "rule", "strokeDash": [4, 4]},
                "encoding": {"x": {"datum": 100 * BUSY}},
            },
            {
                "params": [choice],
                "mark": {"type": "point", "filled": True, "size": 90},
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": colour,
                    "shape": shape,
                    "opacity": chosen(0.9),
                    "tooltip": [{"field": "peak", "type": "nominal", "title": "share"}, *more, *tooltip(group)],
                },
            },
        ],
    }
