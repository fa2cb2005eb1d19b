"""What is said of a case: one word, the effect with its interval, and whether the gate fails for it.

Speed, quality and exact values share this form, so that one table and one exit code serve all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PASSED, REGRESSED, USAGE, NOT_MEASURED = 0, 1, 2, 3  # exit codes

# In the order in which a table shows them: what needs a reader first.
WORDS = ("slower", "worse", "missing", "unstable", "stale", "new", "faster", "better", "same")
FAILING = frozenset({"slower", "worse", "missing", "stale"})


@dataclass(frozen=True)
class Verdict:
    """One quantity of one case, head against base.

    ``effect`` is head over base in per cent for times and sizes (above 0: slower, larger), head minus base in points
    for a quality (below 0: worse), with the interval ``low`` to ``high``; None where nothing could be compared.
    """

    case: str
    quantity: str  # time, top1, size_bytes, ...
    word: str  # one of WORDS
    base: str = "-"  # as text, with its unit
    head: str = "-"
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""  # why it is so, in a few words

    @property
    def fails(self) -> bool:
        """Whether the gate fails for it."""
        return self.word in FAILING

    def words(self) -> str:
        """The effect with its interval, ``+4.9 % [+4.1, +5.6]``, in points for a quality."""
        if self.effect is None:
            return "-"
        unit = " %" if self.quantity in PERCENT else ""
        interval = "" if self.low is None or self.high is None else f" [{self.low:+.1f}, {self.high:+.1f}]"
        return f"{self.effect:+.1f}{unit}{interval}"


# Quantities whose effect is told in per cent of the base; the others are qualities, told in points.
PERCENT = frozenset({"time", "speed-up", "memory", "size_bytes", "parameters", "macs", "cycles", "int8_operators"})


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0 where all is well, 1 where something regressed, 3 where nothing did but something could not be measured."""
    words = {verdict.word for verdict in verdicts}
    if words & FAILING:
        return REGRESSED
    return NOT_MEASURED if "unstable" in words else PASSED
