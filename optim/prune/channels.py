"""Structured pruning: which layers share channels, which channels count least, and taking them out.

Torch-Pruning traces the model once: the channels of a layer go on through batch norm, activations, additions and
depthwise convolutions into the inputs of other layers, and all of these lose them together. A group is named after its
first layer in the model. Left as they are: the model's outputs (the classes), groups with an ignored layer, those with
channels in groups of several (grouped convolutions that are not depthwise, group norm), and depthwise convolutions of
the inputs. Depthwise kernels do not count in the importance of a channel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from models.errors import SpeedproofError
from models.workload import Tensors
from optim.prune.config import PruneConfig
from optim.prune.masks import Layer, layers_of


class ChannelGroups:
    """The groups of layers of a model that share channels; ``sizes`` is how many channels each has now.

    ``example`` is what the model is called with, on its device. Raises SpeedproofError where the model cannot be
    traced and where no group is left. The model is in eval mode afterwards.
    """

    def __init__(self, model: nn.Module, example: Tensors, ignored: Sequence[str] = ()) -> None:
        self._model, self._example = model, example
        layers = layers_of(model, ignored)
        with _same_requires_grad(model):
            model.requires_grad_(True)  # the graph is read off the gradient functions
            try:
                self._outputs = self._run()
                with torch.enable_grad():
                    self._graph = tp.DependencyGraph().build_dependency(model, example, verbose=False)
                self._groups = self._find(layers)
            except Exception as error:  # whatever a foreign model makes the tracer raise
                raise SpeedproofError(
                    f"the channels of {type(model).__name__} cannot be traced ({type(error).__name__}: {error}): "
                    f"take --pruning-method global"
                ) from error
        if not self._groups:
            raise SpeedproofError(
                f"{type(model).__name__} has no channels that can be removed: its layers are ignored, or give the "
                f"outputs; take --pruning-method global"
            )

    @property
    def sizes(self) -> dict[str, int]:
        """How many channels each group has, by the name of its first layer."""
        return {name: self._graph.get_out_channels(group[0].dep.target.module) for name, group in self._groups.items()}

    def importance(self, name: str, kind: str) -> Tensor:
        """Importance of a group's channels, float32 (C,) on the CPU, 1 in the mean over the group."""
        score = tp.importance.GroupMagnitudeImportance(p=int(kind[1:]))
        found: Tensor = score(self._all_channels(name))
        return found.cpu()

    def remove(self, chosen: Mapping[str, Sequence[int]]) -> None:
        """Take channels out of all the layers of their groups, in place.

        Raises SpeedproofError where the model does not run any more.
        """
        with _same_requires_grad(self._model):
            for name, channels in chosen.items():
                self._group(name, channels).prune()
        try:
            outputs = self._run()
        except Exception as error:  # whatever a foreign model raises on fewer channels
            raise SpeedproofError(
                f"{type(self._model).__name__} does not run without the removed channels ({type(error).__name__}: "
                f"{error}): leave layers out by --ignored, or take --pruning-method global"
            ) from error
        if outputs != self._outputs:
            raise SpeedproofError(
                f"{type(self._model).__name__} has outputs {outputs} without the removed channels, {self._outputs} "
                f"with them: leave layers out by --ignored, or take --pruning-method global"
            )

    @torch.no_grad()
    def zero(self, chosen: Mapping[str, Sequence[int]]) -> None:
        """Set the same channels to zero instead, in place: kernels, biases, and the weight and bias of batch norm."""
        for name, channels in chosen.items():
            for dep, places in self._group(name, channels):
                part = dep.target.module
                if self._graph.is_out_channel_pruning_fn(dep.handler):
                    for values in (getattr(part, "weight", None), getattr(part, "bias", None)):
                        if values is not None:
                            values[places] = 0.0

    def _find(self, layers: Mapping[str, Layer]) -> dict[str, Any]:
        groups: dict[str, Any] = {}
        names = {part: name for name, part in self._model.named_modules()}
        seen: set[nn.Module] = set()
        for name, part in self._model.named_modules():
            if not isinstance(part, nn.Conv2d | nn.Linear) or part in seen or part not in self._graph.module2node:
                continue
            pruner = self._graph.get_pruner_of_module(part)
            channels = list(range(pruner.get_out_channels(part)))
            group = self._graph.get_pruning_group(part, pruner.prune_out_channels, channels)
            cut = [dep.target for dep, _ in group if self._graph.is_out_channel_pruning_fn(dep.handler)]
            seen.update(node.module for node in cut)
            producers = [node for node in cut if isinstance(node.module, nn.Conv2d | nn.Linear)]
            outputs = any(not node.outputs for node in cut)
            inputs = any(_is_depthwise(node.module) and not node.inputs for node in producers)
            ignored = any(names[node.module] not in layers for node in producers)
            grouped = any(_is_grouped(dep.target.module) for dep, _ in group)
            if not (outputs or inputs or ignored or grouped):
                groups[name] = group
        return groups

    def _group(self, name: str, channels: Sequence[int]) -> Any:
        dep = self._groups[name][0].dep
        return self._graph.get_pruning_group(dep.target.module, dep.handler, list(channels))

    def _all_channels(self, name: str) -> Any:
        return self._group(name, range(self.sizes[name]))

    @torch.no_grad()
    def _run(self) -> list[torch.Size]:
        """Shapes of the model's outputs."""
        outputs = self._model.eval()(*self._example)
        return [output.shape for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _is_depthwise(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv2d) and 1 < part.groups == part.in_channels == part.out_channels


def _is_grouped(part: nn.Module) -> bool:
    return isinstance(part, nn.GroupNorm) or (
        isinstance(part, nn.Conv2d) and part.groups > 1 and not _is_depthwise(part)
    )


@contextlib.contextmanager
def _same_requires_grad(model: nn.Module) -> Iterator[None]:
    """Leave every parameter, or the one that takes its place, with or without gradients as before."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def rounded(kept: float, channels: int, multiple: int) -> int:
    """The multiple nearest to ``kept``, at least one; ``channels``, of which it is kept, where they are fewer."""
    if channels < multiple:
        return channels
    return max(multiple, min(int(kept / multiple + 0.5), channels // multiple) * multiple)


def choose_channels(
    groups: ChannelGroups, originals: Mapping[str, int], config: PruneConfig, share: float = 1.0
) -> dict[str, list[int]]:
    """The channels to remove from each group, by index, so that ``share`` of the way to the config's amount is gone.

    ``originals`` are the sizes before anything was removed. Half of the way means the root of what is kept in the end.
    Groups that lose nothing are left out.
    """
    ratio = (1 - config.amount) ** share
    scores = {name: groups.importance(name, config.importance) for name in groups.sizes}
    if config.global_channels:
        together = torch.cat(list(scores.values()))
        least = len(together) - round(ratio * sum(originals.values()))
        threshold = together.kthvalue(least).values if least > 0 else together.min() - 1
        wanted = {name: float((score > threshold).sum()) for name, score in scores.items()}
    else:
        wanted = {name: ratio * originals[name] for name in scores}
    chosen = {}
    for name, score in scores.items():
        kept = min(len(score), rounded(wanted[name], originals[name], config.round_to))
        if kept < len(score):
            chosen[name] = sorted(score.argsort(stable=True)[: len(score) - kept].tolist())
    return chosen
