"""A case: one cell of the matrix workload x recipe x backend x precision x size x batch x threads, and how one ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench_tests.harness.record import ORIGINAL
from models.errors import SpeedproofError
from models.workload import DataChoice


@dataclass(frozen=True)
class Case:
    """Strings and numbers only: it is a test's parameter, is sent to the child process and names the history."""

    workload: str
    data: str
    backend: str
    precision: str
    size: int
    batch: int
    threads: int
    recipe: str = ORIGINAL
    unit: str = "px"  # of the size

    @property
    def id(self) -> str:
        """Readable and stable: histories are matched by it."""
        backend = self.backend.replace(":", ".")
        return (
            f"{self.workload}-{self.data}-{self.recipe}-{backend}-{self.precision}"
            f"-{self.size}{self.unit}-b{self.batch}-t{self.threads}"
        )


@dataclass(frozen=True)
class Settings:
    """What holds for all cases of a run."""

    device: str = "cpu"
    threads: int = 1
    data: DataChoice = field(default_factory=DataChoice)
    weights: Path | None = None  # instead of the workload's own choice
    specs: Mapping[str, str] = field(default_factory=dict)  # a workload's name to how it is loaded, where they differ
    recipes: Mapping[str, str] = field(default_factory=dict)  # a recipe's name to how it is loaded, where they differ
    examples: int | None = 128  # quality is judged on so many; None for all
    budget_s: float = 4.0  # of timed calls of a case, both sides together
    timeout_s: float = 900.0  # after which a case's child process counts as hung
    seed: int = 0


class NotMeasuredError(Exception):
    """A case that ends without a number: ``status`` is failed, skipped or out of memory, the message is the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


# What runtimes say whose exception has no type of its own: torch's CPU allocator, C++, CUDA, ONNX Runtime.
_OUT_OF_MEMORY = re.compile(
    "can't allocate memory|not enough memory|bad_?alloc|out of memory|failed to allocate memory", re.IGNORECASE
)


def explained(case: Case, error: Exception) -> NotMeasuredError:
    """Whatever a case raised, as its reason. Memory that ran out is found behind the error that a backend makes."""
    if isinstance(error, NotMeasuredError):
        return error
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, MemoryError | torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(root)):
        return NotMeasuredError("out of memory", f"out of memory: {_first_line(root)}")
    if isinstance(error, SpeedproofError):
        return NotMeasuredError("failed", str(error))
    return NotMeasuredError("failed", f"{case.backend} failed: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
