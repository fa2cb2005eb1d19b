"""One pass over the training data, and what it stands on: the parameters, the precision, a loss that is a number.

The loop over epochs is in ``fit.py``; what is kept on disk, and the order of the sizes, is ``train.py``'s business.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from models.errors import SpeedproofError
from optim.data import Objective, TrainingData
from optim.schedule import TrainConfig, learning_rate


def autocast_dtype(precision: str, device: str) -> torch.dtype:
    """The dtype of the forward pass: bfloat16 where the hardware has arithmetic for it, unless told otherwise."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if supported() else torch.float32


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: on biases and batch norm it costs accuracy (1812.01187)."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def optimizer_of(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """What takes the steps."""
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, config.lr, (config.momentum, 0.999))
    return torch.optim.SGD(groups, config.lr, config.momentum, nesterov=True)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    size: int,
    epoch: int,
    config: TrainConfig,
    generator: torch.Generator,
    dtype: torch.dtype,
    objective: Objective,
    after_step: Callable[[int, float], None] | None = None,
) -> float:
    """One pass over the training data; returns the mean loss.

    Raises SpeedproofError as soon as the loss is not a number any more.
    """
    device = next(model.parameters()).device
    model.train()
    torch.manual_seed(config.seed + epoch)  # for dropout: an epoch's dice do not depend on those before it
    order = data.order(generator)
    # Batch norm cannot learn from a batch of one.
    rows = tuple(chosen for chosen in torch.split(order, config.batch_size) if len(chosen) > 1)
    steps, total = len(rows), 0.0
    drawn = data.batches(rows, epoch, config, device.type)
    quiet = not sys.stderr.isatty()
    bar = tqdm(drawn, desc=f"epoch {epoch + 1}/{config.epochs}", total=steps, leave=False, disable=quiet)
    for step, batch in enumerate(bar):
        share = learning_rate(epoch * steps + step, config.epochs * steps, config.warmup_epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * share
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = objective(model, batch, size, epoch)
        total += check_finite(float(loss.detach()), epoch, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip_norm:
            nn.utils.clip_grad_norm_([part for group in optimizer.param_groups for part in group["params"]],
                                     config.clip_norm)  # fmt: skip
        optimizer.step()
        if after_step is not None:
            after_step(epoch, (epoch * steps + step + 1) / (config.epochs * steps))
    return total / steps


def check_finite(loss: float, epoch: int, config: TrainConfig) -> float:
    """Give a loss back. Raises SpeedproofError where it is infinite or not a number."""
    if not math.isfinite(loss):
        raise SpeedproofError(f"the loss became {loss} in epoch {epoch + 1}: lower --lr (it is {config.lr:g})")
    return loss
