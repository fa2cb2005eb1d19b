"""``python -m optim.recipe``: apply a recipe to a model, compare the orders of its steps, or make a whole pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn

from models.command import run
from models.errors import SpeedproofError
from models.weights import WEIGHTS_DIR, spotter_path, tinychat_path
from models.workload import DataChoice, Workload, load_workload
from optim.backends.cache import check_writable
from optim.backends.eager import weight_bytes
from optim.command import (
    add_data_options,
    check_data,
    check_save_path,
    chosen_size,
    data_choice,
    load_model,
    megabytes,
    quality_digits,
    use_machine,
)
from optim.quantize.sensitivity import first_quality
from optim.recipe.method import METHODS, RECIPES, Recipe, follow, load_recipe, made_of, orders
from optim.recipe.pipeline import PIPELINES, make
from optim.saved import save_model


def ablation(recipe: Recipe, model: nn.Module, workload: Workload, data: DataChoice, size: int) -> str:
    """A table of the recipe in all orders that can be followed: quality on the test images, parameters, bytes."""
    rows = []
    for own in orders(recipe):
        made = follow(own, model, workload, data, size)
        words = " > ".join(METHODS[type(step)] for step in own.steps)
        rows.append([words, *_facts(made, workload, size)])
    return tabulate(
        rows, ["order", "quality", "weights, MB"], disable_numparse=True, colalign=("left", "right", "right")
    )


def _facts(model: nn.Module, workload: Workload, size: int) -> list[str]:
    found = first_quality(model, workload, size, "test")
    judged = f"{found.name} {found.value:.{quality_digits(found.value)}%} of {found.examples}" if found else "-"
    return [judged, megabytes(weight_bytes(model))]


def usual_path(recipe: Recipe, workload: Workload) -> Path:
    """Where the result is kept of a recipe that names its model: ``weights/kws/speech_happy_kws_smallest.pt``."""
    places = {"ms": spotter_path, "chars": tinychat_path}
    known = places.get(workload.size_unit)
    folder = known(workload.name, workload.data_name).parent if known else WEIGHTS_DIR
    return folder / f"{workload.data_name}_{recipe.name}.pt"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optim.recipe", description="Apply a named list of methods.")
    add = parser.add_argument
    known = f"one of {', '.join(RECIPES)}, or pkg.module:OBJECT; {', '.join(PIPELINES)}: all of it"
    add("name", nargs="?", metavar="NAME", help=f"{known}; hyphens are underscores")
    add("--recipe", metavar="NAME", help="the same as an option")
    add("--model", metavar="MODEL", help="a weights file, a workload's name or pkg.module:OBJECT (the recipe's own)")
    add("--save-path", type=Path, metavar="FILE", help="where it is written (of a recipe of one model: in weights)")
    add("--orders", action="store_true", help="compare all orders of its steps instead of writing a result")
    add("--size", type=int, metavar="N", help="px of an image, or ms of speech (224, or the workload's first)")
    add_data_options(parser)
    return parser


def _recipe_name(options: argparse.Namespace) -> str:
    """The recipe that is named, by place or by option."""
    if (options.name is None) == (options.recipe is None):
        raise SpeedproofError("name one recipe, as in `python -m optim.recipe int8` or with --recipe")
    return str(options.recipe or options.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when it is done, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        use_machine(options)
        choice, asked = data_choice(options), _recipe_name(options)
        if asked in PIPELINES:
            for name in ("model", "save_path", "size"):
                if getattr(options, name) is not None:
                    raise SpeedproofError(
                        f"--{name.replace('_', '-')} goes with a recipe; {asked} makes several models"
                    )
            if options.orders:
                raise SpeedproofError(f"--orders goes with a recipe; {asked} makes several models")
            check_data(options, load_workload(PIPELINES[asked].workload, choice))
            if options.threads is None:
                torch.set_num_threads(1)  # networks so small take twice as long on two
            check_writable()
            print(make(PIPELINES[asked], choice))
            return
        recipe = load_recipe(asked)
        named = options.model or recipe.model
        if named is None:
            raise SpeedproofError(f"--model is missing: recipe {recipe.name} is for any model, name one")
        if options.orders == (options.save_path is not None) and (options.orders or recipe.model is None):
            raise SpeedproofError("give --save-path FILE for a result, or --orders for a comparison, and not both")
        model, workload = load_model(named, choice, options.size, "--model")
        check_data(options, workload)
        size, path = chosen_size(options.size, workload), options.save_path or usual_path(recipe, workload)
        if not options.orders:
            check_save_path(path)
        check_writable()
        model.to(options.device)
        if options.orders:
            print(ablation(recipe, model, workload, choice, size))
            return
        made = follow(recipe, model, workload, choice, size).cpu()
        meta = {"method": "recipe", "recipe": recipe.description()}
        save_model(path, made, made_of(recipe, workload, choice), size, meta)
        for name, own in (("before", model.cpu()), ("after", made)):
            print(f"{name}: {', '.join(_facts(own, workload, size))} MB")
        print(f"{path}: written")

    return run(body)


if __name__ == "__main__":
    sys.exit(main())
