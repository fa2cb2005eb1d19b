"""Integer networks as tensors of a checkpoint: packed weights, int16 biases, and what is no tensor as plain values.

Nothing but tensors, numbers and strings is in the file, which is read without running code, see `models.weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.errors import SpeedproofError
from models.integer import IntegerLayer, IntegerNet, pack, unpack

INTEGER = "integer"  # of a file's meta data, where it holds an integer network


def packed_bytes(net: IntegerNet) -> int:
    """Bytes of the packed weights and the int16 biases: what a network takes of a chip's flash, code aside."""
    return sum(len(pack(layer.weights, net.kind)) + layer.bias.nbytes for layer in net.layers)


def integer_state(net: IntegerNet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A network as tensors, uint8 and int16, and as meta data."""
    state = {}
    for number, layer in enumerate(net.layers):
        state[f"weight{number}"] = torch.from_numpy(pack(layer.weights, net.kind))
        state[f"bias{number}"] = torch.from_numpy(layer.bias)
    made = {
        "kind": net.kind, "sizes": list(net.sizes), "shifts": [layer.shift for layer in net.layers],
        "input_shift": net.input_shift, "characters": net.characters,
    }  # fmt: skip
    return state, {INTEGER: made}


def integer_of(state: Mapping[str, Tensor], meta: Mapping[str, Any], where: str) -> IntegerNet:
    """The network of a file's tensors and meta data. Raises SpeedproofError where they do not fit each other."""
    try:
        made = meta[INTEGER]
        sizes = [int(size) for size in made["sizes"]]
        layers = []
        for number, shift in enumerate(made["shifts"]):
            packed, bias = (state[f"{name}{number}"].numpy() for name in ("weight", "bias"))
            weights = unpack(packed, made["kind"], (sizes[number + 1], sizes[number]))
            if not np.array_equal(pack(weights, made["kind"]), packed):
                raise ValueError(f"the packed weights of layer {number} are of another size")
            layers.append(IntegerLayer(weights, bias, int(shift)))
        return IntegerNet(tuple(layers), int(made["input_shift"]), made["kind"], made["characters"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SpeedproofError(
            f"{where} holds no whole integer network ({type(error).__name__}: {error}): quantize it again"
        ) from error
