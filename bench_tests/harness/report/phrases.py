"""Small pieces of prose: counts, ranges, lists of names; and a table of what differs between several things."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench_tests.harness.report.document import Cell, Code, Column, Row, Sentence, Table, joined
from bench_tests.harness.report.wording import cut


def counted(number: int, name: str, several: str = "") -> str:
    """``1 case``, ``2,000 cases``."""
    return f"{number:,} {name if number == 1 else several or name + 's'}"


def ranged(values: Iterable[float], form: str = ",.0f") -> str:
    """``8``, or ``8 to 400``; empty without any."""
    found = list(values)
    if not found:
        return ""
    low, high = (format(bound, form) for bound in (min(found), max(found)))
    return low if low == high else f"{low} to {high}"


def share(value: float) -> str:
    """A share in per cent: whole ones from ten on, two digits below."""
    if value > 0.9995:
        return "all" if value < 1.0005 else f"{100 * value:.0f} %"
    if value >= 0.0995 or value == 0:
        return f"{100 * value:.0f} %"
    return f"{100 * value:.2g} %" if value >= 1e-4 else "under 0.01 %"


def named(names: Iterable[str], most: int = 8) -> Sentence:
    """Names as code: ``a, b and c``, with ``n more`` past the most."""
    found = list(dict.fromkeys(names))
    shown: list[Sentence] = [(Code(cut(name)),) for name in found[:most]]
    if len(found) > most:
        shown.append((f"{len(found) - most} more",))
    return joined(shown)


def listed(names: Sequence[str], whole: int, most: int = 6) -> str:
    """The same for a cell: ``all``, or the names."""
    if len(names) == whole and whole > 1:
        return f"all {whole}"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def differences(
    name: str, title: str, things: Mapping[str, Mapping[str, Any]], heads: tuple[str, str, str], note: Sentence = ()
) -> Table:
    """A row for each value that a setting has, with the things that have it: ``heads`` are setting, value, things.

    The cell of CSV and JSON holds all their names. A setting that a thing does not have has no row for it.
    """
    holders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    values: dict[tuple[str, str], Any] = {}
    for thing, settings in things.items():
        for setting, value in settings.items():
            text = _text(value)
            holders[setting][text].append(thing)
            values[setting, text] = value if isinstance(value, bool | int | float | str) else text
    rows = tuple(
        Row(
            (
                Cell(setting, setting),
                Cell(text, values[setting, text]),
                Cell(listed(found, len(things)), ", ".join(found)),
            )
        )
        for setting, options in holders.items()
        for text, found in options.items()
    )
    columns = tuple(Column(head.replace(" ", "_"), head, numeric=False) for head in heads)
    return Table(name, title, columns, rows, note)


def _text(value: object) -> str:
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(part) for part in value)
    return str(value)
