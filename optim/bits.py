"""Quantization below eight bits: a tinychat network on two bits, one bit or three values, in integers alone.

1. Every linear layer becomes a `models.bits.BitLinear`, which computes with s q and learns behind it (BinaryConnect,
   1511.00363; XNOR-Net, 1603.05279; TWN, 1605.04711).
2. It is trained as any student is, on the labels or on a teacher's logits too. ``progressive``: the grid closes over
   the first 80 % of the epochs, from 30 %, and the loss pulls the weights towards it. What is kept is the best epoch by
   validation with the grid closed.
3. The loss also has a term for sums that could leave an int16, each layer's input counted in the integers that it will
   be on the chip, the largest of which are bytes.
4. Scales and biases become integers, and each layer's shift is chosen on the training examples (`models.integer`).

Mechanism: 16 or 32 times fewer bytes than float32, additions instead of multiplications, and zeros, three quarters of
the ternary and 2-bit weights, that need not be looked at. Limits: only `models.tinychat` networks; on a CPU or a GPU
the result is the same arithmetic imitated in float32, no faster. One scale a layer: with one a neuron, the next layer
would add up different units. Risk: a network that is quantized without enough epochs of training loses tens of points;
and an input unlike all training examples may overflow, which wraps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.bits import BitLinear
from models.errors import SpeedproofError
from models.integer import KINDS, MOST_INPUTS, IntegerNet, IntegerTinychat, integer_net
from models.tinychat import Tinychat
from models.workload import Workload
from optim.data import Batch, Objective
from optim.distill import DistillConfig, retrain
from optim.schedule import CHAT, described

INPUT_SHIFT = 5  # as z80ai's: counts are small, and a bias needs digits behind its point
MOST_ACTIVATION = 255  # of a hidden neuron, so that it is a byte
_START, _CLOSED = 0.3, 0.8  # how far the grid is closed at first, and the share of epochs after which it is

# Many epochs, whose small last steps are worth most. No teacher: the float net knows most training examples by heart,
# and smoothed labels alone make small networks one to two points better than its logits do.
TUNE = DistillConfig(
    **{**CHAT, "epochs": 40, "warmup_epochs": 2.0, "batch_size": 64, "lr": 2e-3, "label_smoothing": 0.1},
    size=64, alpha=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class BitsConfig:
    """How a network is brought to few bits."""

    kind: str = "2bit"  # or ternary, whose zeros are the same; or 1bit, half of the bytes
    fine_tune: DistillConfig = TUNE  # its `size` is the workload's
    progressive: bool = False  # close the grid step by step, for weights that are trained already
    pull: float = 0.1  # progressive: weight of the distance to the grid in the loss
    overflow: float = 0.03  # weight of sums that could leave an int16
    dropout: float = 0.0  # share of hidden neurons that are left out while training: for wide layers, which overfit

    def check(self) -> None:
        """Raise SpeedproofError for a value that cannot be quantized with."""
        if self.kind not in KINDS:
            raise SpeedproofError(f"--quantization-method {self.kind!r}: expected one of {', '.join(KINDS)}")
        for name in ("pull", "overflow"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SpeedproofError(f"{name} {getattr(self, name):g} of BitsConfig: expected a number from 0")
        if not 0 <= self.dropout < 1:
            raise SpeedproofError(f"dropout {self.dropout:g} of BitsConfig: expected a share from 0 to below 1")
        self.fine_tune.check()


def quantize_bits(
    model: nn.Module,
    workload: Workload,
    config: BitsConfig,
    *,
    teacher: nn.Module | None = None,
    keep: Path | None = None,
) -> IntegerTinychat:
    """The integer network that training makes of a float ``model``, in eval mode; the argument stays as it is.

    ``teacher``, who is not asked where ``alpha`` is 0, and ``keep`` are those of `optim.distill.retrain`. Raises
    SpeedproofError for impossible values and for what is no `Tinychat`.
    """
    config.check()
    own = bit_network(model, config.kind)
    with _inputs_of(own, config.dropout) as seen:
        wrap = partial(_penalised, own, config, seen)
        retrain(
            own, workload, config.fine_tune, teacher if config.fine_tune.alpha else None, keep=keep, name=config.kind,
            wrap=wrap, wrapped_by=str(described(config)),
        )  # fmt: skip
    return IntegerTinychat(integers_of(own, workload, config)).eval()


def bit_network(model: nn.Module, kind: str) -> Tinychat:
    """A network with the weights of ``model`` as the master weights of `BitLinear` layers.

    Raises SpeedproofError for what is no `Tinychat`, or has wider layers than an integer network.
    """
    if not isinstance(model, Tinychat):
        raise SpeedproofError(
            f"{type(model).__name__} cannot be quantized to {kind}: expected a float network of tinychat; for others "
            f"take --quantization-method static"
        )
    widest = max(model.sizes().inputs, *model.sizes().hidden)
    if widest > MOST_INPUTS:
        raise SpeedproofError(
            f"a layer of the network has {widest} inputs, more than the {MOST_INPUTS} that integers allow: prune it, "
            f"or train a student with narrower layers"
        )
    own = Tinychat(model.sizes(), lambda inputs, outputs: BitLinear(inputs, outputs, kind))
    own.load_state_dict(model.state_dict())
    return own.to(next(model.parameters()).device)


def bit_layers(network: Tinychat) -> list[BitLinear]:
    """The layers, first to last."""
    return [layer for layer in network.layers if isinstance(layer, BitLinear)]


def integers_of(network: Tinychat, workload: Workload, config: BitsConfig) -> IntegerNet:
    """The integers of a network of `BitLinear` layers, its shifts chosen on the workload's training examples."""
    layers = [(*layer.quantized(), layer.bias.detach().cpu().numpy()) for layer in bit_layers(network)]
    counts = workload.data("train", config.fine_tune.size).features
    return integer_net(
        layers, counts, network.config.characters, config.kind,
        input_shift=INPUT_SHIFT, most_activation=MOST_ACTIVATION,
    )  # fmt: skip


