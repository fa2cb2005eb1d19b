"""Where a model's time goes, layer by layer, without the cost of measuring it.

1. One call finds the layers, another one on the CPU counts what each does (`harness.layers`).
2. Calls with a clock around the forward of each layer alternate, in short blocks, with calls of the module untouched.
3. What the clock costs is measured on a layer that does nothing, and taken out of the layers and of the rest.
4. Each figure is the median over all calls. If they add up to the time of the untouched module, the measuring has
   moved nothing, and the machine has been idle: load from elsewhere makes a sum of medians less than the whole's.

On the CPU the clock is `time.perf_counter`. On a GPU it is an event in the stream: a layer's time is its place in the
GPU's own timeline, and nothing waits for the clock that would not have waited without it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bench_tests.harness.layers import OUTSIDE, Forward, Tally, count, family, find_layers, kind, parameters, wrapped
from models.errors import SpeedproofError
from models.workload import Tensors
from optim.backends.base import Target, first_line
from optim.backends.eager import forbid_tf32, prepared, use_threads

_BUDGET_S = 6.0  # of timed calls, with the clock and without
_BLOCK_S = 0.02
_FEWEST_BLOCKS = 5
_MOST_CALLS = 2000  # of either side

Span = tuple[int, Any, Any]  # which layer, and the clock's marks before and after


@dataclass(frozen=True)
class Layer:
    """One layer in one call of the model, or what lies outside of all. Several calls of it are summed."""

    name: str  # "" for the whole module, where it is one layer
    kind: str  # Conv2d 3x3 64->64 /2; outside of layers the operators
    family: str  # 3x3 convolutions
    calls: int
    operators: int
    time_s: float
    flop: int
    bytes_moved: int
    parameters: int


@dataclass(frozen=True)
class Profile:
    """The layers in the order of their first call, what lies outside of them, and the time of the module untouched."""

    layers: tuple[Layer, ...]
    outside: Layer
    untouched_s: float
    calls: int  # that each median is of

    @property
    def parts(self) -> tuple[Layer, ...]:
        """Everything that takes time."""
        return (*self.layers, self.outside)

    @property
    def total_s(self) -> float:
        """Sum over the layers and the rest."""
        return sum(part.time_s for part in self.parts)


def profile(module: nn.Module, inputs: Tensors, target: Target) -> Profile:
    """Measure a copy of a module as the eager backend runs it in fp32: eval and inference mode, channels_last weights.

    ``inputs`` are of one call, on the CPU. Raises SpeedproofError where the module cannot run on them.
    """
    forbid_tf32()
    use_threads(target)
    try:
        own, on_device = prepared(module, "fp32", target), tuple(tensor.to(target.device) for tensor in inputs)
        layers = find_layers(own, on_device)
        counted = count(prepared(module, "fp32", Target("cpu", target.threads)), inputs, tuple(layers))
        times_s, untouched_s, calls = _time(own, on_device, layers, target.device)
    except Exception as error:  # whatever a module raises, out of memory among it
        raise SpeedproofError(
            f"{type(module).__name__} cannot run in eager fp32 on {target.device} ({first_line(error)}): "
            f"check that it takes the workload's example, and that batch and size fit into memory"
        ) from error
    own_parameters = parameters(own, layers)

    def layer(name: str, what: str, group: str) -> Layer:
        tally = counted[name]
        return Layer(
            name, what, group, tally.calls, tally.operators.total(), times_s[name], tally.flop, tally.bytes_moved,
            own_parameters[name],
        )  # fmt: skip

    found = tuple(layer(name, kind(part), family(part)) for name, part in layers.items())
    return Profile(found, layer(OUTSIDE, _words(counted[OUTSIDE]), f"operators {OUTSIDE}"), untouched_s, calls)


def _words(tally: Tally) -> str:
    """``49 relu, 16 add``."""
    return ", ".join(f"{number} {name}" for name, number in tally.operators.most_common()) or "Python"


class Clock:
    """Marks in time; the seconds between two of them are known once the device has come to rest."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self.mark: Callable[[], Any] = _event if self._on_gpu else time.perf_counter

    def settle(self) -> None:
        """Wait until all that was asked for is done."""
        if self._on_gpu:
            torch.cuda.synchronize()

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks."""
        return float(start.elapsed_time(end)) / 1e3 if self._on_gpu else end - start

    def cost_s(self) -> tuple[float, float]:
        """Seconds that the clock adds to a call of a layer: within the layer's span, and around it."""
        part, tensor, calls = nn.Identity(), torch.zeros(1), 200
        spans: list[Span] = []

        def best_s(function: Callable[[], object]) -> float:
            times_s = []
            for _ in range(30):
                start = time.perf_counter()
                for _ in range(calls):
                    function()
                times_s.append((time.perf_counter() - start) / calls)
            return min(times_s)

        forward_s = best_s(lambda: part.forward(tensor)) - best_s(lambda: None)
        untouched_s = best_s(functools.partial(part, tensor))
        with _timed({"": part}, self, spans):
            clocked_s = best_s(functools.partial(part, tensor))
        self.settle()
        inner_s = max(0.0, statistics.median(self.seconds(start, end) for _, start, end in spans) - forward_s)
        return inner_s, max(0.0, clocked_s - untouched_s - inner_s)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _timed(layers: Mapping[str, nn.Module], clock: Clock, spans: list[Span]) -> contextlib.AbstractContextManager[None]:
    """Note a span for each call of each of the layers."""
    index, mark = {name: number for number, name in enumerate(layers)}, clock.mark

    def wrap(name: str, forward: Forward) -> Forward:
        number = index[name]

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = mark()
            outputs = forward(*args, **kwargs)
            spans.append((number, start, mark()))
            return outputs

        return timed

    return wrapped(layers, wrap)


def _time(
    module: nn.Module, inputs: Tensors, layers: Mapping[str, nn.Module], device: str
) -> tuple[dict[str, float], float, int]:
    """Median seconds of each layer and of the rest; of the module untouched; and how many calls they are of."""
    clock = Clock(device)
    inner_s, outer_s = clock.cost_s()
    spans: list[Span] = []
    untouched_s: list[float] = []
    rows: list[np.ndarray] = []  # seconds of each layer and of the rest, a row a call

    def call() -> float:
        clock.settle()
        start = clock.mark()
        module(*inputs)
        end = clock.mark()
        clock.settle()
        return clock.seconds(start, end)

    def call_with_clock() -> np.ndarray:
        spans.clear()
        whole_s = call()
        row = np.zeros(len(layers) + 1)
        for number, start, end in spans:
            row[number] += clock.seconds(start, end) - inner_s
        row[-1] = whole_s - row[:-1].sum() - len(spans) * (inner_s + outer_s)
        return row

    with torch.inference_mode(), _no_garbage():
        for _ in range(2):  # allocate, and select kernels
            call_s = call()
        block = max(1, min(_MOST_CALLS, round(_BLOCK_S / call_s)))
        deadline = time.perf_counter() + _BUDGET_S
        while len(rows) < _MOST_CALLS and (time.perf_counter() < deadline or len(rows) < _FEWEST_BLOCKS * block):
            untouched_s += [call() for _ in range(block)]
            with _timed(layers, clock, spans):
                rows += [call_with_clock() for _ in range(block)]
    medians_s = np.maximum(np.median(rows, axis=0), 0).tolist()
    return dict(zip((*layers, OUTSIDE), medians_s, strict=True)), statistics.median(untouched_s), len(rows)


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
