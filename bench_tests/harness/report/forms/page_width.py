"""How a table fits on a printed page: in smaller type, with its cells broken, or in parts side by side.

Widths are estimated from the letters, in units of the type's size (em), since the page is set elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench_tests.harness.report.document import Column, Table
from bench_tests.harness.report.forms.paper import Shown, unbroken, words

_SIZES = (9.0, 8.5, 8.0, 7.5, 7.0, 6.5)  # points, the most readable first
_WHOLE, _BROKEN = 7.0, 7.5  # points: cells are broken rather than smaller than this, and then no larger than that
_PADDING = 6.0  # points between the texts of two columns
_WIDEST = 30.0  # em that a column may wish for
_REPEATED = 15.0  # em: what is wider than that tells rows at a price that no second part of a table should pay
_BOLD = 1.1  # times as wide
_PIECE = 16  # letters of a name that stay together
_JOINT = re.compile(r"(?<=[-_/.,:=])(?=\w)")
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[]/- \u00a0"), frozenset("mwMW@…→")


@dataclass(frozen=True)
class Part:
    """Some columns of a table, by their places, with their widths in points, and the size of the type."""

    places: tuple[int, ...]
    widths: tuple[float, ...]
    size: float


def fitted(table: Table, given: Shown, width: float) -> list[Part]:
    """The columns to print, or where they are too many parts, which repeat what tells the rows; width in points."""
    least, wished = [], []
    for at, column in enumerate(table.columns):
        head = [_BOLD * _width(piece) for piece in _pieces(printed(column.label, column, heading=True))]
        texts = [(printed(row.cells[at].text, column), _BOLD if row.best else 1.0) for row in given.rows]
        least.append(max([*head, *(weight * _width(piece) for text, weight in texts for piece in _pieces(text))]))
        wished.append(max([least[at], *(min(_WIDEST, weight * _width(text)) for text, weight in texts)]))

    first, *keys = given.keys
    repeated = [first, *(at for at in keys if wished[at] <= _REPEATED)]
    others = [at for at in (*keys, *given.others) if at not in repeated]

    def split(count: int) -> list[list[int]]:
        ends = [len(others) * at // count for at in range(count + 1)]
        return [sorted([*repeated, *others[start:end]]) for start, end in pairwise(ends)]

    most = max(1, len(others))
    smallest = (split(count) for count in range(1, most))
    fits = (parts for parts in smallest if all(_needed(part, least, _SIZES[-1]) <= width for part in parts))
    return [_part(part, least, wished, width) for part in next(fits, split(most))]


def printed(text: str, column: Column, *, heading: bool = False) -> str:
    """A cell's text with the places at which it may be broken: a name at its joints, a figure before its interval."""
    line = words(text)
    return unbroken(line) if column.numeric and not heading else breakable(line, _PIECE)


def breakable(line: str, letters: int) -> str:
    """A line in which a word of more letters may be broken, at its joints if it has any."""
    return " ".join(_softened(word, letters) if len(word) > letters else word for word in line.split(" "))


def _softened(word: str, letters: int) -> str:
    pieces = (piece[at : at + letters] for piece in _JOINT.split(word) for at in range(0, len(piece), letters))
    return "\u200b".join(pieces)


def _pieces(text: str) -> list[str]:
    return re.split("[ \u200b]", text)


def _width(text: str) -> float:
    """In em, rather too wide."""
    text = text.replace("\u200b", "")
    narrow, wide = sum(char in _NARROW for char in text), sum(char in _WIDE for char in text)
    capital, far = sum(char.isupper() for char in text), sum(char > "\u0370" for char in text)
    return 0.5 * len(text) - 0.15 * narrow + 0.4 * wide + 0.2 * capital + 0.5 * far


def _needed(part: Sequence[int], widths: Sequence[float], size: float) -> float:
    """Points that the columns take, of their widths in em."""
    return sum(widths[at] * size + _PADDING for at in part)


def _part(part: Sequence[int], least: Sequence[float], wished: Sequence[float], width: float) -> Part:
    """Columns in the largest type in which they fit, and what is left of the page shared out by what they wish for."""
    whole = (size for size in _SIZES if size >= _WHOLE and _needed(part, wished, size) <= width)
    broken = (size for size in _SIZES if size <= _BROKEN and _needed(part, least, size) <= width)
    size = next(whole, next(broken, _SIZES[-1]))
    needed = _needed(part, least, size)
    wishes = _needed(part, wished, size) - needed
    share = min(1.0, max(0.0, width - needed) / wishes) if wishes else 0.0
    widths = (round((least[at] + share * (wished[at] - least[at])) * size + _PADDING, 2) for at in part)
    return Part(tuple(part), tuple(widths), size)