@contextlib.contextmanager
def _inputs_of(network: Tinychat, dropout: float) -> Iterator[dict[BitLinear, Tensor]]:
    """What each layer was given in its last call: (B, inputs); while training with dropout of the hidden neurons."""
    seen: dict[BitLinear, Tensor] = {}
    first = network.layers[0]

    def look(layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        assert isinstance(layer, BitLinear)
        seen[layer] = inputs[0] if layer is first else F.dropout(inputs[0], dropout, layer.training)
        return seen[layer]

    hooks = [layer.register_forward_pre_hook(look) for layer in bit_layers(network)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _penalised(own: Tinychat, config: BitsConfig, seen: dict[BitLinear, Tensor], objective: Objective) -> Objective:
    """The objective with the terms of the grid, which closes as epochs go by."""
    layers, epochs = bit_layers(own), config.fine_tune.epochs

    def penalised(model: nn.Module, batch: Batch, size: int, epoch: int) -> Tensor:
        for layer in layers:
            layer.progress = progress_at(epoch, epochs) if config.progressive else 1.0
        loss = objective(model, batch, size, epoch)
        if config.overflow:
            found = [_overflow(layer, seen[layer], layers) for layer in layers]
            loss = loss + config.overflow * torch.stack(found).mean()
        if config.progressive:
            loss = loss + config.pull * torch.stack([layer.distance() for layer in layers]).mean()
        return loss

    return penalised


def _overflow(layer: BitLinear, x: Tensor, layers: list[BitLinear]) -> Tensor:
    """`BitLinear.overflow` in the units that the layer's input will have."""
    if layer is layers[0]:
        return layer.overflow(x, 2.0**INPUT_SHIFT)
    return layer.overflow(x, MOST_ACTIVATION / max(float(x.detach().max()), 1e-6))


def progress_at(epoch: int, epochs: int) -> float:
    """How far the grid is closed in an epoch, counted from 0: from 0.3 to 1, linearly over 80 % of the epochs."""
    return _START + (1 - _START) * min(1.0, epoch / (_CLOSED * epochs))
