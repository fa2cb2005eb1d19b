"""The examples that ranges are found on, and how they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule
from tqdm import tqdm

from models.errors import SpeedproofError
from models.workload import Tensors, Workload
from optim.backends.base import as_tuple
from optim.backends.cache import tensors_digest
from optim.quantize.config import QuantizeConfig
from optim.quantize.grids import ActivationGrid, Grid, Range, WeightGrid, clipped_range

BATCH = 8  # examples a call, whose activations are still small enough for the caches


@dataclass(frozen=True)
class Examples:
    """Inputs (N, ...) of one call each, drawn by seed, and in words which ones."""

    inputs: Tensors
    words: str

    def batches(self, limit: int | None = None) -> list[Tensors]:
        """The inputs, `BATCH` rows at a time."""
        return list(zip(*(torch.split(tensor[:limit], BATCH) for tensor in self.inputs), strict=True))


def calibration_examples(workload: Workload, config: QuantizeConfig) -> Examples:
    """Draw ``calibration_images`` examples of the split, or all where it has fewer. Raises SpeedproofError if none."""
    split = config.calibration_split
    data = workload.data(split, config.size)
    if data is None or len(data) == 0:
        raise SpeedproofError(
            f"workload {workload.name} has no examples in its {split} split to calibrate on: its data() must give some"
        )
    count = min(config.calibration_images, len(data))
    rows = np.sort(np.random.default_rng(config.seed).choice(len(data), count, replace=False))
    columns = zip(*(data[int(row)][:-1] for row in rows), strict=True)
    inputs = tuple(torch.stack(column) for column in columns)
    digest = tensors_digest((torch.from_numpy(rows), *inputs))[:16]
    return Examples(
        inputs, f"{count} of {len(data)} examples, {workload.data_name} {split}, seed {config.seed}, {digest}"
    )


def grids(graph: nn.Module) -> list[Grid]:
    """All grids of a prepared graph."""
    return [part for part in graph.modules() if isinstance(part, ActivationGrid | WeightGrid)]


def set_stage(parts: Iterable[nn.Module], stage: str) -> None:
    """Let grids do one thing."""
    for part in parts:
        part.stage = stage  # type: ignore[assignment]


def calibrate(graph: GraphModule, examples: Examples, config: QuantizeConfig) -> float:
    """Find the range of every activation's grid; returns the seconds it took.

    One pass for the smallest and largest values; with ``entropy`` and ``percentile`` a second one for histograms.
    """
    started = time.perf_counter()
    activations = [grid for grid in grids(graph) if isinstance(grid, ActivationGrid)]
    _pass(graph, examples, "range")
    if config.calibration != "minmax":
        _pass(graph, examples, "histogram")
        for grid in activations:
            grid.range = clipped_range(grid, config.calibration, config.percentile)
            grid.histogram = None
    return time.perf_counter() - started


def ask(module: nn.Module, inputs: Tensors) -> Tensors:
    """A module's outputs, on the CPU, wherever it is itself."""
    device = next((part.device for part in module.state_dict().values()), torch.device("cpu"))
    with torch.inference_mode():
        said = as_tuple(module(*(tensor.to(device) for tensor in inputs)))
    return tuple(tensor.cpu() for tensor in said)


def _pass(graph: GraphModule, examples: Examples, stage: str) -> None:
    set_stage(grids(graph), stage)
    batches = examples.batches()
    for batch in tqdm(batches, desc=f"calibration, {stage}", leave=False, disable=not sys.stderr.isatty()):
        ask(graph, batch)
    set_stage(grids(graph), "off")


def ranges_of(graph: GraphModule) -> dict[str, Range]:
    """The range of each tensor that has one grid for all of it, by the name of its node."""
    return {name: grid.range for name, grid in _whole(graph)}


def set_ranges(graph: GraphModule, ranges: Mapping[str, Range]) -> None:
    """Give the grids of another graph of the same model their ranges. Raises SpeedproofError where one is missing."""
    for name, grid in _whole(graph):
        if name not in ranges:
            raise SpeedproofError(
                f"no range is known for the tensor {name}: quantize the model again with this version of torch "
                f"({torch.__version__})"
            )
        grid.range = ranges[name]


def _whole(graph: GraphModule) -> Iterator[tuple[str, Grid]]:
    """The grids that are one for a whole tensor, by the name of its node: all but those with one a channel."""
    for node in graph.graph.nodes:
        grid = graph.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(grid, ActivationGrid) or (isinstance(grid, WeightGrid) and not grid.per_channel):
            yield str(node.args[0]), grid
