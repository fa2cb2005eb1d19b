"""Next characters as training data: counts of a query and of the answer so far, judged by the share of right ones.

Examples are seen as they are: counts have no noise to add that a user would not have typed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.chat import Chats
from optim.backends.cache import tensors_digest
from optim.data import Batch, Exam, Score, TrainingData
from optim.schedule import TrainConfig


@dataclass(frozen=True)
class ChatBatch(Batch):
    """Some training examples."""

    features: Tensor  # uint8 (B, 256)

    def views(self, size: int) -> Tensor:  # noqa: ARG002
        """Counts, float32 (B, 256)."""
        return self.features.float()


@dataclass(frozen=True)
class ChatExam(Exam):
    """Counts uint8 (N, 256), and the outputs that stand for the characters that follow, int64 (N,)."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of characters."""
        return len(self.labels)

    @torch.inference_mode()
    def judge(self, model: nn.Module, size: int, dtype: torch.dtype) -> tuple[float, float]:  # noqa: ARG002
        """Share of right characters and mean cross entropy."""
        model.eval()
        device = next(model.parameters()).device
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(self.features.float().to(device)).float().cpu()
        right = (logits.argmax(1) == self.labels).double().mean()
        return float(right), float(F.cross_entropy(logits, self.labels))


@dataclass(frozen=True)
class ChatData(TrainingData):
    """Counts uint8 (N, 256) of a class each."""

    features: Tensor

    score: ClassVar[Score] = Score("next_char", "next character", ".1%", "characters", "chars")

    @classmethod
    def load(cls, splits: Mapping[str, Any], targets: Tensor, size: int) -> Self:
        """Take the examples of the splits, which are in memory."""
        chats: Chats = splits["train"]
        exam, labels = cls.exam(splits["validation"], targets, size), targets[torch.from_numpy(chats.targets)]
        return cls(labels, cls.classes_of(chats), targets, exam, torch.from_numpy(chats.features))

    @classmethod
    def exam(cls, split: Any, targets: Tensor, size: int) -> ChatExam:  # noqa: ARG003
        """Take one split."""
        return ChatExam(torch.from_numpy(split.features), targets[torch.from_numpy(split.targets)])

    @staticmethod
    def classes_of(split: Any) -> tuple[str, ...]:
        """The characters, and the end mark."""
        return (*split.characters, "end")

    def order(self, generator: torch.Generator) -> Tensor:
        """Shuffle all examples."""
        return torch.randperm(len(self), generator=generator)

    def batches(
        self, rows: tuple[Tensor, ...], epoch: int, config: TrainConfig, device: str  # noqa: ARG002
    ) -> Iterator[ChatBatch]:  # fmt: skip
        """The examples of an epoch by their rows."""
        for chosen in rows:
            yield ChatBatch(self.labels[chosen].to(device), chosen, self.features[chosen].to(device))

    def inputs(self, count: int, size: int) -> Tensor:  # noqa: ARG002
        """Float32 zeros (count, 256)."""
        return torch.zeros(count, self.features.shape[1])

    def identity(self, config: TrainConfig) -> dict[str, object]:  # noqa: ARG002
        """The counts: there are no views to draw."""
        return {"features": tensors_digest((self.features,))}
