"""Deterministic values of two records, compared exactly: what has no noise needs no statistics, and one byte counts.

A tolerance is the caller's, in per cent of the base and by name; without one it is 0. What one of the two records lacks
is not compared: `missing` where the base had it, `new` where the head has it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from bench_tests.gate.verdict import Verdict
from bench_tests.harness.record import Record, Value
from models.errors import SpeedproofError

# Whether more of it is worse.
_MORE_IS_WORSE = {"size_bytes": True, "parameters": True, "macs": True, "cycles": True, "int8_operators": False}
_COVERAGE = "coverage"


def judge_exact(case: str, base: Record, head: Record, tolerances: Mapping[str, float]) -> list[Verdict]:
    """One verdict for each of size_bytes, parameters, macs, cycles, int8_operators and coverage that a record has.

    ``tolerances``: a name to the change in per cent of the base that is still called the same, either way. Another mix
    of operators is no regression in itself, so a changed coverage is `same` and its note says what changed: fewer
    operators in int8 have a verdict of their own. Raises SpeedproofError for a tolerance or value that makes no sense.
    """
    for name, percent in tolerances.items():
        if name not in _MORE_IS_WORSE:
            raise SpeedproofError(
                f"{case}: a tolerance for {name!r} is not understood; expected one of {', '.join(_MORE_IS_WORSE)}"
            )
        if not 0 <= percent < math.inf:
            raise SpeedproofError(f"{case}: the tolerance of {name} is {percent}, expected 0 per cent or more")
    verdicts = []
    for name in (*_MORE_IS_WORSE, _COVERAGE):
        if name in base and name in head:
            if name == _COVERAGE:
                verdicts.append(_judge_coverage(case, base[name], head[name]))
            else:
                verdicts.append(_judge_number(case, name, base[name], head[name], tolerances.get(name, 0.0)))
        elif name in base:
            verdicts.append(
                Verdict(case, name, "missing", base=_text(base[name]), note=f"not compared: no {name} in head")
            )
        elif name in head:
            verdicts.append(Verdict(case, name, "new", head=_text(head[name]), note=f"not compared: no {name} in base"))
    return verdicts


def _judge_number(case: str, name: str, base: Value, head: Value, tolerance_percent: float) -> Verdict:
    before, after = _number(case, name, base), _number(case, name, head)
    change = after - before
    within = 100 * abs(change) <= tolerance_percent * before
    word = "same" if within else "worse" if (change > 0) == _MORE_IS_WORSE[name] else "better"
    effect = 100 * change / before if before else None if change else 0.0
    note = f"within the tolerance of {tolerance_percent:g} %" if within and change else ""
    return Verdict(case, name, word, _text(base), _text(head), effect, note=note)


def _number(case: str, name: str, value: Value) -> float:
    if isinstance(value, bool | str) or not 0 <= value < math.inf:
        raise SpeedproofError(f"{case}: {name} is {value!r}, expected a number of 0 or more: measure the case again")
    return value


def _judge_coverage(case: str, base: Value, head: Value) -> Verdict:
    before, after = _operators(case, base), _operators(case, head)
    changed = [
        f"{key} {before.get(key, 0)} to {after.get(key, 0)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, 0) != after.get(key, 0)
    ]
    note = f"changed: {', '.join(changed)}" if changed else ""
    return Verdict(case, _COVERAGE, "same", _count(before), _count(after), note=note)


def _count(operators: dict[str, int]) -> str:
    return f"{sum(operators.values())} operators"


def _operators(case: str, coverage: Value) -> dict[str, int]:
    """Counts by ``place/dtype``."""
    try:
        operators = json.loads(coverage) if isinstance(coverage, str) else None
    except ValueError:
        operators = None
    if not isinstance(operators, dict) or not all(type(count) is int for count in operators.values()):
        raise SpeedproofError(
            f"{case}: coverage is {coverage!r}, expected a JSON object of operators' counts: measure the case again"
        )
    return operators


def _text(value: Value) -> str:
    return str(value) if isinstance(value, str) else f"{value:,}"
