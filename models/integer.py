"""The integer network of a microcontroller, bit for bit: in numpy, and as a torch module for every other backend.

1. Counts become activations: x = count << input_shift.
2. A layer sums weight times activation and its bias in int16, which wraps as the chip's addition does.
3. The sum is shifted right arithmetically (towards minus infinity); all layers but the last set what is negative to 0.
4. The last layer's values are the logits; the first of the largest is the answer.

Weights are small integers: 2-bit (-2 to 1), ternary (-1 to 1) or 1-bit (-1 or 1). A layer's float scale is no number on
the chip: where an activation of the float network is c in integers and the layer's weights are s times their integers,
its sums are in units of s / c, so that its bias is round(b c / s), and after the shift the next c is c / (s 2^shift).
The arithmetic is that of z80ai (github.com/HarryR/z80ai, examples/tinychat), whose shifts are 5 and always 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from models.data.chat import are_characters
from models.errors import SpeedproofError

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]

# The values that a weight of each kind can have, in the order of their codes; a code has 1 bit or 2.
KINDS: dict[str, tuple[int, ...]] = {"2bit": (0, 1, -2, -1), "ternary": (0, 1, -1), "1bit": (-1, 1)}
_CODE_OF: dict[str, dict[int, int]] = {
    "2bit": {0: 0, 1: 1, -2: 2, -1: 3},
    "ternary": {0: 0, 1: 1, -1: 3},  # two's complement, as 2-bit
    "1bit": {-1: 0, 1: 1},
}
MOST_INPUTS = 256  # beyond, a sum of int16 activations is no longer exact in float32
MOST_INPUT_SHIFT = 7  # a count of 255 still is an int16
MOST_SHIFT = 14  # beyond, nothing is left of a sum


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """Weights int8 (out, in), bias int16 (out,), and by how many bits the sums are shifted right."""

    weights: Int8
    bias: Int16
    shift: int


@dataclass(frozen=True, eq=False)
class IntegerNet:
    """Layers that fit each other, of one ``kind`` of weights; ``characters`` are those of all classes but the end mark.

    They are different printable ASCII, of which there are 95, so that a byte numbers the classes. Raises
    SpeedproofError for others, layers that do not fit, weights that are not of the kind and impossible shifts.
    """

    layers: tuple[IntegerLayer, ...]
    input_shift: int
    kind: str
    characters: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpeedproofError(f"unknown kind of weights {self.kind!r}: expected one of {', '.join(KINDS)}")
        if not self.layers or not 0 <= self.input_shift <= MOST_INPUT_SHIFT:
            raise SpeedproofError(
                f"an integer network of {len(self.layers)} layers and input shift {self.input_shift}: expected layers, "
                f"and a shift from 0 to {MOST_INPUT_SHIFT}"
            )
        if not are_characters(self.characters):
            raise SpeedproofError(
                f"an integer network of the characters {self.characters!r}: expected different printable ASCII "
                f"characters, one for each class but the end mark"
            )
        for number, layer in enumerate(self.layers):
            self._check(layer, f"layer {number}", self.layers[number - 1].weights.shape[0] if number else None)
        if self.classes != len(self.characters) + 1:
            raise SpeedproofError(
                f"an integer network of {self.classes} classes and {len(self.characters)} characters: expected one "
                f"class for each character and one for the end mark"
            )

    def _check(self, layer: IntegerLayer, name: str, inputs: int | None) -> None:
        weights, bias = layer.weights, layer.bias
        if weights.ndim != 2 or bias.shape != weights.shape[:1] or 0 in weights.shape:
            raise SpeedproofError(
                f"{name}: expected weights (out, in) and bias (out,), found {weights.shape, bias.shape}"
            )
        if inputs not in (None, weights.shape[1]) or weights.shape[1] > MOST_INPUTS:
            expected = f"the {inputs} of the layer before" if inputs else "those of the features"
            raise SpeedproofError(f"{name} has {weights.shape[1]} inputs: expected {expected}, at most {MOST_INPUTS}")
        if weights.dtype != np.int8 or bias.dtype != np.int16 or not np.isin(weights, KINDS[self.kind]).all():
            raise SpeedproofError(
                f"{name}: expected int8 weights among {sorted(KINDS[self.kind])} and int16 biases, found "
                f"{weights.dtype} from {weights.min()} to {weights.max()} and {bias.dtype}"
            )
        if not 0 <= layer.shift <= MOST_SHIFT:
            raise SpeedproofError(f"{name}: a shift of {layer.shift} bits: expected 0 to {MOST_SHIFT}")

    @property
    def classes(self) -> int:
        """Number of classes, the end mark included."""
        return len(self.layers[-1].bias)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, neurons of each hidden layer, classes."""
        return (self.layers[0].weights.shape[1], *(len(layer.bias) for layer in self.layers))

    def logits(self, counts: ArrayLike) -> Int16:
        """Counts 0 to 255 (N, in) to logits int16 (N, classes)."""
        values = np.asarray(counts, np.int64) << self.input_shift
        for number, layer in enumerate(self.layers):
            sums = values @ layer.weights.T.astype(np.int64) + layer.bias
            values = sums.astype(np.int16).astype(np.int64) >> layer.shift  # the cast wraps
            if number < len(self.layers) - 1:
                values = np.maximum(values, 0)
        return values.astype(np.int16)


def bits_of(kind: str) -> int:
    """Bits of a packed weight."""
    return 1 if kind == "1bit" else 2


