"""A linear layer whose weights lie on two bits, one bit or three values: what a microcontroller can hold.

1. A float master weight W (out, in) learns; the layer computes with s q, one scale s and integers q of few values:
   ``2bit``: s is the 95 % quantile of |W|, q = clip(round(W / s), -2, 1), as z80ai's network is trained;
   ``ternary``: q = sign(W) where |W| is above 1.2 times its mean, else 0; s is the mean |W| of these (TWN, 1605.04711);
   ``1bit``: q = sign(W), s the mean |W| (XNOR-Net, 1603.05279).
2. Rounding has the gradient of the identity (straight-through, 1308.3432), so that W goes on learning behind q, as in
   BinaryConnect (1511.00363).
3. While ``progress`` t is below 1, training sees (1 - t) W + t s q: the grid closes in step by step. In eval mode the
   grid is always closed, so that a score is one of the network that will run.

Two terms of a loss go with it: `BitLinear.distance`, how far W is from its grid, and `BitLinear.overflow`, by how much
the sums of an int16 could overflow.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import SpeedproofError
from models.integer import KINDS

CEILING = 0.8 * 32767  # of an int16 sum, with room for what training has not seen
_QUANTILE = 0.95
_SMALLEST_SCALE = 1e-6
_THRESHOLD = 1.2  # of the mean |W|: TWN's 0.7 leaves half of the weights, this a quarter, with the same accuracy


class BitLinear(nn.Linear):
    """``nn.Linear`` with weights s q; the master weights keep its names, so that either loads the other's state.

    Raises SpeedproofError for an unknown kind.
    """

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__(inputs, outputs)
        if kind not in KINDS:
            raise SpeedproofError(f"unknown kind of weights {kind!r}: expected one of {', '.join(KINDS)}")
        self.kind, self.progress = kind, 1.0

    @torch.no_grad()
    def grid(self) -> tuple[Tensor, Tensor]:
        """The integers q, float32 (out, in), and their scale s, float32 ()."""
        weight = self.weight
        size = weight.abs()
        if self.kind == "2bit":
            ordered = size.flatten().kthvalue(max(1, round(_QUANTILE * size.numel()))).values
            scale = ordered.clamp(min=_SMALLEST_SCALE)
            return (weight / scale).round().clamp(-2, 1), scale
        if self.kind == "1bit":
            return torch.where(weight >= 0, 1.0, -1.0), size.mean().clamp(min=_SMALLEST_SCALE)
        large = size > _THRESHOLD * size.mean()
        scale = (size * large).sum() / large.sum().clamp(min=1)
        return weight.sign() * large, scale.clamp(min=_SMALLEST_SCALE)

    def quantized(self) -> tuple[NDArray[np.int8], float]:
        """The integers q, int8 (out, in), and their scale s."""
        q, scale = self.grid()
        return q.cpu().numpy().astype(np.int8), float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        q, scale = self.grid()
        share = self.progress if self.training else 1.0
        return F.linear(x, self.weight + share * (q * scale - self.weight).detach(), self.bias)

    def distance(self) -> Tensor:
        """How far the master weights are from their grid, in steps of it, in the mean: float32 ()."""
        q, scale = self.grid()
        return (self.weight / scale - q).abs().mean()

    def overflow(self, x: Tensor, units: float) -> Tensor:
        """By how much sums could leave an int16 in the mean, as a share of its ceiling: float32 ().

        ``x`` (B, inputs) is the layer's input, ``units`` how many integers of the chip make 1 of it. Counted is the sum
        of all magnitudes, which bounds every partial sum, in whatever order.
        """
        q, _ = self.grid()
        return F.relu(F.linear(x.abs() * units, q.abs()) / CEILING - 1).mean()
