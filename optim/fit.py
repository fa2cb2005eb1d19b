"""The loop that every method trains with: epochs under one schedule, best by validation, early stop, resumable.

What is minimised is an `Objective`: plain labels here, a teacher's logits in ``distill.py``, the same two over a masked
or a fake-quantized model elsewhere. What is kept on disk beside an interrupted run's state is the caller's business.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.images import ImageSplit, centre_edge, target_indices
from models.errors import SpeedproofError
from models.weights import save_checkpoint
from models.workload import Workload
from optim.backends.cache import tensors_digest
from optim.epoch import (
    Batch,
    Objective,
    TrainConfig,
    accuracy,
    autocast_dtype,
    check_finite,
    parameter_groups,
    size_at,
    train_epoch,
)


@dataclass(frozen=True)
class TrainingData:
    """What is trained on, uint8 (N, 3, E, E) with int64 labels (N,), and what is judged on, cropped in its centre."""

    images: Tensor
    labels: Tensor  # the output that stands for the class; -1 where the class is unknown
    validation_images: Tensor
    validation_labels: Tensor
    mirrors: bool
    classes: tuple[str, ...]
    targets: Tensor  # int64 (classes,): the output that stands for each class


def cross_entropy(label_smoothing: float) -> Objective:
    """The objective of plain training: the labels alone."""

    def objective(model: nn.Module, batch: Batch, size: int, epoch: int) -> Tensor:  # noqa: ARG001
        return F.cross_entropy(model(batch.views(size)).float(), batch.labels, label_smoothing=label_smoothing)

    return objective


def image_splits(workload: Workload, size: int) -> dict[str, ImageSplit]:
    """The workload's splits by name. Raises SpeedproofError where it has no images, or too few to train on."""
    splits = {split: workload.data(split, size) for split in ("train", "validation", "test")}
    if not all(isinstance(split, ImageSplit) for split in splits.values()):
        raise SpeedproofError(
            f"workload {workload.name} has no image data to train on: its data() must give an ImageSplit"
        )
    if len(splits["train"]) < 2:
        raise SpeedproofError(
            f"workload {workload.name} has {len(splits['train'])} training images: expected at least 2"
        )
    return splits


def load_data(model: nn.Module, workload: Workload, size: int) -> TrainingData:
    """Decode the training and validation images of a workload, labelled as ``model`` counts its outputs."""
    splits = image_splits(workload, size)
    targets = torch.from_numpy(targets_of(model, workload, splits["train"]))
    training, validation = splits["train"], splits["validation"]
    edge = min(centre_edge(size), max(size, training.native_edge()))
    return TrainingData(
        training.stack(edge), targets[list(training.labels)],
        validation.stack(centre_edge(size)), targets[list(validation.labels)],
        training.mirrors, training.classes, targets,
    )  # fmt: skip


def targets_of(model: nn.Module, workload: Workload, data: ImageSplit) -> Any:
    """Which output of the model stands for each class of the data: int64 (classes,)."""
    example = data[0][0].unsqueeze(0).to(next(model.parameters()).device)
    training = model.training
    with torch.inference_mode():
        outputs = model.eval()(example).shape[1]
    model.train(training)
    targets = target_indices(data.classes, outputs)
    if targets is None:
        raise SpeedproofError(
            f"workload {workload.name} has {outputs} outputs and its data {workload.data_name} "
            f"{len(data.classes)} classes: give --init with weights of as many classes, or other data"
        )
    return targets