def pack(weights: ArrayLike, kind: str) -> NDArray[np.uint8]:
    """Weights of any shape as bytes, in C order, the first in the lowest bits; what is left of the last byte is 0."""
    bits, flat = bits_of(kind), np.asarray(weights).ravel()
    codes = np.zeros(-(-flat.size * bits // 8) * 8 // bits, np.uint8)
    for value, code in _CODE_OF[kind].items():
        codes[: flat.size][flat == value] = code
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(codes.reshape(-1, 8 // bits) << shifts, axis=1)
    return packed


def unpack(packed: NDArray[np.uint8], kind: str, shape: tuple[int, ...]) -> Int8:
    """The weights int8 of a shape that `pack` was given."""
    bits = bits_of(kind)
    codes = (packed[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)) & (2**bits - 1)
    values = np.zeros(4, np.int8)
    for value, code in _CODE_OF[kind].items():
        values[code] = value
    weights: Int8 = values[codes.ravel()[: int(np.prod(shape))]].reshape(shape)
    return weights


def integer_net(
    layers: Sequence[tuple[ArrayLike, float, ArrayLike]],
    counts: NDArray[np.uint8],
    characters: str,
    kind: str,
    *,
    input_shift: int = 5,
    most_activation: int = 255,
) -> IntegerNet:
    """An integer network out of ``(weights, scale, bias)`` a layer, float bias (out,), its shifts chosen by examples.

    Each hidden layer gets the smallest shift after which no activation of ``counts`` uint8 (N, in) is above
    ``most_activation`` (a byte is faster on the chip) and no sum of the next layer above half of an int16, so that
    inputs which nobody saw may double it. The logits are not shifted. Raises SpeedproofError where the first sums are
    above that already, a scale is not positive, or the layers make no `IntegerNet`.
    """
    if any(not 0 < scale < float("inf") for _, scale, _ in layers):
        raise SpeedproofError(f"scales of weights must be positive, found {[scale for _, scale, _ in layers]}")
    room, units = 2**14, 2.0**input_shift
    values = counts.astype(np.int64) << input_shift
    done: list[IntegerLayer] = []
    for number, (q, scale, bias) in enumerate(layers):
        weights, float_bias = np.asarray(q, np.int64), np.asarray(bias, np.float64)
        own = np.round(float_bias * (units / scale))
        sums = values @ weights.T + own.astype(np.int64)
        if np.abs(sums).max(initial=0) >= 2 * room or np.abs(own).max(initial=0) >= 2 * room:
            raise SpeedproofError(
                f"layer {number}: sums of up to {np.abs(sums).max():,} do not fit into 16 bits; give a smaller "
                f"input_shift than {input_shift}"
            )
        shift = 0
        if number < len(layers) - 1:
            after, after_scale, after_bias = layers[number + 1]
            active = np.maximum(sums, 0)
            next_weights, next_bias = np.asarray(after, np.int64), np.asarray(after_bias, np.float64)
            for shift in range(MOST_SHIFT + 1):
                scaled = next_bias * (units / (scale * 2**shift) / after_scale)
                values = active >> shift
                high = np.abs(values @ next_weights.T + np.round(scaled).astype(np.int64)).max(initial=0)
                if values.max(initial=0) <= most_activation and high < room:
                    break
        units /= scale * 2**shift
        done.append(IntegerLayer(weights.astype(np.int8), own.astype(np.int16), shift))
    return IntegerNet(tuple(done), input_shift, kind, characters)


def read_released(path: Path) -> IntegerNet:
    """The network of a z80ai ``model.npz``. Raises SpeedproofError where the file is missing, corrupt or another's."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
        sizes = json.loads(bytes(arrays["_architecture"].item()))
        characters = bytes(arrays["_charset"].item()).decode("ascii")
        names = [f"fc{number}" for number in range(1, len(sizes["hidden_sizes"]) + 2)]
        layers = tuple(IntegerLayer(arrays[f"{name}_weight"], arrays[f"{name}_bias"], 2) for name in names)
        announced = (sizes["input_size"], *sizes["hidden_sizes"], sizes["num_classes"])
        net = IntegerNet(layers, 5, "2bit", characters[: announced[-1] - 1])
    except SpeedproofError:
        raise
    except FileNotFoundError:
        raise SpeedproofError(f"no network at {path}: give a model.npz of z80ai's tinychat") from None
    except Exception as error:  # a broken file makes numpy and zipfile raise nearly everything
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SpeedproofError(
            f"{path} is truncated or no model.npz of z80ai's tinychat ({said}): fetch it again"
        ) from error
    if net.sizes != announced:
        raise SpeedproofError(f"{path} says that its layers are {announced}, but they are {net.sizes}: fetch it again")
    return net


class IntegerTinychat(nn.Module):
    """An `IntegerNet` in torch: counts float32 (B, in) to logits float32 (B, classes), equal to it bit for bit.

    All numbers are integers below 2^24, which float32 holds exactly; wrap and shift are roundings down.
    """

    def __init__(self, net: IntegerNet) -> None:
        super().__init__()
        self.net = net
        for number, layer in enumerate(net.layers):
            self.register_buffer(f"weight{number}", torch.from_numpy(layer.weights.astype(np.float32)))
            self.register_buffer(f"bias{number}", torch.from_numpy(layer.bias.astype(np.float32)))

    def forward(self, counts: Tensor) -> Tensor:
        """Return the logits."""
        values = counts * float(2**self.net.input_shift)
        for number, layer in enumerate(self.net.layers):
            sums = nn.functional.linear(values, self.get_buffer(f"weight{number}"))
            sums = _wrapped(_wrapped(sums) + self.get_buffer(f"bias{number}"))
            values = torch.floor(sums / float(2**layer.shift))
            if number < len(self.net.layers) - 1:
                values = torch.relu(values)
        return values


def _wrapped(values: Tensor) -> Tensor:
    """Integers as int16 holds them."""
    return values - 65536.0 * torch.floor((values + 32768.0) / 65536.0)
