"""The loop that every method trains with: epochs under one schedule, best by validation, early stop, resumable.

What is minimised is an `Objective`: plain labels here, a teacher's logits in ``distill``, the same two over a masked
or a fake-quantized model elsewhere. What is trained on is `TrainingData` of any kind. What is kept on disk beside an
interrupted run's state is the caller's business.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.weights import save_checkpoint
from optim.backends.cache import tensors_digest
from optim.data import Batch, Objective, TrainingData
from optim.epoch import autocast_dtype, check_finite, optimizer_of, parameter_groups, train_epoch
from optim.schedule import TrainConfig


def cross_entropy(label_smoothing: float) -> Objective:
    """The objective of plain training: the labels alone."""

    def objective(model: nn.Module, batch: Batch, size: int, epoch: int) -> Tensor:  # noqa: ARG001
        return F.cross_entropy(model(batch.views(size)).float(), batch.labels, label_smoothing=label_smoothing)

    return objective


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of what a model starts from: its parameters and buffers."""
    return tensors_digest(tuple(model.state_dict().values()))


def best_epoch(history: dict[str, Any], score: str) -> int:
    """Which epoch, from 0, of a history gave the best validation score of this key."""
    found = [row[f"validation_{score}"] for row in history["epochs"]]
    return found.index(max(found))


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
    """Train ``model`` in place at ``size``, leave its best weights in it and return the history of the epochs.

    An interrupted run whose state in ``resume_path`` was written under the same ``identity`` goes on after its last
    whole epoch. ``on_best(epoch, score)`` is called when the model holds better weights than before;
    ``after_step(epoch, share)`` after every step of the optimizer, with the share of all steps that are done.
    ``extra_parameters`` are trained too, without being part of the model. Raises SpeedproofError for a loss that is no
    number.
    """
    named, device = data.score, next(model.parameters()).device.type
    data.prepare(model)
    dtype = autocast_dtype(config.precision, device)
    generator = torch.Generator().manual_seed(config.seed)
    groups = parameter_groups(model, config.weight_decay)
    groups[0]["params"].extend(extra_parameters)
    optimizer = optimizer_of(groups, config)
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
        own = data.size_at(epoch, size, config, smallest_size)
        loss = train_epoch(model, optimizer, data, own, epoch, config, generator, dtype, objective, after_step)
        score, validation_loss = data.validation.judge(model, size, dtype)
        check_finite(validation_loss, epoch, config)
        row = {"train_loss": loss, "validation_loss": validation_loss, f"validation_{named.key}": score}
        rows.append({**row, f"size_{named.unit}": own, "duration_s": time.perf_counter() - started})
        since_best += 1
        if score > best:
            best, since_best = score, 0
            best_state = copy.deepcopy(model.state_dict())
            if on_best is not None:
                on_best(epoch, score)
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
            f"{name} epoch {epoch + 1}/{config.epochs} at {own} {named.unit}: loss {loss:.3f}, "
            f"validation {named.said(score)}, {rows[-1]['duration_s']:.0f} s",
            flush=True,
        )
    model.load_state_dict(best_state)
    model.eval()
    facts = {"precision": str(dtype), "threads": torch.get_num_threads()}
    return {**facts, "epochs": rows, f"best_validation_{named.key}": best}


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
