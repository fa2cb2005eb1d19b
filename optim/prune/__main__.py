"""``python -m optim.prune``: prune a model, or show how sensitive its layers are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import nn

from models.command import run
from models.errors import SpeedproofError
from models.workload import Workload
from optim.backends.cache import check_writable
from optim.backends.eager import weight_bytes
from optim.command import (
    SCHEDULE_USAGES,
    add_data_options,
    add_fields,
    check_data,
    check_float,
    check_save_path,
    chosen_size,
    data_choice,
    given,
    load_model,
    megabytes,
    use_machine,
    usual_schedule,
)
from optim.distill import DistillConfig
from optim.kinds import kind_of, score_on_test
from optim.prune.config import METHODS, PruneConfig
from optim.prune.masks import fits_semi_structured, layers_of
from optim.prune.method import prune
from optim.prune.report import compressed_bytes, parameters, sparsity
from optim.prune.sensitivity import sensitivity, sensitivity_table
from optim.saved import save_model
from optim.schedule import described

USAGES = {
    "round_to": "structured: channels that are left come in multiples of it",
    "importance": "structured: norm of a channel's weights, l1 or l2",
    "global_channels": "structured: rank the channels of all groups together",
    "steps": "structured: in how many steps channels go, each fine-tuned",
    "gradual": "global, local: raise the sparsity while fine-tuning",
    "gradual_share": "gradual: share of the epochs in which it rises",
    "mask_every": "gradual: steps between two new masks",
}
TUNING_USAGES = {
    **{name: SCHEDULE_USAGES[name] for name in ("batch_size", "patience", "end_share", "seed")},
    "views": "fixed views of each image that take turns; 0: new views in every epoch",
}
TEACHER_USAGES = {
    "temperature": "softens the teacher's and the model's probabilities",
    "alpha": "share of the teacher's word in the loss; the rest is the labels'",
    "teacher_size": "px of the teacher's views; 0: as the model's",
}
MEASURED_USAGES = {"size": "px of an image, or ms of speech", "precision": SCHEDULE_USAGES["precision"]}
# Of a model that is trained already: full resolution from the start, and a fifth of training's rate.
FINE_TUNE = {"epochs": 5, "start_share": 1.0, "warmup_epochs": 0.3}
OWN_USAGES = {"fine_tune_epochs": "", "lr": "", "start_share": ""}
AMOUNTS = (0.3, 0.5, 0.7)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optim.prune", description="Remove weights or channels of a model.")
    add, models = parser.add_argument, "a weights file, a workload's name or pkg.module:OBJECT"
    add("--model", required=True, metavar="MODEL", help=models)
    add("--save-path", type=Path, metavar="FILE", help="where the pruned model is written")
    add_data_options(parser)
    add_fields(parser, DistillConfig, MEASURED_USAGES)
    known = ", ".join(METHODS)
    add(
        "--amount", type=float, nargs="+", metavar="X",
        help=f"share of the weights, or of the channels, that go ({PruneConfig.amount:g}); several make a sweep, shown "
        f"as one table, with a file for each",
    )  # fmt: skip
    add("--pruning-method", metavar="NAME", default=PruneConfig.method, help=f"one of {known} (%(default)s)")
    add_fields(parser, PruneConfig, USAGES)
    add("--ignored", nargs="+", default=[], metavar="LAYER", help="layers, or modules with layers, left as they are")
    add("--sensitivity", action="store_true", help="show what pruning each layer alone costs, and prune nothing")
    words = ", ".join(map(str, AMOUNTS))
    add("--amounts", type=float, nargs="+", metavar="X", help=f"sensitivity: shares to try ({words}; 2:4: 0.5)")
    add("--examples", type=int, metavar="N", help="sensitivity: validation examples to judge on (all)")
    add("--fine-tune", action="store_true", help="train afterwards; the options below go with it")
    add(
        "--fine-tune-epochs",
        type=int,
        metavar="N",
        help=f"passes over the images, in each step ({FINE_TUNE['epochs']})",
    )
    add("--lr", type=float, metavar="X", help="peak learning rate (a fifth of training's: 0.016, digits: 0.008)")
    add("--start-share", type=float, metavar="X", help="resolution of the first epoch, as a share (1, digits: 0.15)")
    add_fields(parser, DistillConfig, TUNING_USAGES)
    add("--teacher", metavar="MODEL", help=f"learn from its logits too; {models}")
    add_fields(parser, DistillConfig, TEACHER_USAGES)
    return parser


def _config(options: argparse.Namespace, workload: Workload, size: int) -> PruneConfig:
    """The configuration that the options name, with the first amount.

    Raises SpeedproofError for options that do not go together.
    """
    measured = {**given(options, MEASURED_USAGES), "size": size}
    schedule = given(options, TUNING_USAGES | OWN_USAGES)
    taught = given(options, TEACHER_USAGES)
    _refuse(() if options.fine_tune else {**schedule, **({"teacher": 1} if options.teacher else {})}, "--fine-tune")
    _refuse(() if options.teacher else taught, "--teacher")
    base = {**asdict(DistillConfig()), **usual_schedule(workload, size), **FINE_TUNE}
    if "fine_tune_epochs" in schedule:
        schedule["epochs"] = schedule.pop("fine_tune_epochs")
    tuning = DistillConfig(**{**base, "lr": base["lr"] / 5, **measured, **schedule, **taught})
    tuning.check()  # size and precision are used without fine-tuning too
    return PruneConfig(
        options.pruning_method, _amounts(options)[0], **given(options, USAGES),
        fine_tune=tuning if options.fine_tune else None, ignored=tuple(options.ignored),
    )  # fmt: skip


def _amounts(options: argparse.Namespace) -> list[float]:
    return options.amount or [PruneConfig.amount]


def _refuse(names: Sequence[str] | dict[str, Any], companion: str) -> None:
    for name in names:
        raise SpeedproofError(f"--{name.replace('_', '-')} goes with {companion}")


def _check_kind(options: argparse.Namespace) -> None:
    """Either a model is written, or a table is shown."""
    if options.sensitivity:
        for name in ("save_path", "amount", "teacher"):
            if getattr(options, name) is not None:
                raise SpeedproofError(
                    f"--{name.replace('_', '-')} does not go with --sensitivity, which prunes nothing"
                )
        if options.examples is not None and options.examples < 1:
            raise SpeedproofError(f"--examples {options.examples}: expected at least 1")
        return
    _refuse([name for name in ("amounts", "examples") if getattr(options, name) is not None], "--sensitivity")
    if options.save_path is None:
        raise SpeedproofError("--save-path is missing: name the file that the pruned model is written to")
    check_save_path(options.save_path)


def _facts(model: nn.Module, workload: Workload, size: int, precision: str) -> dict[str, str]:
    """What the table shows of a model."""
    tested, examples = score_on_test(model, workload, size, precision)
    score = kind_of(workload, size).score
    return {
        "zeros among the weights": f"{sparsity(model)['overall']:.1%}",
        "parameters": f"{parameters(model):,}",
        "size": f"{megabytes(weight_bytes(model))} MB",
        "compressed (zlib)": f"{megabytes(compressed_bytes(model))} MB",
        f"{score.words}, {examples} test {score.examples}": f"{tested:{score.form}}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the model is written, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        use_machine(options)
        choice = data_choice(options)
        _check_kind(options)
        model, workload = load_model(options.model, choice, options.size, "--model")
        check_float(model, f"--model {options.model}")
        check_data(options, workload)
        size, precision = chosen_size(options.size, workload), options.precision or DistillConfig.precision
        config = _config(options, workload, size)
        for amount in _amounts(options):
            replace(config, amount=amount).check()
        model.to(options.device)
        if options.sensitivity:
            amounts = options.amounts or (AMOUNTS if config.method != "2:4" else (config.amount,))
            print(sensitivity_table(sensitivity(model, workload, config, amounts, options.examples, size=size)))
            return
        teacher = None
        if options.teacher is not None:
            check_writable()
            seen = config.fine_tune.teacher_size or size  # type: ignore[union-attr]
            teacher, _ = load_model(options.teacher, choice, seen, "--teacher", trained=True)
            check_float(teacher, f"--teacher {options.teacher}")
        columns, paths = {"before": _facts(model, workload, size, precision)}, []
        for amount in _amounts(options):
            own, path, name = replace(config, amount=amount), options.save_path, "after"
            if len(_amounts(options)) > 1:
                path, name = path.with_name(f"{path.stem}_{100 * amount:g}{path.suffix}"), f"{amount:.4g} gone"
            pruned = prune(model, workload, own, teacher=teacher, keep=path)
            columns[name] = _facts(pruned, workload, size, precision)
            save_model(path, pruned.cpu(), workload, size, {"method": "prune", "config": described(own)})
            paths.append(path)
        rows = [[fact, *(column[fact] for column in columns.values())] for fact in columns["before"]]
        aligned = ("left", *("right" for _ in columns))
        print(tabulate(rows, ["", *columns], disable_numparse=True, colalign=aligned))
        if config.method == "2:4":
            print(f"left as they are, no multiple of four: {', '.join(_untouched(pruned, config)) or 'none'}")
        print(f"{', '.join(map(str, paths))}: written")

    return run(body)


def _untouched(model: nn.Module, config: PruneConfig) -> list[str]:
    return [name for name, layer in layers_of(model, config.ignored).items() if not fits_semi_structured(layer.weight)]


if __name__ == "__main__":
    sys.exit(main())
