"""How often the gate errs, and what other gates would have said of the same blocks: pure functions of recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from bench_tests.gate import speed
from bench_tests.gate.compare import Times
from bench_tests.harness.statistics import wilson_interval

# Those of pytest-benchmark.
STATISTICS: dict[str, Callable[[Sequence[float]], Any]] = {"min": np.min, "mean": np.mean, "median": np.median}
PLAIN_LIMIT = 0.05  # its usual threshold
_U_LEVEL = 0.05  # of google/benchmark's compare.py

Samples = Mapping[str, Sequence[float]]  # by case, what each pair of processes says


@dataclass(frozen=True)
class Run:
    """A recorded run of a gate whose two sides are alike.

    By case, the blocks of each pair of processes; one that others disturbed is not among them.
    """

    blocks: dict[str, list[Times]]
    visits_s: dict[str, list[float]]  # of each pair, building included
    starts_s: list[float]  # of each pair of workers
    lost_s: float  # what was not counted had taken

    def samples(self) -> Samples:
        """What each pair of processes says."""
        return {
            case: [speed.sample(times["base"], times["head"]) for times in pairs] for case, pairs in self.blocks.items()
        }

    def early_s(self) -> float:
        """Seconds that the gate would have taken, with its early stops."""
        taken = replayed(self.samples())[1]
        visits = sum(sum(self.visits_s[case][:pairs]) for case, pairs in taken.items())
        return visits + sum(self.starts_s[: max(taken.values())]) + self.lost_s


@dataclass(frozen=True)
class Rate:
    """How often something happened."""

    happened: int
    of: int

    def share(self) -> str:
        """``1.5 %``."""
        return f"{100 * self.happened / self.of:.1f} %" if self.of else "-"

    def words(self) -> str:
        """``0 of 40 [0.0, 8.8] %``, with Wilson's interval."""
        if not self.of:
            return "-"
        low, high = wilson_interval(self.happened, self.of)
        return f"{self.happened} of {self.of} [{100 * low:.1f}, {100 * high:.1f}] %"


def rate(found: Sequence[bool]) -> Rate:
    """How many of them are true."""
    return Rate(sum(found), len(found))


def replayed(samples: Samples) -> tuple[dict[str, str], dict[str, int]]:
    """The words the gate would have given, with its early stops, and after how many pairs of processes."""
    words: dict[str, str] = {}
    taken = {case: len(found) for case, found in samples.items()}
    for pairs in range(1, max(taken.values(), default=0) + 1):
        seen = {case: found[: min(taken[case], pairs)] for case, found in samples.items()}
        last = {case for case, found in samples.items() if pairs >= len(found)}
        new = speed.decided(seen, words, {}, last=last)
        words |= new
        taken |= dict.fromkeys(new, pairs)
    return {case: words.get(case, "unstable") for case in samples}, taken


def slowed(samples: Samples, case: str, slowdown: float) -> Samples:
    """The samples, as if one case's head took longer by a share."""
    added = float(np.log1p(slowdown))
    return {name: [value + added * (name == case) for value in found] for name, found in samples.items()}


def drawn(runs: Sequence[Samples], count: int, seed: int) -> list[Samples]:
    """Runs made of recorded pairs of processes, drawn with replacement, as many as the longest run has."""
    dice = np.random.default_rng(seed)
    all_of = {case: [value for run in runs for value in run[case]] for case in runs[0]}
    longest = {case: max(len(run[case]) for run in runs) for case in runs[0]}
    if not all(all_of.values()):
        return []
    return [{case: dice.choice(found, longest[case]).tolist() for case, found in all_of.items()} for _ in range(count)]


def plain_alarms(runs: Sequence[Run], statistic: str, case: str | None = None, slowdown: float = 0.0) -> Rate:
    """What pytest-benchmark's gate says of one process after another: alarms for any case, or for one made slower."""
    value = STATISTICS[statistic]
    processes = [
        {case: float(value(pairs[index]["base"])) for case, pairs in run.blocks.items()}
        for run in runs
        for index in range(min(map(len, run.blocks.values())))
    ]
    return rate(
        [
            any(
                after[name] * (1 + slowdown) > before[name] * (1 + PLAIN_LIMIT) for name in ([case] if case else before)
            )
            for before, after in pairwise(processes)
        ]
    )


def u_test_alarms(runs: Sequence[Run], case: str | None = None, slowdown: float = 0.0) -> Rate:
    """What google/benchmark's U test says of each run's medians, one a process: as `plain_alarms`."""

    def alarm(pairs: Sequence[Times]) -> bool:
        base, head = ([float(np.median(times[side])) for times in pairs] for side in ("base", "head"))
        if not base:
            return False
        head = [seconds * (1 + slowdown) for seconds in head]
        return bool(np.median(head) > np.median(base) and stats.mannwhitneyu(base, head).pvalue < _U_LEVEL)

    return rate([any(alarm(run.blocks[name]) for name in ([case] if case else run.blocks)) for run in runs])
