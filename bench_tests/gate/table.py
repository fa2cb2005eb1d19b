"""Verdicts as a table: for a terminal, one screen with what needs a reader first, and for a pull request.

What is the same is counted, not listed, but for cases that were renamed. The order depends on the verdicts alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from bench_tests.gate.verdict import FAILING, WORDS, Verdict

_ROWS = 20  # of a screen; the rest is counted
_HEADERS = ["", "case", "of", "base", "head", "change [95 %]", "why"]


def lines(verdicts: Iterable[Verdict]) -> list[str]:
    """The table for a terminal, cut after a screen, and the count of all words as its last line."""
    ordered = _ordered(verdicts)
    listed = _listed(ordered)
    found = []
    if listed:
        rows = [_cells(verdict) for verdict in listed[:_ROWS]]
        align = ["left"] * 3 + ["right"] * 3 + ["left"]
        table = tabulate(rows, _HEADERS, "plain", disable_numparse=True, colalign=align)
        found = [line.rstrip() for line in table.splitlines()]
    if len(listed) > _ROWS:
        found.append(f"and {_counted(listed[_ROWS:])}")
    return [*found, f"gate: {_answer(ordered)}"]


def markdown(verdicts: Iterable[Verdict]) -> str:
    """The answer and the whole table in GitHub's Markdown."""
    ordered = _ordered(verdicts)
    parts = [f"**Gate: {_answer(ordered)}**"]
    rows = [[_escaped(cell) for cell in _cells(verdict)] for verdict in _listed(ordered)]
    if rows:
        align = ["left"] * 3 + ["right"] * 3 + ["left"]
        parts.append(tabulate(rows, _HEADERS, "pipe", disable_numparse=True, colalign=align))
    return "\n\n".join(parts) + "\n"


def add_to_summary(text: str) -> str:
    """Append to the summary of a GitHub job, where there is one; a warning where it cannot be written, else nothing."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if file:
        try:
            with Path(file).open("a") as stream:
                stream.write(text)
        except OSError as error:
            return f"warning: GITHUB_STEP_SUMMARY {file} cannot be written ({error.strerror})"
    return ""


def _ordered(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """By word, then the largest effect first, then by name."""
    return sorted(
        verdicts, key=lambda one: (WORDS.index(one.word), -abs(one.effect or 0.0), one.case, one.quantity, one.note)
    )


def _listed(ordered: Sequence[Verdict]) -> list[Verdict]:
    """What is not the same, and what is to be known all the same: renamed cases, other operators, too few examples."""
    return [verdict for verdict in ordered if verdict.word != "same" or _worth_a_line(verdict)]


def _worth_a_line(verdict: Verdict) -> bool:
    said = verdict.quantity == "coverage" and bool(verdict.note)
    return said or verdict.quantity == "case" or "too few examples" in verdict.note


def _cells(verdict: Verdict) -> list[str]:
    note = " ".join(verdict.note.split())
    return [verdict.word, verdict.case, verdict.quantity, verdict.base, verdict.head, verdict.words(), note]


def _answer(ordered: Sequence[Verdict]) -> str:
    undecided = any(verdict.word == "unstable" for verdict in ordered)
    word = "failed" if any(verdict.fails for verdict in ordered) else "undecided" if undecided else "passed"
    return f"{word}: {_counted(ordered)}" if ordered else f"{word}: nothing to compare"


def _counted(ordered: Sequence[Verdict]) -> str:
    counts = Counter(verdict.word for verdict in ordered)
    return ", ".join(f"{counts[word]} {word}" for word in sorted(counts, key=_first_failing))


def _first_failing(word: str) -> tuple[bool, int]:
    return word not in FAILING, WORDS.index(word)


def _escaped(cell: str) -> str:
    """A cell that neither ends its column nor becomes markup."""
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
