"""A student trained on a teacher's logits, and a sweep over temperature and alpha."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import nn

from models.files import save_json
from models.workload import Workload
from optim.data import Objective, Score
from optim.distill.loss import DistillConfig
from optim.distill.teacher import teaching
from optim.fit import fit, weights_digest
from optim.kinds import kind_of, load_data
from optim.schedule import described


def distill(
    teacher: nn.Module,
    student: nn.Module,
    workload: Workload,
    config: DistillConfig,
    *,
    keep: Path | None = None,
    name: str = "distill",
) -> nn.Module:
    """A copy of ``student``, trained to answer as ``teacher`` does; both stay as they are.

    ``keep`` is where the run is kept, see `retrain`. Raises SpeedproofError where the two do not fit the workload's
    classes, and for impossible values.
    """
    config.check()
    own = copy.deepcopy(student)
    retrain(own, workload, config, teacher, keep=keep, name=name)
    return own


def retrain(
    model: nn.Module,
    workload: Workload,
    config: DistillConfig,
    teacher: nn.Module | None = None,
    *,
    keep: Path | None = None,
    name: str = "retrain",
    after_step: Callable[[int, float], None] | None = None,
    wrap: Callable[[Objective], Objective] = lambda objective: objective,
    wrapped_by: str = "",
) -> dict[str, Any]:
    """Train ``model`` in place, on the labels alone or, with a teacher, on its logits too; return the history.

    With ``keep`` an interrupted run goes on after its last whole epoch from ``keep`` with the suffix ``.resume``, and
    the history is written to ``.json`` when it is done. ``after_step`` is that of `fit`; ``wrap`` gives the objective
    that is minimised instead of the usual one, which it is given, and ``wrapped_by`` says what decides it.
    """
    config.check()
    data = load_data(model, workload, config.size)
    identity: dict[str, Any] = {
        "config": described(config), "workload": workload.name, "data": workload.data_name,
        data.score.examples: len(data),
        "start": weights_digest(model), "teacher": weights_digest(teacher) if teacher is not None else None,
    }  # fmt: skip
    if wrapped_by:
        identity["wrapped_by"] = wrapped_by
    model.requires_grad_(True)
    if teacher is not None and config.unlabeled:
        data = data.with_unlabeled(Path(config.unlabeled))
    with teaching(teacher, model, data, config) as (objective, extra):
        history = fit(
            model, data, config.size, config, wrap(objective), name=name, identity=identity,
            smallest_size=workload.smallest_size, resume_path=keep and keep.with_suffix(".resume"),
            extra_parameters=extra, after_step=after_step,
        )  # fmt: skip
    model.requires_grad_(False)
    if keep is not None:
        save_json(keep.with_suffix(".json"), {"config": described(config), **history})
        keep.with_suffix(".resume").unlink(missing_ok=True)
    return history


def sweep(
    teacher: nn.Module,
    student: nn.Module,
    workload: Workload,
    config: DistillConfig,
    temperatures: Sequence[float],
    alphas: Sequence[float],
    keep: Path | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Distil once for each temperature and alpha; the best student by validation, and a row for each pair.

    The rows are judged on the validation examples, since one of them is chosen by it.
    """
    key = f"validation_{kind_of(workload, config.size).score.key}"
    best: nn.Module | None = None
    rows: list[dict[str, float]] = []
    for temperature in temperatures:
        for alpha in alphas:
            own, name = copy.deepcopy(student), f"T {temperature:g}, alpha {alpha:g}"
            place = keep and keep.with_name(f"{keep.stem}_t{temperature:g}_a{alpha:g}{keep.suffix}")
            chosen = replace(config, temperature=temperature, alpha=alpha)
            history = retrain(own, workload, chosen, teacher, keep=place, name=name)
            score = history[f"best_{key}"]
            if best is None or score > max(row[key] for row in rows):
                best = own
            rows.append({"temperature": temperature, "alpha": alpha, key: score})
    assert best is not None
    return best, rows


def best_of(rows: Sequence[dict[str, float]], config: DistillConfig, score: Score) -> DistillConfig:
    """The config of a sweep's best student: the first with the highest score."""
    best = max(rows, key=lambda row: row[f"validation_{score.key}"])
    return replace(config, temperature=best["temperature"], alpha=best["alpha"])


def sweep_table(rows: Sequence[dict[str, float]], score: Score) -> str:
    """Validation score of a sweep: temperatures down, alphas across, the best one marked."""
    key = f"validation_{score.key}"
    alphas, best = sorted({row["alpha"] for row in rows}), max(row[key] for row in rows)
    lines = []
    for temperature in sorted({row["temperature"] for row in rows}):
        found = {row["alpha"]: row[key] for row in rows if row["temperature"] == temperature}
        cells = (f"{found[alpha]:{score.form}}{' *' if found[alpha] == best else ''}" for alpha in alphas)
        lines.append([f"{temperature:g}", *cells])
    return tabulate(lines, ["temperature", *(f"alpha {alpha:g}" for alpha in alphas)], disable_numparse=True)
