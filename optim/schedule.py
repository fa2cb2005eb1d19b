"""How a model is trained at one size: the configuration, and the schedules of resolution and learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.errors import SpeedproofError

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class TrainConfig:
    """How one size is trained. The defaults are those of images; others are in `SPEECH` and `CHAT`."""

    epochs: int = 20  # ResNet-18 gains little on 9,000 images after that
    batch_size: int = 64  # small enough for many steps, large enough to fill two cores
    lr: float = 0.08  # for a batch of 64; scale it with the batch
    optimizer: str = "sgd"  # with Nesterov momentum; or adam, for recurrent networks
    momentum: float = 0.9  # of adam too: its first beta
    weight_decay: float = 5e-4  # few images: stronger than ImageNet's 1e-4
    clip_norm: float = 0.0  # largest norm of the gradient; 0: any. Recurrent networks need a bound (1211.5063)
    label_smoothing: float = 0.1
    warmup_epochs: float = 1.0
    patience: int = 6  # epochs without a better validation accuracy
    start_share: float = 0.5  # images: resolution of the first epoch, as a share of the full one
    end_share: float = 1.0  # images: of the last quarter of the epochs; below 1 since random crops magnify (1906.06423)
    smallest_area: float = 0.35  # images: of a random crop
    views: int = 0  # fixed random views of each example that take turns; 0: new ones in every epoch
    masking: float = 1.0  # speech: share of SpecAugment's 15 bands and 35 frames; small networks underfit under it
    speed: float = 0.0  # speech: clips are up to this share faster or slower, and so higher or lower
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
        if self.optimizer not in OPTIMIZERS:
            raise SpeedproofError(f"--optimizer {self.optimizer!r}: expected one of {', '.join(OPTIMIZERS)}")
        for name in ("clip_norm", "warmup_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SpeedproofError(f"--{name.replace('_', '-')} {getattr(self, name):g}: expected a number from 0")
        if not 0 <= self.masking <= 1:
            raise SpeedproofError(f"--masking {self.masking:g}: expected a number from 0 to 1")
        if not 0 <= self.speed <= 0.5:
            raise SpeedproofError(f"--speed {self.speed:g}: expected a number from 0 to 0.5")
        if not 0 < self.lr < math.inf:
            raise SpeedproofError(f"--lr {self.lr}: expected a number above 0")


# Eight-pixel digits are learned in a few epochs; a smaller start keeps them under three minutes on two cores.
DIGITS: Mapping[str, Any] = {"epochs": 7, "start_share": 0.15, "smallest_area": 0.7, "lr": 0.04}

# Keyword spotting as the course trains it (markovka17/dla, hw2_kws), but for its rate of 3e-4: in 20 epochs of so few
# clips it leaves a validation ROC AUC of 0.9991 where this one reaches 0.9997. Its 20 epochs are never cut short, and
# longer runs stop late: clips are few, and the score of one epoch says little.
SPEECH: Mapping[str, Any] = {
    "epochs": 20, "batch_size": 128, "lr": 2e-3, "optimizer": "adam", "weight_decay": 1e-5, "clip_norm": 5.0,
    "label_smoothing": 0.0, "start_share": 1.0, "patience": 20, "precision": "fp32",
}  # fmt: skip

# Tinychat: small batches, a slow start, and epochs that are never cut short. It learns its few queries by heart; on
# others labels smoothed by 0.1 have 67.1 % right where hard ones have 66.0 % (seed 0), and weight decay no more.
CHAT: Mapping[str, Any] = {
    "epochs": 50, "warmup_epochs": 20.0, "batch_size": 32, "lr": 1e-3, "optimizer": "adam", "weight_decay": 0.0,
    "label_smoothing": 0.1, "start_share": 1.0, "patience": 50, "views": 1, "precision": "fp32",
}  # fmt: skip

# Fields that came with speech, as images are trained.
_LATER = {"optimizer": "sgd", "clip_norm": 0.0, "masking": 1.0, "speed": 0.0}


def described(config: Any) -> dict[str, Any]:
    """A config, or one that holds another, as a dictionary for histories and keys.

    `optimizer`, `clip_norm`, `masking` and `speed` are left out where they are as they were before there was a choice,
    so that what was trained then is still found.
    """

    def kept(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if name not in _LATER or value != _LATER[name]}

    return asdict(config, dict_factory=kept)


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
