"""Base against head in time: what paired blocks of several pairs of processes say.

1. A worker of each side is started, pinned to the same core where one thread is asked for, and both build the case.
2. Blocks of the two sides alternate in random order, both warmed alike. The logarithms of the ratios of neighbouring
   blocks have one Hodges-Lehmann estimate: what this pair of processes says.
3. These estimates are the samples, one a pair of processes: where a process lies in memory shifts all its times alike,
   so that neither more blocks nor more instances within it tell more (Kalibera & Jones, "Rigorous benchmarking in
   reasonable time", ISMM 2013, whose levels these are; Mytkowicz et al., "Producing wrong data without doing anything
   obviously wrong", ASPLOS 2009). Their mean has Student's interval; the standard deviation is taken to be at least
   `_LEAST_SPREAD`, since few samples agree by chance.
4. A case is slower where the mean is beyond the margin **and** Student's test, one-sided, rejects "not slower" at 1 %
   after Holm's correction over all cases (Scandinavian Journal of Statistics 6, 1979): one false alarm anywhere stops a
   pull request, so it is the family that must be held, not a rate among many. It is the same where the one-sided 95 %
   bounds of its change are within the margin. All else is unstable.
5. After each pair of processes, from the third on, the cases that are the same are left out. Slower and faster are said
   by the last look alone, after all of a case's pairs: many looks, each at 1 %, would make many false alarms.

Assumptions: pairs of processes are independent and their estimates about normal, both sides see the same machine within
a pair of blocks, and what differs between the trees is in their code, not in where the files lie.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from bench_tests.gate.verdict import Verdict
from bench_tests.harness.statistics import paired_ratio

MARGIN = 0.025  # relative: a smaller slowdown is not one
LEVEL = 0.01  # of false alarms over all cases together
_SAME_LEVEL = 0.05  # one-sided, of calling a case the same that is slower by the margin
_LEAST_SPREAD = 0.002  # of the estimates, in the logarithm
FEWEST = 3  # samples: fewer have no useful interval


@dataclass(frozen=True)
class Effect:
    """The logarithm of head's time over base's: above 0 the head is slower."""

    mean: float
    low: float  # of the two-sided 95 % interval
    high: float
    highest: float  # one-sided bounds, for "the same"
    lowest: float
    p_slower: float  # of an unchanged case showing such a slowdown
    p_faster: float
    samples: int


def sample(base_s: Sequence[float], head_s: Sequence[float]) -> float:
    """What one pair of processes says: the logarithm of head's time over base's, from paired blocks in seconds."""
    return float(-np.log(paired_ratio(base_s, head_s).estimate))


def effect(samples: Sequence[float]) -> Effect:
    """Mean of at least `FEWEST` samples, its intervals and tests."""
    values = np.asarray(samples, dtype=np.float64)
    if values.size < FEWEST:
        raise ValueError(f"samples: expected at least {FEWEST}, got {values.size}")
    mean, spread = float(values.mean()), max(float(values.std(ddof=1)), _LEAST_SPREAD)
    error = spread / values.size**0.5
    freedom = values.size - 1
    reach, one_sided = (float(special.stdtrit(freedom, share)) * error for share in (0.975, 1 - _SAME_LEVEL))
    slower = float(special.stdtr(freedom, -mean / error))  # Student's distribution
    return Effect(mean, mean - reach, mean + reach, mean + one_sided, mean - one_sided, slower, 1 - slower, values.size)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p values: with nothing changed, any is below a level with at most that chance."""
    adjusted, highest = {}, 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for index, (name, p) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - index) * p))
        adjusted[name] = highest
    return adjusted


def judge(effects: Mapping[str, Effect], margins: Mapping[str, float]) -> dict[str, str]:
    """A word for each case; ``margins`` are relative, `MARGIN` where a case has none of its own."""
    slower = holm({case: found.p_slower for case, found in effects.items()})
    faster = holm({case: found.p_faster for case, found in effects.items()})
    words = {}
    for case, found in effects.items():
        margin = float(np.log1p(margins.get(case, MARGIN)))
        if found.mean > margin and slower[case] <= LEVEL:
            words[case] = "slower"
        elif found.mean < -margin and faster[case] <= LEVEL:
            words[case] = "faster"
        elif found.highest <= margin and found.lowest >= -margin:
            words[case] = "same"
        else:
            words[case] = "unstable"
    return words


def decided(
    samples: Mapping[str, Sequence[float]],
    before: Mapping[str, str],
    margins: Mapping[str, float],
    *,
    last: Collection[str],
) -> dict[str, str]:
    """The words that a look decides beside those ``before`` it: "same", and any of those whose ``last`` look it is."""
    enough = {case: effect(values) for case, values in samples.items() if len(values) >= FEWEST}
    words = judge(enough, margins)
    return {case: word for case, word in words.items() if case not in before and (case in last or word == "same")}


def verdict(case: str, word: str, found: Effect, base_s: float, head_s: float) -> Verdict:
    """A word and an effect as a row of the table."""
    effect, low, high = (100 * float(np.expm1(value)) for value in (found.mean, found.low, found.high))
    note = (
        "the interval does not settle whether it is beyond the margin"
        if word == "unstable"
        else f"{found.samples} pairs of processes"
    )
    return Verdict(case, "time", word, _ms(base_s), _ms(head_s), effect, low, high, note)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"
