"""What `python -m bench_tests.profile` prints: layers, totals, kinds, classes, and the answer in one line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from bench_tests.harness.bottlenecks import (
    BOUNDS,
    HEAVY,
    IDLE,
    OVERHEAD_OPERATOR_S,
    OVERHEAD_RATIO,
    SIZE,
    Row,
    answer,
    judged,
    raised,
    shown,
)
from bench_tests.harness.layer_times import Profile
from bench_tests.harness.roofline import Ceiling

METHODS = {
    "compute": "a better kernel (compiled backend); INT8; structured pruning or distillation, for less arithmetic",
    "memory": "fusion (compiled backend); INT8 weights and activations, or fewer channels, for fewer bytes",
    "overhead": "a compiled graph (ONNX Runtime, OpenVINO, torch.compile); larger batches",
}
LEGEND = f"""\
MB is the least a layer must move: inputs, outputs and weights, each once; outside of layers that of each operator.
A multiply-add is 2 FLOP; batch norm and activations count none. of roof: share of what the roofline allows at so many
FLOP a byte, min(peak, FLOP/B x bandwidth); above 100 % the data was in a cache.
bound by overhead: takes more than {OVERHEAD_RATIO:g} times its roofline time, at less than \
{1e6 * OVERHEAD_OPERATOR_S:g} us an operator; else by memory or
compute, whichever takes longer at the roofline. take: see the classes; size only: at least {HEAVY:.0%} of the
parameters, and {IDLE:g} times its share of the time."""
_WIDTH, _NAME, _KIND = 160, 24, 29  # columns of a row, and at most of a name and a kind in it
_AGREE = 1.1  # the rows' sum and the whole may differ by so much

# From the largest figure of a model on, the unit in which it and the others have a few digits.
_SECONDS = ((10.0, "s", 1.0), (1e-3, "ms", 1e-3), (0.0, "us", 1e-6))
_FLOP = ((2e13, "TFLOP", 1e12), (2e7, "GFLOP", 1e9), (2e4, "MFLOP", 1e6), (0.0, "kFLOP", 1e3))
_BYTES = ((1e10, "GB", 1e9), (2e5, "MB", 1e6), (0.0, "kB", 1e3))


@dataclass(frozen=True)
class Unit:
    """A unit of measure, as how much it is of the base unit, and how many decimals a figure in it has."""

    name: str
    size: float
    decimals: int

    @classmethod
    def of(cls, largest: float, known: Iterable[tuple[float, str, float]], decimals: int) -> Unit:
        """The unit that suits the largest of some figures."""
        return next(cls(name, size, decimals) for least, name, size in known if largest >= least)

    def __call__(self, value: float) -> str:
        """A value as text, without the unit's name."""
        return f"{value / self.size:.{self.decimals}f}"


@dataclass(frozen=True)
class Units:
    """The units in which the figures of one model are told."""

    time: Unit
    flop: Unit
    bytes: Unit

    @classmethod
    def of(cls, profile: Profile) -> Units:
        """Those that suit the largest figures of any one part, and the sum of times."""
        return cls(
            Unit.of(profile.total_s, _SECONDS, 3),
            Unit.of(max(part.flop for part in profile.parts), _FLOP, 3),
            Unit.of(max(part.bytes_moved for part in profile.parts), _BYTES, 2),
        )


def report(profile: Profile, kept: Ceiling, top: int | None) -> str:
    """All that is known of a profile, judged by the ceiling that is kept. At most 160 columns but the last line."""
    ceiling = raised(kept, profile)
    rows = judged(profile, ceiling)
    figures = totals(profile, rows, ceiling)
    if ceiling != kept:
        figures.append(
            f"warning: the kept peak of {kept.peak_gflops:.0f} GFLOP/s was measured on a busy machine: a layer reaches "
            f"{ceiling.peak_gflops:.0f} GFLOP/s, which stands for it here"
        )
    parts = [table(shown(rows, top), profile), "\n".join(figures), families(profile, rows), classes(profile, rows)]
    return "\n\n".join([*parts, LEGEND, answer(rows, ceiling)])


def table(rows: Sequence[Row], profile: Profile) -> str:
    """A line a row, in units that suit the whole model."""
    unit = Units.of(profile)
    lines = []
    for row in rows:
        layer = row.layer
        lines.append([
            _name(row),
            _clipped(layer.kind, _KIND),
            str(layer.calls),
            unit.time(layer.time_s),
            f"{row.share:.1%}",
            unit.flop(layer.flop) if layer.flop else "-",
            unit.bytes(layer.bytes_moved) if layer.bytes_moved else "-",
            short(layer.parameters),
            f"{row.intensity:.1f}" if row.intensity else "-",
            f"{row.gflops:.1f}" if row.gflops else "-",
            f"{row.of_roofline:.0%}" if row.of_roofline else "-",
            row.bound,
            row.take,
        ])  # fmt: skip
    headers = ["layer", "kind", "calls", unit.time.name, "share", unit.flop.name, unit.bytes.name, "params", "FLOP/B"]
    headers += ["GFLOP/s", "of roof", "bound", "take"]
    align = ["left", "left", *["right"] * 9, "left", "left"]
    text = tabulate(lines, headers, "plain", disable_numparse=True, colalign=align)
    excess = max(map(len, text.splitlines())) - _WIDTH
    if excess > 0:  # figures of many digits: the kinds make room for them
        lines = [[name, _clipped(what, _KIND - excess), *figures] for name, what, *figures in lines]
        text = tabulate(lines, headers, "plain", disable_numparse=True, colalign=align)
    return text


