"""Students of the keyword spotter, workloads named by their sizes: ``kws_channels4_gru16``, ``kws_cnn_hidden16_span5``.

Each word is a field of `CrnnConfig`, after ``cnn`` of `CnnConfig`, and its value, ``kernel5x20`` for a pair; what is
not named is the default. A student has the baseline's data and quality, and weights of its own, which must have the
sizes that its name tells. ``kws_streaming_channels4_gru16`` is a CRNN with the same weights on a stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from models.cnn import CnnConfig, build_cnn
from models.crnn import Crnn, CrnnConfig, build_crnn
from models.data.speech import data_name
from models.errors import SpeedproofError
from models.kws import shortest_ms, streaming_workload, trained
from models.streaming import check_streams
from models.workload import DataChoice, Workload, load_workload

BASELINE = "kws"
_FIXED = ("mels", "classes")  # by the front end and the labels, whatever the student


def student(name: str) -> Callable[[DataChoice], Workload] | None:
    """What makes the workload of a name; None where it names no sizes, or one of them twice.

    Raises SpeedproofError for impossible ones.
    """
    words = name.removeprefix(f"{BASELINE}_").split("_")
    streaming = words[0] == "streaming"
    if streaming:
        words = words[1:]
    convolutional = words[:1] == ["cnn"]
    kind: type[CrnnConfig] | type[CnnConfig] = CnnConfig if convolutional else CrnnConfig
    sizes: dict[str, Any] = {}
    known = {field.name: field.default for field in fields(kind) if field.name not in _FIXED}
    for word in words[1:] if convolutional else words:
        found = re.fullmatch(r"([a-z]+)(\d+)(?:x(\d+))?", word)
        default = known.get(found[1]) if found else None
        if found is None or found[1] in sizes or not isinstance(default, tuple if found[3] else int):
            return None
        sizes[found[1]] = (int(found[2]), int(found[3])) if found[3] else int(found[2])
    config = kind(**sizes)
    if not streaming:
        return partial(_offline, name, config)
    if not isinstance(config, CrnnConfig):
        raise SpeedproofError(f"{name}: a convolutional student does not run on a stream; take one with a GRU")
    check_streams(config)
    return partial(_on_a_stream, name, config)


def _on_a_stream(name: str, config: CrnnConfig, choice: DataChoice) -> Workload:
    return streaming_workload(name, choice, trained(name, data_name(choice)), config)


def _offline(name: str, config: CrnnConfig | CnnConfig, choice: DataChoice) -> Workload:
    baseline = load_workload(BASELINE, choice)
    return replace(
        baseline, name=name, build=partial(_build, config), smallest_size=shortest_ms(config.frames),
        weights=lambda size: trained(name, baseline.data_name, size),
    )  # fmt: skip


def _build(config: CrnnConfig | CnnConfig, size: int, weights: Path | None) -> nn.Module:
    """The student with a file's weights, in eval mode; without, random, seed 0."""
    if isinstance(config, CrnnConfig):
        return build_crnn(Crnn, weights, config)
    return build_cnn(config, weights)
