"""The six functions that the study watches, from 13 us to 30 ms: what a gate errs on depends on the size of a function.

ResNet-18 in eager at two sizes and in ONNX Runtime, an MLP in both, and a keyword-spotting CRNN in eager; all with
random weights, one thread, batch 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bench_tests.harness.case import Case
from models.workload import Tensors, Workload

_HERE = "bench_tests.gate.functions"
SPECS = {"study_mlp": f"{_HERE}:MLP", "study_crnn": f"{_HERE}:CRNN"}


class Crnn(nn.Module):
    """A convolution, a GRU, attention over time and two classes; log-mel (B, 1, 40, 101) to logits (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, (5, 20), stride=(2, 8))  # (B, 8, 18, 11)
        self.gru = nn.GRU(144, 64, num_layers=2, batch_first=True)
        self.energy = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.classes = nn.Linear(64, 2)

    def forward(self, mel: Tensor) -> Tensor:
        """Logits of a clip."""
        steps = self.convolution(mel).flatten(1, 2).transpose(1, 2)  # (B, 11, 144)
        states, _ = self.gru(steps)
        weights = torch.softmax(self.energy(states), 1)  # (B, 11, 1)
        logits: Tensor = self.classes((weights * states).sum(1))
        return logits


def _mlp() -> nn.Module:
    layers = [layer for _ in range(4) for layer in (nn.Linear(128, 128), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def _workload(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Workload:
    def built(_size: int, _weights: Path | None) -> nn.Module:
        torch.manual_seed(0)
        return build()

    def example(_size: int, batch: int, seed: int) -> Tensors:
        return (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed)),)

    return Workload(
        name=name, task="Be timed.", scenario="One call at a time.", platform="Any CPU.", build=built, example=example,
        sizes=(1,), batches=(1,),
    )  # fmt: skip


MLP = _workload("study_mlp", _mlp, (128,))
CRNN = _workload("study_crnn", Crnn, (1, 40, 101))

CASES = (
    Case("resnet18", "digits", "eager", "fp32", 64, 1, 1),
    Case("resnet18", "digits", "eager", "fp32", 224, 1, 1),
    Case("resnet18", "digits", "onnxruntime", "fp32", 224, 1, 1),
    Case("study_crnn", "none", "eager", "fp32", 1, 1, 1),
    Case("study_mlp", "none", "eager", "fp32", 1, 1, 1),
    Case("study_mlp", "none", "onnxruntime", "fp32", 1, 1, 1),
)
