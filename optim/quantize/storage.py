"""Quantized models on disk: about a byte a weight, read without running code.

The file is a checkpoint like any other: the int8 tensors, their scales, and in the meta data what the graph was made
by. Reading it makes the graph anew by the same steps, without calibration, and fills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from models.errors import SpeedproofError
from models.weights import fit_channels, save_checkpoint
from models.workload import Workload
from optim.backends.base import QUANTIZATION
from optim.quantize.calibrate import set_ranges
from optim.quantize.config import QuantizeConfig
from optim.quantize.graph import converted, prepared


def save(path: Path, module: nn.Module, workload: Workload, meta: Mapping[str, Any]) -> None:
    """Write a module that `quantize` made, whole or not at all. Raises SpeedproofError if it cannot."""
    found = getattr(module, "meta", {}).get(QUANTIZATION)
    if found is None:
        raise SpeedproofError(f"{type(module).__name__} is no quantized module: expected what quantize() gives")
    told = {"workload": workload.spec or workload.name, "data": workload.data_name}
    content = {**meta, **told, QUANTIZATION: found}
    save_checkpoint(path, {"state_dict": module.state_dict(), "meta": content})


def rebuild(model: nn.Module, workload: Workload, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> GraphModule:
    """The quantized module of a file's state and meta data, from any float model of its architecture.

    ``model`` is changed: its layers take the channels that the quantized one's had. Raises SpeedproofError where the
    file does not fit.
    """
    made_by = meta[QUANTIZATION]
    fit_channels(model, {name: torch.empty(shape, device="meta") for name, shape in made_by["shapes"].items()})
    config = _config(made_by["config"])
    own = prepared(model, workload.example(config.size, 2, 0), config)
    set_ranges(own, {name: (low, high) for name, (low, high) in made_by["ranges"].items()})
    result = converted(own)
    result.meta = {QUANTIZATION: dict(made_by)}
    expected = result.state_dict()
    wrong = [name for name in expected if name not in state or state[name].shape != expected[name].shape]
    wrong += [name for name in state if name not in expected]
    if wrong:
        raise SpeedproofError(
            f"the quantized tensors do not fit {type(model).__name__} (first: {wrong[0]}): quantize the model again "
            f"with this version of torch ({torch.__version__})"
        )
    result.load_state_dict(dict(state))
    return result


def _config(found: Mapping[str, Any]) -> QuantizeConfig:
    """A config from what a file says of it; how it was fine-tuned is left where it stands."""
    values: dict[str, Any] = {field.name: found[field.name] for field in fields(QuantizeConfig) if field.name in found}
    return QuantizeConfig(**(values | {"float_layers": tuple(values["float_layers"]), "fine_tune": None}))
