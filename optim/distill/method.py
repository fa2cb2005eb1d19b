"""A student trained on a teacher's logits, and a sweep over temperature and alpha."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from models.data.images import SUFFIXES, ImageSplit
from models.errors import SpeedproofError
from models.weights import save_json
from models.workload import Workload
from optim.distill.loss import DistillConfig
from optim.distill.teacher import teaching
from optim.fit import TrainingData, fit, load_data, weights_digest


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
) -> dict[str, Any]:
    """Train ``model`` in place, on the labels alone or, with a teacher, on its logits too; return the history.

    With ``keep`` an interrupted run goes on after its last whole epoch from ``keep`` with the suffix ``.resume``, and
    the history is written to ``.json`` when it is done. ``after_step`` is that of `fit`.
    """
    config.check()
    data = load_data(model, workload, config.size)
    identity = {
        "config": asdict(config), "workload": workload.name, "data": workload.data_name, "images": len(data.labels),
        "start": weights_digest(model), "teacher": weights_digest(teacher) if teacher is not None else None,
    }  # fmt: skip
    model.requires_grad_(True)
    if teacher is not None and config.unlabeled:
        data = _with_unlabeled(data, Path(config.unlabeled))
    with teaching(teacher, model, data, config) as (objective, extra):
        history = fit(
            model, data, config.size, config, objective, name=name, identity=identity,
            smallest_size=workload.smallest_size, resume_path=keep and keep.with_suffix(".resume"),
            extra_parameters=extra, after_step=after_step,
        )  # fmt: skip
    model.requires_grad_(False)
    if keep is not None:
        save_json(keep.with_suffix(".json"), {"config": asdict(config), **history})
        keep.with_suffix(".resume").unlink(missing_ok=True)
    return history


def _with_unlabeled(data: TrainingData, folder: Path) -> TrainingData:
    """The training data and the images of a folder, and of those below it, without labels."""
    if not folder.is_dir():
        raise SpeedproofError(f"--unlabeled {folder}: no such folder; expected one that holds images")
    files = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES))
    if not files:
        raise SpeedproofError(f"--unlabeled {folder} holds no image ({', '.join(sorted(SUFFIXES))}): fill it")
    edge = data.images.shape[-1]
    more = ImageSplit(files, (-1,) * len(files), data.classes, edge).stack(edge)
    labels = torch.cat([data.labels, torch.full((len(files),), -1)])
    return replace(data, images=torch.cat([data.images, more]), labels=labels)


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

    The rows are judged on the validation images, since one of them is chosen by it.
    """
    best: nn.Module | None = None
    rows: list[dict[str, float]] = []
    for temperature in temperatures:
        for alpha in alphas:
            own, name = copy.deepcopy(student), f"T {temperature:g}, alpha {alpha:g}"
            place = keep and keep.with_name(f"{keep.stem}_t{temperature:g}_a{alpha:g}{keep.suffix}")
            chosen = replace(config, temperature=temperature, alpha=alpha)
            history = retrain(own, workload, chosen, teacher, keep=place, name=name)
            top1 = history["best_validation_top1"]
            if best is None or top1 > max(row["validation_top1"] for row in rows):
                best = own
            rows.append({"temperature": temperature, "alpha": alpha, "validation_top1": top1})
    assert best is not None
    return best, rows


def sweep_table(rows: Sequence[dict[str, float]]) -> str:
    """Validation accuracy of a sweep: temperatures down, alphas across, the best one marked."""
    alphas = sorted({row["alpha"] for row in rows})
    best = max(row["validation_top1"] for row in rows)
    lines = []
    for temperature in sorted({row["temperature"] for row in rows}):
        found = {row["alpha"]: row["validation_top1"] for row in rows if row["temperature"] == temperature}
        lines.append([f"{temperature:g}", *(f"{found[a]:.1%}{' *' if found[a] == best else ''}" for a in alphas)])
    return tabulate(lines, ["temperature", *(f"alpha {alpha:g}" for alpha in alphas)], disable_numparse=True)
