"""Clips of speech as training data: as many of the keyword as of other words, in noise, judged by ROC AUC.

A batch's waveforms are augmented and, for a model that takes log-mel features, transformed all at once. Clips have one
length: they do not grow over the epochs as images do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.audio import SAMPLE_RATE
from models.data.speech import Clips
from models.detection import roc_auc
from models.errors import SpeedproofError
from models.logmel import LogMel
from optim import augment_speech
from optim.augment import draw
from optim.augment_speech import DICE, mask, random_waveforms
from optim.backends.cache import tensors_digest
from optim.data import Batch, Exam, Score, TrainingData
from optim.schedule import TrainConfig

_ROWS = 256  # clips a call where a model is judged


@dataclass(frozen=True)
class SpeechBatch(Batch):
    """Some training clips, and the dice of the view that this epoch takes of each."""

    waveforms: Tensor  # int16 (B, samples)
    dice: Tensor  # float32 (DICE, B), see augment_speech
    noise: Tensor  # float32 (M,)
    log_mel: nn.Module | None  # waveforms to features; None: the model takes waveforms
    masking: float  # of the masks on features, a share of their usual size
    speed: float  # by which share a clip is at most faster or slower

    @torch.no_grad()
    def views(self, size: int) -> Tensor:
        """Float32 log-mel (B, 40, T), or waveforms (B, samples). Raises SpeedproofError for another length."""
        if size * SAMPLE_RATE // 1000 != self.waveforms.shape[1]:
            raise SpeedproofError(
                f"clips of {self.waveforms.shape[1] * 1000 // SAMPLE_RATE} ms are asked for in {size} ms: a teacher "
                f"and its student hear the same length"
            )
        with torch.autocast(self.waveforms.device.type, enabled=False):
            heard = random_waveforms(_floats(self.waveforms), self.noise, self.dice, self.speed)
            return heard if self.log_mel is None else mask(self.log_mel(heard), self.dice, self.masking)


@dataclass(frozen=True)
class SpeechExam(Exam):
    """Clips int16 (N, samples), whether they are of the keyword, int64 (N,), and the outputs that stand for it."""

    waveforms: Tensor
    keyword: Tensor
    targets: Tensor  # int64 (2,): the outputs of another word, and of the keyword
    log_mel: nn.Module | None

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.keyword)

    @torch.inference_mode()
    def judge(self, model: nn.Module, size: int, dtype: torch.dtype) -> tuple[float, float]:  # noqa: ARG002
        """ROC AUC and mean cross entropy; clips are as long as they were read."""
        model.eval()
        device = next(model.parameters()).device
        said = []
        for waveforms in torch.split(self.waveforms, _ROWS):
            heard = _floats(waveforms.to(device))
            inputs = heard if self.log_mel is None else self.log_mel.to(device)(heard)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                said.append(model(inputs)[:, self.targets].float().cpu())
        logits = torch.cat(said)  # (N, 2)
        loss = float(F.cross_entropy(logits, self.keyword))
        if not math.isfinite(loss):  # there is no order among numbers that are none
            return 0.0, loss
        return roc_auc(logits.double().softmax(1)[:, 1].numpy(), self.keyword.numpy()), loss


@dataclass(frozen=True)
class SpeechData(TrainingData):
    """Clips int16 (N, samples) of two classes, and noise float32 (M,) to be put behind them."""

    waveforms: Tensor
    noise: Tensor
    log_mel: nn.Module | None

    score: ClassVar[Score] = Score("roc_auc", "ROC AUC", ".5f", "clips", "ms")

    @classmethod
    def load(cls, splits: Mapping[str, Any], targets: Tensor, size: int) -> Self:
        """Take the clips of the splits, which are in memory."""
        training, exam = splits["train"], cls.exam(splits["validation"], targets, size)
        clips = _clips(training)
        labels, classes = targets[torch.from_numpy(clips.labels)], cls.classes_of(training)
        return cls(labels, classes, targets, exam, clips.waveforms, clips.background(), _log_mel(training))

    @classmethod
    def exam(cls, split: Any, targets: Tensor, size: int) -> SpeechExam:  # noqa: ARG003
        """Take one split."""
        clips = _clips(split)
        return SpeechExam(clips.waveforms, torch.from_numpy(clips.labels), targets, _log_mel(split))

    @staticmethod
    def classes_of(split: Any) -> tuple[str, ...]:
        """Other words, and the keyword."""
        return ("other", _clips(split).keyword)

    def order(self, generator: torch.Generator) -> Tensor:
        """As many of the keyword's clips as of others in expectation, drawn with replacement."""
        counts = torch.bincount(self.labels).double()
        return torch.multinomial(1 / counts[self.labels], len(self), replacement=True, generator=generator)

    def batches(self, rows: tuple[Tensor, ...], epoch: int, config: TrainConfig, device: str) -> Iterator[SpeechBatch]:
        """The clips of an epoch by their rows. Without fixed views a clip that is drawn twice is heard differently."""
        noise, log_mel = self.noise.to(device), self.log_mel and self.log_mel.to(device)
        if config.views:
            dice = draw(len(self), config.seed, epoch % config.views, DICE)[:, torch.cat(rows)]
        else:
            dice = draw(sum(map(len, rows)), config.seed, epoch, DICE)
        for chosen, own in zip(rows, torch.split(dice, [len(chosen) for chosen in rows], 1), strict=True):
            labels, waveforms = self.labels[chosen].to(device), self.waveforms[chosen].to(device)
            heard = (waveforms, own.to(device), noise, log_mel, config.masking, config.speed)
            yield SpeechBatch(labels, chosen, *heard)

    def inputs(self, count: int, size: int) -> Tensor:
        """Float32 log-mel (count, 40, T) of silence, or waveforms (count, samples)."""
        silence = torch.zeros(count, size * SAMPLE_RATE // 1000)
        return silence if self.log_mel is None else self.log_mel(silence)

    def identity(self, config: TrainConfig) -> dict[str, object]:
        """The clips, the noise, and what bounds the dice."""
        bounds = {name: getattr(augment_speech, name) for name in _BOUNDS}
        clips = tensors_digest((self.waveforms, self.noise))
        chosen = {"masking": config.masking, "speed": config.speed}
        return {"clips": clips, "log_mel": self.log_mel is not None, **chosen, **bounds}


_BOUNDS = ("SHIFT_S", "RATIO_DB", "CLEAN", "GAIN_DB", "FREQUENCY_MASK", "TIME_MASK")


def is_speech(split: object) -> bool:
    """Whether a workload's split is one of speech: `Clips`, or a data set of features that has them as ``clips``."""
    return isinstance(getattr(split, "clips", split), Clips)


def _clips(split: Any) -> Clips:
    return split if isinstance(split, Clips) else split.clips


def _log_mel(split: Any) -> LogMel | None:
    """The front end of a split of features; None for one of waveforms."""
    return None if isinstance(split, Clips) else LogMel().eval()


def _floats(waveforms: Tensor) -> Tensor:
    """Int16 to float32 within -1..1."""
    return waveforms.float() / 2**15
