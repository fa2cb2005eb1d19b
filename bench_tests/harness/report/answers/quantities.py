"""What a need may be about: how each quantity is read from a record, in which units, and when a need is met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench_tests.harness.report.digits import is_share, significant
from bench_tests.harness.report.material import Entry, Interval
from bench_tests.harness.report.wording import byte_count, duration

BYTES = {"B": 1.0, "bytes": 1.0, "kB": 1e3, "KiB": 1024.0, "MB": 1e6, "MiB": 2.0**20, "GB": 1e9, "GiB": 2.0**30}


@dataclass(frozen=True)
class Quantity:
    """``read`` gives a record's value in the base unit, with the worst that can be expected on either side.

    ``units`` has the factor of each unit to the base unit; the empty one is meant where none is written.
    ``shown`` tells a value in words; of a quality that is no share `Need.shown` does. ``fixes`` is true of what a need
    may state with ``=``: it chooses records and is no result.
    """

    words: str
    read: Callable[[Entry], Interval | None]
    units: Mapping[str, float]
    shown: Callable[[float], str]
    may_be_negative: bool = False
    fixes: bool = False


def _latency(entry: Entry) -> Interval:
    low, high = entry.number_of("minimum_s"), entry.number_of("p95_s")
    mean = entry.call_s
    return Interval(mean, mean if low is None else min(low, mean), mean if high is None else max(high, mean))


def _points(entry: Entry) -> Interval | None:
    """In points, or in the quality's own unit where that is no share."""
    found = entry.drop
    if found is None:
        return None
    if entry.lossless:  # the same network: what answers differ is rounding, and no sample of anything
        found = Interval(found.value, found.value, found.value)
    factor = 100.0 if is_share(entry) else 1.0
    return Interval(*(factor * end for end in found))


def _exactly(name: str) -> Callable[[Entry], Interval | None]:
    def read(entry: Entry) -> Interval | None:
        value = entry.number_of(name)
        return None if value is None else Interval(value, value, value)

    return read


def _whole(unit: str) -> Callable[[float], str]:
    return lambda value: f"{value:,.0f} {unit}".strip()


QUANTITIES: Mapping[str, Quantity] = {
    "latency": Quantity("latency of a call", _latency, {"us": 1e-6, "ms": 1e-3, "s": 1.0}, duration),
    "throughput": Quantity(
        "throughput", lambda entry: entry.fps, {"": 1.0, "fps": 1.0, "FPS": 1.0, "/s": 1.0, "1/s": 1.0},
        lambda value: f"{significant(value, 3)} a second",
    ),
    "speedup": Quantity(
        "speed-up", lambda entry: entry.speedup, {"": 1.0, "x": 1.0}, lambda value: f"{value:.2f}x",
    ),
    "drop": Quantity(
        "drop of the quality", _points, {"": 1.0, "points": 1.0, "%": 1.0}, lambda value: f"{value:.3g} points",
        may_be_negative=True,
    ),
    "quality": Quantity(
        "quality", lambda entry: entry.quality, {"": 1.0, "%": 0.01},
        lambda value: f"{100 * value:.4g} %",
    ),
    "disk": Quantity("size on disk", _exactly("size_bytes"), BYTES, byte_count),
    "memory": Quantity(
        "peak of the CPU's memory", _exactly("cpu_peak_memory_bytes"), BYTES, lambda value: f"{value / 2**20:,.0f} MiB"
    ),
    "gpu_memory": Quantity(
        "peak of the GPU's memory", _exactly("gpu_peak_memory_bytes"), BYTES, lambda value: f"{value / 2**20:,.0f} MiB"
    ),
    "flash": Quantity("flash", _exactly("flash_bytes"), {"": 1.0, **BYTES}, _whole("bytes")),
    "sram": Quantity("SRAM", _exactly("sram_bytes"), {"": 1.0, **BYTES}, _whole("bytes")),
    "cycles": Quantity("cycles a character", _exactly("cycles_per_character"), {"": 1.0}, _whole("cycles")),
    "batch": Quantity("batch", _exactly("batch"), {"": 1.0}, _whole(""), fixes=True),
    "input": Quantity(
        "size of the input", _exactly("size"), {"": 1.0, "px": 1.0, "ms": 1.0, "chars": 1.0}, _whole(""), fixes=True
    ),
}  # fmt: skip
ALIASES = {"fps": "throughput", "speed-up": "speedup", "ram": "memory"}
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": lambda value, bound: value <= bound,
    "<": lambda value, bound: value < bound,
    ">=": lambda value, bound: value >= bound,
    ">": lambda value, bound: value > bound,
    "=": lambda value, bound: value == bound,
}


@dataclass(frozen=True)
class Need:
    """``bound`` is in the base unit of its quantity: seconds, bytes, points, a share; or in that of a loss."""

    text: str
    name: str
    operator: str
    bound: float

    @property
    def quantity(self) -> Quantity:
        """What it is about."""
        return QUANTITIES[self.name]

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        return self.operator in ("<=", "<")

    def value(self, entry: Entry) -> Interval | None:
        """What a record says of it; None where it says nothing."""
        return self.quantity.read(entry)

    def shown(self, value: float, entry: Entry) -> str:
        """A value, or a distance from the bound, in the unit that the record has it in."""
        if self.name in ("quality", "drop") and not is_share(entry):
            return f"{value:.4g}"
        return self.quantity.shown(value)

    def met(self, entry: Entry) -> bool:
        """Whether a record's value, an average, meets it."""
        found = self.value(entry)
        return found is not None and _COMPARE[self.operator](found.value, self.bound)

    def surely_met(self, entry: Entry) -> bool:
        """Whether the unfavourable end of its interval meets it too."""
        found = self.value(entry)
        if found is None:
            return False
        end = found.value if self.operator == "=" else found.high if self.at_most else found.low
        return self.met(entry) and _COMPARE[self.operator](end, self.bound)

    def missed_by(self, entry: Entry) -> float:
        """By how much a record misses it, as a share of the bound, to tell the closest; 0 where it is met."""
        found = self.value(entry)
        if found is None:
            return math.inf
        return 0.0 if self.met(entry) else abs(found.value - self.bound) / (abs(self.bound) or 1.0)
