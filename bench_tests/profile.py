"""``python -m bench_tests.profile``: what a model spends its time on, and which method addresses it.

PyTorch eager in fp32 is what is profiled, since it is what every method is compared with; another backend fuses layers,
so that they have no times of their own. How it is measured stands in `harness.layer_times`, how it is judged in
`harness.bottlenecks`.
"""

from __future__ import annotations

import os

# Read once, when torch loads its OpenMP: waiting threads that spin distort whatever is measured beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench_tests.harness.bottlenecks import judged, raised
from bench_tests.harness.fingerprint import Fingerprint, check_threads, fingerprint
from bench_tests.harness.layer_table import report
from bench_tests.harness.layer_times import Profile, profile
from bench_tests.harness.roofline import Ceiling, ceiling
from models.command import run
from models.errors import SpeedproofError
from models.files import check_writable, save_json
from models.workload import Tensors, Workload, load_workload, workload_names
from optim.backends import cache
from optim.backends.base import Target, first_line
from optim.command import add_data_options, data_choice, use_machine


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench_tests.profile",
        description="Where a model's time goes, what bounds each layer, and which method addresses it.",
    )
    add, known = parser.add_argument, ", ".join(workload_names())
    add("--workload", required=True, metavar="NAME", help=f"one of {known}, or pkg.module:OBJECT for your own")
    add("--size", type=int, metavar="PX", help="image size (the workload's largest default)")
    add("--batch", type=int, metavar="N", help="images a call (the workload's smallest default)")
    add_data_options(parser)
    add("--weights", type=Path, metavar="FILE", help="weights for the workload (the best trained ones of its size)")
    add("--seed", type=int, default=0, metavar="N", help="of the inputs (0)")
    add("--top", type=int, metavar="N", help="show the N longest layers (all that hold parameters)")
    add("--json", type=Path, metavar="FILE", help="write every row, unrounded")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raise SpeedproofError for a value that cannot be, before any work is done."""
    for name, least in (("size", 1), ("batch", 1), ("top", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and not least <= value < 2**63:
            raise SpeedproofError(f"--{name} {value}: expected a whole number of at least {least}")
    if options.threads is not None:
        check_threads(options.threads)
    if ":" in options.workload and (options.data or options.data_dir):
        raise SpeedproofError("--data and --data-dir: a workload of your own brings its data itself; leave them out")
    if options.json is not None:
        if options.json.is_dir():
            raise SpeedproofError(
                f"--json {options.json}: this is a folder; give a file, as {options.json / 'rows.json'}"
            )
        check_writable(options.json.parent)
    cache.check_writable()  # the ceiling is kept there


def _built(workload: Workload, size: int, batch: int, options: argparse.Namespace) -> tuple[nn.Module, Tensors]:
    """The module with its weights, and the inputs of one call. Whatever they raise becomes a sentence."""
    weights = options.weights if options.weights is not None else workload.weights(size).path
    try:
        return workload.build(size, weights), workload.example(size, batch, options.seed)
    except SpeedproofError:
        raise
    except Exception as error:  # a user's own code, or memory that runs out
        raise SpeedproofError(
            f"workload {workload.name} cannot be built for size {size} and batch {batch} ({first_line(error)}): "
            f"check its build and example, or take less"
        ) from error


def _content(found: Profile, kept: Ceiling, machine: Fingerprint, facts: dict[str, Any]) -> dict[str, Any]:
    """What ``--json`` writes."""
    roof = raised(kept, found)
    return {
        **facts, "fingerprint": machine.folder(), "torch": torch.__version__, "ceiling": asdict(roof),
        "untouched_s": found.untouched_s, "total_s": found.total_s, "calls": found.calls,
        "rows": [row.record() for row in judged(found, roof)],
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the table is printed, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        _check(options)
        use_machine(options)
        workload = load_workload(options.workload, data_choice(options))
        size, batch = options.size or max(workload.sizes), options.batch or min(workload.batches)
        workload.check_size(size)
        target = Target(options.device, torch.get_num_threads())
        machine = fingerprint(target.threads, target.device)
        module, inputs = _built(workload, size, batch, options)
        found = profile(module, inputs, target)
        roof = ceiling(machine, "fp32", target.device)
        if raised(roof, found) != roof:  # it was measured on a busy machine
            roof = ceiling(machine, "fp32", target.device, remeasure=True)
        title = (
            f"{workload.name} on {workload.data_name}, size {size}, batch {batch}, PyTorch eager fp32 on "
            f"{machine.gpu_name or f'{machine.cpu_model}, {target.threads} threads'}"
        )
        print(f"{title}\n{report(found, roof, options.top)}")
        if options.json is not None:
            facts = {"workload": workload.name, "data": workload.data_name, "size": size, "batch": batch,
                     "threads": target.threads, "device": target.device, "seed": options.seed}  # fmt: skip
            save_json(options.json, _content(found, roof, machine, facts))
            print(f"{options.json}: written")

    return run(body, "interrupted: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