def accuracy_on_test(model: nn.Module, workload: Workload, size: int, precision: str = "auto") -> tuple[float, int]:
    """Top-1 accuracy on the test split, and on how many images."""
    split = image_splits(workload, size)["test"]
    targets = torch.from_numpy(targets_of(model, workload, split))
    dtype = autocast_dtype(precision, next(model.parameters()).device.type)
    return accuracy(model, split.stack(centre_edge(size)), targets[list(split.labels)], size, dtype)[0], len(split)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of what a model starts from: its parameters and buffers."""
    return tensors_digest(tuple(model.state_dict().values()))


def best_epoch(history: dict[str, Any]) -> int:
    """Which epoch, from 0, of a history gave its best validation accuracy."""
    top1s = [row["validation_top1"] for row in history["epochs"]]
    return top1s.index(max(top1s))


def fit(
    model: nn.Module,
    data: TrainingData,
    size: int,
    config: TrainConfig,
    objective: Objective,
    *,
    name: str,
    identity: dict[str, Any],
    smallest_size: int = 1,
    resume_path: Path | None = None,
    on_best: Callable[[int, float], None] | None = None,
    after_step: Callable[[int, float], None] | None = None,
    extra_parameters: tuple[nn.Parameter, ...] = (),
) -> dict[str, Any]:
    """Train ``model`` in place at ``size`` px, leave its best weights in it and return the history of the epochs.

    An interrupted run whose state in ``resume_path`` was written under the same ``identity`` goes on after its last
    whole epoch. ``on_best(epoch, top1)`` is called when the model holds better weights than before;
    ``after_step(epoch, share)`` after every step of the optimizer, with the share of all steps that are done.
    ``extra_parameters`` are trained too, without being part of the model. Raises SpeedproofError for a loss that is no
    number.
    """
    device = next(model.parameters()).device.type
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = autocast_dtype(config.precision, device)
    generator = torch.Generator().manual_seed(config.seed)
    groups = parameter_groups(model, config.weight_decay)
    groups[0]["params"].extend(extra_parameters)
    optimizer = torch.optim.SGD(groups, config.lr, config.momentum, nesterov=True)
    rows: list[dict[str, Any]] = []
    best, since_best = -1.0, 0
    best_state: dict[str, Tensor] = {}
    state = _read_resume(resume_path)
    if state and json.loads(state["identity"]) == json.loads(json.dumps(identity)):
        rows, best, since_best = json.loads(state["epochs"]), state["best"], state["since_best"]
        best_state = state["best_model"]
        model.load_state_dict(state["model"])
        for parameter, value in zip(extra_parameters, state["extra"], strict=True):
            parameter.data.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        print(f"{name}: going on after epoch {len(rows)}", flush=True)

    for epoch in range(len(rows), config.epochs):
        if since_best >= config.patience:
            break
        started = time.perf_counter()
        pixels = size_at(epoch, size, config, smallest_size)
        loss = train_epoch(
            model, optimizer, (data.images, data.labels), pixels, epoch, config, data.mirrors, generator, dtype,
            objective, after_step,
        )  # fmt: skip
        top1, validation_loss = accuracy(model, data.validation_images, data.validation_labels, size, dtype)
        check_finite(validation_loss, epoch, config)
        row = {"train_loss": loss, "validation_loss": validation_loss, "validation_top1": top1, "size_px": pixels}
        rows.append({**row, "duration_s": time.perf_counter() - started})
        since_best += 1
        if top1 > best:
            best, since_best = top1, 0
            best_state = copy.deepcopy(model.state_dict())
            if on_best is not None:
                on_best(epoch, top1)
        if resume_path is not None:
            save_checkpoint(
                resume_path,
                {
                    "identity": json.dumps(identity), "epochs": json.dumps(rows), "best": best,
                    "since_best": since_best, "model": model.state_dict(), "best_model": best_state,
                    "extra": [parameter.data for parameter in extra_parameters],
                    "optimizer": optimizer.state_dict(), "generator": generator.get_state(),
                },
            )  # fmt: skip
        print(
            f"{name} epoch {epoch + 1}/{config.epochs} at {pixels} px: loss {loss:.3f}, "
            f"validation top-1 {top1:.1%}, {rows[-1]['duration_s']:.0f} s",
            flush=True,
        )
    model.load_state_dict(best_state)
    model.eval()
    facts = {"precision": str(dtype), "threads": torch.get_num_threads()}
    return {**facts, "epochs": rows, "best_validation_top1": best}


def _read_resume(path: Path | None) -> dict[str, Any]:
    """The state of an interrupted run; nothing where there is none, or a broken one."""
    if path is None or not path.is_file():
        return {}
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state if state.keys() >= {"identity", "epochs", "best_model", "extra"} else {}
    except Exception as error:  # a broken file makes torch raise nearly everything
        print(f"{path} is broken ({type(error).__name__}): training starts anew", flush=True)
        return {}
