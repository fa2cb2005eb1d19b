"""The epochs of a training as rows of a figure, and the panels that draw them: the score, and the losses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench_tests.harness.report.figures.charts import DASHES, LEGEND, PALETTE, WIDTH, scale_of, shown
from bench_tests.harness.report.material import Training
from bench_tests.harness.report.wording import cut

TRAINING, VALIDATION = "training", "validation"
_CELL = {1: (WIDTH, 200), 2: (250, 170), 3: (165, 120)}  # width and height in pixels, by columns
_LINES = {**LEGEND, "symbolType": "stroke"}
Epoch = dict[str, Any]


def epoch_rows(training: Training) -> list[Epoch]:
    """A row an epoch, counted through all stages; ``best`` marks that of each stage."""
    rows: list[Epoch] = []
    for stage, epochs in training.stages.items():
        found = [
            {
                "stage": cut(stage), "epoch": len(rows) + count, "of_stage": count, "best": False,
                "score": (score := epoch.get(f"validation_{training.score}")),
                "error": None if score is None else 1 - score, "train_loss": epoch.get("train_loss"),
                "validation_loss": epoch.get("validation_loss"),
            }
            for count, epoch in enumerate(epochs, 1)
        ]  # fmt: skip
        scored = [row for row in found if row["score"] is not None]
        if scored:
            _best(scored, training)["best"] = True
        rows += found
    return rows


def _best(scored: Sequence[Epoch], training: Training) -> Epoch:
    """The epoch that was kept: the file tells its score, else it is the highest."""
    kept = training.facts.get(f"best_validation_{training.score}")
    if isinstance(kept, int | float) and math.isfinite(kept):
        return min(scored, key=lambda row: abs(row["score"] - kept))
    return max(scored, key=lambda row: row["score"])


def loss_rows(rows: Iterable[Epoch]) -> list[Epoch]:
    """A row for each loss of an epoch; a loss of 0 or below has no place on a logarithmic axis."""
    return [
        {
            **{name: row[name] for name in ("training", "stage", "epoch", "of_stage") if name in row},
            "kind": kind,
            "loss": loss,
        }
        for row in rows
        for kind, loss in ((TRAINING, row["train_loss"]), (VALIDATION, row["validation_loss"]))
        if loss is not None and loss > 0
    ]


def score_panel(rows: Sequence[Epoch], score: str, columns: int) -> dict[str, Any]:
    """The validation score of each epoch, a line a stage, and a mark at the best one."""
    width, height = _CELL[columns]
    values = [row["score"] for row in rows if row["score"] is not None]
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    x = _epoch_axis(rows)
    y = _score_axis(values, f"validation {score}")
    several = columns == 1 and len(stages) > 1
    looks: dict[str, Any] = {"detail": {"field": "stage", "type": "nominal"}}
    if several:
        looks = {
            channel: {
                "field": "stage", "type": "nominal", "title": "stage", "legend": _LINES,
                "scale": {"domain": stages, "range": [kinds[place % len(kinds)] for place in range(len(stages))]},
            }
            for channel, kinds in (("color", PALETTE), ("strokeDash", DASHES))
        }  # fmt: skip
    colour = {"color": looks["color"]} if several else {}
    line = {"type": "line", "strokeWidth": 2, **({} if several else {"color": PALETTE[0]})}
    tooltip = [
        *([{"field": "training", "type": "nominal", "title": "training"}] if columns > 1 else []),
        {"field": "stage", "type": "nominal", "title": "stage"}, shown("of_stage", "epoch", "d"),
        shown("score", f"validation {score}", ".5~f"), shown("train_loss", "training loss", ".4~g"),
        shown("validation_loss", "validation loss", ".4~g"),
    ]  # fmt: skip
    point = {"type": "point", "filled": True, "opacity": 1, "size": 14 if columns > 1 else 30, "color": PALETTE[0]}
    best = {"type": "point", "filled": True, "opacity": 1, "size": 90, "shape": "diamond", "color": PALETTE[3]}
    kept = [{"filter": "datum.score !== null"}]
    return {
        "width": width, "height": height, "transform": kept,
        "layer": [
            {"mark": line, "encoding": {"x": x, "y": y, **looks}},
            {"mark": point, "encoding": {"x": x, "y": y, **colour, "tooltip": tooltip}},
            {"transform": [{"filter": "datum.best"}], "mark": best, "encoding": {"x": x, "y": y, "tooltip": tooltip}},
        ],
    }  # fmt: skip


def _epoch_axis(rows: Sequence[Epoch]) -> dict[str, Any]:
    last = max(row["epoch"] for row in rows)
    step = max(1, last // 5)
    ends = [1, last] if last > 2 else [0, last + 1]  # one or two points do not stand on the frame
    return {
        "field": "epoch", "type": "quantitative", "title": "epoch", "scale": {"domain": ends, "nice": False},
        "axis": {"values": list(range(1, last + 1)) if step == 1 else list(range(step, last + 1, step)), "format": "d"},
    }  # fmt: skip


def _score_axis(values: Sequence[float], title: str) -> dict[str, Any]:
    """Scores close to 1 by their logarithmic distance from it, which is where trainings differ; else linear."""
    low, high = min(values), max(values)
    y = {"field": "score", "type": "quantitative", "title": title}
    if low >= 0 and high < 1 and 1 - low > 10 * (1 - high):
        scale = {"type": "log", "domain": [1.0 - low, 1.0 - high], "nice": False, "padding": 6}
        ticks = [10.0**-power for power in range(1, 8) if 1 - high <= 10.0**-power <= 1 - low]
        axis = {"values": ticks, "labelExpr": "format(100 * (1 - datum.value), '.6~g') + ' %'"}
        return {**y, "field": "error", "scale": scale, "axis": axis}
    share = low >= 0 and high <= 1
    return {**y, "scale": {"zero": False, "nice": True}, "axis": {"format": ".0%" if share else "~g", "tickCount": 5}}


def loss_panel(losses: Sequence[Epoch], columns: int) -> dict[str, Any]:
    """Logarithmic where losses span more than a decade: one that ran away must not flatten all the others."""
    width, height = _CELL[columns]
    kinds = [TRAINING, VALIDATION]
    y = {
        "field": "loss",
        "type": "quantitative",
        "title": "loss",
        "scale": scale_of(row["loss"] for row in losses),
        "axis": {"format": "~g"},
    }
    looks = {
        channel: {
            "field": "kind", "type": "nominal", "title": None, "legend": _LINES,
            "scale": {"domain": kinds, "range": list(values[:2])},
        }
        for channel, values in (("color", PALETTE), ("strokeDash", DASHES))
    }  # fmt: skip
    tooltip = [
        *([{"field": "training", "type": "nominal", "title": "training"}] if columns > 1 else []),
        {"field": "kind", "type": "nominal", "title": "loss"}, {"field": "stage", "type": "nominal", "title": "stage"},
        shown("of_stage", "epoch", "d"), shown("loss", "value", ".4~g"),
    ]  # fmt: skip
    return {
        "width": width, "height": height,
        **({"data": {"name": "losses"}} if columns == 1 else {}),
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 16}},
        "encoding": {
            "x": _epoch_axis(losses), "y": y, **looks, "tooltip": tooltip,
            "detail": {"field": "stage", "type": "nominal"},
        },
    }  # fmt: skip


def facets(rows: Sequence[Epoch], panel: Mapping[str, Any], columns: int) -> dict[str, Any]:
    """The panel of each training beside those of the others, on the same axes."""
    header = {"title": None, "labelLimit": _CELL[columns][0], "labelFontSize": 11}
    return {
        "datasets": {"rows": list(rows)}, "data": {"name": "rows"}, "columns": columns,
        "facet": {"field": "training", "type": "nominal", "sort": None, "header": header}, "spec": dict(panel),
    }  # fmt: skip
