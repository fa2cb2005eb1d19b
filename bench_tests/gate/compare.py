"""Base against head, case by case: checked, then timed generation by generation until each is decided.

A worker that crashes, hangs or is killed fails only its case: the others go on with a new one. The budget of a case is
seconds of measuring, both sides and warm-up together: it is divided among pairs of processes, of which a case that is
the same needs but a few. What was measured while other processes took the cores is not counted.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from bench_tests.gate import quiet, speed
from bench_tests.gate.exact import judge_exact
from bench_tests.gate.process import Process, WorkerError
from bench_tests.gate.quantities import judge_quality, tolerances, worse_max
from bench_tests.gate.trees import Tree
from bench_tests.gate.verdict import Verdict
from bench_tests.harness.case import Case, Settings
from bench_tests.harness.expectations import expectation
from bench_tests.harness.timing import SMALL_S, block_calls

# Pairs of processes at most, among which the budget of a case is divided. Between two processes the times of a function
# below 100 us differ by 2 to 3 % and those of a larger one by 0.2 to 1 %, whatever is done within them (four instances
# built in one process agree within 1 to 2 %): small ones need many processes, each for a short time. Beside a busy
# neighbour the larger ones differ by up to 2 %: 6 pairs then found a slowdown of 5 % in 87 to 100 %, 10 in all. A case
# that is the same needs 3 or 4 of them.
GENERATIONS, SMALL_GENERATIONS = 10, 20
_FEWEST_BLOCKS, _LEAST_BLOCKS = 8, 2  # of a pair of processes, and where a call is so long that the budget is short
_MOST_BLOCKS = 60  # more repeat the bias of the pair

Answer = TypeVar("Answer")
Times = dict[str, list[float]]  # seconds of a call, one a block, of ``base`` and ``head``


@dataclass
class Progress:
    """What is known of a case so far."""

    case: Case
    generations: list[Times] = field(default_factory=list)  # the blocks of each pair of processes
    attempts: int = 0  # generations, those included that others disturbed
    most: int = GENERATIONS  # of them
    planned: bool = False
    visits_s: list[float] = field(default_factory=list)  # of each generation, building included
    others: list[Verdict] = field(default_factory=list)  # of all but time
    unmeasured: Verdict | None = None  # why there is no time

    @property
    def samples(self) -> list[float]:
        """What each pair of processes says."""
        return [speed.sample(times["base"], times["head"]) for times in self.generations]

    def call_s(self, side: str) -> float:
        """Seconds of a call: the median over pairs of processes of the medians over blocks."""
        return float(np.median([np.median(times[side]) for times in self.generations]))

    def plan(self, call_s: float, budget_s: float) -> None:
        """Divide the budget among pairs of processes, or end the case where it is too small for an answer."""
        self.planned = True
        least_s = _LEAST_BLOCKS * _pair_of_blocks_s(call_s)
        self.most = min(SMALL_GENERATIONS if call_s < SMALL_S else GENERATIONS, int(budget_s / least_s))
        if self.most < speed.FEWEST:
            note = f"a budget of {budget_s:g} s is too small for calls of {call_s:.2g} s"
            self.end("unstable", f"{note}: give at least {math.ceil(speed.FEWEST * least_s)} s")

    def end(self, word: str, note: str) -> None:
        """Leave the case out from now on."""
        self.unmeasured = Verdict(self.case.id, "time", word, note=note)


class Comparison:
    """The cases of one gate; `run` gives the verdicts of all of them.

    ``sides`` are two trees, base and head. ``say`` is told how far it is.
    """

    def __init__(
        self, sides: tuple[Tree, Tree], settings: Settings, cases: Sequence[Case], *, budget_s: float, seed: int,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._trees = dict(zip(("base", "head"), sides, strict=True))
        self._settings, self._budget_s, self._say = settings, budget_s, say
        self._random = random.Random(seed)
        self.progress = {case.id: Progress(case) for case in cases}
        self.starts_s: list[float] = []  # of each pair of workers
        self.lost_s = 0.0  # what was not counted had taken
        self._busiest = 0.0  # share of the needed cores that others took, at most
        pinned = settings.threads == 1 and settings.device == "cpu"
        self._cpu = quiet.quietest_cpu() if pinned else None

    def run(self) -> list[Verdict]:
        """Measure until all cases are decided or their budgets spent."""
        words: dict[str, str] = {}
        margins = {
            name: row.slower_max / 100 for name in self.progress if (row := expectation(name)).slower_max is not None
        }
        while left := [progress for name, progress in self._left().items() if name not in words]:
            self._generation(left)
            samples = {name: progress.samples for name, progress in self.progress.items()}
            words |= speed.decided(samples, words, margins, last=self.progress.keys() - self._left().keys())
            done = sum(name in words or found.unmeasured is not None for name, found in self.progress.items())
            pairs = max(progress.attempts for progress in self.progress.values())
            self._say(f"{done} of {len(self.progress)} cases decided after {pairs} pairs of processes")
        return [verdict for name in self.progress for verdict in self._verdicts(name, words.get(name))]

    def record(self) -> None:
        """Measure all cases through all generations, whatever they show."""
        while left := list(self._left().values()):
            self._generation(left)

    def _left(self) -> dict[str, Progress]:
        """The cases that can still be measured."""
        return {
            name: progress
            for name, progress in self.progress.items()
            if progress.unmeasured is None and progress.attempts < progress.most
        }

    def _generation(self, left: Sequence[Progress]) -> None:
        """Measure the cases that are left on one more pair of workers; one that died is replaced for those after it."""
        waiting = list(left)
        while waiting:
            with ExitStack() as stack:
                started = time.perf_counter()
                pair = {
                    name: stack.enter_context(Process(tree, self._settings, self._cpu))
                    for name, tree in self._trees.items()
                }
                try:
                    for side in pair:
                        _asked(side, pair, lambda worker: worker.start())
                except _SideError as error:
                    for progress in waiting:
                        progress.end("unstable", f"{error.side}: its worker does not start: {error}")
                    return
                self.starts_s.append(time.perf_counter() - started)
                while waiting and all(worker.alive for worker in pair.values()):
                    self._visit(waiting.pop(0), pair)

    def _watch(self) -> quiet.Watch:
        cpus = os.sched_getaffinity(0) if self._cpu is None else {self._cpu}
        return quiet.Watch(cpus, min(self._settings.threads, len(cpus)))

    def _verdicts(self, name: str, word: str | None) -> list[Verdict]:
        progress = self.progress[name]
        time_verdict = progress.unmeasured
        if time_verdict is None and word is None:
            note = f"the machine is too busy: other processes took up to {self._busiest:.0%} of the cores"
            time_verdict = Verdict(name, "time", "unstable", note=note)
        elif time_verdict is None:
            assert word is not None
            found = speed.effect(progress.samples)
            time_verdict = speed.verdict(name, word, found, progress.call_s("base"), progress.call_s("head"))
        assert time_verdict is not None
        return [time_verdict, *progress.others]

    def _visit(self, progress: Progress, pair: Mapping[str, Process]) -> None:
        """One case in one generation: its checks where they were not made yet, then its blocks."""
        progress.attempts += 1
        started = time.perf_counter()
        if not progress.planned and not self._check(progress, pair):
            return
        try:
            call_s = self._build(progress.case, pair)
            if not progress.planned:
                progress.plan(call_s, self._budget_s)
            if progress.unmeasured is not None:
                return
            watch = self._watch()
            times = self._blocks(pair, call_s, self._budget_s / progress.most)
            share = watch.foreign_share()
        except _SideError as error:
            progress.end("missing" if error.side == "head" else "unstable", f"{error.side}: {error}")
            return
        self._busiest = max(self._busiest, share)
        seconds = time.perf_counter() - started
        if share > quiet.BUSY:
            self._say(f"not counted: {progress.case.id}: other processes took {share:.0%} of the cores meanwhile")
            self.lost_s += seconds
        else:
            progress.generations.append(times)
            progress.visits_s.append(seconds)

    def _check(self, progress: Progress, pair: Mapping[str, Process]) -> bool:
        """Both sides must be right before they are timed; also judges quality and what is exact."""
        found: dict[str, Any] = {}
        for side, worker in pair.items():
            try:
                found[side] = worker.check(progress.case)
            except WorkerError as error:
                found[side] = str(error)
        base, head = found["base"], found["head"]
        if isinstance(head, str) and isinstance(base, str):
            progress.end("unstable", f"neither side can be measured: {head}")
        elif isinstance(head, str):
            progress.end("missing", f"head: {head}")
        elif isinstance(base, str):  # a base that died or hung has the case, and says nothing of it
            progress.end("new" if pair["base"].alive else "unstable", f"base: {base}")
        else:
            progress.others = _judge_others(progress.case.id, base, head)
        return progress.unmeasured is None

    def _build(self, case: Case, pair: Mapping[str, Process]) -> float:
        sides = list(pair)
        self._random.shuffle(sides)
        return max(_asked(side, pair, lambda worker: worker.build(case)) for side in sides)

    def _blocks(self, pair: Mapping[str, Process], call_s: float, budget_s: float) -> Times:
        calls, warm = block_calls(call_s)
        longest_s = 60.0 + 100 * call_s * (calls + warm)
        fewest = max(_LEAST_BLOCKS, min(_FEWEST_BLOCKS, int(budget_s / _pair_of_blocks_s(call_s))))
        times: Times = {side: [] for side in pair}
        deadline = time.perf_counter() + budget_s
        while len(times["base"]) < fewest or (len(times["base"]) < _MOST_BLOCKS and time.perf_counter() < deadline):
            sides = list(pair)
            self._random.shuffle(sides)
            for side in sides:
                times[side].append(_asked(side, pair, lambda worker: worker.block(calls, warm, longest_s)))
        return times


def _pair_of_blocks_s(call_s: float) -> float:
    """Seconds of a block of both sides, warm-up included."""
    calls, warm = block_calls(call_s)
    return 2 * call_s * (calls + warm)


def _judge_others(case: str, base: Mapping[str, Any], head: Mapping[str, Any]) -> list[Verdict]:
    """Quality by the outcomes on the same examples, and what must be equal."""
    row = expectation(case)
    before, after = (np.asarray(side["outcomes"]) if "outcomes" in side else None for side in (base, head))
    verdicts = judge_exact(case, base["record"], head["record"], tolerances(row))
    return verdicts + judge_quality(case, base["record"], head["record"], (before, after), worse_max(row))


class _SideError(Exception):
    """A worker's error, with its side."""

    def __init__(self, side: str, error: WorkerError) -> None:
        super().__init__(str(error))
        self.side = side


def _asked(side: str, pair: Mapping[str, Process], ask: Callable[[Process], Answer]) -> Answer:
    try:
        return ask(pair[side])
    except WorkerError as error:
        raise _SideError(side, error) from error
