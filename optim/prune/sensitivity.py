"""How much accuracy each layer costs when it alone is pruned: what to leave out, and how far to go."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from models.errors import SpeedproofError
from models.workload import Tensors, Workload
from optim.distill import DistillConfig
from optim.epoch import autocast_dtype
from optim.prune.channels import ChannelGroups, choose_channels
from optim.prune.config import PruneConfig
from optim.prune.masks import apply_masks, choose_masks, fits_semi_structured, layers_of
from optim.prune.method import example_for

BATCH = 64  # large enough to fill two cores


def sensitivity(
    model: nn.Module,
    workload: Workload,
    config: PruneConfig,
    amounts: Sequence[float],
    examples: int | None = None,
    *,
    size: int | None = None,
) -> list[dict[str, Any]]:
    """A row for each layer and amount: ``layer``, ``amount``, ``top1`` and ``drop``, shares of 1.

    Each layer is pruned alone, without fine-tuning, and judged by the workload's first quality on ``examples``
    validation examples (None: all) of ``size`` px (None: that of the fine-tuning, else the workload's first). With
    ``structured`` it is each group of layers that share channels, by its first layer; where ``round_to`` leaves
    nothing to remove, there is no row. Raises SpeedproofError for impossible amounts, and without data to judge by.
    """
    if not amounts:
        raise SpeedproofError("--amounts: expected at least one share above 0 and below 1")
    for amount in amounts:
        replace(config, amount=amount).check()
    own = copy.deepcopy(model).eval()
    tuning = config.fine_tune or DistillConfig(size=size or workload.sizes[0])
    judge = _judge(own, workload, size or tuning.size, tuning.precision, examples)
    whole = judge()
    before = copy.deepcopy(own.state_dict())
    rows = []
    bar = tqdm(list(_trials(own, workload, config, amounts)), leave=False, disable=not sys.stderr.isatty())
    for name, amount, cut in bar:
        bar.set_description(name)
        cut()
        top1 = judge()
        own.load_state_dict(before)
        rows.append({"layer": name, "amount": amount, "top1": top1, "drop": whole - top1})
    return rows


def sensitivity_table(rows: Sequence[dict[str, Any]]) -> str:
    """Layers down, amounts across: accuracy, and its change in points."""
    amounts = sorted({row["amount"] for row in rows})
    found = {(row["layer"], row["amount"]): f"{row['top1']:.1%} ({100 * (0 - row['drop']):+.1f})" for row in rows}
    names = dict.fromkeys(row["layer"] for row in rows)
    lines = [[name, *(found.get((name, amount), "-") for amount in amounts)] for name in names]
    return tabulate(lines, ["layer", *(f"{amount:g} gone" for amount in amounts)], disable_numparse=True)


def _trials(
    own: nn.Module, workload: Workload, config: PruneConfig, amounts: Sequence[float]
) -> Iterator[tuple[str, float, Callable[[], None]]]:
    """What is tried, layer by layer: its name, the amount, and what prunes it."""
    if config.method == "structured":
        groups = ChannelGroups(own, example_for(own, workload, config), config.ignored)
        locally = replace(config, global_channels=False)
        chosen = {share: choose_channels(groups, groups.sizes, replace(locally, amount=share)) for share in amounts}
        for name in groups.sizes:
            for share in amounts:
                if name in chosen[share]:
                    yield name, share, partial(groups.zero, {name: chosen[share][name]})
        return
    for name, layer in layers_of(own, config.ignored).items():
        if config.method != "2:4" or fits_semi_structured(layer.weight):
            for share in amounts:
                yield name, share, partial(apply_masks, {name: layer}, choose_masks({name: layer}, config, share))


def _judge(own: nn.Module, workload: Workload, size: int, precision: str, examples: int | None) -> Callable[[], float]:
    """What tells the model's first quality on the validation examples."""
    device = next(own.parameters()).device
    dtype = autocast_dtype(precision, device.type)
    own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(inputs: Tensors) -> Tensors:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outputs = own(*(tensor.to(device) for tensor in inputs))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def judge() -> float:
        qualities = workload.quality(predict, "validation", size, BATCH, examples)
        if not qualities:
            raise SpeedproofError(f"workload {workload.name} has no quality that its validation examples can show")
        return qualities[0].value

    return judge
