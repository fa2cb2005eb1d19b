"""FPS, and the speed-up over PyTorch eager, against the size and against the batch: one line a variant.

Of a matrix of sizes and batches a figure shows one dimension; of the other it shows one value, and lets a page's reader
choose another.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import Figure, Sentence, say
from bench_tests.harness.report.figures.charts import rate_name
from bench_tests.harness.report.figures.curve_specs import curve_spec
from bench_tests.harness.report.figures.sweeps import Sweep, sweep
from bench_tests.harness.report.material import Entry, Group, fastest
from bench_tests.harness.report.picks import eager, spread_apart, told_apart
from bench_tests.harness.report.wording import cut
from bench_tests.harness.saturation import saturation


def curves(group: Group) -> list[Figure]:
    """Up to four figures: those of a dimension along which a variant has at least two cases. Cycles have none.

    Without another variant than PyTorch eager there is no speed-up to show.
    """
    if group.in_cycles:
        return []
    figures = []
    for along, across in (("size", "batch"), ("batch", "size")):
        shown = sweep(group, along, across)
        if shown is not None:
            figures.append(_rate_figure(shown))
            if any(eager([entry]) is None for entry in shown.here):
                figures.append(_speedup_figure(shown))
    return figures


def _rate_figure(shown: Sweep) -> Figure:
    rate, along = rate_name(shown.group), shown.along
    axis = "FPS" if rate == "FPS" else "examples a second"
    bands = f"Bands are one standard deviation of the timed blocks, {_about(shown)}"
    return Figure(
        name=f"{'fps' if shown.group.unit == 'px' else 'rate'}-{along}-{shown.group.slug}",
        title=_rate_by_batch(shown) if along == "batch" else _rate_by_size(shown),
        alt=_alt(shown, axis[0].upper() + axis[1:], "fps"),
        spec=curve_spec(shown, "fps", axis),
        note=_note(shown, bands),
    )


def _speedup_figure(shown: Sweep) -> Figure:
    bands = f"Bands are the 95 % intervals of the paired ratios, {_about(shown)}"
    return Figure(
        name=f"speedup-{shown.along}-{shown.group.slug}",
        title=_speedup_title(shown),
        alt=_alt(shown, "Speed-up over PyTorch eager", "speedup"),
        spec=curve_spec(shown, "speedup", "speed-up over PyTorch eager fp32"),
        note=_note(shown, f"{bands}; the dashed line at 1 is PyTorch eager fp32 with the original model"),
    )


def _about(shown: Sweep) -> str:
    return f"points are cases of {shown.place(shown.first, along=False)}"


def _note(shown: Sweep, bands: str) -> Sentence:
    words = f"{bands}."
    if len(shown.choices) > 1:
        several = "batches" if shown.across == "batch" else "sizes"
        words += f" In the page, {len(shown.choices)} {several} can be chosen from; the heading speaks of this one."
    left_out = len(shown.group.variants) - len(shown.variants)
    if left_out:
        words += (
            f" Of {len(shown.group.variants)} variants the picture has {len(shown.variants)}: PyTorch eager, where it "
            f"was measured, and those nearest to the fastest at any size and batch; the table of results has all."
        )
    return say("{words}", words=words)


def _rate_by_size(shown: Sweep) -> str:
    """Who is fastest where, by the paired ratios, and how fast at the largest size."""
    stops = list(shown.by_stop)
    leaders = {stop: fastest(shown.by_stop[stop]) for stop in stops}
    last = leaders[shown.fullest]
    rate = f"{_number(last.fps.value)} {rate_name(shown.group)} at {shown.place(shown.fullest)}"
    if len({entry.variant for entry in shown.here}) == 1:
        start, end = leaders[stops[0]], leaders[stops[-1]]
        return (
            f"{_label(last)}: {_number(start.fps.value)} {rate_name(shown.group)} at {shown.place(stops[0])}, "
            f"{_number(end.fps.value)} at {shown.place(stops[-1])} ({shown.place(shown.first, along=False)})"
        )
    others = [stop for stop in stops if leaders[stop].variant != last.variant]
    if not others:
        where = "at every size" if len(stops) > 2 else "at both sizes"
    else:
        count = len(stops) - len(others)
        where = f"at {shown.place(shown.fullest)}" if count == 1 else f"at {count} of {len(stops)} sizes"
    title = f"{_label(last)} is fastest {where}: {rate}"
    title += f", {_number(last.speedup.value)}x PyTorch eager" if eager([last]) is None else ""
    title += f" ({shown.place(shown.first, along=False)})"
    if others:
        title += f"; {_label(leaders[others[0]])} at {shown.place(others[0])}"
    close = _not_told_apart(shown.by_stop[shown.fullest], last)
    return f"{title}; {_label(close)} cannot be told apart from it there" if close else title


def _rate_by_batch(shown: Sweep) -> str:
    """Where the variant with the most examples a second saturates."""
    best = max(shown.here, key=lambda entry: entry.fps.value)
    line = {entry.batch: entry for entry in shown.of(best.variant)}
    name, where = _label(best), f"at {shown.place(shown.first, along=False)}"
    found = saturation({batch: entry.fps.value for batch, entry in line.items()})
    at = line[found.batch]
    rate = f"{_number(at.fps.value)} {rate_name(shown.group)}"
    if found.batch == max(line):
        title = f"{name} still gains at batch {found.batch}, its largest, {where}: {rate}"
    elif found.batch == found.best_batch:
        title = f"{name} is best, and saturates, at batch {found.batch} {where}: {rate}"
    else:
        title = f"{name} saturates at batch {found.batch} {where}: {rate}, of {_number(best.fps.value)} at best"
        title += f" (batch {found.best_batch})"
    if at.batch != min(line) and not spread_apart(at, line[min(line)]):
        title += f"; the blocks spread too far to tell it from batch {min(line)}"
    return title


def _speedup_title(shown: Sweep) -> str:
    """How the speed-up of the fastest changes from one end of its line to the other."""
    there, where = shown.place(shown.fullest), shown.place(shown.first, along=False)
    others = [entry for entry in shown.by_stop[shown.fullest] if eager([entry]) is None]
    if not others:
        return f"PyTorch eager is alone at {there}, {where}"
    best = fastest(others)
    name, line = _label(best), shown.of(best.variant)
    if best.speedup.high < 1:
        return f"Nothing is faster than PyTorch eager at {there}, {where}: {name} is the nearest with {_interval(best)}"
    start, end = line[0], line[-1]
    small, large = (shown.place(getattr(entry, shown.along)) for entry in (start, end))
    if not told_apart(start, end):
        return (
            f"The {shown.along} makes no certain difference to the speed-up of {name} over PyTorch: {_interval(start)} "
            f"at {small} and {_interval(end)} at {large}, {where}"
        )
    more = "more" if end.speedup.value > start.speedup.value else "less"
    return (
        f"{name} gains {more} over PyTorch at {large} than at {small}: {_interval(end)} and {_interval(start)}, {where}"
    )


def _alt(shown: Sweep, quantity: str, field: str) -> str:
    start, stop, at = min(shown.by_stop), max(shown.by_stop), shown.fullest
    found = sorted(shown.by_stop[at], key=lambda entry: -getattr(entry, field).value)
    told = [f"{_label(entry)} {_number(getattr(entry, field).value)}" for entry in found]
    lines = len({entry.variant for entry in shown.here})
    return (
        f"{quantity} against the {shown.along} from {shown.place(start)} to {shown.place(stop)}, at "
        f"{shown.place(shown.first, along=False)}: {lines} lines, one a variant. "
        f"At {shown.place(at)}: {', '.join(told)}."
    )


def _label(entry: Entry) -> str:
    return cut(entry.variant.label, 40)


def _number(value: float) -> str:
    return significant(value, 3)


def _interval(entry: Entry) -> str:
    value, low, high = (_number(bound) for bound in entry.speedup)
    return f"{value}x [{low}, {high}]" if low != high else f"{value}x"


def _not_told_apart(entries: Iterable[Entry], best: Entry) -> Entry | None:
    """The nearest to the best whose interval leaves doubt which one is faster."""
    others = [entry for entry in entries if entry is not best and not told_apart(entry, best)]
    return fastest(others) if others else None
