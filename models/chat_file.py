"""Tinychat networks in files: checkpoints, and ``.npz`` in the layout of z80ai's released ``model.npz``.

An ``.npz`` holds ``fc1_weight`` (out, in), ``fc1_bias`` (out,) and so on, ``_architecture`` as JSON and ``_charset``,
the characters by class. Of a float network weights and biases are float32. Of an integer network they are int8 and
int16, and ``_quantization`` is JSON of what the released file leaves open: the shifts, and the kind of the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.errors import SpeedproofError
from models.files import save_arrays
from models.integer import IntegerLayer, IntegerNet, IntegerTinychat, read_released
from models.integer_files import INTEGER, integer_of
from models.tinychat import Tinychat, TinychatConfig, build_tinychat
from models.weights import read_checkpoint

Network = Tinychat | IntegerNet


def read_network(path: Path) -> Network:
    """The network of an ``.npz``, or of a checkpoint. Raises SpeedproofError for what is neither, or broken."""
    if path.suffix == ".npz":
        return _read_npz(path)
    state, meta = read_checkpoint(path)
    return integer_of(state, meta, str(path)) if INTEGER in meta else build_tinychat(path)


def as_module(network: Network) -> nn.Module:
    """Counts float32 (B, 256) to logits float32 (B, classes), in eval mode."""
    return IntegerTinychat(network).eval() if isinstance(network, IntegerNet) else network.eval()


def characters_in(network: Network) -> str:
    """The characters of all classes but the end mark."""
    return network.characters if isinstance(network, IntegerNet) else network.config.characters


def sizes_in(network: Network) -> tuple[int, ...]:
    """Inputs, neurons of each hidden layer, classes."""
    if isinstance(network, IntegerNet):
        return network.sizes
    sizes = network.sizes()
    return (sizes.inputs, *sizes.hidden, sizes.classes)


def save_npz(path: Path, network: Network) -> None:
    """Write an ``.npz``, whole or not at all. Raises SpeedproofError if it cannot."""
    quantization: dict[str, Any] = {}
    if isinstance(network, IntegerNet):
        layers = [(layer.weights, layer.bias) for layer in network.layers]
        shifts = [layer.shift for layer in network.layers]
        quantization = {"kind": network.kind, "input_shift": network.input_shift, "shifts": shifts}
    else:
        state = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        layers = [(state[f"layers.{row}.weight"], state[f"layers.{row}.bias"]) for row in range(len(network.layers))]
    inputs, *hidden, classes = sizes_in(network)
    architecture = {"input_size": inputs, "hidden_sizes": hidden, "num_classes": classes}
    arrays: dict[str, NDArray[Any]] = {"_architecture": np.array(json.dumps(architecture).encode())}
    arrays["_charset"] = np.array(characters_in(network).encode() + b"\0")  # the released file's end mark
    if quantization:
        arrays["_quantization"] = np.array(json.dumps(quantization).encode())
    for number, (weight, bias) in enumerate(layers, 1):
        arrays |= {f"fc{number}_weight": weight, f"fc{number}_bias": bias}
    save_arrays(path, arrays)


def _read_npz(path: Path) -> Network:
    try:
        # Of a broken file that it opened itself, numpy leaves the handle open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
        if "_quantization" not in arrays and arrays["fc1_weight"].dtype != np.float32:
            return read_released(path)
        sizes = json.loads(arrays["_architecture"].item())
        characters = arrays["_charset"].item().decode("ascii")
        config = TinychatConfig(tuple(sizes["hidden_sizes"]), sizes["input_size"], characters)
        count = len(config.hidden) + 1
        layers = [(arrays[f"fc{number}_weight"], arrays[f"fc{number}_bias"]) for number in range(1, count + 1)]
        if "_quantization" not in arrays:
            return _float_network(config, layers)
        made = json.loads(arrays["_quantization"].item())
        own = (IntegerLayer(*layer, shift) for layer, shift in zip(layers, made["shifts"], strict=True))
        return IntegerNet(tuple(own), made["input_shift"], made["kind"], characters)
    except SpeedproofError:
        raise
    except FileNotFoundError:
        raise SpeedproofError(f"no network at {path}: give an .npz or a checkpoint of tinychat") from None
    except Exception as error:  # a broken file makes numpy and zipfile raise nearly everything
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpeedproofError(f"{path} is truncated or holds no tinychat ({said}): export or fetch it again") from error


def _float_network(config: TinychatConfig, layers: list[tuple[NDArray[Any], NDArray[Any]]]) -> Tinychat:
    network = Tinychat(config)
    state: dict[str, torch.Tensor] = {}
    for row, (weight, bias) in enumerate(layers):
        state |= {f"layers.{row}.weight": torch.from_numpy(weight), f"layers.{row}.bias": torch.from_numpy(bias)}
    network.load_state_dict(state)
    return network.eval()
