"""A model with fewer weights or fewer channels, fine-tuned where asked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import SpeedproofError
from models.workload import Tensors, Workload
from optim.distill import DistillConfig, retrain
from optim.fit import weights_digest
from optim.kinds import kind_of, splits_of
from optim.prune.channels import ChannelGroups, choose_channels
from optim.prune.config import PruneConfig, sparsity_at
from optim.prune.masks import apply_masks, choose_masks, layers_of
from optim.prune.stages import Stages
from optim.schedule import described


def prune(
    model: nn.Module,
    workload: Workload,
    config: PruneConfig,
    *,
    teacher: nn.Module | None = None,
    keep: Path | None = None,
) -> nn.Module:
    """A pruned copy of ``model`` in eval mode: plain zeros, or fewer channels, without hooks or parametrizations.

    It is fine-tuned where the config says how, on the labels or, with a ``teacher``, on its logits too, and its best
    epoch by validation at the full sparsity is what comes back. With ``keep``, see `retrain`, a killed run goes on
    where it was; steps, and the gradual phase, have files of their own beside it (``_step1``, ``_gradual``). Raises
    SpeedproofError for impossible values, and where nothing can be pruned.
    """
    config.check()
    own = copy.deepcopy(model)
    layers_of(own, config.ignored)
    stages = Stages(keep, _identity(own, workload, config, teacher) if keep is not None else {})

    def tune(label: str | None, tuning: DistillConfig, after_step: Callable[[int, float], None] | None = None) -> None:
        place = stages.place(label) if label else keep
        name = f"prune {label}" if label else "prune"
        retrain(own, workload, tuning, teacher, keep=place, name=name, after_step=after_step)

    if config.method == "structured":
        _prune_channels(own, example_for(own, workload, config), config, stages, tune)
    else:
        _prune_weights(own, config, stages, tune)
    stages.clear()
    return own.eval()


def example_for(model: nn.Module, workload: Workload, config: PruneConfig) -> Tensors:
    """Random inputs of one example to trace the model with, on its device."""
    size = config.fine_tune.size if config.fine_tune is not None else workload.sizes[0]
    device = next(model.parameters()).device
    return tuple(tensor.to(device) for tensor in workload.example(size, 1, 1))


# Fine-tunes the copy: the stage's label (None: the last one), the schedule, and what happens after every step.
_Tune = Callable[[str | None, DistillConfig, Callable[[int, float], None] | None], None]


def _prune_weights(own: nn.Module, config: PruneConfig, stages: Stages, tune: _Tune) -> None:
    layers = layers_of(own, config.ignored)
    tuning = config.fine_tune
    if config.gradual and tuning is not None:
        epochs = min(max(1, round(config.gradual_share * tuning.epochs)), tuning.epochs - 1)
        _grow_sparsity(own, config, replace(tuning, epochs=epochs, patience=epochs), stages, tune)
        tuning = replace(tuning, epochs=tuning.epochs - epochs)
    masks = choose_masks(layers, config)
    apply_masks(layers, masks)
    if tuning is not None:
        tune(None, tuning, lambda _epoch, _share: apply_masks(layers, masks))


def _grow_sparsity(own: nn.Module, config: PruneConfig, tuning: DistillConfig, stages: Stages, tune: _Tune) -> None:
    """The gradual phase, up to the config's amount.

    Its last step is what counts, whatever the validation said: an earlier epoch is better only for being less sparse.
    """
    if stages.load(own, "gradual"):
        return
    layers = layers_of(own, config.ignored)
    masks: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    current, step = -1, 0

    def after_step(epoch: int, share: float) -> None:
        nonlocal masks, current, step
        # Counted from the start of an epoch, so that a run that goes on there computes the same masks.
        step = step + 1 if epoch == current else 0
        current = epoch
        if step % config.mask_every == 0 or share >= 1:
            masks = choose_masks(layers, config, sparsity_at(share, config.amount))
        apply_masks(layers, masks)
        if share >= 1:
            last.update(copy.deepcopy(own.state_dict()))
            stages.save(own, "gradual")

    tune("gradual", tuning, after_step)
    if last:  # else its file was lost after the last step: the best epoch has to do
        own.load_state_dict(last)


def _prune_channels(own: nn.Module, example: Tensors, config: PruneConfig, stages: Stages, tune: _Tune) -> None:
    originals = ChannelGroups(own, example, config.ignored).sizes
    anything = False
    for step in range(1, config.steps + 1):
        last = step == config.steps
        label = None if config.steps == 1 else f"step{step}"
        if label and not last and stages.load(own, label):
            anything = True
            continue
        groups = ChannelGroups(own, example, config.ignored)
        chosen = choose_channels(groups, originals, config, step / config.steps)
        groups.remove(chosen)
        anything = anything or bool(chosen)
        if last and not anything:
            raise SpeedproofError(
                f"--amount {config.amount:g} with --round-to {config.round_to} removes no channel of "
                f"{type(own).__name__}, whose groups have {min(originals.values())} to {max(originals.values())}: "
                f"take a larger amount or a smaller --round-to"
            )
        if chosen and config.fine_tune is not None:
            tune(label, config.fine_tune, None)
            own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as it is read from a file
            if label and not last:
                stages.save(own, label)


def _identity(model: nn.Module, workload: Workload, config: PruneConfig, teacher: nn.Module | None) -> dict[str, Any]:
    """What decides the result of a run, as `retrain` tells its own apart."""
    identity: dict[str, Any] = {
        "config": described(config), "workload": workload.name, "data": workload.data_name,
        "start": weights_digest(model), "teacher": weights_digest(teacher) if teacher is not None else None,
    }  # fmt: skip
    if config.fine_tune is not None:
        size = config.fine_tune.size
        identity[kind_of(workload, size).score.examples] = len(splits_of(workload, size)["train"])
    return identity
