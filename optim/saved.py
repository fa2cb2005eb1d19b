"""Optimised models on disk: any method's result is written and read here, weights only.

A file is a checkpoint whose meta data say what the tensors need beside them: fewer channels than the architecture's
(``channels_removed``), a quantized graph (``quantization``), or an integer network (``integer``). What quantizes is
imported only where a file or a model needs it: torchao alone costs some 100 MB, which would count as a model's own
memory.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from models.crnn import Crnn
from models.integer import IntegerTinychat
from models.integer_files import INTEGER, integer_of, integer_state
from models.tinychat import Tinychat, described
from models.weights import load_into, read_checkpoint, save_checkpoint
from models.workload import Workload
from optim.backends.base import QUANTIZATION, is_quantized


def save_model(path: Path, model: nn.Module, workload: Workload, size: int, meta: Mapping[str, Any]) -> None:
    """Write a model whole or not at all; ``size`` is what the workload builds it for.

    Raises SpeedproofError if it cannot.
    """
    if is_quantized(model):
        from optim.quantize import save as save_quantized

        save_quantized(path, model, workload, meta)
        return
    if isinstance(model, IntegerTinychat):
        state, own = integer_state(model.net)
    else:
        state = model.state_dict()
        whole = {name: tensor.shape for name, tensor in workload.build(size, None).state_dict().items()}
        removed = any(whole.get(name, tensor.shape) != tensor.shape for name, tensor in state.items())
        own = {"channels_removed": removed, **sizes_of(model)}
    told = {"workload": workload.spec or workload.name, "data": workload.data_name}
    save_checkpoint(path, {"state_dict": state, "meta": {**told, **own, **meta}})


def sizes_of(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint says of a model whose class comes in many sizes, so that it is built in its own."""
    if isinstance(model, Crnn):
        return {"crnn": asdict(model.config)}
    return described(model) if isinstance(model, Tinychat) else {}


def load_saved(path: Path, architecture: nn.Module, workload: Workload) -> nn.Module:
    """The model of a file in eval mode; ``architecture`` is any float model of its kind and stays as it is.

    Raises SpeedproofError for a file that is broken or does not fit.
    """
    state, meta = read_checkpoint(path)
    if INTEGER in meta:
        return IntegerTinychat(integer_of(state, meta, str(path))).eval()
    own = copy.deepcopy(architecture)
    if QUANTIZATION in meta:
        from optim.quantize import rebuild

        return rebuild(own, workload, state, meta)
    load_into(own, path)
    return own.eval()
