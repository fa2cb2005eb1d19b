"""Pipelines: everything from the training of a workload's baseline to a table of the networks that recipes make of it.

1. The baseline is trained as ``python -m optim.train`` trains it, unless it is there already.
2. Each recipe is followed, its steps kept by content as always, and its result is written beside the baseline.
3. All of them are judged on the workload's test examples, and a table of it is printed and written.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate
from torch import nn

from models.errors import SpeedproofError
from models.files import save_text
from models.integer import IntegerTinychat
from models.integer_files import packed_bytes
from models.weights import WEIGHTS_DIR
from models.workload import DataChoice, Workload, load_workload
from optim.backends.eager import weight_bytes
from optim.command import usual_schedule, usual_size
from optim.kinds import kind_of
from optim.prune import parameters
from optim.prune.report import sparsity
from optim.quantize.sensitivity import first_quality
from optim.recipe.method import RECIPES, follow, made_of
from optim.saved import save_model
from optim.schedule import TrainConfig
from optim.train import train, trained_path


@dataclass(frozen=True)
class Pipeline:
    """A workload and the recipes whose results are compared with its baseline, in the order of the table."""

    workload: str
    recipes: tuple[str, ...]


PIPELINES: Mapping[str, Pipeline] = {
    "tinychat": Pipeline("tinychat", ("tinychat_pruned", "tinychat_pruned_2bit", "tinychat_2bit", "tinychat_1bit")),
}


def make(pipeline: Pipeline, data: DataChoice, folder: Path = WEIGHTS_DIR) -> str:
    """Make all that a pipeline names and write it into ``folder``; returns the table.

    Raises SpeedproofError where the data cannot be read or the results not be written.
    """
    workload = load_workload(pipeline.workload, data)
    size = usual_size(workload)
    path = trained_path(workload, size, folder)
    model = workload.build(size, None)
    train(model, workload, size, TrainConfig(**usual_schedule(workload, size)), path)
    rows = [["baseline", *_facts(model, workload, size)]]
    for name in pipeline.recipes:
        recipe = RECIPES[name]
        made = follow(recipe, copy.deepcopy(model), workload, data, size)
        meta = {"method": "recipe", "recipe": recipe.description()}
        place = path.with_name(f"{workload.data_name}_{name}.pt")
        save_model(place, made, made_of(recipe, workload, data), size, meta)
        rows.append([name, *_facts(made, workload, size)])
    score, count = kind_of(workload, size).score, len(workload.data("test", size))
    heads = ["network", f"{score.words}, {count:,} test {score.examples}", "parameters", "zeros", "bytes"]
    table = tabulate(rows, heads, tablefmt="pipe", disable_numparse=True, colalign=("left", *["right"] * 4))
    save_text(path.with_name(f"{workload.data_name}_{pipeline.workload}.md"), table + "\n")
    return table


def _facts(model: nn.Module, workload: Workload, size: int) -> list[str]:
    """Quality, parameters, the share of zeros among the weights, and bytes: packed where there are integers."""
    found = first_quality(model, workload, size, "test")
    if found is None:
        raise SpeedproofError(f"workload {workload.name} has no quality to compare by: its quality() must give one")
    size_bytes = packed_bytes(model.net) if isinstance(model, IntegerTinychat) else weight_bytes(model)
    return [f"{found.value:.1%}", f"{parameters(model):,}", f"{sparsity(model)['overall']:.0%}", f"{size_bytes:,}"]
