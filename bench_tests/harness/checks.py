"""Correct before fast: what a compiled model must show before it is timed, and once more after.

Parity against the very module it was compiled from; then that module against the original, by quality and agreement
on real examples; then coverage, what really ran where. Each check gives its part of the record, or raises
NotMeasuredError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from bench_tests.harness.case import Case, NotMeasuredError
from bench_tests.harness.expectations import Expectation
from bench_tests.harness.methods import int8_operators
from bench_tests.harness.parity import Deviation, check_bits, check_deviations, deviations, run_alternating
from bench_tests.harness.record import Record
from bench_tests.harness.session import SPLIT, Session, predictor
from bench_tests.harness.statistics import paired_difference, wilson_interval
from models.workload import Quality, Tensors
from optim.backends.base import PRECISIONS, Runner, as_tuple, computes_in_int8


def check_parity(case: Case, session: Session, runner: Runner, inputs: Sequence[Tensors]) -> Record:
    """Outputs against the oracle, on all inputs in turn; bit for bit where the clock counts cycles."""
    outputs = run_alternating(runner, inputs)
    if runner.clock == "cycles":
        check_bits(outputs, module_outputs(case, session))
        return {"parity_bits_equal": True}
    eager = session.eager_deviations(case)
    found = deviations(outputs, session.oracle(case))
    check_deviations(found, eager, _kind(case, session))
    return {
        f"{prefix}_{respect}_error": max((abs(getattr(row, respect)) for row in rows), default=0.0)
        for prefix, rows in (("parity", found), ("parity_eager", eager))
        for respect in ("largest", "rms", "gain")
    }


def _kind(case: Case, session: Session) -> str:
    """Which tolerance holds: the precision's, or that of integers."""
    return "int8" if computes_in_int8(session.module(case)) else case.precision


def module_outputs(case: Case, session: Session) -> list[Tensors]:
    """Outputs of the module itself for each input."""
    with torch.inference_mode():
        module = session.module(case)
        return [as_tuple(module(*tensors)) for tensors in session.case_inputs(case)]


def check_quality(
    case: Case, session: Session, runner: Runner, expected: Expectation
) -> tuple[Record, dict[str, np.ndarray]]:
    """Quality and agreement with the original on the run's examples; also the per-example outcomes."""
    workload = session.workload(case.workload)
    originals = session.original_quality(case)
    if not originals:
        return {"quality": f"not judged: {workload.name} has no examples with labels in {case.data}"}, {}
    found = workload.quality(predictor(runner), SPLIT, case.size, case.batch, session.settings.examples)
    record: Record = {}
    for quality, original in zip(found, originals, strict=True):
        record |= _quality_record(quality, original)
    quality, original = found[0], originals[0]
    record["quality_examples"] = quality.examples
    sign = 1 if quality.higher_is_better else -1
    drop = (original.value - quality.value) * sign
    agreement = float(np.mean(quality.answers == original.answers))
    record |= {"quality": quality.name, "quality_drop": drop, "agreement": agreement}
    record["quality_higher_is_better"] = quality.higher_is_better
    if quality.examples > 1 and abs(quality.value - quality.outcomes.mean()) < 1e-9:  # a mean over the examples
        _, low, high = paired_difference(sign * original.outcomes, sign * quality.outcomes)
        record |= {"quality_drop_low": low, "quality_drop_high": high}
    allowed = workload.tolerated_drop if expected.drop_max is None else expected.drop_max
    if drop > allowed + 1e-12:
        raise NotMeasuredError(
            "failed",
            f"quality: {quality.name} is {quality.value:.4f} against the original's {original.value:.4f} on "
            f"{quality.examples} examples, allowed is a drop of {allowed:g}",
        )
    if expected.drop_min is not None and drop < expected.drop_min - 1e-12:
        raise NotMeasuredError(
            "failed",
            f"quality: {quality.name} is {quality.value:.4f} against the original's {original.value:.4f}, better than "
            f"expectations.yaml says (a drop of at least {expected.drop_min:g}): update its row",
        )
    other = quality.examples - round(agreement * quality.examples)
    # One near tie may always fall to the other side, however few examples there are.
    if expected.agreement_min is not None and other > max(1, (1 - expected.agreement_min) * quality.examples):
        raise NotMeasuredError(
            "failed",
            f"quality: answers {other} of {quality.examples} examples otherwise than the original, "
            f"expected is an agreement of at least {expected.agreement_min:.0%}",
        )
    return record, {"outcomes": quality.outcomes, "answers": quality.answers, "outcomes_original": original.outcomes}