def _name(row: Row) -> str:
    """A layer's name; of a long one the end, which tells it from the others."""
    name = row.layer.name or "(the whole model)"
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"


def _clipped(words: str, width: int) -> str:
    return words if len(words) <= width else f"{words[: width - 1]}…"


def short(number: int) -> str:
    """A count in five or six characters: ``2.36M``, ``512``, ``-`` for none."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{name}" if number >= 100 * size else f"{number / size:.2f}{name}"
    return str(number) if number else "-"


def totals(profile: Profile, rows: Iterable[Row], ceiling: Ceiling) -> list[str]:
    """What the rows add up to, against the module untouched and against the roofline."""
    parts, total_s, outside, unit = profile.parts, profile.total_s, profile.outside, Units.of(profile)
    flop, bytes_moved = sum(part.flop for part in parts), sum(part.bytes_moved for part in parts)
    arithmetic_s, least_s = flop / ceiling.peak_gflops / 1e9, sum(row.roofline_s for row in rows)
    theory = f" (by theory {ceiling.theoretical_gflops:.0f} GFLOP/s)" if ceiling.theoretical_gflops else ""
    lines = [
        f"time: the rows add up to {unit.time(total_s)} {unit.time.name}, the model untouched takes "
        f"{unit.time(profile.untouched_s)} {unit.time.name} (medians of {profile.calls} calls)",
        f"outside of layers: {outside.time_s / total_s:.1%}, overhead and the rest ({_clipped(outside.kind, 100)})",
        f"work: {unit.flop(flop)} {unit.flop.name}, {unit.bytes(bytes_moved)} {unit.bytes.name}, "
        f"{short(sum(part.parameters for part in parts))} parameters",
        f"roofline: {ceiling.peak_gflops:.0f} GFLOP/s and {ceiling.copy_gb_per_s:.1f} GB/s, measured{theory}; they "
        f"meet at {ceiling.peak_gflops / ceiling.copy_gb_per_s:.1f} FLOP/B",
        f"the most that other fp32 kernels can give: {_times(total_s, least_s)} layer by layer, "
        f"{_times(total_s, arithmetic_s)} with all but the arithmetic fused away",
    ]
    if not 1 / _AGREE < total_s / profile.untouched_s < _AGREE:
        lines.append(
            f"warning: the rows' sum and the untouched model differ by more than {_AGREE - 1:.0%}: other programs use "
            f"this machine, measure again when it is idle"
        )
    return lines


def _times(total_s: float, least_s: float) -> str:
    return f"{total_s / least_s:.1f}x" if 100 * least_s > total_s else "more than 100x"


def families(profile: Profile, rows: Iterable[Row]) -> str:
    """Which kind of layer takes which share of the time."""
    unit, members = Units.of(profile), defaultdict[str, list[Row]](list)
    for row in rows:
        members[row.layer.family].append(row)
    lines = [
        (sum(row.layer.time_s for row in found), name, len(found), sum(row.roofline_s for row in found),
         sum(row.layer.parameters for row in found))
        for name, found in members.items()
    ]  # fmt: skip
    cells = [
        [name, rows, unit.time(time_s), f"{time_s / profile.total_s:.1%}", _share(least_s, time_s), short(parameters)]
        for time_s, name, rows, least_s, parameters in sorted(lines, reverse=True)
    ]
    headers = ["kind", "rows", unit.time.name, "share", "of roof", "params"]
    return tabulate(cells, headers, "plain", disable_numparse=True, colalign=["left", *["right"] * 5])


def classes(profile: Profile, rows: Sequence[Row]) -> str:
    """Which class takes which share of the time, and what addresses it."""
    unit, lines = Units.of(profile), []
    times_s = {found: sum(row.layer.time_s for row in rows if row.bound == found) for found in BOUNDS}
    for found in sorted(BOUNDS, key=lambda name: -times_s[name]):
        members, time_s = [row for row in rows if row.bound == found], times_s[found]
        if members:
            share, of_roof = f"{time_s / profile.total_s:.1%}", _share(sum(row.roofline_s for row in members), time_s)
            lines.append([f"{found}-bound", len(members), unit.time(time_s), share, of_roof, METHODS[found]])
    heavy = [row for row in rows if row.take == SIZE]
    if heavy:
        parameters = sum(row.layer.parameters for row in heavy) / sum(row.layer.parameters for row in rows)
        time_s = sum(row.layer.time_s for row in heavy)
        words = f"{parameters:.0%} of the parameters in little time: weight-only pruning or quantization, for size"
        lines.append([f"of these {SIZE}", len(heavy), unit.time(time_s), f"{time_s / profile.total_s:.1%}", "", words])
    headers = ["class", "rows", unit.time.name, "share", "of roof", "what addresses it"]
    return tabulate(lines, headers, "plain", disable_numparse=True, colalign=["left", *["right"] * 4, "left"])


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
