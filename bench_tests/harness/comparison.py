"""The comparison of methods at the end of a run: one row a recipe, on the backend on which it is fastest."""

from __future__ import annotations

from collections.abc import Mapping

from tabulate import tabulate

from bench_tests.harness.record import ORIGINAL, Record
from optim.command import quality_digits

_HEADERS = [
    "method", "fastest on", "MB", "smaller", "M params", "M MACs", "zeros", "ms", "x eager [95 %]", "int8 operators",
    "quality", "change [95 %]", "agree",
]  # fmt: skip


def comparisons(records: Mapping[str, Record]) -> list[str]:
    """A table for each workload, size and batch that has several recipes, in the order in which they were asked for."""
    groups: dict[tuple[str, str, int, int], dict[str, Record]] = {}
    for row in records.values():
        best = groups.setdefault((row["workload"], row["data"], row["size"], row["batch"]), {})  # type: ignore[arg-type]
        recipe = str(row["recipe"])
        if recipe not in best or float(row["speedup"]) > float(best[recipe]["speedup"]):
            best[recipe] = row
    lines = []
    for (workload, data, size, batch), best in groups.items():
        if len(best) > 1:
            unit = next(iter(best.values()))["unit"]
            title = f"{workload} on {data} at {size} {unit}, batch {batch}: each method on its fastest backend"
            rows = [_cells(row) for row in best.values()]
            align = ["left", "left", *["right"] * 11]
            lines += [title, *tabulate(rows, _HEADERS, "plain", disable_numparse=True, colalign=align).splitlines(), ""]
    return lines


def _cells(row: Record) -> list[str]:
    megabytes = float(row["size_bytes"]) / 1e6
    precision = "" if row["precision"] == "fp32" else f" {row['precision']}"
    made = row["recipe"] != ORIGINAL
    return [
        str(row["recipe"]),
        f"{row['backend']}{precision}",
        short(megabytes),
        f"{float(row['size_bytes_original']) / 1e6 / megabytes:.1f}x" if made else "-",
        short(float(row["parameters"]) / 1e6) if made else "-",
        short(float(row["gflop"]) * 500),
        f"{row['sparsity']:.0%}" if "sparsity" in row else "-",
        f"{float(row['trimmed_mean_s']) * 1e3:.3f}",
        f"{row['speedup']:.2f} [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]",
        f"{row['int8_operators']} of {row['operators']}" if "int8_operators" in row else "-",
        *_quality(row, made),
    ]


def _quality(row: Record, made: bool) -> list[str]:
    """The first quality, its change against the original in points with its interval, and the agreement."""
    name = f"quality_{row['quality']}"
    if name not in row:
        return ["-", "-", "-"]
    digits, change = quality_digits(float(row[name])), "-"
    if made:
        change = f"{0.0 - 100 * float(row['quality_drop']):+.{digits}f}"
        if "quality_drop_low" in row:
            low, high = (0.0 - 100 * float(row[f"quality_drop_{end}"]) for end in ("high", "low"))
            change += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return [f"{row[name]:.{digits}%}", change, f"{row['agreement']:.1%}"]


def short(value: float) -> str:
    """Two decimals, or three significant digits of what is smaller than one: sizes go from 3 kB to 100 MB."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"