def _quality_record(quality: Quality, original: Quality) -> Record:
    record: Record = {
        f"quality_{quality.name}": quality.value,
        f"quality_{quality.name}_original": original.value,
    }
    interval = quality.interval
    if interval is None and set(np.unique(quality.outcomes)) <= {0.0, 1.0}:
        interval = wilson_interval(int(quality.outcomes.sum()), quality.examples)
    if interval is not None:
        low, high = interval
        record |= {f"quality_{quality.name}_low": low, f"quality_{quality.name}_high": high}
    return record


def check_coverage(case: Case, session: Session, runner: Runner, inputs: Tensors) -> Record:
    """What ran where, as the runtime tells it: nothing elsewhere, and something in the precision asked for."""
    coverage = runner.coverage(inputs)
    dtypes = {key.rpartition("/")[2] for key in coverage.operators} & {str(dtype)[6:] for dtype in PRECISIONS.values()}
    asked = str(PRECISIONS[case.precision])[6:]
    fallbacks = list(coverage.fallbacks)
    record: Record = {"coverage": json.dumps(dict(coverage.operators), sort_keys=True)}
    if computes_in_int8(session.module(case)):
        asked = "int8"
        dtypes = {asked} if int8_operators(coverage.operators) else dtypes
        record["int8_operators"] = int8_operators(coverage.operators)
        record["operators"] = sum(coverage.operators.values())
    if not coverage.operators:
        fallbacks.append("no operator was seen to run")
    if runner.clock == "wall" and dtypes and asked not in dtypes:
        fallbacks.append(f"nothing ran in {asked}, only in {', '.join(sorted(dtypes))}")
    if fallbacks:
        raise NotMeasuredError(
            "failed",
            f"coverage: {len(fallbacks)} operators did not run on {case.backend} in {case.precision} "
            f"(first: {', '.join(fallbacks[:3])})",
        )
    return record


def check_speedup(record: Record, expected: Expectation) -> None:
    """The speed-up within its bounds, which are two-sided: a row that is far too low hides the next slowdown."""
    low, high = float(record["speedup_low"]), float(record["speedup_high"])
    if expected.speedup_min is not None and high < expected.speedup_min:
        raise NotMeasuredError(
            "failed",
            f"speed: {record['speedup']:.2f}x [{low:.2f}, {high:.2f}], expected at least {expected.speedup_min:g}x",
        )
    if expected.speedup_max is not None and low > expected.speedup_max:
        raise NotMeasuredError(
            "failed",
            f"speed: {record['speedup']:.2f}x [{low:.2f}, {high:.2f}], more than the {expected.speedup_max:g}x that "
            f"expectations.yaml says: update its row",
        )


def check_timed_outputs(case: Case, session: Session, last: tuple[int, Tensors] | None) -> None:
    """The outputs of the last timed call, so that the timed thing is the checked thing."""
    if last is None:
        raise NotMeasuredError("failed", "timed outputs: no call was timed")
    index, outputs = last
    # One input instead of all: its share of the error may be a few times that of the whole, and of few outputs the gain
    # is no better known than their error, since nothing cancels.
    eager = [
        Deviation(4 * row.largest, 4 * row.rms, max(4 * abs(row.gain), row.rms))
        for row in session.eager_deviations(case)
    ]
    try:
        check_deviations(deviations([outputs], [session.oracle(case)[index]]), eager, _kind(case, session))
    except NotMeasuredError as error:
        raise NotMeasuredError("failed", f"timed outputs: {error.reason}") from None
