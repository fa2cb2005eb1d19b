"""Candidate and reference timed in pairs: interleaved blocks, in random order, both sides warmed alike.

pytest-benchmark drives and stores the blocks: one of its rounds is one pair, and its timer for such a test is
`case_clock`, which advances by the candidate's time of one call in that pair. That is how several calls a block, the
reference between them, a synchronizing GPU and a device that counts cycles all fit into a plain history.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from models.workload import Tensors

SMALL_S = 100e-6  # below it, placement in memory decides by several per cent: several instances are built
INSTANCES = 6  # as many as a 95 % interval over instances needs
# Short, since a machine changes its speed within a tenth of a second and only what is close in time is alike: A/A
# speed-ups of ResNet-18 (25 ms a call, 4 s, 2 threads) spread by 2.2 % with blocks of 120 ms, by 0.3 % with single
# calls.
_BLOCK_S = 0.01
_WARM_S = 2e-3  # caches and threads are warm after that
_WARM_CALL_BELOW_S = 0.01  # of a longer call, the first hundred microseconds are less than a hundredth
_MIN_BLOCKS = 8  # fewer than six pairs have no 95 % interval
_MAX_BLOCKS = 400

_elapsed_s = 0.0


def case_clock() -> float:
    """Seconds of candidate's calls so far, one call a block: the timer that pytest-benchmark reads."""
    return _elapsed_s


def advance(seconds: float) -> None:
    """Let the case's clock go on by the time of one call."""
    global _elapsed_s
    _elapsed_s += seconds


def block_calls(call_s: float) -> tuple[int, int]:
    """How many timed calls a block has, and how many untimed ones before them, for a call of so many seconds."""
    return max(1, round(_BLOCK_S / call_s)), max(1, round(_WARM_S / call_s)) if call_s < _WARM_CALL_BELOW_S else 0


@dataclass
class Side:
    """One side of the comparison: equal instances of a function, and the inputs that take turns."""

    instances: Sequence[Callable[..., Tensors]]
    inputs: Sequence[Tensors]
    device: str = "cpu"
    call_s: float = 0.0  # of one warm call, estimated
    calls: int = 1  # timed calls a block
    warm_calls: int = 1  # untimed calls before them
    times_s: list[float] = field(default_factory=list)  # of one call, one a block
    last: tuple[int, Tensors] | None = None  # index of the input, and its outputs, of the last timed call
    timed_s: float = 0.0

    def prepare(self) -> None:
        """Estimate the time of a call, and choose how many a block has and how many warm it up."""
        times_s: list[float] = []
        while sum(times_s) < 5e-3 or (len(times_s) < 3 and sum(times_s) < 0.1):
            times_s.append(self._time(self.instances[0], 1))
        self.call_s = min(times_s)
        self.calls, self.warm_calls = block_calls(self.call_s)

    def block(self, index: int) -> float:
        """Run one block on one instance; return and keep the seconds of one call."""
        instance = self.instances[index % len(self.instances)]
        if self.warm_calls:
            self._time(instance, self.warm_calls)
        seconds = self._time(instance, self.calls)
        self.timed_s += seconds
        self.times_s.append(seconds / self.calls)
        return self.times_s[-1]

    def _time(self, function: Callable[..., Tensors], calls: int) -> float:
        inputs, count = self.inputs, len(self.inputs)
        self._synchronize()
        started = time.perf_counter()
        for call in range(calls):
            outputs = function(*inputs[call % count])
        self._synchronize()
        elapsed = time.perf_counter() - started
        self.last = (calls - 1) % count, outputs
        return elapsed

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class Pairing:
    """Blocks of a candidate and its reference, taken in pairs; pytest-benchmark calls `pair` once a round."""

    def __init__(self, candidate: Side, reference: Side, *, budget_s: float, seed: int) -> None:
        self.candidate, self.reference = candidate, reference
        self._random = random.Random(seed)
        self.instances = len(candidate.instances)
        for side in (candidate, reference):
            side.prepare()
        cost_s = sum(side.call_s * side.calls for side in (candidate, reference))
        fewest = max(_MIN_BLOCKS, 6 * self.instances)
        self.blocks = min(_MAX_BLOCKS, max(fewest, round(budget_s / cost_s)))

    def pair(self) -> None:
        """Run one block of each side, in random order."""
        index = len(self.candidate.times_s)
        sides = [self.candidate, self.reference]
        self._random.shuffle(sides)
        for side in sides:
            side.block(index)
        advance(self.candidate.times_s[-1])

    def run(self) -> None:
        """Run all blocks without pytest-benchmark."""
        enabled = gc.isenabled()
        gc.disable()
        try:
            for _ in range(self.blocks):
                self.pair()
        finally:
            if enabled:
                gc.enable()

    def instance_of_block(self) -> list[int]:
        """Which instance each block ran on."""
        return [index % self.instances for index in range(len(self.candidate.times_s))]
