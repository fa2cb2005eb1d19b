"""How a model is trained at one size: the configuration, the schedules, one pass over the images, and its accuracy.

The loop over epochs is in ``fit.py``; what is kept on disk, and the order of the sizes, is ``train.py``'s business.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.data.images import centre_crop, normalise
from models.errors import SpeedproofError
from optim.augment import draw, random_views


@dataclass(frozen=True)
class TrainConfig:
    """How one size is trained."""

    epochs: int = 20  # ResNet-18 gains little on 9,000 images after that
    batch_size: int = 64  # small enough for many steps, large enough to fill two cores
    lr: float = 0.08  # for a batch of 64; scale it with the batch
    momentum: float = 0.9
    weight_decay: float = 5e-4  # few images: stronger than ImageNet's 1e-4
    label_smoothing: float = 0.1
    warmup_epochs: float = 1.0
    patience: int = 6  # epochs without a better validation accuracy
    start_share: float = 0.5  # resolution of the first epoch, as a share of the full one
    end_share: float = 1.0  # of the last quarter of the epochs; below 1 since random crops magnify (1906.06423)
    smallest_area: float = 0.35  # of a random crop
    views: int = 0  # fixed random views of each image that take turns; 0: new ones in every epoch
    seed: int = 0
    precision: str = "auto"  # bf16 where the hardware computes in it, else fp32

    def check(self) -> None:
        """Raise SpeedproofError for a value that cannot be trained with."""
        for name, least in (("epochs", 1), ("batch_size", 2), ("patience", 1), ("views", 0), ("seed", 0)):
            if not least <= getattr(self, name) < 2**63:  # batch norm cannot learn from a batch of one
                raise SpeedproofError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least {least}")
        for name in ("start_share", "end_share"):
            if not 0 < getattr(self, name) <= 1:
                option = f"--{name.replace('_', '-')}"
                raise SpeedproofError(f"{option} {getattr(self, name):g}: expected a number above 0, at most 1")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise SpeedproofError(f"--precision {self.precision!r}: expected auto, fp32 or bf16")
        if not 0 < self.lr < math.inf:
            raise SpeedproofError(f"--lr {self.lr}: expected a number above 0")


def autocast_dtype(precision: str, device: str) -> torch.dtype:
    """The dtype of the forward pass: bfloat16 where the hardware has arithmetic for it, unless told otherwise."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if supported() else torch.float32


def size_at(epoch: int, size: int, config: TrainConfig, smallest: int) -> int:
    """The resolution of an epoch: it grows linearly over three quarters of them, in steps of 16 pixels, to the last."""
    last = min(size, max(smallest, round(size * config.end_share / 16) * 16)) if config.end_share < 1 else size
    if epoch >= 0.75 * (config.epochs - 1):
        return last
    progress = epoch / (0.75 * (config.epochs - 1))
    grown = size * config.start_share + (last - size * config.start_share) * progress
    return min(size, max(smallest, round(grown / 16) * 16))


def learning_rate(step: float, steps: float, warmup: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, steps - warmup))))


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, size: int, dtype: torch.dtype) -> tuple[float, float]:
    """Top-1 accuracy and mean cross entropy on uint8 (N, 3, E, E), cropped in the centre to ``size``."""
    model.eval()
    device = next(model.parameters()).device
    right, loss = 0, 0.0
    for start in range(0, len(images), 128):
        batch = normalise(centre_crop(images[start : start + 128], size)).to(device)
        target = labels[start : start + 128].to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(batch.contiguous(memory_format=torch.channels_last))
        right += int((logits.argmax(1) == target).sum())
        loss += float(F.cross_entropy(logits.float(), target, reduction="sum"))
    return right / len(images), loss / len(images)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: on biases and batch norm it costs accuracy (1812.01187)."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@dataclass(frozen=True)
class Batch:
    """Some training images, and the dice of the view that this epoch takes of each."""

    images: Tensor  # uint8 (B, 3, E, E)
    labels: Tensor  # int64 (B,), -1 where unknown
    rows: Tensor  # int64 (B,): where they stand in the training data
    dice: Tensor  # float32 (5, B), see augment.draw
    mirror: bool
    smallest_area: float

    def views(self, size: int) -> Tensor:
        """Normalised float32 (B, 3, size, size); the same crop of each image whatever the size."""
        views = random_views(self.images, size, self.dice, mirror=self.mirror, smallest_area=self.smallest_area)
        return views.contiguous(memory_format=torch.channels_last)


# The loss of a batch, float32 (), from the model, the batch, the size in px and the epoch; it runs under autocast.
Objective = Callable[[nn.Module, Batch, int, int], Tensor]


def batches(
    data: tuple[Tensor, Tensor], rows: tuple[Tensor, ...], epoch: int, config: TrainConfig, mirror: bool, device: str
) -> Iterator[Batch]:
    """The images of an epoch in the given order."""
    images, labels = data
    dice = draw(len(images), config.seed, epoch % config.views if config.views else epoch)
    for chosen in rows:
        on_device = images[chosen].to(device), labels[chosen].to(device)
        yield Batch(*on_device, chosen, dice[:, chosen], mirror, config.smallest_area)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    size: int,
    epoch: int,
    config: TrainConfig,
    mirror: bool,
    generator: torch.Generator,
    dtype: torch.dtype,
    objective: Objective,
    after_step: Callable[[int, float], None] | None = None,
) -> float:
    """One pass over the training images, uint8 (N, 3, E, E) and int64 (N,); returns the mean loss.

    Raises SpeedproofError as soon as the loss is not a number any more.
    """
    device = next(model.parameters()).device
    model.train()
    torch.manual_seed(config.seed + epoch)  # for dropout: an epoch's dice do not depend on those before it
    shuffled = torch.randperm(len(data[0]), generator=generator)
    # Batch norm cannot learn from a batch of one.
    rows = tuple(chosen for chosen in torch.split(shuffled, config.batch_size) if len(chosen) > 1)
    steps, total = len(rows), 0.0
    drawn = batches(data, rows, epoch, config, mirror, device.type)
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
        optimizer.step()
        if after_step is not None:
            after_step(epoch, (epoch * steps + step + 1) / (config.epochs * steps))
    return total / steps


def check_finite(loss: float, epoch: int, config: TrainConfig) -> float:
    """Give a loss back. Raises SpeedproofError where it is infinite or not a number."""
    if not math.isfinite(loss):
        raise SpeedproofError(f"the loss became {loss} in epoch {epoch + 1}: lower --lr (it is {config.lr:g})")
    return loss
