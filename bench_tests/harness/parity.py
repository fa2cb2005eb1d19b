"""Does a runner compute what its module computes? Asked before the clock starts.

The oracle is the module in float64. A runner may be off by twice what eager PyTorch in the same precision is off
itself, plus a small term, in three respects, each relative to the root mean square of the oracle's output:

- the largest error, which shows a wrong value anywhere;
- the root mean square error, which shows a slight error everywhere;
- the gain, the slope of outputs over oracle less one: rounding errors cancel in it, so that a factor of 1 % shows even
  where bfloat16's own noise is as large.

A quantized module is its own oracle, in float32. A kernel may round a value that lies between two integers the other
way, and the next layer does so again; so what it may be off is measured as well: three times what the module itself is
off when its inputs are moved by a thousandth, a small part of a quantization step. OpenVINO, which also leaves out
roundings between fused operators, was seen at 2.4 times. What lies below that, int8 cannot show.

Integer outputs, and all outputs of a runner whose clock counts cycles, must be equal bit for bit. NaN and inf fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from bench_tests.harness.case import NotMeasuredError
from models.workload import Tensors


@dataclass(frozen=True)
class Deviation:
    """How far some outputs are from the oracle's, over all inputs; no unit."""

    largest: float
    rms: float
    gain: float


# The small term of each precision: what a correct backend may differ where eager happens to be nearly exact.
FLOORS: Mapping[str, Deviation] = {
    "fp32": Deviation(2e-5, 1e-5, 1e-5),
    "bf16": Deviation(4e-3, 1e-3, 2e-3),
    "fp16": Deviation(5e-4, 1e-4, 3e-4),
    "int8": Deviation(1e-2, 3e-3, 2e-3),
}
_FACTORS = {"int8": 3.0}
NUDGE = 1e-3  # of the inputs of a quantized module


def deviations(outputs: Sequence[Tensors], oracle: Sequence[Tensors]) -> list[Deviation]:
    """Deviation of each output over all inputs.

    Raises NotMeasuredError for another structure, NaN, inf and wrong integers.
    """
    for here, there in zip(outputs, oracle, strict=True):
        if len(here) != len(there):
            raise NotMeasuredError("failed", f"parity: {len(here)} outputs, expected {len(there)}")
    result = []
    for index in range(len(oracle[0])):
        found = [tensors[index].detach().cpu() for tensors in outputs]
        expected = [tensors[index] for tensors in oracle]
        _check_form(index, found, expected)
        if not expected[0].is_floating_point():
            if not all(bool((left == right).all()) for left, right in zip(found, expected, strict=True)):
                raise NotMeasuredError("failed", f"parity: output {index} holds other integers than the oracle's")
            continue
        left = torch.cat([tensor.double().flatten() for tensor in found])
        right = torch.cat([tensor.double().flatten() for tensor in expected])
        if not right.numel():
            result.append(Deviation(0.0, 0.0, 0.0))
            continue
        power = float(right.square().mean())
        scale = power**0.5 or 1.0
        gain = float((left * right).mean()) / power - 1 if power else 0.0
        error = left - right
        result.append(Deviation(float(error.abs().max()) / scale, float(error.square().mean()) ** 0.5 / scale, gain))
    return result


def _check_form(index: int, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for left, right in zip(found, expected, strict=True):
        if left.shape != right.shape:
            raise NotMeasuredError(
                "failed", f"parity: output {index} has shape {tuple(left.shape)}, expected {tuple(right.shape)}"
            )
        if not torch.isfinite(left.double()).all():
            raise NotMeasuredError("failed", f"parity: output {index} holds NaN or inf")


def check_deviations(found: Sequence[Deviation], eager: Sequence[Deviation], precision: str) -> None:
    """Raise NotMeasuredError where a deviation is more than twice eager's own plus the small term of the precision."""
    floor, factor = FLOORS[precision], _FACTORS.get(precision, 2.0)
    for index, (here, own) in enumerate(zip(found, eager, strict=True)):
        for respect in ("largest", "rms", "gain"):
            value = abs(getattr(here, respect))
            allowed = factor * abs(getattr(own, respect)) + getattr(floor, respect)
            if not value <= allowed:
                raise NotMeasuredError(
                    "failed",
                    f"parity: output {index} is off by {value:.2e} ({respect}, relative to the oracle), "
                    f"allowed are {allowed:.2e} in {precision}: the compiled model computes something else",
                )


def check_bits(outputs: Sequence[Tensors], expected: Sequence[Tensors]) -> None:
    """Raise NotMeasuredError unless all outputs are equal bit for bit."""
    for found, right in zip(outputs, expected, strict=True):
        if len(found) != len(right) or not all(torch.equal(a.cpu(), b) for a, b in zip(found, right, strict=True)):
            raise NotMeasuredError("failed", "parity: outputs are not bit for bit those of the module")


def run_alternating(runner: Callable[..., Tensors], inputs: Sequence[Tensors]) -> list[Tensors]:
    """Outputs of a runner for each input, in turn. Raises NotMeasuredError if a later call changes an earlier output.

    The caller compares each with the oracle of its own input, so that a stale buffer cannot pass.
    """
    given = [tensor.clone() for tensor in inputs[0]]
    kept, outputs = [], []
    for tensors in inputs:
        kept.append(runner(*tensors))
        outputs.append(tuple(tensor.clone() for tensor in kept[-1]))
    again = runner(*inputs[0])
    if not all(torch.equal(before, after) for before, after in zip(given, inputs[0], strict=True)):
        raise NotMeasuredError("failed", "parity: a call changed its inputs")
    for before, after in zip(chain(*kept), chain(*outputs), strict=True):
        if not torch.equal(before.nan_to_num(), after.nan_to_num()):
            raise NotMeasuredError("failed", "parity: a later call overwrote the outputs of an earlier one")
    return [again, *outputs[1:]]  # the first input is judged by its second run
