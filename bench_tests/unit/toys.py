"""Small workloads and a backend that counts cycles, for the tests of the harness."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.images import image_split, image_workload
from models.errors import SpeedproofError
from models.resnet import resnet18
from models.workload import DataChoice, Predict, Quality, Tensors, Workload
from optim.backends import load_backend
from optim.backends.base import Backend, Coverage, CycleRunner, Runner, Target
from optim.backends.cache import artefact

DIGITS = DataChoice("digits")


@lru_cache
def _trained_resnet18() -> nn.Module:
    """ResNet-18 after 60 steps on digits at 32 px: weights, statistics and rounding errors of a trained net."""
    split = image_split(DIGITS, "train", 32)
    images, labels = torch.stack([split[index][0] for index in range(len(split))]), torch.tensor(split.labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = resnet18(10).to(memory_format=torch.channels_last)
        nn.init.normal_(model.fc.bias, std=0.5)  # so that losing it matters, as in a net of unbalanced classes
        optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, nesterov=True)
        for step in range(60):
            optimizer.param_groups[0]["lr"] = 0.05 * min(1, step / 10) * (1 - step / 60)
            rows = torch.randint(len(images), (64,))
            loss = F.cross_entropy(model(images[rows].contiguous(memory_format=torch.channels_last)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval().to(memory_format=torch.contiguous_format)


TRAINED = image_workload("trained", lambda classes, weights: _trained_resnet18(), DIGITS, smallest_size=32)


class SmallNet(nn.Module):
    """Two convolutions with batch norm: enough for every backend, compiled in a second."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
            self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
            self.fc = nn.Linear(32, 10)
            for module in (self.bn1, self.bn2):
                nn.init.uniform_(module.running_var, 0.3, 2.0)
                nn.init.normal_(module.running_mean, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def small(seed: int) -> Workload:
    """A small image workload, another network for each seed."""
    return image_workload(f"small{seed}", lambda classes, weights: SmallNet(seed).eval(), DIGITS, smallest_size=16)


SMALL = small(0)


class Memory(nn.Module):
    """(chunk (B, S), state (B, 8)) to (probability (B, 1), state (B, 8)): a streaming model."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.cell, self.head = nn.GRUCell(16, 8), nn.Linear(8, 1)

    def forward(self, chunk: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        for part in chunk.split(16, dim=1):
            state = self.cell(part, state)
        return torch.sigmoid(self.head(state)), state


def _noise(*shapes: tuple[int, ...], seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _toy(
    name: str, build: Callable[[], nn.Module], example: Callable[[int, int, int], Tensors], **more: object
) -> Workload:
    return Workload(
        name=name, task="A toy.", scenario="Tests.", platform="Any.", build=lambda size, weights: build().eval(),
        example=example, sizes=(32,), batches=(1,), **more,
    )  # fmt: skip


STREAMING = _toy("streaming", Memory, lambda size, batch, seed: _noise((batch, size), (batch, 8), seed=seed))


class TwoInputs(nn.Module):
    """(B, S) and (B, S) to their bilinear product (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.left, self.right = nn.Linear(32, 4), nn.Linear(32, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.left(left) * self.right(right)


TWO_INPUTS = _toy("two_inputs", TwoInputs, lambda size, batch, seed: _noise((batch, size), (batch, size), seed=seed))


class Mlp(nn.Module):
    """A network of a few microseconds, judged on labels of its own data."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _mlp_quality(predict: Predict, split: str, size: int, batch: int, limit: int | None) -> tuple[Quality, ...]:
    answers = np.concatenate([predict(_noise((batch, size), seed=seed))[0].argmax(1).numpy() for seed in range(8)])
    outcomes = (answers == answers[0]).astype(float)
    return (Quality("top1", float(outcomes.mean()), len(outcomes), True, outcomes, answers),)


MLP = _toy(
    "mlp", Mlp, lambda size, batch, seed: _noise((batch, size), seed=seed), quality=_mlp_quality, data_name="synthetic"
)


class _Counted(CycleRunner):
    frequency_hz = 16e6

    def __init__(self, module: nn.Module, cycles_per_call: int, off_by: float) -> None:
        super().__init__(size_bytes=100, build_s=0.0, device="cpu")
        self._module, self._cycles_per_call, self._off_by = module, cycles_per_call, off_by

    def __call__(self, *inputs: Tensor) -> Tensors:
        self.cycles = self._cycles_per_call
        with torch.inference_mode():
            return (self._module(*inputs) + self._off_by,)

    def coverage(self, inputs: Tensors) -> Coverage:
        return Coverage({"device/int8": 3})


class Counting(Backend):
    """A device whose clock is exact; ``off_by`` plants an error of one bit."""

    name = "counting"
    reference = "bench_tests.unit.toys:PLAIN"

    def __init__(self, cycles: int, off_by: float = 0.0) -> None:
        self._cycles, self._off_by = cycles, off_by

    def missing(self, precision: str, target: Target) -> str | None:
        return None

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        return _Counted(module, self._cycles, self._off_by)


PLAIN = Counting(64_000)
FAST = Counting(16_000)
OFF_BY_ONE_BIT = Counting(16_000, off_by=1e-6)


class _Trouble(Backend):
    """A backend that does not come back as expected."""

    name = "trouble"

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def missing(self, precision: str, target: Target) -> str | None:
        return None

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        self._act()
        raise AssertionError("it should not have come back")


def _crash() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSEGV)


def _eat() -> None:
    torch.empty(1 << 50)  # more than any machine has


CRASHING = _Trouble(_crash)
HANGING = _Trouble(lambda: time.sleep(3600))
EATING = _Trouble(_eat)


def _eat_wrapped() -> None:
    try:
        _eat()
    except RuntimeError as error:
        raise SpeedproofError("trouble cannot run Toy (something went wrong): take another") from error


def _refuse() -> None:
    raise SpeedproofError("trouble cannot run Toy: take another backend")


def _break() -> None:
    raise KeyError("nobody has\nforeseen this")


WRAPPED = _Trouble(_eat_wrapped)
REFUSING = _Trouble(_refuse)
BREAKING = _Trouble(_break)


class _Greedy(Backend):
    """Eager PyTorch that holds 300 MB more."""

    name = "greedy"

    def missing(self, precision: str, target: Target) -> str | None:
        return None

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        runner = load_backend("eager").compile(module, example, precision, target)
        runner.ballast = torch.ones(300 * 2**20 // 4)  # type: ignore[attr-defined]
        return runner


GREEDY = _Greedy()


def _hoard() -> None:
    kept = []
    while True:
        kept.append(torch.ones(10 * 2**20 // 4))
        time.sleep(0.02)


class _Caching(Backend):
    """Eager PyTorch with an artefact in the cache."""

    name = "caching"

    def missing(self, precision: str, target: Target) -> str | None:
        return None

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        runner = load_backend("eager").compile(module, example, precision, target)
        _, runner.from_cache = artefact("toy", {}, lambda folder: None)
        return runner


HOARDING = _Trouble(_hoard)
CACHING = _Caching()
