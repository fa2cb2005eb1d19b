"""Figures of records in words: units, as many digits as they deserve, and the record that they came from."""

from __future__ import annotations

from collections.abc import Sequence

from bench_tests.harness.report.digits import change_text, digits, is_share, significant
from bench_tests.harness.report.document import Code, Number, Sentence, joined
from bench_tests.harness.report.material import Entry, Group, Interval, Variant

_LONGEST_NAME = 80  # a recipe may be called by a file's name of any length
_EXAMPLES = {"px": "image", "ms": "clip", "chars": "character"}


def example(group: Group) -> str:
    """What one example of a group's workload is called."""
    return "chunk" if group.workload.startswith("kws_streaming") else _EXAMPLES.get(group.unit, "example")


def cut(text: str, longest: int = _LONGEST_NAME) -> str:
    """A file's text on one line, and no longer than a sentence bears."""
    words = " ".join(text.split())
    return words if len(words) <= longest else f"{words[: longest - 3]}..."


def name(variant: Variant) -> Code:
    """A variant as sentences call it."""
    return Code(cut(variant.label))


def names(variants: Sequence[Variant], most: int = 6) -> Sentence:
    """Several variants: ``a, b and 3 more``."""
    parts: list[Sentence] = [(name(variant),) for variant in variants[:most]]
    if len(variants) > most:
        parts.append((f"{len(variants) - most} more",))
    return joined(parts)


def duration(seconds: float) -> str:
    """Three significant digits in us, ms or s."""
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    return f"{significant(seconds * factor, 3)} {unit}"


def byte_count(value: float) -> str:
    """Of files: three significant digits in bytes, kB or MB."""
    if value < 1e3:
        return f"{value:.0f} bytes"
    return f"{significant(value / 1e3, 3)} kB" if value < 1e6 else f"{significant(value / 1e6, 3)} MB"


def per_cent(value: float) -> str:
    """A share of a ceiling or of time: whole per cents, and two significant digits below 10 %."""
    return f"{100 * value:.0f} %" if value >= 0.0995 else f"{significant(100 * value, 2)} %"


def speedup(entry: Entry) -> Number:
    """``3.13x [3.08, 3.19]``; of cycles, which are exact, without an interval."""
    return ratio(entry, entry.speedup)


def ratio(entry: Entry, found: Interval) -> Number:
    """A ratio as `speedup` is written."""
    interval = "" if found.low == found.high else f" [{found.low:.2f}, {found.high:.2f}]"
    return Number(f"{found.value:.2f}x{interval}", entry.number)


def latency(entry: Entry) -> Number:
    """The time of a call."""
    return Number(duration(entry.call_s), entry.number)


def rate(entry: Entry, group: Group) -> Number:
    """Examples a second: ``258 FPS`` of images, ``23,145 clips/s`` of anything else."""
    characters, frequency_hz = entry.number_of("cycles_per_character"), entry.number_of("frequency_hz")
    value = frequency_hz / characters if characters and frequency_hz else entry.fps.value
    figure = f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
    return Number(f"{figure} FPS" if group.unit == "px" else f"{figure} {example(group)}s/s", entry.number)


def disk(entry: Entry) -> Number:
    """The size on disk."""
    return Number(byte_count(float(entry.record["size_bytes"])), entry.number)


def quality(entry: Entry) -> Number | None:
    """``top1 86.1 % [84.5, 87.6]``; None where none was judged."""
    found = entry.quality
    if found is None:
        return None
    label = cut(entry.quality_name.replace("_", " "))
    if not is_share(entry):
        return Number(f"{label} {found.value:.4g}", entry.number)
    places = digits(found.value)
    interval = "" if found.low == found.high else f" [{100 * found.low:.{places}f}, {100 * found.high:.{places}f}]"
    return Number(f"{label} {100 * found.value:.{places}f} %{interval}", entry.number)


def change(entry: Entry) -> Number | None:
    """The first quality against the original's, better is above 0: ``-0.5 points [-1.1, +0.1]``."""
    if entry.drop is None:
        return None
    return Number(change_text(entry, " points" if is_share(entry) else ""), entry.number)


def points(drop: float, entry: Entry) -> str:
    """A drop without its sign: ``0.5 points``."""
    found = entry.quality
    if found is None or not is_share(entry):
        return f"{abs(drop):.3g}"
    return f"{100 * abs(drop):.{digits(found.value)}f} points"


def mebibytes(entry: Entry) -> Number | None:
    """The peak of the CPU's memory; None where it was not measured."""
    value = entry.number_of("cpu_peak_memory_bytes")
    return None if value is None else Number(f"{value / 2**20:,.0f} MiB", entry.number)


def place(entry: Entry, group: Group) -> str:
    """Where a figure holds: ``224 px and batch 8``."""
    return f"{entry.size} {group.unit} and batch {entry.batch}"
