"""What each case must reach, read from ``bench_tests/expectations.yaml``: one row a case or a pattern of cases."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import yaml

from models.errors import SpeedproofError

_NUMBER = (int, float)
_BOUNDS = ("agreement_min", "drop_max", "drop_min", "speedup_min", "speedup_max")
_LIMITS = ("slower_max", "larger_max", "memory_max", "cycles_max", "worse_max")  # of the gate, never below 0
_KINDS = {"case": (str,), "known_failure": (str,)} | dict.fromkeys((*_BOUNDS, *_LIMITS), _NUMBER)
_WORDS = {"case": "a pattern", "known_failure": "a reason"} | dict.fromkeys(_BOUNDS, "a number")
_WORDS |= dict.fromkeys(_LIMITS, "a number of at least 0") | {"worse_max": "a number above 0 and below 100"}
FILE = Path(__file__).parents[1] / "expectations.yaml"


@dataclass(frozen=True)
class Expectation:
    """A row; None where it sets no bound. The last five are the gate's, which has defaults of its own for them."""

    case: str
    agreement_min: float | None = None
    drop_max: float | None = None
    drop_min: float | None = None
    speedup_min: float | None = None
    speedup_max: float | None = None
    known_failure: str | None = None
    slower_max: float | None = None  # per cent of the time
    larger_max: float | None = None  # per cent of the size on disk
    memory_max: float | None = None  # per cent of the peak memory
    cycles_max: float | None = None  # per cent of the cycles
    worse_max: float | None = None  # points of the first quality


@cache
def read_expectations(file: Path = FILE) -> tuple[Expectation, ...]:
    """All rows. Raises SpeedproofError for a file or a row that is not of the form described in it."""
    known = {field.name for field in fields(Expectation)}
    try:
        rows = yaml.safe_load(file.read_text())["rows"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise SpeedproofError(f"{file} cannot be read ({reason}): expected a list `rows`") from error
    if not isinstance(rows, list):
        raise SpeedproofError(f"{file} cannot be read (`rows` is {rows!r}): expected a list `rows`")
    for row in rows:
        if not isinstance(row, dict) or "case" not in row or not set(row) <= known:
            raise SpeedproofError(f"{file}: row {row} is not understood; expected the keys {', '.join(sorted(known))}")
        for name, value in row.items():
            fits = isinstance(value, _KINDS[name]) and not isinstance(value, bool)
            if name == "worse_max":  # a margin of 0 could never be shown to hold
                fits = fits and 0 < value < 100
            if not fits or (name in _LIMITS and not 0 <= value < math.inf):
                raise SpeedproofError(f"{file}: row {row}: {name} is {value!r}, expected {_WORDS[name]}")
    return tuple(Expectation(**row) for row in rows)


def expectation(case_id: str, file: Path = FILE) -> Expectation:
    """The first row that fits; one without bounds where none does."""
    return next((row for row in read_expectations(file) if fnmatchcase(case_id, row.case)), Expectation(case_id))
