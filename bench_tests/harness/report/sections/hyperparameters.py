"""What each recipe and each training did, with every parameter that it looked at: from records and histories."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.document import NOTHING, Cell, Column, Row, Table, say
from bench_tests.harness.report.material import Entry, Material, Training
from bench_tests.harness.report.phrases import differences
from bench_tests.harness.report.sections.methods import MODULES

_COMMAND = re.compile(r"\boptim\.(distill|prune|quantize)\b(?:.*--(?:pruning|quantization)-method (\S+))?")
_TEACHING = ("alpha", "teacher_size", "transfer", "transfer_weight", "layers", "unlabeled", "temperature")


@dataclass(frozen=True)
class Followed:
    """A recipe as the records tell it."""

    workload: str
    name: str
    steps: tuple[Mapping[str, Any], ...]
    student: str
    teacher: str
    file: str  # the result's, where it was made elsewhere
    commanded: tuple[str, ...]  # the methods of the commands that made the file, where its history is at hand
    entry: Entry  # the first record of it

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of its methods, as far as the steps are told."""
        return tuple(dict.fromkeys(MODULES[kind] for kind in self.kinds if kind in MODULES))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of its methods: distill, structured, static, bits."""
        return self.commanded or tuple(str(step.get("method", "")) for step in self.steps)

    @property
    def told(self) -> bool:
        """Whether the record tells how it was made: at least from which architecture."""
        return bool(self.steps or self.student or self.commanded)


def followed(material: Material) -> list[Followed]:
    """Every recipe but the original, once for each workload."""
    commands = {training.name: _commanded(training) for training in material.trainings}
    found: dict[tuple[str, str], Followed] = {}
    for group in material.groups:
        for entry in group.entries:
            key = group.workload, entry.variant.recipe
            if entry.variant.recipe != ORIGINAL and key not in found:
                told = entry.recipe_made
                student, teacher, file = (str(told.get(name) or "") for name in ("student", "teacher", "file"))
                made = commands.get(entry.variant.recipe, ())
                found[key] = Followed(*key, tuple(entry.steps), student, teacher, file, made, entry)
    return list(found.values())


def _commanded(training: Training) -> tuple[str, ...]:
    """The methods that a training's commands call, in their order."""
    calls = [call for command in training.commands for call in _COMMAND.findall(command)]
    return tuple(kind or name for name, kind in calls)


def commanded(training: Training) -> tuple[str, ...]:
    """The modules of the methods that a training's commands call, or that its config shows: a teacher's share."""
    kinds, alpha = _commanded(training), training.config.get("alpha")
    if not kinds and isinstance(alpha, int | float) and alpha > 0:
        kinds = ("distill",)
    return tuple(dict.fromkeys(MODULES[kind] for kind in kinds if kind in MODULES))


def recipes_made(recipes: Sequence[Followed]) -> Table:
    """Which steps each recipe takes."""
    columns = tuple(
        Column(name, label, numeric=False)
        for name, label in (
            ("recipe", "recipe"), ("model", "model"), ("steps", "steps, in their order"), ("student", "architecture"),
            ("teacher", "teacher"), ("file", "made beforehand, in the file"),
        )
    )  # fmt: skip
    rows = []
    for recipe in recipes:
        taken = [{"method": kind} for kind in recipe.commanded] or recipe.steps
        steps = ", then ".join(_words(step) for step in taken) or "training alone"
        texts = (recipe.name, recipe.workload, steps, recipe.student or "the original's", recipe.teacher, recipe.file)
        cells = tuple(Cell(text, text) if text else NOTHING for text in texts)
        rows.append(Row(cells, record=recipe.entry.number))
    note = say(
        "A file tells the recipe that it is the result of, or else its last step alone. What its history's commands "
        "did is told with their options under How to repeat it. Where no teacher is named and "
        "a step asks for one, the original teaches."
    )
    return Table("recipes-followed", "What each recipe does", columns, tuple(rows), note)


