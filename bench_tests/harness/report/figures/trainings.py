"""Figures of trainings: the validation score of each epoch, the losses, and the best epoch of each stage.

Trainings of one stage that share score and data are drawn beside each other on the same axes; one of several stages,
such as a pruned model that is trained again, has a figure of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import Figure, slug
from bench_tests.harness.report.figures.epochs import (
    VALIDATION,
    Epoch,
    epoch_rows,
    facets,
    loss_panel,
    loss_rows,
    score_panel,
)
from bench_tests.harness.report.material import Training
from bench_tests.harness.report.phrases import counted
from bench_tests.harness.report.wording import cut

_COLUMNS = 3  # of small multiples
_RAN_AWAY = 10  # times the median loss
_OVERFIT = 1.1  # times the lowest validation loss


def training_figures(trainings: Sequence[Training]) -> list[Figure]:
    """The curves of every training that kept any, in the order in which they were given."""
    sets: dict[tuple[str, str, str], list[Training]] = defaultdict(list)
    for training in trainings:
        alone = len(training.stages) > 1 or not training.score
        sets[training.score, _data(training), str(training.file) if alone else ""].append(training)
    figures: list[Figure] = []
    for found in sets.values():
        kept = {training.file: epoch_rows(training) for training in found}
        found = [one for one in found if any(row["best"] for row in kept[one.file]) or loss_rows(kept[one.file])]
        if len(found) == 1:
            figures.append(_alone(found[0], kept[found[0].file]))
        elif found:
            figures += _beside(found, kept)
    return figures


def _data(training: Training) -> str:
    return str(training.config.get("data") or training.facts.get("data") or "")


def _alone(training: Training, rows: Sequence[Epoch]) -> Figure:
    name, best = cut(training.name), [row for row in rows if row["best"]]
    count, score = counted(len(rows), "epoch"), cut(training.score, 30)
    if not best:
        title = f"{name}: losses of {count}; no validation score was kept"
    elif len(training.stages) == 1:
        value, epoch = _value(best[0]["score"]), best[0]["epoch"]
        title = f"{name} reaches its best validation {score}, {value}, in epoch {epoch} of {len(rows)}"
    else:
        title = (
            f"{name}: {len(training.stages)} trainings one after another, {count}; the last, {best[-1]['stage']}, "
            f"reaches a validation {score} of {_value(best[-1]['score'])}"
        )
    alt = " ".join([f"Curves over {count}.", *(_best_words(row, score) for row in best), *_remarks(rows)])
    panels = [score_panel(rows, score, 1)] if best else []
    losses = loss_rows(rows)
    panels += [loss_panel(losses, 1)] if losses else []
    spec = {"datasets": {"rows": list(rows), "losses": losses}, "data": {"name": "rows"}, "vconcat": panels}
    if len(panels) > 1 or len(training.stages) > 1:
        spec["resolve"] = {"scale": {"color": "independent", "strokeDash": "independent"}}
    marked = ["A diamond marks the best epoch of each training."] if best else []
    note = " ".join([*marked, *_remarks(rows), *_test_words([training])])
    return Figure(_name(training), title, alt, spec, (note,) if note else ())


def _beside(found: Sequence[Training], kept: Mapping[Any, Sequence[Epoch]]) -> list[Figure]:
    """Several trainings in small multiples: their scores, and where they were kept their losses."""
    score, data = cut(found[0].score, 30), _data(found[0])
    names = dict(zip((training.file for training in found), _short_names(found), strict=True))
    rows = [{"training": names[one.file], **row} for one in found for row in kept[one.file]]
    best = {names[one.file]: next(row for row in kept[one.file] if row["best"]) for one in found}
    first, *_, last = sorted(best, key=lambda name: -best[name]["score"])
    on = f" on {cut(data)}" if data else ""
    title = (
        f"{len(found)} trainings{on}: {cut(first)} reaches the highest validation {score}, "
        f"{_value(best[first]['score'])}, {cut(last)} the lowest, {_value(best[last]['score'])}"
    )
    alt = f"Validation {score} over the epochs of {len(found)} trainings{on}. " + " ".join(
        f"{cut(name)}: {_value(row['score'])} in epoch {row['epoch']} of {len(kept[one.file])}."
        for one, (name, row) in zip(found, best.items(), strict=True)
    )
    place = slug(f"{score}-{data}", (score, data, *(str(one.file) for one in found)))
    columns = min(_COLUMNS, len(found))
    note = (" ".join(["A diamond marks the best epoch.", *_test_words(found)]),)
    figures = [Figure(f"trainings-{place}", title, alt, facets(rows, score_panel(rows, score, columns), columns), note)]
    losses = loss_rows(rows)
    if losses:
        figures.append(_loss_figure(list(best), losses, f"trainings-loss-{place}", columns, on))
    return figures


def _loss_figure(names: Sequence[str], losses: Sequence[Epoch], name: str, columns: int, on: str) -> Figure:
    risen = {one: found for one in names if (found := _risen([row for row in losses if row["training"] == one]))}
    count = counted(len(names), "training")
    if risen:
        worst = max(risen, key=lambda one: risen[one][1] / risen[one][0])
        low, end = risen[worst]
        title = (
            f"In {len(risen)} of {count}{on} the validation loss ends more than 10 % above its lowest: most in "
            f"{cut(worst)}, {significant(end, 3)} after {significant(low, 3)}"
        )
    else:
        title = f"In none of {count}{on} does the validation loss end more than 10 % above its lowest"
    ends = {one: [row for row in losses if row["training"] == one and row["kind"] == VALIDATION] for one in names}
    alt = f"Training and validation loss over the epochs of {count}{on}. " + " ".join(
        f"{cut(one)}: validation loss {significant(found[0]['loss'], 3)} in the first epoch and "
        f"{significant(found[-1]['loss'], 3)} in the last."
        for one, found in ends.items()
        if found
    )
    note = ("A training on a teacher's answers adds their loss to its own, so that its two curves cannot be compared.",)
    return Figure(name, title, alt, facets(losses, loss_panel(losses, columns), columns), note)


def _risen(losses: Iterable[Epoch]) -> tuple[float, float] | None:
    """The lowest and the last validation loss, where the last is clearly above: a sign of over-fitting."""
    values = [row["loss"] for row in losses if row["kind"] == VALIDATION]
    return (min(values), values[-1]) if values and values[-1] > _OVERFIT * min(values) else None


def _remarks(rows: Sequence[Epoch]) -> list[str]:
    """What the losses of a training tell: that one ran away, that it rose again."""
    losses = loss_rows(rows)
    found = [row for row in losses if row["kind"] == VALIDATION]
    remarks = []
    if found:
        middle, worst = median(row["loss"] for row in found), max(found, key=lambda row: row["loss"])
        if worst["loss"] > _RAN_AWAY * middle:
            remarks.append(
                f"In epoch {worst['epoch']} the validation loss ran away to {significant(worst['loss'], 3)}; its "
                f"median is {significant(middle, 3)}."
            )
    risen = _risen(losses) if len({row["stage"] for row in rows}) == 1 else None
    if risen:
        low = min(found, key=lambda row: row["loss"])
        remarks.append(
            f"The validation loss is lowest in epoch {low['epoch']}, {significant(risen[0], 3)}, and ends at "
            f"{significant(risen[1], 3)}: a sign of over-fitting, from which the score need not suffer."
        )
    return remarks


def _best_words(row: Epoch, score: str) -> str:
    return f"{row['stage']}: best validation {score} {_value(row['score'])} in epoch {row['of_stage']}."


def _test_words(found: Sequence[Training]) -> list[str]:
    """The scores on test data, as far as the files have them."""
    scores = [(cut(one.name), value) for one in found if isinstance(value := one.facts.get(f"test_{one.score}"), float)]
    score = cut(found[0].score, 30)
    if len(found) == 1:
        return [f"On the test split its {score} is {_value(value)}." for _, value in scores]
    if not scores:
        return []
    best = max(scores, key=lambda item: item[1])
    return [f"On the test split {best[0]} has the highest {score}, {_value(best[1])}."]


def _value(score: float) -> str:
    """A share in per cent, close to 100 % with more digits; else three significant ones."""
    if not 0 <= score <= 1:
        return significant(score, 3)
    digits = next((digits for limit, digits in ((0.99, 1), (0.999, 2)) if score < limit or score == 1), 3)
    return f"{100 * score:.{digits}f} %"


def _short_names(found: Sequence[Training]) -> list[str]:
    """File names without the name of their data set, which the title has; with the folder where only that differs."""
    names = [one.name.removeprefix(f"{_data(one)}_") for one in found]
    if len(set(names)) < len(names):
        names = [f"{one.file.parent.name}/{name}" for one, name in zip(found, names, strict=True)]
    return names if len(set(names)) == len(names) else [str(one.file) for one in found]


def _name(training: Training) -> str:
    return f"training-{slug(f'{training.file.parent.name}-{training.name}', (str(training.file),))}"
