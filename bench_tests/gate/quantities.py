"""What is compared of a case beside its time, with a stored run and base with head alike, and within which limits.

Quality is judged on the outcomes of the same examples (`gate.accuracy`), and by the intervals of the two accuracies
where the outcomes are gone; memory by its change; sizes and cycles exactly, see `gate.exact`.
"""

from __future__ import annotations

from math import expm1, hypot, log, log1p

import numpy as np

from bench_tests.gate.accuracy import judge_outcomes
from bench_tests.gate.verdict import Verdict
from bench_tests.harness.expectations import Expectation
from bench_tests.harness.record import Record

# Limits of a case whose row in expectations.yaml has none, see there.
LARGER_MAX, MEMORY_MAX, CYCLES_MAX, WORSE_MAX = 0.0, 10.0, 0.0, 1.0


def limit(given: float | None, default: float) -> float:
    """What a row says, or the default where it says nothing."""
    return default if given is None else given


def tolerances(row: Expectation) -> dict[str, float]:
    """Per cent by which what is exact may change, as `judge_exact` takes them."""
    return {"size_bytes": limit(row.larger_max, LARGER_MAX), "cycles": limit(row.cycles_max, CYCLES_MAX)}


def worse_max(row: Expectation) -> float:
    """The margin of the quality in points."""
    return limit(row.worse_max, WORSE_MAX)


def difference(
    left: tuple[float, float, float], right: tuple[float, float, float], between: float = 0.0
) -> tuple[float, float, float]:
    """Left minus right, each an estimate with the bounds of its interval, and the bounds of the difference's."""
    estimate = left[0] - right[0]
    low = estimate - hypot(left[0] - left[1], right[2] - right[0], between)
    high = estimate + hypot(left[2] - left[0], right[0] - right[1], between)
    return estimate, low, high


def word_of(low: float, high: float, limit: float, worse: str, better: str) -> str:
    """The word of an interval in which above 0 is worse."""
    if low > 0 and high > limit:
        return worse
    if high < 0 and low < -limit:
        return better
    return "unstable" if high > limit else "same"


def judge_memory(case: str, base: Record, head: Record, memory_max: float) -> list[Verdict]:
    """Peak memory, of the card where there is one. It jitters: a change within ``memory_max`` per cent is none."""
    names = ("gpu_peak_memory_bytes", "cpu_peak_memory_bytes")
    name = next((name for name in names if name in base and name in head), None)
    if name is None:
        return []
    change = log(float(head[name])) - log(float(base[name]))
    limit = log1p(memory_max / 100)
    word = "worse" if change > limit else "better" if change < -limit else "same"
    before, after = (f"{float(record[name]) / 2**20:.0f} MiB" for record in (base, head))
    return [Verdict(case, "memory", word, before, after, 100 * expm1(change))]


def judge_quality(
    case: str,
    base: Record,
    head: Record,
    outcomes: tuple[np.ndarray | None, np.ndarray | None],
    worse_max: float,
) -> list[Verdict]:
    """The first quality, by its outcomes where both runs have them of the same examples; ``worse_max`` in points."""
    name = str(base.get("quality", ""))
    key = f"quality_{name}"
    if key not in base:
        return []
    before = float(base[key])
    if key not in head:
        said = str(head.get("quality", "not judged"))
        return [Verdict(case, name, "missing", base=f"{before:.2%}", note=f"now: {said}")]
    after, higher = float(head[key]), bool(head.get("quality_higher_is_better", True))
    old, new = outcomes
    if old is not None and new is not None and old.shape == new.shape and _means(old, before) and _means(new, after):
        return [judge_outcomes(case, name, old, new, margin=worse_max, higher_is_better=higher)]
    note = "other examples than then" if base["quality_examples"] != head["quality_examples"] else ""
    note = note or "the outcomes of single examples are gone"
    if f"{key}_low" in base and f"{key}_low" in head:
        old_new = _interval(base, key), _interval(head, key)
        more, less = reversed(old_new) if higher else old_new
        effect, low, high = (100 * value for value in difference(more, less))  # below 0 is worse
        word = word_of(-high, -low, worse_max, "worse", "better")
        return [Verdict(case, name, word, f"{before:.2%}", f"{after:.2%}", effect, low, high, note)]
    effect = 100 * (after - before) * (1 if higher else -1)
    word = "worse" if effect < -worse_max else "better" if effect > worse_max else "same"
    return [Verdict(case, name, word, f"{before:.4g}", f"{after:.4g}", effect, note="no interval: it is no mean")]


def _interval(record: Record, key: str) -> tuple[float, float, float]:
    return float(record[key]), float(record[f"{key}_low"]), float(record[f"{key}_high"])


def _means(outcomes: np.ndarray, value: float) -> bool:
    return bool(outcomes.size > 1 and abs(float(outcomes.mean()) - value) < 1e-9)
