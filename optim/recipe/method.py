"""What a recipe is, which ones have names, and how one is followed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import SpeedproofError
from models.integer_files import INTEGER
from models.tinychat import TextTinychat
from models.weights import read_checkpoint
from models.workload import DataChoice, Workload, load_object, load_workload
from optim.backends.base import QUANTIZATION
from optim.backends.cache import artefact, module_digest, work_folder
from optim.bits import TUNE, BitsConfig, quantize_bits
from optim.command import load_model, trained_as
from optim.distill import DistillConfig, distill
from optim.prune import PruneConfig, prune
from optim.quantize import QuantizeConfig, quantize
from optim.saved import load_saved, save_model
from optim.schedule import SPEECH, described

Step = DistillConfig | PruneConfig | QuantizeConfig | BitsConfig
METHODS: Mapping[type, str] = {
    DistillConfig: "distill", PruneConfig: "prune", QuantizeConfig: "quantize", BitsConfig: "bits"
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A named list of methods."""

    name: str
    steps: tuple[Step, ...]
    student: str | None = None  # the workload whose architecture is taken, untrained, instead of the model
    teacher: str | None = None  # a workload's name or a weights file; None: the original model teaches
    file: Path | None = None  # the result, made elsewhere; then there are no steps
    model: str | None = None  # the workload that it is for, where it is for one alone

    def check(self) -> None:
        """Raise SpeedproofError for a recipe that cannot be followed."""
        if not re.fullmatch("[A-Za-z0-9_.]+", self.name):
            raise SpeedproofError(f"recipe {self.name!r}: its name may have letters, digits, _ and . only")
        for index, step in enumerate(self.steps):
            if type(step) not in METHODS:
                kinds = ", ".join(kind.__name__ for kind in METHODS)
                found = type(step).__name__
                raise SpeedproofError(f"recipe {self.name}: step {index + 1} is a {found}, expected one of {kinds}")
            step.check()
            if isinstance(step, QuantizeConfig | BitsConfig) and index + 1 < len(self.steps):
                raise SpeedproofError(
                    f"recipe {self.name}: step {index + 2} follows a quantization, whose graph cannot be changed: "
                    f"put quantize last"
                )

    @property
    def quantized(self) -> bool:
        """Whether the result has weights in int8 or fewer bits, which not all methods compute in."""
        if self.file is not None:
            return not {QUANTIZATION, INTEGER}.isdisjoint(read_checkpoint(self.file)[1])
        return any(isinstance(step, QuantizeConfig | BitsConfig) for step in self.steps)

    def description(self) -> str:
        """All of it as JSON, for the record; of a file's steps what the file tells."""
        if self.file is not None:
            return json.dumps({**_told(self.file), "file": self.file.name}, sort_keys=True)
        steps = [{"method": METHODS[type(step)], **described(step)} for step in self.steps]
        return json.dumps(
            {"student": self.student, "teacher": self.teacher, "steps": steps, "file": None}, sort_keys=True
        )


def _told(file: Path) -> dict[str, Any]:
    """What a file says of how it was made: the recipe that it is the result of, or the last method and its config.

    Raises SpeedproofError for a file that cannot be read.
    """
    meta = read_checkpoint(file)[1]
    if "recipe" in meta:
        return dict(json.loads(meta["recipe"]))
    quantization = (meta.get(QUANTIZATION) or {}).get("config")
    config = quantization or meta.get("config")
    steps = [{"method": meta.get("method", "?"), **config}] if config and "method" in meta else []
    return {"student": meta.get("workload"), "teacher": meta.get("teacher"), "steps": steps}


# Fine-tuning, in epochs: enough for the digits and a start for photographs; README tells how to set your own.
_TUNE = DistillConfig(epochs=4, lr=0.016, start_share=1.0, warmup_epochs=0.3, views=4, alpha=0.9)

# A tinychat network of half the neurons, which knows most already.
_TUNE_CHAT = replace(TUNE, epochs=15, warmup_epochs=1.0, lr=1e-3, patience=6)
_HALF = PruneConfig("structured", 0.5, fine_tune=_TUNE_CHAT)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("original", ()),
        Recipe("int8", (QuantizeConfig(),)),
        Recipe("pruned30", (PruneConfig("global", 0.3, fine_tune=_TUNE),)),
        Recipe("channels50", (PruneConfig("structured", 0.5, fine_tune=_TUNE),)),
        Recipe("distilled", (DistillConfig(epochs=7, alpha=0.9),), student="resnet18"),
        Recipe(
            "combined",
            (DistillConfig(epochs=7, alpha=0.9), PruneConfig("structured", 0.5, fine_tune=_TUNE), QuantizeConfig()),
            student="resnet18",
        ),
        Recipe(
            "kws_smallest",
            (
                DistillConfig(
                    **{**SPEECH, "epochs": 30, "patience": 30, "masking": 0.25, "speed": 0.2},
                    temperature=2.0,
                    alpha=0.9,
                    views=0,
                ),
                QuantizeConfig(method="weights"),
            ),
            student="kws_cnn_hidden20",
            teacher="kws_channels16_gru128",
            model="kws",
        ),
        Recipe("tinychat_pruned", (_HALF,), model="tinychat"),
        Recipe("tinychat_pruned_2bit", (_HALF, BitsConfig("2bit")), model="tinychat"),
        # One wide hidden layer: nearly all of its weights meet inputs that are zero, and cost no time.
        Recipe("tinychat_2bit", (BitsConfig("2bit", dropout=0.25),), student="tinychat_hidden192", model="tinychat"),
        # 188 neurons are as many as 10 KB of flash hold.
        Recipe("tinychat_1bit", (BitsConfig("1bit"),), student="tinychat_hidden188", model="tinychat"),
    )
}


