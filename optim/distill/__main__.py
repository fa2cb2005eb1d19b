"""``python -m optim.distill``: one student, or a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.command import run
from models.errors import SpeedproofError
from optim.backends.cache import check_writable
from optim.command import (
    SCHEDULE_USAGES,
    add_data_options,
    add_fields,
    check_data,
    check_float,
    check_save_path,
    chosen_size,
    data_choice,
    load_model,
    schedule,
    use_machine,
)
from optim.distill.loss import DistillConfig
from optim.distill.method import best_of, sweep, sweep_table
from optim.fit import weights_digest
from optim.kinds import kind_of, score_on_test
from optim.saved import save_model
from optim.schedule import described

USAGES = {
    "size": "px of an image, or ms of speech",
    **SCHEDULE_USAGES,
    "views": "fixed views of each example whose teacher logits are kept; 0: new views in every epoch",
    "teacher_size": "px of the teacher's views; 0: as the student's",
    "transfer": "what else the student learns from the teacher's layers: none, feature or attention",
    "transfer_weight": "weight of that part of the loss",
    "unlabeled": "folder of further images without labels",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m optim.distill", description="Train a student on a teacher's logits (knowledge distillation)."
    )
    add, models = parser.add_argument, "a weights file, a workload's name or pkg.module:OBJECT"
    add("--teacher", required=True, metavar="MODEL", help=models)
    add("--student", required=True, metavar="MODEL", help=f"{models}; a file is gone on from, a name starts afresh")
    add("--save-path", required=True, type=Path, metavar="FILE", help="where the student is written")
    add_data_options(parser)
    several = "; several of either make a sweep, shown as one table"
    add("--temperature", type=float, nargs="+", default=[2.0], metavar="T", help=f"softens both (2){several}")
    add(
        "--alpha", type=float, nargs="+", default=[0.5], metavar="A", help=f"share of the teacher's word (0.5){several}"
    )
    add("--layers", nargs="+", default=[], metavar="TEACHER=STUDENT", help="modules whose features are transferred")
    add_fields(parser, DistillConfig, USAGES)
    return parser


def _layer_pairs(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    for pair in pairs:
        if pair.count("=") != 1:
            raise SpeedproofError(f"--layers {pair}: expected TEACHER=STUDENT, such as layer4=layer4")
    return tuple((left, right) for left, _, right in (pair.partition("=") for pair in pairs))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the student is written, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        use_machine(options)
        choice = data_choice(options)
        layers = _layer_pairs(options.layers)
        check_save_path(options.save_path)
        check_writable()
        student, workload = load_model(options.student, choice, options.size, "--student", fresh=True)
        check_data(options, workload)
        size = chosen_size(options.size, workload)
        config = DistillConfig(**{**schedule(options, USAGES, workload, size), "size": size}, layers=layers)
        for temperature in options.temperature:
            for alpha in options.alpha:
                replace(config, temperature=temperature, alpha=alpha).check()
        teacher, _ = load_model(options.teacher, choice, size, "--teacher", trained=True)
        check_float(teacher, f"--teacher {options.teacher}")
        check_float(student, f"--student {options.student}")
        student.to(options.device)
        student, rows = sweep(teacher, student, workload, config, options.temperature, options.alpha, options.save_path)
        score = kind_of(workload, config.size).score
        tested, examples = score_on_test(student, workload, config.size, config.precision)
        made = {"config": described(best_of(rows, config, score)), "sweep": rows, f"test_{score.key}": tested}
        meta = {"method": "distill", "teacher": options.teacher, "teacher_digest": weights_digest(teacher), **made}
        save_model(options.save_path, student.cpu(), workload, config.size, meta)
        if len(rows) > 1:
            print(sweep_table(rows, score))
        print(f"{options.save_path}: {score.said(tested)} on {examples} test {score.examples}")

    return run(body)


if __name__ == "__main__":
    sys.exit(main())
