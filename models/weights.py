"""Weights on disk: where trained ones are kept, and how files, trusted or not, are read.

A checkpoint is ``{"state_dict": {...}, "meta": {...}}`` of tensors, numbers and strings only. Files of others may also
be a bare state dict (torchvision's ``resnet18-f37072fd.pth``) or safetensors. Nothing is unpickled that can run code.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.errors import SpeedproofError
from models.files import first_line, save

WEIGHTS_DIR = Path("weights")

Module = TypeVar("Module", bound=nn.Module)


def best_weights_path(workload: str, size: int, data: str, folder: Path = WEIGHTS_DIR) -> Path:
    """``weights/best_resnet18_224.pth``; any data set but Imagenette, the one of record, adds its own name."""
    suffix = "" if data == "imagenette" else f"_{data}"
    return folder / f"best_{workload}_{size}{suffix}.pth"


def spotter_path(workload: str, data: str, folder: Path = WEIGHTS_DIR) -> Path:
    """``weights/kws/speech_happy_baseline.pt`` of ``kws``; ``speech_happy_gru16.pt`` of its student ``kws_gru16``.

    ``kws_waveform`` and ``kws_streaming`` have the weights of ``kws``, as have its students on a stream.
    """
    sizes = workload.removeprefix("kws").removeprefix("_waveform").removeprefix("_streaming").lstrip("_")
    return folder / "kws" / f"{data}_{sizes or 'baseline'}.pt"


def tinychat_path(workload: str, data: str, folder: Path = WEIGHTS_DIR) -> Path:
    """``weights/tinychat/z80ai_baseline.pt`` of ``tinychat``; ``z80ai_hidden128x96x64.pt`` of its student of that name.

    ``tinychat_text`` has the weights of ``tinychat``, as have its students.
    """
    sizes = workload.removeprefix("tinychat").removeprefix("_text").lstrip("_")
    return folder / "tinychat" / f"{data}_{sizes or 'baseline'}.pt"


def find_weights(workload: str, size: int, data: str) -> tuple[Path | None, bool]:
    """The trained weights for a size, else those of 224 px, else of the nearest size; and whether they are its own."""
    own = best_weights_path(workload, size, data)
    if own.is_file():
        return own, True
    suffix = best_weights_path(workload, 0, data).name.removeprefix(f"best_{workload}_0")
    name = re.compile(re.escape(f"best_{workload}_") + "([0-9]+)" + re.escape(suffix))
    named = ((name.fullmatch(path.name), path) for path in WEIGHTS_DIR.glob("best_*.pth"))
    trained = {int(match[1]): path for match, path in named if match and path.is_file()}
    if not trained:
        return None, False
    nearest = 224 if 224 in trained else min(trained, key=lambda other: (abs(other - size), other))
    return trained[nearest], False


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and meta data of a weights file. Raises SpeedproofError if it is missing, corrupt or holds more."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path), {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns before it refuses, and its refusal becomes a sentence below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SpeedproofError(
            f"no weights at {path}: check the path, or train them with `python -m optim.train`"
        ) from None
    except pickle.UnpicklingError as error:
        raise SpeedproofError(
            f"{path} holds more than weights or is no weights file, and was not loaded because a pickle can run code: "
            f"save `model.state_dict()` alone, or use safetensors"
        ) from error
    except Exception as error:  # a broken file makes the readers raise nearly everything
        raise SpeedproofError(
            f"{path} is truncated or not a weights file ({first_line(error)}): fetch or train it again"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise SpeedproofError(f"{path} holds no state dict: expected a mapping of names to tensors")
    meta = content.get("meta") if state is not content else None
    return state, meta if isinstance(meta, dict) else {}


def load_into(module: nn.Module, path: Path) -> None:
    """Load the weights of a file into a module, every name and shape matching. Raises SpeedproofError otherwise.

    A file that says ``channels_removed`` in its meta data gives the module's layers its own channels first.
    """
    state, meta = read_checkpoint(path)
    if meta.get("channels_removed"):
        fit_channels(module, state)
    own = module.state_dict()
    # Files from before batch norm counted its batches lack these counters, which inference does not read.
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    state = {**counters, **state}
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    foreign = [name for name in state if name not in own]
    if wrong or foreign:
        first = (wrong + foreign)[0]
        raise SpeedproofError(
            f"{path} does not fit {type(module).__name__}: {len(wrong)} of {len(own)} tensors are missing or of "
            f"another shape and {len(foreign)} are foreign (first: {first}); give the weights of the same architecture"
        )
    module.load_state_dict(state)


def built(make: Callable[[], Module], weights: Path | None) -> Module:
    """What ``make`` makes, in eval mode, with a file's weights, or random ones of seed 0; the caller's dice stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    if weights is not None:
        load_into(model, weights)
    return model.eval()


def fit_channels(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give convolutions, batch norms and linear layers as many channels as the tensors of a state dict have."""
    for name, part in module.named_modules():
        weight = state.get(f"{name}.weight" if name else "weight")
        if weight is None or not isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            continue
        for kind in (part._parameters, part._buffers):
            for key, own in list(kind.items()):
                found = state.get(f"{name}.{key}" if name else key)
                if own is not None and found is not None and own.shape != found.shape:
                    fresh = own.new_zeros(found.shape)
                    setattr(
                        part, key, nn.Parameter(fresh, own.requires_grad) if isinstance(own, nn.Parameter) else fresh
                    )
        if isinstance(part, nn.Conv2d):
            if part.groups == part.in_channels > 1:  # depthwise
                part.groups = weight.shape[0]
            part.out_channels, part.in_channels = weight.shape[0], weight.shape[1] * part.groups
        elif isinstance(part, nn.BatchNorm2d):
            part.num_features = weight.shape[0]
        else:
            part.out_features, part.in_features = weight.shape


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers and strings, whole or not at all. Raises SpeedproofError if it cannot."""
    save(path, lambda scratch: torch.save(content, scratch))
