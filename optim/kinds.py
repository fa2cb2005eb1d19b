"""Which kind of data a workload is trained on, images, speech or chats, and reading them for a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.data.chat import Chats
from models.data.images import ImageSplit, target_indices
from models.errors import SpeedproofError
from models.workload import Workload
from optim.chat import ChatData
from optim.data import TrainingData
from optim.epoch import autocast_dtype
from optim.images import ImageData
from optim.speech import SpeechData, is_speech


def kind_of(workload: Workload, size: int) -> type[TrainingData]:
    """The kind of a workload's data. Raises SpeedproofError where it has none to train on."""
    split = workload.data("train", size)
    if isinstance(split, ImageSplit):
        return ImageData
    if is_speech(split):
        return SpeechData
    if isinstance(split, Chats):
        return ChatData
    raise SpeedproofError(
        f"workload {workload.name} has no data to train on: data() must give an ImageSplit, Clips of speech or Chats"
    )


def splits_of(workload: Workload, size: int) -> dict[str, Any]:
    """The workload's splits by name. Raises SpeedproofError where they are of no kind, or too few to train on."""
    kind = kind_of(workload, size)
    splits = {split: workload.data(split, size) for split in ("train", "validation", "test")}
    if len(splits["train"]) < 2:
        raise SpeedproofError(
            f"workload {workload.name} has {len(splits['train'])} training {kind.score.examples}: expected at least 2"
        )
    return splits


def load_data(model: nn.Module, workload: Workload, size: int) -> TrainingData:
    """Read the training and validation examples of a workload, labelled as ``model`` counts its outputs."""
    splits, kind = splits_of(workload, size), kind_of(workload, size)
    return kind.load(splits, targets_of(model, workload, splits["validation"], kind), size)


def score_on_test(model: nn.Module, workload: Workload, size: int, precision: str = "auto") -> tuple[float, int]:
    """The score on the test split, and of how many examples."""
    split, kind = splits_of(workload, size)["test"], kind_of(workload, size)
    exam = kind.exam(split, targets_of(model, workload, split, kind), size)
    dtype = autocast_dtype(precision, next(model.parameters()).device.type)
    return exam.judge(model, size, dtype)[0], len(exam)


def targets_of(model: nn.Module, workload: Workload, split: Any, kind: type[TrainingData]) -> Tensor:
    """Which output of the model stands for each class of the data: int64 (classes,)."""
    example = split[0][0].unsqueeze(0).to(next(model.parameters()).device)
    classes, training = kind.classes_of(split), model.training
    with torch.inference_mode():
        outputs = model.eval()(example).shape[1]
    model.train(training)
    targets = target_indices(classes, outputs)
    if targets is None:
        raise SpeedproofError(
            f"workload {workload.name} has {outputs} outputs and its data {workload.data_name} "
            f"{len(classes)} classes: give --init with weights of as many classes, or other data"
        )
    return torch.from_numpy(targets)
