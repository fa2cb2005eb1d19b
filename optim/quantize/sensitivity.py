"""Which layers suffer: the model's output with one layer rounded alone, and layers put back to float by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.fx import GraphModule

from models.errors import SpeedproofError
from models.workload import Quality, Workload
from optim.quantize.calibrate import (
    BATCH,
    Examples,
    ask,
    calibrate,
    calibration_examples,
    grids,
    ranges_of,
    set_ranges,
    set_stage,
)
from optim.quantize.config import QuantizeConfig
from optim.quantize.graph import WEIGHTED, layer_of, prepared
from optim.quantize.grids import WeightGrid

_EXAMPLES = 64  # on which one layer after another is judged: enough to rank them


@dataclass(frozen=True)
class Sensitivity:
    """What rounding one layer alone, its weight and its input, does to the model's first output.

    ``error`` is the r.m.s. difference as a share of the output's own r.m.s.; ``agreement`` is the share of rows whose
    largest value stays in its place.
    """

    layer: str
    parameters: int
    error: float
    agreement: float


def sensitivity(model: nn.Module, workload: Workload, config: QuantizeConfig) -> list[Sensitivity]:
    """Round one layer after another, alone; the worst first. Raises SpeedproofError as `quantize` does."""
    config.check()
    examples = calibration_examples(workload, config)
    graph = prepared(model, workload.example(config.size, 2, 0), config)
    calibrate(graph, examples, config)
    return ranked(graph, examples)


def ranked(graph: GraphModule, examples: Examples) -> list[Sensitivity]:
    """The sensitivity of each layer of a calibrated graph, the worst first."""
    set_stage(grids(graph), "off")
    plain = _answers(graph, examples)
    rows = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in WEIGHTED:
            continue
        own = [graph.get_submodule(part.target) for part in node.args[:2] if part.op == "call_module"]
        if not any(isinstance(part, WeightGrid) for part in own):
            continue
        set_stage(own, "round")
        rounded = _answers(graph, examples)
        set_stage(own, "off")
        error = float((rounded - plain).square().mean().sqrt() / plain.square().mean().sqrt().clamp(min=1e-30))
        agreement = float((rounded.argmax(1) == plain.argmax(1)).float().mean())
        weight = node.args[1].args[0]
        rows.append(Sensitivity(layer_of(node), weight.meta["val"].numel(), error, agreement))
    return sorted(rows, key=lambda row: -row.error)


def sensitivity_table(rows: Sequence[Sensitivity]) -> str:
    """The rows as a table."""
    total = sum(row.parameters for row in rows)
    lines = [(row.layer, f"{row.error:.2%}", f"{row.agreement:.1%}", f"{row.parameters / total:.1%}") for row in rows]
    return tabulate(lines, ["rounded alone", "output error", "agreement", "of weights"], disable_numparse=True)


def _answers(graph: GraphModule, examples: Examples) -> Tensor:
    """The first output on some examples, as rows: float32 (N, ...)."""
    return torch.cat([ask(graph, batch)[0] for batch in examples.batches(_EXAMPLES)]).float().flatten(1)


def first_quality(model: nn.Module, workload: Workload, size: int, split: str) -> Quality | None:
    """The first quality of a model on a split, None where the workload has none."""
    found = workload.quality(partial(ask, model), split, size, BATCH, None)
    return found[0] if found else None


def until_it_holds(
    graph: GraphModule, model: nn.Module, workload: Workload, config: QuantizeConfig, examples: Examples
) -> tuple[GraphModule, QuantizeConfig]:
    """Put the layers that suffer most back to float until the first quality on validation drops little enough.

    ``graph`` is calibrated; returns another one, calibrated alike, and the config with the layers added. Raises
    SpeedproofError where the workload has no quality to judge by.
    """
    assert config.drop_max is not None
    before = first_quality(model, workload, config.size, "validation")
    if before is None:
        raise SpeedproofError(
            f"--drop-max {config.drop_max:g}: workload {workload.name} has no quality to judge by; leave it out"
        )
    ranges, order = ranges_of(graph), [row.layer for row in ranked(graph, examples)]
    while True:
        set_stage(grids(graph), "round")
        after = first_quality(graph, workload, config.size, "validation")
        set_stage(grids(graph), "off")
        assert after is not None
        drop = (before.value - after.value) * (1 if before.higher_is_better else -1)
        kept = ", ".join(config.float_layers) or "nothing"
        print(f"in float: {kept}; {before.name} drops by {drop:.4f} on validation", flush=True)
        if drop <= config.drop_max or not order:
            return graph, config
        config = replace(config, float_layers=(*config.float_layers, order.pop(0)))
        graph = prepared(model, workload.example(config.size, 2, 0), config)
        set_ranges(graph, ranges)
