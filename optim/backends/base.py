"""The contract of a backend: what runs a module, and how it shows that it really did.

A backend turns a module into a `Runner`; the harness alone measures it. A backend that falls back to another device,
precision or runtime must show it in its `Coverage`, which is read back from the runtime and never assumed.
"""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from models.workload import Tensors

Clock = Literal["wall", "cycles"]

PRECISIONS: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Target:
    """Where a module shall run: ``device`` is cpu or cuda, ``threads`` the size of every thread pool on the CPU."""

    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Coverage:
    """How many operators ran where and in which precision, read back from the runtime.

    ``operators`` counts by ``place/dtype`` (``CPUExecutionProvider/float32``); ``fallbacks`` names every operator that
    ran in another place or did its arithmetic in another precision than the one asked for. Empty means full coverage.
    """

    operators: Mapping[str, int]
    fallbacks: tuple[str, ...] = ()


class Runner(ABC):
    """A compiled module: a callable from tensors to tensors, with what the record must know of it.

    Inputs are float32 (or integer) tensors on ``device``, of the shapes it was compiled for; a runner of another
    precision casts them itself, since its user would have to. Outputs are tensors on ``device`` in any float dtype;
    they belong to the caller: a later call does not overwrite them.
    """

    clock: ClassVar[Clock] = "wall"

    def __init__(self, *, size_bytes: int, build_s: float, device: str = "cpu", from_cache: bool = False) -> None:
        self.size_bytes = size_bytes  # what must be shipped: weights and graph
        self.build_s = build_s
        self.device = device
        self.from_cache = from_cache  # a cached artefact was loaded, so build_s is the time of loading

    @abstractmethod
    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        """Run once."""

    @abstractmethod
    def coverage(self, inputs: Tensors) -> Coverage:
        """Run once under the runtime's own profiler and report what ran where. Not for the timed path."""

    def facts(self) -> Mapping[str, float | str]:
        """What else the record shall tell of it after its last call, units in the names."""
        return {}


class CycleRunner(Runner):
    """A runner on a device whose cycle counter is exact: not paired with a reference in time, equal bit for bit."""

    clock: ClassVar[Clock] = "cycles"
    frequency_hz: float
    cycles: int  # of the last call


class Backend(ABC):
    """One way of running a module. ``reference`` names the backend that it is compared with."""

    name: ClassVar[str]
    reference: ClassVar[str] = "eager"
    package: ClassVar[str] = "torch"  # the distribution whose version goes into the record

    @abstractmethod
    def missing(self, precision: str, target: Target) -> str | None:
        """None, or in one sentence why this cannot run here; the only place where that is decided."""

    @abstractmethod
    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        """Build a runner for inputs of exactly the shapes and dtypes of ``example``; ``module`` stays untouched.

        Raises SpeedproofError where the module cannot be exported or compiled.
        """


def cast_inputs(inputs: Tensors, dtype: torch.dtype) -> Tensors:
    """Floating-point inputs in ``dtype``, all others as they are."""
    return tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs)


def copied(module: nn.Module) -> nn.Module:
    """A deep copy of a module, of an exported graph too, for whose parts torch warns of its own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(module)


QUANTIZATION = "quantization"  # of GraphModule.meta and of a file's, where a quantized module says what it is


def is_quantized(module: nn.Module) -> bool:
    """Whether a module is what `optim.quantize` made; asked without importing what makes it."""
    return QUANTIZATION in getattr(module, "meta", {})


def computes_in_int8(module: nn.Module) -> bool:
    """Whether a module multiplies integers: where the weights alone are quantized, floats are made of them first."""
    if not is_quantized(module):
        return False
    made_by: Mapping[str, Any] = module.meta[QUANTIZATION]  # type: ignore[assignment, index]
    return str(made_by["config"]["method"]) != "weights"


def as_tuple(outputs: torch.Tensor | Tensors | list[torch.Tensor]) -> Tensors:
    """Outputs of any module as a tuple of tensors."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def unsupported(precision: str, target: Target, devices: tuple[str, ...] = ("cpu", "cuda")) -> str | None:
    """What rules a case out before any backend is asked: an unknown precision, or a device that is not there."""
    if precision not in PRECISIONS:
        return f"unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}"
    if target.device not in devices:
        return f"runs on {' and '.join(devices)} only, not on {target.device}"
    if target.device == "cuda" and not torch.cuda.is_available():
        return f"no CUDA device for torch {torch.__version__}: pip install '.[gpu]' on a machine with an NVIDIA card"
    return None


def absent(packages: tuple[str, ...], extra: str) -> str | None:
    """The first of some packages that cannot be imported, as a reason that says what to install."""
    for package in packages:
        try:
            importlib.import_module(package)
        except Exception as error:  # a broken native library raises whatever it likes
            return f"{package} cannot be imported ({first_line(error)}): pip install '.[{extra}]'"
    return None


def first_line(error: BaseException) -> str:
    """The first line of the error that began it all, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