def _words(step: Mapping[str, Any]) -> str:
    """A step in a few words: ``structured pruning of 50 %``."""
    kind, amount = str(step.get("method", "?")), step.get("amount")
    family = {"optim.prune": "pruning", "optim.quantize": "quantization", "optim.bits": "quantization"}
    words = f"{kind} {family.get(MODULES.get(kind, ''), '')}".strip()
    if kind == "distill":
        words = "distillation"
    elif kind == "weights":
        words = "quantization of the weights alone"
    elif kind == "bits":
        words = f"{step.get('kind', '')} quantization".strip()
    return f"{words} of {100 * amount:g} %" if isinstance(amount, int | float) else words


# Parameters that a method looks at only under a condition on its config.
_CONDITIONS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "percentile": lambda step: step.get("calibration") == "percentile" and _calibrated(step),
    **dict.fromkeys(
        ("calibration", "calibration_images", "calibration_split", "drop_max"), lambda step: _calibrated(step)
    ),
    **dict.fromkeys(
        ("round_to", "importance", "global_channels", "steps"), lambda step: step.get("method") == "structured"
    ),
    **dict.fromkeys(("gradual_share", "mask_every"), lambda step: bool(step.get("gradual"))),
    "gradual": lambda step: step.get("method") in ("global", "local"),
    "pull": lambda step: bool(step.get("progressive")),
}  # fmt: skip


def _calibrated(step: Mapping[str, Any]) -> bool:
    return step.get("method") in ("static", "qat")


def _looked_at(step: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """The parameters of a step that it looks at, with those of its fine-tuning as ``fine_tune.lr``."""
    if step.get("method") == "distill":
        return {name: value for name, value in _trained(step, unit).items() if name != "method"}
    found: dict[str, Any] = {}
    for name, value in step.items():
        if (name in _CONDITIONS and not _CONDITIONS[name](step)) or (name, value) == ("method", "bits"):
            continue
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": part for inner, part in _trained(value, unit).items()}
        else:
            found[name] = value
    return found


# Parameters of a training that only one subject knows, by the unit of its sizes.
_SUBJECTS = {
    **dict.fromkeys(("start_share", "end_share", "smallest_area", "teacher_size", "unlabeled"), "px"),
    **dict.fromkeys(("masking", "speed"), "ms"),
}


def _trained(config: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """A training's parameters without those that it did not look at; SGD is not written by `optim.schedule`."""
    left_out = {name for name, subject in _SUBJECTS.items() if subject != unit}
    if config.get("alpha") == 0:
        left_out |= set(_TEACHING) - {"alpha"}
    if config.get("transfer") == "none":
        left_out |= {"transfer_weight", "layers"}
    return {name: value for name, value in {"optimizer": "sgd", **config}.items() if name not in left_out}


def parameter_tables(recipes: Sequence[Followed]) -> list[Table]:
    """For each method its parameters, and which recipes have which value."""
    steps: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for recipe in recipes:
        for number, step in enumerate(recipe.steps, 1):
            module = MODULES.get(str(step.get("method")))
            if module is not None:
                ambiguous = [one.name for one in recipes].count(recipe.name) > 1
                name = f"{recipe.name} ({recipe.workload})" if ambiguous else recipe.name
                own = [one for one in recipe.steps if MODULES.get(str(one.get("method"))) == module]
                steps[module][f"{name}, step {number}" if len(own) > 1 else name] = _looked_at(
                    step, recipe.entry.text_of("unit")
                )
    titles = {
        "optim.distill": "Hyperparameters of distillation", "optim.prune": "Hyperparameters of pruning",
        "optim.quantize": "Hyperparameters of quantization", "optim.bits": "Hyperparameters below eight bits",
    }  # fmt: skip
    return [
        differences(
            f"parameters-{module.removeprefix('optim.')}", title, steps[module], ("parameter", "value", "recipes"),
            say("Parameters that a step does not look at are left out."),
        )
        for module, title in titles.items()
        if module in steps
    ]  # fmt: skip
