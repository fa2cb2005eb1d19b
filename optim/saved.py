"""Optimised models on disk: any method's result is written and read here, weights only.

A file is a checkpoint whose meta data say what the tensors need beside them: fewer channels than the architecture's
(``channels_removed``), or a quantized graph (``quantization``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from models.weights import load_into, read_checkpoint, save_checkpoint
from models.workload import Workload
from optim.quantize import rebuild
from optim.quantize import save as save_quantized
from optim.quantize.method import KEY


def save_model(path: Path, model: nn.Module, workload: Workload, meta: Mapping[str, Any]) -> None:
    """Write a model whole or not at all. Raises SpeedproofError if it cannot."""
    if is_quantized(model):
        save_quantized(path, model, workload, meta)
    else:
        save_checkpoint(
            path, {"state_dict": model.state_dict(), "meta": {"workload": workload.spec or workload.name, **meta}}
        )


def load_saved(path: Path, architecture: nn.Module, workload: Workload) -> nn.Module:
    """The model of a file in eval mode; ``architecture`` is any float model of its kind and stays as it is.

    Raises SpeedproofError for a file that is broken or does not fit.
    """
    state, meta = read_checkpoint(path)
    own = copy.deepcopy(architecture)
    if KEY in meta:
        return rebuild(own, workload, state, meta)
    load_into(own, path)
    return own.eval()


def is_quantized(model: nn.Module) -> bool:
    """Whether a module is what `quantize` made."""
    return KEY in getattr(model, "meta", {})
