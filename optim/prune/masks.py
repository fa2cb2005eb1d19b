"""Which weights become zero: masks over the weights of convolutions and linear layers.

A mask is bool of the weight's shape, on its device, true where the weight is pruned. Counts are exact: among weights of
equal magnitude the first ones go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from models.errors import SpeedproofError
from optim.prune.config import PruneConfig

Layer = nn.Conv2d | nn.Linear


def layers_of(model: nn.Module, ignored: Iterable[str] = ()) -> dict[str, Layer]:
    """The convolutions and linear layers of a model by name, without ignored ones and those in ignored modules.

    Raises SpeedproofError for an ignored name that is not there, and where nothing is left.
    """
    found = {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    for name in ignored:
        below = [layer for layer in found if layer == name or layer.startswith(f"{name}.")]
        if not below and name not in dict(model.named_modules()):
            raise SpeedproofError(
                f"--ignored {name}: {type(model).__name__} has no layer of that name; expected one such as "
                f"{next(iter(found), 'conv1')}"
            )
        for layer in below:
            del found[layer]
    if not found:
        raise SpeedproofError(
            f"{type(model).__name__} has no layer that can be pruned: expected a Conv2d or Linear that is not ignored"
        )
    return found


def choose_masks(layers: Mapping[str, Layer], config: PruneConfig, amount: float | None = None) -> dict[str, Tensor]:
    """The masks of a method other than ``structured``, at another amount than the config's where one is given.

    Layers that 2:4 does not fit (see `fits_semi_structured`) have none. Raises SpeedproofError where it fits none.
    """
    share = config.amount if amount is None else amount
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    if config.method == "global":
        return global_masks(weights, share)
    if config.method == "local":
        return {name: smallest(weight, round(share * weight.numel())) for name, weight in weights.items()}
    masks = {name: semi_structured_mask(weight) for name, weight in weights.items() if fits_semi_structured(weight)}
    if not masks:
        raise SpeedproofError("2:4 fits none of the layers: their inputs times kernel sizes are no multiples of 4")
    return masks


def smallest(weights: Tensor, count: int) -> Tensor:
    """True for exactly the ``count`` weights of the least magnitude: bool of the shape of ``weights``."""
    magnitudes = weights.abs().flatten()
    chosen = torch.zeros_like(magnitudes, dtype=torch.bool)
    if count > 0:
        threshold = magnitudes.kthvalue(count).values
        chosen = magnitudes < threshold
        equal = (magnitudes == threshold).nonzero().flatten()
        chosen[equal[: count - int(chosen.sum())]] = True
    return chosen.reshape(weights.shape)


def global_masks(weights: Mapping[str, Tensor], amount: float) -> dict[str, Tensor]:
    """The masks of one ranking over all the weights."""
    together = torch.cat([weight.flatten() for weight in weights.values()])
    chosen = smallest(together, round(amount * together.numel()))
    parts = torch.split(chosen, [weight.numel() for weight in weights.values()])
    return {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def fits_semi_structured(weight: Tensor) -> bool:
    """Whether the rows of the weight as a matrix, (outputs, inputs times kernel), divide into groups of four."""
    return weight[0].numel() % 4 == 0


def semi_structured_mask(weight: Tensor) -> Tensor:
    """2:4: the two of least magnitude in each four neighbours of a row of (outputs, inputs times kernel)."""
    groups = weight.abs().reshape(-1, 4)
    order = groups.argsort(dim=1, stable=True)
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, :2], True).reshape(weight.shape)


@torch.no_grad()
def apply_masks(layers: Mapping[str, Layer], masks: Mapping[str, Tensor]) -> None:
    """Set the pruned weights to zero, in place."""
    for name, mask in masks.items():
        layers[name].weight.masked_fill_(mask, 0.0)
