"""Images as training data: random crops of decoded images, judged by top-1 accuracy on centre crops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.images import SUFFIXES, ImageSplit, centre_crop, centre_edge, normalise
from models.errors import SpeedproofError
from optim.augment import draw, random_views
from optim.backends.cache import tensors_digest
from optim.data import Batch, Exam, Score, TrainingData
from optim.schedule import TrainConfig, size_at


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


@dataclass(frozen=True)
class ImageBatch(Batch):
    """Some training images, and the dice of the view that this epoch takes of each."""

    images: Tensor  # uint8 (B, 3, E, E)
    dice: Tensor  # float32 (5, B), see augment.draw
    mirror: bool
    smallest_area: float

    def views(self, size: int) -> Tensor:
        """Normalised float32 (B, 3, size, size); the same crop of each image whatever the size."""
        views = random_views(self.images, size, self.dice, mirror=self.mirror, smallest_area=self.smallest_area)
        return views.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ImageExam(Exam):
    """Images uint8 (N, 3, E, E), cropped in the centre, and the outputs that stand for their classes, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def judge(self, model: nn.Module, size: int, dtype: torch.dtype) -> tuple[float, float]:
        """Top-1 accuracy and mean cross entropy."""
        return accuracy(model, self.images, self.labels, size, dtype)


@dataclass(frozen=True)
class ImageData(TrainingData):
    """Decoded images uint8 (N, 3, E, E); ``mirrors`` says whether one keeps its class when it is mirrored."""

    images: Tensor
    mirrors: bool

    score: ClassVar[Score] = Score("top1", "top-1", ".1%", "images", "px")

    @classmethod
    def load(cls, splits: Mapping[str, Any], targets: Tensor, size: int) -> Self:
        """Decode the images, as large as the largest view needs them."""
        training: ImageSplit = splits["train"]
        edge = min(centre_edge(size), max(size, training.native_edge()))
        labels, validation = targets[list(training.labels)], cls.exam(splits["validation"], targets, size)
        return cls(labels, training.classes, targets, validation, training.stack(edge), training.mirrors)

    @classmethod
    def exam(cls, split: Any, targets: Tensor, size: int) -> ImageExam:
        """Decode one split."""
        return ImageExam(split.stack(centre_edge(size)), targets[list(split.labels)])

    @staticmethod
    def classes_of(split: Any) -> tuple[str, ...]:
        """The names of the class folders."""
        return tuple(split.classes)

    def order(self, generator: torch.Generator) -> Tensor:
        """Shuffle all images."""
        return torch.randperm(len(self), generator=generator)

    def batches(self, rows: tuple[Tensor, ...], epoch: int, config: TrainConfig, device: str) -> Iterator[ImageBatch]:
        """The images of an epoch by their rows."""
        dice = draw(len(self), config.seed, epoch % config.views if config.views else epoch)
        for chosen in rows:
            labels, images = self.labels[chosen].to(device), self.images[chosen].to(device)
            yield ImageBatch(labels, chosen, images, dice[:, chosen], self.mirrors, config.smallest_area)

    def inputs(self, count: int, size: int) -> Tensor:
        """Float32 zeros (count, 3, size, size)."""
        return torch.zeros(count, 3, size, size)

    def identity(self, config: TrainConfig) -> dict[str, object]:
        """The images and what bounds their crops."""
        images = tensors_digest((self.images,))
        return {"images": images, "smallest_area": config.smallest_area, "mirrors": self.mirrors}

    def size_at(self, epoch: int, size: int, config: TrainConfig, smallest: int) -> int:
        """The resolution of an epoch, which grows."""
        return size_at(epoch, size, config, smallest)

    def prepare(self, model: nn.Module) -> None:
        """Channels last: what convolutions on a CPU, and on a tensor core, want."""
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def with_unlabeled(self, folder: Path) -> Self:
        """The same and the images of a folder, and of those below it, without labels."""
        if not folder.is_dir():
            raise SpeedproofError(f"--unlabeled {folder}: no such folder; expected one that holds images")
        files = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES))
        if not files:
            raise SpeedproofError(f"--unlabeled {folder} holds no image ({', '.join(sorted(SUFFIXES))}): fill it")
        edge = self.images.shape[-1]
        more = ImageSplit(files, (-1,) * len(files), self.classes, edge).stack(edge)
        labels = torch.cat([self.labels, torch.full((len(files),), -1)])
        return replace(self, images=torch.cat([self.images, more]), labels=labels)
