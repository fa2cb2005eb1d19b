"""A model as the C header of an engine: `fast_header` for sketch/engine.c, `plain_header` for plain.c.

A layer of the fast engine is stored in one of two forms (sketch/engine.c says how each is run):

- **lists**: for each input the neurons that it is added to and those it is subtracted from; a byte a weight that is
  not zero (two for -2), and 4 bytes a column;
- **planes**: bits, 8 neurons a byte, one plane for 1-bit weights and two for 2-bit ones.

Each layer gets the form that takes fewer cycles. While all of them do not fit into the flash, the one that gains most
by it becomes planes. 1-bit weights have no zeros and are always planes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from models.errors import SpeedproofError
from models.integer import Int8, IntegerLayer, IntegerNet, bits_of, pack

PAGE = 128  # neurons whose sums lie in a page of 256 bytes
_LONGEST_RUN = 252  # entries that the head of a run can count
_CODE_BYTES = 2600  # of flash for all but the model; an estimate, the ELF file decides


def _values(values: Iterable[object]) -> str:
    words, lines = [str(value) for value in values], []
    for start in range(0, len(words), 24):
        lines.append("  " + ", ".join(words[start : start + 24]))
    return "{\n" + ",\n".join(lines) + "}"


def _array(kind: str, name: str, values: Iterable[object], shape: str = "[]") -> str:
    return f"static const {kind} {name}{shape} PROGMEM = {_values(values)};\n"


def _run(neurons: Sequence[int]) -> list[int]:
    """A list's entries behind its head: turns of four, above the two low bits of their number."""
    return [(len(neurons) + 3) // 4 * 4 + len(neurons) % 4, *(2 * neuron for neuron in neurons)]


def _entries(column: Int8) -> tuple[list[int], list[int]]:
    """The neurons that an input is added to and subtracted from; twice where the weight is -2."""
    added = np.flatnonzero(column == 1).tolist()
    return added, np.repeat(np.arange(len(column)), np.maximum(-column, 0)).tolist()


def _pages(layer: IntegerLayer) -> list[Int8]:
    return [layer.weights[start : start + PAGE] for start in range(0, len(layer.bias), PAGE)]


def _entry_count(layer: IntegerLayer) -> int:
    return int(np.abs(layer.weights).sum())


def _lists_bytes(layer: IntegerLayer) -> int:
    return _entry_count(layer) + 4 * int(layer.weights.shape[1] * len(_pages(layer)))


def _planes_bytes(layer: IntegerLayer, kind: str) -> int:
    return bits_of(kind) * int(layer.weights.shape[1]) * -(-len(layer.bias) // 8)


def _lists_can(layer: IntegerLayer) -> bool:
    """Whether every run can be counted, and lists take fewer cycles: about 12 an entry against 5 a weight and plane."""
    longest = max(int(np.maximum(sign * page, 0).sum(0).max()) for page in _pages(layer) for sign in (1, -1))
    return longest <= _LONGEST_RUN and 12 * _entry_count(layer) < 11 * layer.weights.size


def as_lists(net: IntegerNet, flash_bytes: int) -> tuple[bool, ...]:
    """Which layers are stored as lists."""
    lists = [net.kind != "1bit" and _lists_can(layer) for layer in net.layers]

    def saved(number: int) -> int:
        layer = net.layers[number]
        return (_lists_bytes(layer) - _planes_bytes(layer, net.kind)) if lists[number] else 0

    while True:
        total = _CODE_BYTES + sum(
            (_lists_bytes(layer) if listed else _planes_bytes(layer, net.kind)) + 2 * len(layer.bias)
            for layer, listed in zip(net.layers, lists, strict=True)
        )
        most = max(range(len(lists)), key=saved)
        if total <= flash_bytes or saved(most) <= 0:
            return tuple(lists)
        lists[most] = False


def _lists(number: int, layer: IntegerLayer) -> str:
    stream: list[int] = []
    pages = []
    for page in _pages(layer):
        starts = []
        for column in page.T:
            starts.append(f"stream{number} + {len(stream)}")
            for neurons in _entries(column):
                stream += _run(neurons)
        pages.append(_values(starts))
    table = f"static const uint8_t *const columns{number}[{len(pages)}][{layer.weights.shape[1]}] PROGMEM = "
    return (
        _array("uint8_t", f"stream{number}", stream)
        + table
        + "{"
        + ",\n".join(pages)
        + "};\n"
        + f"#define COLUMNS{number}(inputs, eights) LISTS(columns{number})\n"
    )


def _plane(bits: np.ndarray) -> list[int]:
    """Bits (out, in) as bytes of 8 neurons: those of the first 8 for every input, then of the next."""
    padded = np.pad(bits.astype(np.uint8), ((0, -len(bits) % 8), (0, 0)))
    return [int(byte) for eight in padded.reshape(-1, 8, bits.shape[1]) for byte in np.packbits(eight[::-1], axis=0)[0]]


def _planes(number: int, layer: IntegerLayer, kind: str) -> str:
    weights = layer.weights
    if kind == "1bit":
        return _array("uint8_t", f"plane{number}", _plane(weights == 1)) + (
            f"#define COLUMNS{number}(inputs, eights) add_signs(plane{number}, inputs, eights)\n"
        )
    return (
        _array("uint8_t", f"low{number}", _plane(weights & 1))
        + _array("uint8_t", f"high{number}", _plane(weights < 0))
        + f"#define COLUMNS{number}(inputs, eights) add_planes(low{number}, high{number}, inputs, eights)\n"
    )


def _common(net: IntegerNet) -> str:
    codes = [ord(character) for character in net.characters]
    return (
        f"/* A model of {net.kind} weights, {'-'.join(map(str, net.sizes))}, generated: do not edit. */\n#pragma once\n"
        f"#define INPUTS {net.sizes[0]}\n#define INPUT_SHIFT {net.input_shift}\n#define CLASSES {net.classes}\n"
        + _array("char", "characters", codes or [0])
    )


def _bias(number: int, layer: IntegerLayer, multiple: int = 1) -> str:
    bias = np.pad(layer.bias, (0, -len(layer.bias) % multiple))
    return _array("int16_t", f"bias{number}", (f"{value}" if value > -(2**15) else "-32767 - 1" for value in bias))


def fast_header(net: IntegerNet, flash_bytes: int) -> str:
    """model.h for sketch/engine.c. Raises SpeedproofError for more neurons than a byte can number."""
    check(net)
    lists = as_lists(net, flash_bytes)
    widest = max(net.sizes[1:])
    text = _common(net) + (
        f"#define FIRST_NEURONS {net.sizes[1]}\n#define MOST_NEURONS {-(-widest // 8) * 8}\n"
        f"#define MOST_ACTIVE {max(64, *net.sizes[1:-1], 0)}\n#define LAST_SHIFT {net.layers[-1].shift}\n"
        f"#define USES_LISTS {int(any(lists))}\n#define USES_PLANES {0 if all(lists) else bits_of(net.kind)}\n"
    )
    for number, layer in enumerate(net.layers):
        text += _bias(number, layer, 4)
        text += _lists(number, layer) if lists[number] else _planes(number, layer, net.kind)
    calls = [
        f"LAYER({number}, {net.sizes[number]}, {net.sizes[number + 1]}, {net.layers[number - 1].shift})"
        for number in range(1, len(net.layers))
    ]
    return text + f"/* number, inputs, neurons, shift of the layer before */\n#define OTHER_LAYERS {' '.join(calls)}\n"


def plain_header(net: IntegerNet) -> str:
    """model.h for plain.c: all weights as 2 bits, in rows of whole bytes."""
    check(net)
    text = _common(net) + f"#define MOST_NEURONS {-(-max(net.sizes) // 4) * 4}\n"
    calls = []
    for number, layer in enumerate(net.layers):
        text += _bias(number, layer) + _array(
            "uint8_t", f"weights{number}", pack(_whole_bytes(layer.weights), "2bit").tolist()
        )
        calls.append(f"LAYER({number}, {net.sizes[number]}, {net.sizes[number + 1]}, {layer.shift})")
    return text + f"#define HIDDEN_LAYERS {' '.join(calls[:-1])}\n#define LAST_LAYER {calls[-1]}\n"


def _whole_bytes(weights: Int8) -> Int8:
    return np.pad(weights, ((0, 0), (0, -weights.shape[1] % 4)))


def check(net: IntegerNet) -> None:
    """Raise SpeedproofError for a network whose neurons the engines cannot number."""
    if net.sizes[0] != 256 or max(net.sizes) > 256:
        raise SpeedproofError(
            f"the firmware takes 256 counts and at most 256 neurons a layer, found layers of "
            f"{'-'.join(map(str, net.sizes))}"
        )
