"""Names beside points, without one on top of another: Vega-Lite places no labels by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LETTER, _LINE = 6.6, 14.0  # pixels: the width of a letter on average, the height of a line
_NEAR = ((8, -8), (8, 10), (-8, -8), (-8, 10), (10, 0), (-10, 0), (8, -22), (8, 24), (-8, -22), (-8, 24))
_POINT = 5.0  # pixels, of half a point's mark
Box = tuple[float, float, float, float]  # left, top, right, bottom, from the upper left corner


@dataclass(frozen=True)
class Axis:
    """A scale of which it is known where in the picture a value stands; ``flipped`` has its lowest value on top."""

    low: float
    high: float
    logarithmic: bool
    pixels: float
    flipped: bool = False

    @property
    def scale(self) -> dict[str, Any]:
        """As Vega-Lite has it."""
        kind = {"type": "log"} if self.logarithmic else {"type": "linear", "zero": False}
        return kind | {"domain": [self.low, self.high], "nice": False, "reverse": self.flipped, "clamp": True}

    def pixel(self, value: float) -> float:
        """From the axis's origin."""
        low, high, at = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low)
        return self.pixels * (1 - share if self.flipped else share)


def axis(values: Sequence[float], pixels: float, *, logarithmic: bool, flipped: bool = False) -> Axis:
    """One that holds all values, with a little room on either side. Logarithmic ones must be positive."""
    low, high = min(values), max(values)
    if logarithmic:
        room = max((high / low) ** 0.06, 1.05)
        return Axis(low / room, high * room, True, pixels, flipped)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - room, high + room, False, pixels, flipped)


def labels(
    points: Sequence[tuple[float, float]],
    names: Mapping[int, str],
    width: float,
    height: float,
    lines: Sequence[Box] = (),
) -> dict[int, dict[str, Any]]:
    """For each of the points (in pixels from the upper left corner) that has a name: its dx, dy and align.

    Names are placed in their order; one for which there is no room beside its point is left out. They keep clear of
    points and of each other, and of ``lines`` where they can.
    """
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    found: dict[int, dict[str, Any]] = {}
    for index, name in names.items():
        boxes = [(_box(points[index], dx, dy, _LETTER * len(name)), dx, dy) for dx, dy in _NEAR]
        free = [
            place
            for place in boxes
            if place[0][0] >= 0 and place[0][1] >= 0 and place[0][2] <= width and place[0][3] <= height
            and not any(_overlap(place[0], other) for other in taken)
        ]  # fmt: skip
        if free:
            box, dx, dy = min(free, key=lambda place: sum(_overlap(place[0], line) for line in lines))
            taken.append(box)
            found[index] = {"dx": dx, "dy": dy, "align": "left" if dx > 0 else "right"}
    return found


def _box(point: tuple[float, float], dx: float, dy: float, length: float) -> Box:
    x, y = point[0] + dx, point[1] + dy
    return (x, y - _LINE / 2, x + length, y + _LINE / 2) if dx > 0 else (x - length, y - _LINE / 2, x, y + _LINE / 2)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
