"""The contract of a workload, and how one is found by name.

A workload is whatever shall be made faster: a model, the examples it runs on and the quality it must keep.
Inputs and outputs are tuples of tensors everywhere, so that a streaming model, ``(chunk, *state)`` to
``(probability, *state)``, is a workload like any other. What a workload does not know: methods, backends, timing.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from models.errors import SpeedproofError

Tensors = tuple[Tensor, ...]
Predict = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Quality:
    """One quality of a model on real examples.

    ``outcomes`` is float64, one value an example (for accuracy 1 is right and 0 is wrong), ``answers`` is int64, what
    the model said for each example (the class it chose), by which two models are compared for agreement.
    ``interval`` holds the value in 95 %, where it is known and no share of right answers.
    """

    name: str
    value: float
    examples: int
    higher_is_better: bool
    outcomes: np.ndarray
    answers: np.ndarray
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Weights:
    """The weights to build a module with: a file, or None for those that the module brings along or draws at random.

    ``description`` stands in the record; ``own`` is false where they were trained at another size, or not at all.
    """

    path: Path | None
    description: str
    own: bool


def _no_data(split: str, size: int) -> None:
    return None


def _no_quality(predict: Predict, split: str, size: int, batch: int, limit: int | None) -> tuple[Quality, ...]:
    return ()


def _as_built(size: int) -> Weights:
    return Weights(None, "as built", own=True)


# What a workload is about, by what its sizes are counted in.
SUBJECTS: Mapping[str, str] = {"px": "images", "ms": "speech", "chars": "chats"}


@dataclass(frozen=True)
class Workload:
    """A model with its examples and its quality.

    - ``task``, ``scenario``, ``platform``: a sentence each; reports print them.
    - ``build(size, weights)``: a torch module in eval mode, with a file's weights, or None: as the author makes it.
    - ``example(size, batch, seed)``: the inputs of one call, a tuple of tensors on the CPU.
    - ``data(split, size)``: a map-style data set of ``(*inputs, label)``, each without batch axis, for the splits
      ``train``, ``validation`` and ``test``; None where there is no data.
    - ``quality(predict, split, size, batch, limit)``: the qualities of ``predict`` on the first ``limit`` examples of
      the split (None: all), asked in batches of exactly ``batch`` rows; the first is gated, empty without data.
    - ``weights(size)``: which weights to build it with where the user names none.
    - ``tolerated_drop``: by how much the first quality may fall below the original's, in its own unit.
    - ``spec``: how it is loaded again, ``pkg.module:OBJECT``; set by `load_workload`, empty for registered ones.
    - ``size_unit``: what sizes are counted in: px, ms of audio, or chars of a query.
    - ``data_name``: the data set's name, ``none`` where there is none, or one that says ``synthetic``.
    """

    name: str
    task: str
    scenario: str
    platform: str
    build: Callable[[int, Path | None], nn.Module]
    example: Callable[[int, int, int], Tensors]
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    data: Callable[[str, int], Any] = _no_data
    quality: Callable[[Predict, str, int, int, int | None], tuple[Quality, ...]] = _no_quality
    weights: Callable[[int], Weights] = _as_built
    smallest_size: int = 1
    tolerated_drop: float = 0.01
    data_name: str = "none"
    spec: str = ""
    size_unit: str = "px"

    def check_size(self, size: int) -> None:
        """Raise SpeedproofError for a size below the smallest."""
        if size < self.smallest_size:
            raise SpeedproofError(f"--size {size}: {self.name} needs at least {self.smallest_size} {self.size_unit}")


def in_a_name(folder: Path) -> str:
    """A folder's own name, as part of the name of a data set."""
    return re.sub("[^A-Za-z0-9.]+", "_", folder.resolve().name)


@dataclass(frozen=True)
class DataChoice:
    """Which data set a registered workload is built on: a known name, or ``folder`` with its directory.

    Speech has a ``directory`` too, where it is not in the usual place, and the ``keyword`` that is to be spotted; a
    corpus of chats has a ``directory``, or is ``own_sentences``.
    """

    name: str = "digits"
    directory: Path | None = None
    keyword: str = ""

    @property
    def label(self) -> str:
        """Name in records, histories and file names; that of a folder tells which one."""
        if self.name != "folder" or self.directory is None:
            return self.name
        return f"folder_{in_a_name(self.directory)}"


# Modules that define workloads; each has a dictionary WORKLOADS from a name to a function of a DataChoice.
_MODULES: Mapping[str, str] = {
    "resnet18": "models.resnet",
    "resnet50": "models.resnet",
    "efficientnet_lite0": "models.efficientnet",
    "kws": "models.kws",
    "kws_waveform": "models.kws",
    "kws_streaming": "models.kws",
    "tinychat": "models.chatting",
    "tinychat_text": "models.chatting",
}


def workload_names() -> tuple[str, ...]:
    """The names of the registered workloads."""
    return tuple(_MODULES)


def known_workload(spec: str) -> bool:
    """Whether `load_workload` takes it for a workload's name, or for an object of a user's own."""
    return ":" in spec or _maker(spec) is not None


def _maker(spec: str) -> Callable[[DataChoice], Workload] | None:
    """What makes the workload of a name: registered, or a student's, which are made on demand; None if neither."""
    if spec in _MODULES:
        maker: Callable[[DataChoice], Workload] = importlib.import_module(_MODULES[spec]).WORKLOADS[spec]
        return maker
    if spec.startswith("kws_"):
        student: Callable[[DataChoice], Workload] | None = importlib.import_module("models.students").student(spec)
        return student
    if spec.startswith("tinychat_"):
        small: Callable[[DataChoice], Workload] | None = importlib.import_module("models.chatting").student(spec)
        return small
    return None


def load_workload(spec: str, data: DataChoice | None = None) -> Workload:
    """Find a workload: a registered name, or ``pkg.module:OBJECT`` for a user's own (whose data is its own too).

    Raises SpeedproofError for an unknown name, a module that fails to import and an object that is no Workload.
    """
    if ":" in spec:
        own: Workload = load_object(spec, Workload, "--workload")
        return replace(own, spec=spec)
    maker = _maker(spec)
    if maker is None:
        raise SpeedproofError(
            f"unknown workload {spec!r}: expected one of {', '.join(_MODULES)}, or a student such as "
            f"kws_channels4_gru16 or tinychat_hidden128x96x64, or pkg.module:OBJECT for your own"
        )
    return maker(data or DataChoice())


def load_object(spec: str, kind: type, option: str) -> Any:
    """Import ``pkg.module:OBJECT``, from the working directory too, and check that it is a ``kind``."""
    module_name, _, attribute = spec.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        raise SpeedproofError(
            f"{option} {spec}: module {module_name!r} failed to import ({type(error).__name__}: {error}); "
            f"check that `python -c 'import {module_name}'` works from this folder"
        ) from error
    if not hasattr(module, attribute):
        raise SpeedproofError(
            f"{option} {spec}: module {module_name!r} defines no {attribute!r}; see README, 'Bring your own'"
        )
    found = getattr(module, attribute)
    if not isinstance(found, kind):
        raise SpeedproofError(
            f"{option} {spec}: expected {attribute!r} in {module_name} to be a {kind.__name__}, "
            f"found {type(found).__name__}; see README, 'Bring your own'"
        )
    return found
