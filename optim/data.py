"""What the training loop knows of data, whatever they are: batches of an epoch, and a score on held-out examples.

Images are in ``images.py``, speech in ``speech.py``, chats in ``chat.py``; ``kinds.py`` finds which a workload has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from models.errors import SpeedproofError
from optim.schedule import TrainConfig


@dataclass(frozen=True)
class Score:
    """What a kind of model is judged by, from 0 to 1, the more the better, and how histories and lines name it."""

    key: str  # in histories: validation_top1
    words: str
    form: str  # how a value is printed
    examples: str  # what is counted: images, clips
    unit: str  # of a size

    def said(self, value: float) -> str:
        """A value in words."""
        return f"{self.words} {value:{self.form}}"


@dataclass(frozen=True)
class Batch(ABC):
    """Some training examples as this epoch sees them."""

    labels: Tensor  # int64 (B,): the output that stands for the class, -1 where unknown
    rows: Tensor  # int64 (B,): where they stand in the training data

    @abstractmethod
    def views(self, size: int) -> Tensor:
        """The model's input, float32 (B, ...), augmented; the same augmentation whatever the size."""


# The loss of a batch, float32 (), from the model, the batch, the size and the epoch; it runs under autocast.
Objective = Callable[[nn.Module, Batch, int, int], Tensor]


class Exam(ABC):
    """Held-out examples that a model is judged on."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def judge(self, model: nn.Module, size: int, dtype: torch.dtype) -> tuple[float, float]:
        """The score and the mean cross entropy of a model, which is put into eval mode; autocast to ``dtype``."""


@dataclass(frozen=True)
class TrainingData(ABC):
    """What is trained on, and what is judged on after every epoch."""

    labels: Tensor  # int64 (N,): the output that stands for the class; -1 where the class is unknown
    classes: tuple[str, ...]
    targets: Tensor  # int64 (classes,): the output that stands for each class
    validation: Exam

    score: ClassVar[Score]

    @classmethod
    @abstractmethod
    def load(cls, splits: Mapping[str, Any], targets: Tensor, size: int) -> Self:
        """Read the splits ``train`` and ``validation`` of a workload."""

    @classmethod
    @abstractmethod
    def exam(cls, split: Any, targets: Tensor, size: int) -> Exam:
        """Read one split to judge on."""

    @staticmethod
    @abstractmethod
    def classes_of(split: Any) -> tuple[str, ...]:
        """The names of a split's classes, by label."""

    def __len__(self) -> int:
        """Return the number of training examples."""
        return len(self.labels)

    @abstractmethod
    def order(self, generator: torch.Generator) -> Tensor:
        """The rows of an epoch, in order: int64 (N,)."""

    @abstractmethod
    def batches(self, rows: tuple[Tensor, ...], epoch: int, config: TrainConfig, device: str) -> Iterator[Batch]:
        """The examples of an epoch by their rows, one tensor of them a batch; with ``views`` each row has its own."""

    @abstractmethod
    def inputs(self, count: int, size: int) -> Tensor:
        """The model's input without content: float32 zeros (count, ...)."""

    @abstractmethod
    def identity(self, config: TrainConfig) -> dict[str, object]:
        """What decides the views of the training examples, beside ``views``, ``seed`` and the size: as JSON."""

    def size_at(self, epoch: int, size: int, config: TrainConfig, smallest: int) -> int:  # noqa: ARG002
        """The size of an epoch's views."""
        return size

    def prepare(self, model: nn.Module) -> None:  # noqa: B027
        """Lay a model's weights out as its inputs are."""

    def with_unlabeled(self, folder: Path) -> Self:
        """The same and the examples in a folder, without labels. Raises SpeedproofError where there are none."""
        raise SpeedproofError(f"--unlabeled {folder}: only images can go without labels; leave it out")
