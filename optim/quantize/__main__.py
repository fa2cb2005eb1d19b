"""``python -m optim.quantize``: a model in int8 or in fewer bits, written so that it is loaded again."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.command import run
from models.errors import SpeedproofError
from models.integer import KINDS as BITS
from models.integer_files import packed_bytes
from models.workload import DataChoice, Workload
from optim.backends.base import PRECISIONS, computes_in_int8
from optim.backends.cache import check_writable
from optim.backends.eager import weight_bytes
from optim.bits import TUNE, BitsConfig, quantize_bits
from optim.command import (
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
    quality_digits,
    use_machine,
)
from optim.distill import DistillConfig
from optim.quantize.config import CALIBRATED, METHODS, QAT, QuantizeConfig
from optim.quantize.coverage import coverage_int8
from optim.quantize.method import quantize, usual_qat
from optim.quantize.sensitivity import first_quality, sensitivity, sensitivity_table
from optim.quantize.storage import save
from optim.saved import save_model

CASTS = ("bf16", "fp16")
CALIBRATION = {
    "calibration": "how an activation's range is found: minmax, entropy or percentile",
    "percentile": "share of an activation's values, in per cent, that percentile calibration keeps",
    "calibration_images": "examples that ranges are found on",
    "calibration_split": "split that they are drawn from",
    "seed": "which examples are drawn",
}
USAGES = {
    "size": "px of an image, or ms of speech",
    **CALIBRATION,
    "bits": "bits of a weight, 2 to 8; below 8 they are still stored in int8",
}
FINE_TUNING = {
    "fine_tune_epochs": ("epochs", int, "qat, 2bit, 1bit, ternary: passes over the data"),
    "lr": ("lr", float, "the same: peak learning rate"),
    "batch_size": ("batch_size", int, "the same: examples a step"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m optim.quantize",
        description="Quantize a model to int8, tinychat to 1 or 2 bits, or cast weights to 16 bits.",
    )
    add, models = parser.add_argument, "a weights file, a workload's name or pkg.module:OBJECT"
    add("--model", required=True, metavar="MODEL", help=models)
    add("--save-path", required=True, type=Path, metavar="FILE", help="where the quantized model is written")
    add(
        "--quantization-method", default="static", metavar="NAME",
        help=f"one of {', '.join((*METHODS, *BITS, *CASTS))} (static); {', '.join(BITS)} are for tinychat; bf16 and "
        f"fp16 cast the weights alone, and it is the backend's --precision that computes in them",
    )  # fmt: skip
    add_data_options(parser)
    add_fields(parser, QuantizeConfig, USAGES)
    add("--per-tensor", action="store_true", help="one scale for a whole weight instead of one for each channel")
    add("--float-sums", action="store_true", help="sums of two branches stay in float: for residuals with outliers")
    add("--float-layers", nargs="+", default=[], metavar="LAYER", help="modules that stay in float, with all in them")
    add(
        "--drop-max",
        type=float,
        metavar="X",
        help="put what hurts most back to float until the quality drops by at most X",
    )
    add("--sensitivity", action="store_true", help="show what rounding each layer alone does")
    add("--progressive", action="store_true", help="2bit, 1bit, ternary: close the grid step by step")
    add("--teacher", metavar="MODEL", help=f"qat, 2bit, 1bit, ternary: learn from its logits too; {models}")
    for name, (field, kind, usage) in FINE_TUNING.items():
        add(f"--{name.replace('_', '-')}", type=kind, metavar="N" if kind is int else "X",
            help=f"{usage} ({getattr(QAT, field):g}; {', '.join(BITS)}: {getattr(TUNE, field):g})")  # fmt: skip
    return parser


def _config(options: argparse.Namespace, workload: Workload) -> QuantizeConfig:
    """The config that the options name; for a cast, one that says only where and for which size."""
    method = options.quantization_method
    if method not in (*METHODS, *CASTS):
        known = ", ".join((*METHODS, *BITS, *CASTS))
        raise SpeedproofError(f"--quantization-method {method!r}: expected one of {known}")
    switches = options.per_tensor, options.float_sums, options.float_layers, options.sensitivity
    integer = any(switches) or options.drop_max is not None
    if method in CASTS and (integer or options.bits is not None):
        raise SpeedproofError(
            "--bits, --per-tensor, --float-sums, --float-layers, --drop-max and --sensitivity go with static, dynamic "
            "and qat"
        )
    tuning = _tuning(options)
    if (tuning or options.teacher) and method != "qat":
        raise SpeedproofError("--fine-tune-epochs, --lr, --batch-size and --teacher go with --quantization-method qat")
    if options.progressive:
        raise SpeedproofError(f"--progressive goes with --quantization-method {', '.join(BITS)}")
    if method not in CALIBRATED and not options.sensitivity:  # which looks at ranges whatever the method
        for name in given(options, CALIBRATION):
            raise SpeedproofError(
                f"--{name.replace('_', '-')} goes with {' and '.join(CALIBRATED)}: {method} finds no ranges"
            )
    size = chosen_size(options.size, workload)
    chosen: dict[str, Any] = {**given(options, USAGES), "size": size}
    config = QuantizeConfig(
        **chosen,
        method="static" if method in CASTS else method,
        per_channel=not options.per_tensor,
        float_sums=options.float_sums,
        float_layers=tuple(options.float_layers),
        drop_max=options.drop_max,
        fine_tune=replace(usual_qat(workload, size), **tuning) if method == "qat" else None,
    )
    config.check()
    return config


def _tuning(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line sets of the training behind the grids."""
    found = {field: getattr(options, name) for name, (field, _, _) in FINE_TUNING.items()}
    return {field: value for field, value in found.items() if value is not None}


