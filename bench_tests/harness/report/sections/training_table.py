"""How the weights were trained: a row for each stage of each history, with its hyperparameters and best score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from bench_tests.harness.report.digits import quality_text
from bench_tests.harness.report.document import NOTHING, Cell, Column, Row, Table, say
from bench_tests.harness.report.figures.epochs import epoch_rows
from bench_tests.harness.report.material import Training
from bench_tests.harness.report.wording import duration

# Column, what it is called, and where it stands in a training's config.
_TRAINING = (
    ("epochs_asked", "epochs", "epochs"), ("batch_size", "batch", "batch_size"), ("lr", "rate", "lr"),
    ("weight_decay", "weight decay", "weight_decay"), ("label_smoothing", "smoothing", "label_smoothing"),
    ("warmup_epochs", "warm-up, epochs", "warmup_epochs"), ("patience", "patience", "patience"),
    ("temperature", "temperature", "temperature"), ("alpha", "alpha", "alpha"), ("seed", "seed", "seed"),
)  # fmt: skip


def trainings_table(trainings: Sequence[Training]) -> Table:
    """A row for each training: its configuration, its best validation score and, where it was kept, the test's."""
    columns = (
        Column("weights", "weights", numeric=False), Column("data", "data", numeric=False), Column("size", "size"),
        Column("origin", "starts from", numeric=False), Column("teacher", "teacher", numeric=False),
        Column("optimizer", "optimizer", numeric=False),
        *(Column(name, label) for name, label, _ in _TRAINING),
        Column("epochs_run", "epochs run"), Column("best_epoch", "best epoch"),
        Column("best_validation", "best validation"), Column("test", "test"), Column("duration_s", "time"),
    )  # fmt: skip
    note = say(
        "The best epoch by the validation score is kept. Where a training names no optimizer it is SGD with Nesterov "
        "momentum. A dash: its history does not tell, or it does not apply."
    )
    rows = tuple(
        Row(tuple(_training_cells(training, stage)))
        for training in trainings
        for stage in training.stages or [training.name]
    )
    return Table("trainings", "How the weights were trained", columns, rows, note)


def _training_cells(training: Training, stage: str) -> Iterable[Cell]:
    """One stage of a training, which may have led to its weights in several; the test is of the last one."""
    config, epochs, last = training.config, training.stages.get(stage, ()), [stage, *training.stages][-1]
    alone = replace(training, stages={stage: epochs})
    best = next((row for row in epoch_rows(alone) if row["best"]), None)
    judged = training.facts.get(f"test_{training.score}", training.facts.get(training.score))
    lasted_s = sum(epoch.get("duration_s", 0.0) for epoch in epochs)
    name = training.name if stage == training.name else f"{training.name}: {stage}"
    yield Cell(name, name)
    yield _cell(config.get("data", training.facts.get("data")))
    yield _cell(config.get("size"))
    yield _cell(config.get("origin"))
    yield _cell(training.facts.get("teacher"))
    yield _cell(config.get("optimizer"))
    for _, _, name in _TRAINING:
        yield _cell(config.get(name))
    yield _cell(len(epochs) or None)
    yield _cell(best and best["of_stage"])
    yield _score(best and best["score"], training.score)
    yield _score(judged if stage == last else None, training.score)
    yield Cell(duration(lasted_s), lasted_s) if lasted_s else NOTHING


def _cell(value: Any) -> Cell:
    if value is None or value == "":
        return NOTHING
    return Cell(f"{value:g}" if isinstance(value, float) else str(value), value)


def _score(value: Any, name: str) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING
    text = quality_text(value, share=0 <= value <= 1)
    return Cell(f"{text} {name}".strip(), float(value))
