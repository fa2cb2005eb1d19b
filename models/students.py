"""Students of the keyword spotter, workloads named by their sizes: ``kws_channels4_gru16``, ``kws_cnn_hidden16_span5``.

Each word is a field of `CrnnConfig`, after ``cnn`` of `CnnConfig`, and its value, ``kernel5x20`` for a pair; what is
not named is the default. A student has the baseline's data and quality, and weights of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.cnn import Cnn, CnnConfig
from models.crnn import Crnn, CrnnConfig, build_crnn
from models.kws import trained
from models.weights import load_into
from models.workload import DataChoice, Workload, load_workload

BASELINE = "kws"


def student(name: str) -> Callable[[DataChoice], Workload] | None:
    """What makes the workload of a name; None where it names no sizes. Raises SpeedproofError for impossible ones."""
    words = name.removeprefix(f"{BASELINE}_").split("_")
    convolutional = words[0] == "cnn"
    kind: type[CrnnConfig] | type[CnnConfig] = CnnConfig if convolutional else CrnnConfig
    sizes: dict[str, Any] = {}
    known = {field.name: field.default for field in fields(kind)}
    for word in words[1:] if convolutional else words:
        found = re.fullmatch(r"([a-z]+)(\d+)(?:x(\d+))?", word)
        default = known.get(found[1]) if found else None
        if found is None or not isinstance(default, tuple if found[3] else int):
            return None
        sizes[found[1]] = (int(found[2]), int(found[3])) if found[3] else int(found[2])
    return partial(_workload, name, kind(**sizes))


def _workload(name: str, config: CrnnConfig | CnnConfig, choice: DataChoice) -> Workload:
    baseline = load_workload(BASELINE, choice)
    return replace(
        baseline, name=name, build=partial(_build, config), weights=lambda _size: trained(name, baseline.data_name)
    )


def _build(config: CrnnConfig | CnnConfig, size: int, weights: Path | None) -> nn.Module:
    """The student with a file's weights, in eval mode; without, random, seed 0."""
    if weights is not None and isinstance(config, CrnnConfig):
        return build_crnn(Crnn, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Cnn(config) if isinstance(config, CnnConfig) else Crnn(config)
    if weights is not None:
        load_into(model, weights)
    return model.eval()