def _bits_config(options: argparse.Namespace, size: int) -> BitsConfig:
    """The config of fewer than eight bits. Raises SpeedproofError for options of other methods."""
    measured = [name for name in CALIBRATION if name != "seed"] + ["bits", "drop_max"]
    given_too = [name for name in measured if getattr(options, name) is not None]
    switches = ("per_tensor", "float_sums", "float_layers", "sensitivity")
    given_too += [name for name in switches if getattr(options, name)]
    if given_too:
        raise SpeedproofError(
            f"--{given_too[0].replace('_', '-')} does not go with --quantization-method {options.quantization_method}: "
            f"it trains one scale for each layer, and finds shifts on all training examples"
        )
    own: dict[str, Any] = {"size": size, **_tuning(options), **given(options, {"seed": ""})}
    if options.teacher:
        own["alpha"] = DistillConfig.alpha
    base = BitsConfig(options.quantization_method, progressive=options.progressive)
    config = replace(base, fine_tune=replace(base.fine_tune, **own))
    config.check()
    return config


def _to_bits(options: argparse.Namespace, choice: DataChoice) -> None:
    """Quantize to fewer than eight bits, write the result and say what it is."""
    model, workload = load_model(options.model, choice, options.size, "--model")
    check_float(model, f"--model {options.model}")
    check_data(options, workload)
    config = _bits_config(options, chosen_size(options.size, workload))
    size = config.fine_tune.size
    teacher = None
    if options.teacher:
        teacher, _ = load_model(options.teacher, choice, size, "--teacher", trained=True)
        check_float(teacher, f"--teacher {options.teacher}")
    before, bytes_before = first_quality(model, workload, size, "test"), weight_bytes(model)
    result = quantize_bits(model, workload, config, teacher=teacher, keep=options.save_path)
    after = first_quality(result, workload, size, "test")
    assert before is not None  # it has been trained on the same data
    assert after is not None
    save_model(options.save_path, result, workload, size, {"method": config.kind, "test_quality": after.value})
    print(f"weights: {bytes_before:,} bytes before, {packed_bytes(result.net):,} after")
    print(
        f"{options.save_path}: {after.name} {after.value:.1%} on {after.examples} test examples, {before.value:.1%} "
        f"before"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the model is written, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        use_machine(options)
        choice = data_choice(options)
        cast = options.quantization_method if options.quantization_method in CASTS else None
        check_save_path(options.save_path)
        check_writable()
        if options.quantization_method in BITS:
            _to_bits(options, choice)
            return
        model, workload = load_model(options.model, choice, options.size, "--model")
        check_float(model, f"--model {options.model}")
        check_data(options, workload)
        config = _config(options, workload)
        model.to(options.device)
        before, bytes_before = first_quality(model, workload, config.size, "test"), weight_bytes(model)
        if options.sensitivity:
            print(sensitivity_table(sensitivity(model, workload, replace(config, method="static"))), flush=True)
        if cast:
            result = copy.deepcopy(model).to("cpu", PRECISIONS[cast])
            after = first_quality(copy.deepcopy(result).float(), workload, config.size, "test")
            print(f"weights in {cast}; a backend computes in it where it is asked to with --precision {cast}")
            save_model(options.save_path, result, workload, config.size, {"method": cast})
        else:
            teacher = None
            if options.teacher:
                teacher, _ = load_model(options.teacher, choice, config.size, "--teacher", trained=True)
                check_float(teacher, f"--teacher {options.teacher}")
            result = quantize(model, workload, config, teacher=teacher, keep=options.save_path).cpu()
            after = first_quality(result, workload, config.size, "test")
            print(coverage_int8(result).words if computes_in_int8(result) else "weights in int8, computed in float")
            save(options.save_path, result, workload, {"method": config.method, "test_quality": after and after.value})
        print(f"weights: {megabytes(bytes_before)} MB before, {megabytes(weight_bytes(result))} MB after")
        if before and after:
            print(
                f"{options.save_path}: {after.name} {after.value:.{quality_digits(after.value)}%} on {after.examples} "
                f"test examples, {before.value:.{quality_digits(before.value)}%} before"
            )

    return run(body)


if __name__ == "__main__":
    sys.exit(main())