def load_recipe(spec: str) -> Recipe:
    """A recipe by name (hyphens are underscores), from ``pkg.module:OBJECT``, or a weights file that a method wrote.

    Raises SpeedproofError where it is none of them.
    """
    if ":" in spec:
        own: Recipe = load_object(spec, Recipe, "--recipe")
        own.check()
        return own
    name = spec.replace("-", "_")
    if name in RECIPES:
        return RECIPES[name]
    if Path(spec).is_file():
        return Recipe(re.sub("[^A-Za-z0-9_.]+", "_", Path(spec).stem), (), file=Path(spec))
    raise SpeedproofError(
        f"unknown recipe {spec!r}: expected one of {', '.join(RECIPES)}, a weights file, or pkg.module:OBJECT"
    )


def orders(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipe in every order of its steps that can be followed, named by their first letters: an ablation.

    What stands before a distillation is distilled: a student that was pruned before it was trained, for instance.
    """
    found = []
    for steps in permutations(recipe.steps):
        own = replace(recipe, name=f"{recipe.name}.{''.join(METHODS[type(step)][0] for step in steps)}", steps=steps)
        with contextlib.suppress(SpeedproofError):
            own.check()
            found.append(own)
    return tuple(found)


def follow(recipe: Recipe, model: nn.Module, workload: Workload, data: DataChoice, size: int) -> nn.Module:
    """The model that a recipe makes of ``model``, in eval mode; the argument stays as it is.

    A recipe with a student, or one that begins with a distillation, starts from an untrained model, which the original
    teaches where no other teacher is named. ``size`` replaces that of the recipe's configs. Raises
    SpeedproofError for a recipe that cannot be followed.
    """
    recipe.check()
    if isinstance(model, TextTinychat):
        network = follow(recipe, model.network, load_workload(trained_as(workload), data), data, size)
        return TextTinychat(network).eval()
    if recipe.file is not None:
        return load_model(str(recipe.file), data, size, "--recipe")[0]
    teacher = current = model
    if recipe.teacher is not None:
        teacher, _ = load_model(recipe.teacher, data, size, f"recipe {recipe.name}: teacher", trained=True)
    if recipe.student is not None:
        workload = load_workload(recipe.student, data)
    if recipe.student is not None or isinstance(next(iter(recipe.steps), None), DistillConfig):
        current = workload.build(size, None)
    for index, step in enumerate(recipe.steps):
        current = _made(_sized(step, size), current, teacher, workload, size, f"{recipe.name} step {index + 1}")
    return current


def made_of(recipe: Recipe, workload: Workload, data: DataChoice) -> Workload:
    """The workload whose architecture a recipe's result has."""
    return load_workload(recipe.student, data) if recipe.student else workload


def _sized(step: Step, size: int) -> Step:
    """The config for a size."""
    if isinstance(step, PruneConfig):
        return replace(step, fine_tune=step.fine_tune and replace(step.fine_tune, size=size))
    if isinstance(step, BitsConfig):
        return replace(step, fine_tune=replace(step.fine_tune, size=size))
    return replace(step, size=size)


def _made(step: Step, model: nn.Module, teacher: nn.Module, workload: Workload, size: int, name: str) -> nn.Module:
    """The result of one step, loaded where it was made before."""
    parts: dict[str, object] = {
        "method": METHODS[type(step)], "config": described(step), "model": module_digest(model),
        "teacher": module_digest(teacher), "data": workload.data_name, "torch": torch.__version__,
    }  # fmt: skip

    def build(folder: Path) -> None:
        print(f"{name}: {METHODS[type(step)]}", flush=True)
        unfinished = work_folder("recipe", parts)
        keep = unfinished / "run.pt"
        if isinstance(step, DistillConfig):
            result = distill(teacher, model, workload, step, keep=keep, name=name)
        elif isinstance(step, PruneConfig):
            result = prune(model, workload, step, teacher=teacher, keep=keep)
        elif isinstance(step, BitsConfig):
            result = quantize_bits(model, workload, step, teacher=teacher, keep=keep)
        else:
            result = quantize(model, workload, step, teacher=teacher, keep=keep)
        save_model(folder / "model.pt", result, workload, size, {})
        shutil.rmtree(unfinished)

    folder, _ = artefact("recipe", parts, build)
    return load_saved(folder / "model.pt", model, workload)
