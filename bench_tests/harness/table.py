"""The table at the end of a run, grouped by size and batch, and the answer in one line.

Every figure is read from the records; nothing is measured here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tabulate import tabulate

from bench_tests.harness.comparison import comparisons, short
from bench_tests.harness.firmware import firmware
from bench_tests.harness.record import ORIGINAL, Record
from bench_tests.harness.saturation import saturation
from optim.command import quality_digits


def add_best_fp32(records: Mapping[str, Record]) -> None:
    """Add to each record its speed-up over the fastest lossless fp32 row of the same workload, size and batch.

    That is the honest figure of a lossy method: half of a speed-up over eager is often to be had for nothing.
    """
    for rows in _groups(records.values()).values():
        lossless = [float(row["speedup"]) for row in rows if row["precision"] == "fp32" and row["recipe"] == ORIGINAL]
        for row in rows:
            if lossless and row["clock"] == "wall":
                row["speedup_over_best_fp32"] = float(row["speedup"]) / max(lossless)


def _groups(records: Iterable[Record]) -> dict[tuple[str, str, int, int], list[Record]]:
    groups: dict[tuple[str, str, int, int], list[Record]] = defaultdict(list)
    for row in records:
        groups[str(row["workload"]), str(row["data"]), int(row["size"]), int(row["batch"])].append(row)
    return dict(sorted(groups.items()))


_HEADERS = [
    "batch", "", "backend", "precision", "ms/image", "FPS", "x eager [95 %]", "x best fp32", "GFLOP/s", "of peak",
]  # fmt: skip
_ALIGN = ["right", "left", "left", "left", *["right"] * 10]


def results(records: Mapping[str, Record]) -> str:
    """A table for each workload, grouped by size and batch; ``*`` marks the fastest of each group.

    A column tells the recipes where there is another than the original.
    """
    tables: dict[tuple[str, str], list[list[str]]] = {}
    titles: dict[tuple[str, str], tuple[str, str, str]] = {}
    for (workload, data, size, batch), rows in _groups(records.values()).items():
        lines = tables.setdefault((workload, data), [])
        judged = str(rows[0]["quality"])
        title = f"{workload} on {data}, {rows[0]['threads']} threads"
        titles[workload, data] = title, judged if " " not in judged else "quality", str(rows[0]["unit"])
        best = _fastest(rows)
        if lines:
            lines.append([""] * 16)
        for index, row in enumerate(rows):
            group = [str(size), str(batch)] if index == 0 else ["", ""]
            mark = "*" if row is best else ""
            lines.append([*group, mark, str(row["recipe"]), str(row["backend"]), *_cells(row)])
    recipes = any(row["recipe"] != ORIGINAL for row in records.values())
    parts = []
    for key, lines in tables.items():
        title, judged, unit = titles[key]
        headers = [unit, *_HEADERS[:2], "recipe", *_HEADERS[2:], judged, "agree", "peak MiB", "size MB"]
        align = ["right", *_ALIGN[:2], "left", *_ALIGN[2:]]
        if not recipes:
            headers, align, *lines = ([*row[:3], *row[4:]] for row in (headers, align, *lines))
        parts.append(f"{title}\n{tabulate(lines, headers, 'plain', disable_numparse=True, colalign=align)}")
    return "\n\n".join(parts)


def _cells(row: Record) -> list[str]:
    name = row["quality"]
    judged = f"quality_{name}" in row
    value = float(row.get(f"quality_{name}", 0.0))
    return [
        str(row["precision"]),
        f"{row['ms_per_image']:.3f}",
        f"{row['fps']:.1f}",
        f"{row['speedup']:.2f} [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]",
        f"{row['speedup_over_best_fp32']:.2f}" if "speedup_over_best_fp32" in row else "-",
        f"{row['gflops']:.0f}",
        f"{row['share_of_peak']:.0%}" if "share_of_peak" in row else "-",
        f"{value:.{quality_digits(value)}%}" if judged else "-",
        f"{row['agreement']:.1%}" if judged else "-",
        f"{float(row['cpu_peak_memory_bytes']) / 2**20:.0f}" if "cpu_peak_memory_bytes" in row else "-",
        f"{size_mb:.1f}" if (size_mb := float(row["size_bytes"]) / 1e6) >= 1 else short(size_mb),
    ]


def saturations(records: Mapping[str, Record]) -> list[str]:
    """For the fastest variant of each size: the smallest batch within 5 % of the best FPS, and the best batch."""
    lines = []
    by_size: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for row in records.values():
        by_size[str(row["workload"]), str(row["data"]), int(row["size"])].append(row)
    for (workload, _, size), rows in sorted(by_size.items()):
        best = max(rows, key=lambda row: float(row["fps"]))
        curve = {
            int(row["batch"]): float(row["fps"])
            for row in rows
            if (row["backend"], row["precision"]) == (best["backend"], best["precision"])
        }
        if len(curve) < 2:
            continue
        found = saturation(curve)
        lines.append(
            f"{workload} at {size} {best['unit']}: {best['backend']} {best['precision']} saturates at batch "
            f"{found.batch} ({curve[found.batch]:.1f} FPS), best batch {found.best_batch} "
            f"({curve[found.best_batch]:.1f} FPS)"
        )
    return lines


def real_time(records: Mapping[str, Record]) -> list[str]:
    """For audio: what share of its own length the fastest variant of each size takes."""
    lines = []
    for (workload, _, size, batch), rows in _groups(records.values()).items():
        best = _fastest(rows)
        if "real_time_factor" in best:
            lines.append(
                f"{workload}: {batch} x {size} ms of audio take {best['real_time_factor']:.3%} of real time on "
                f"{best['backend']}"
            )
    return lines


def answer(records: Mapping[str, Record]) -> list[str]:
    """The one-line answer for each workload, at its largest size and the batch with the most images a second."""
    lines = []
    workloads = dict.fromkeys(str(row["workload"]) for row in records.values())
    for workload in workloads:
        rows = [row for row in records.values() if row["workload"] == workload]
        largest = max(int(row["size"]) for row in rows)
        rows = [row for row in rows if int(row["size"]) == largest]
        batch = max(rows, key=lambda row: float(row["fps"]))["batch"]
        rows = [row for row in rows if row["batch"] == batch]
        best = _fastest(rows)
        line = f"fastest: {_claim(best)}"
        lossless = [row for row in rows if row["precision"] == "fp32" and row["recipe"] == ORIGINAL]
        if lossless and best not in lossless:
            line += f"; lossless: {_claim(_fastest(lossless))}"
        lines.append(f"{workload} {line}" if len(workloads) > 1 else line)
    return lines


def _fastest(rows: Sequence[Record]) -> Record:
    """The fastest row of one size and batch: by the paired ratio, since a machine's speed drifts between the rows."""
    return max(rows, key=lambda row: float(row["speedup"]))


def _claim(row: Record) -> str:
    precision = "" if row["precision"] == "fp32" else f" {row['precision']}"
    against = "the plain engine" if row["clock"] == "cycles" else "PyTorch"
    return (
        f"{row['backend']}{precision}, {row['speedup']:.2f}x {against} "
        f"[{row['speedup_low']:.2f}, {row['speedup_high']:.2f}] at {row['size']} {row['unit']}, batch {row['batch']}"
    )


def ceilings(records: Mapping[str, Record]) -> list[str]:
    """The machine's measured and theoretical peak of each precision in the table."""
    lines = {}
    for row in records.values():
        theory = f", theoretical {row['peak_theoretical_gflops']:.0f}" if "peak_theoretical_gflops" in row else ""
        lines[row["peak_precision"]] = f"{row['peak_precision']} {row['peak_gflops']:.0f}{theory}"
    return [f"measured peak of this machine in GFLOP/s (matrix products, convolutions): {'; '.join(lines.values())}"]


def not_measured(entries: Sequence[Record]) -> list[str]:
    """A line for each case without a number."""
    return [f"{entry['status']}: {entry['case']}: {entry['reason']}" for entry in entries]


def cost(records: Mapping[str, Record], wall_s: float) -> str:
    """Where the wall time went; what is neither building, checking nor timed calls is the harness's own cost."""
    spent = {
        name: sum(float(row.get(f"spent_{name}_s", 0.0)) for row in records.values())
        for name in ("building", "checking", "timed_calls", "warming")
    }
    rest = 1 - (spent["building"] + spent["checking"] + spent["timed_calls"]) / wall_s
    return (
        f"{len(records)} cases in {wall_s:.0f} s: building {spent['building'] / wall_s:.0%}, "
        f"checking {spent['checking'] / wall_s:.0%}, timed calls {spent['timed_calls'] / wall_s:.0%}, "
        f"harness {rest:.1%} (of it warm-up calls {spent['warming'] / wall_s:.1%})"
    )


def report(records: Mapping[str, Record], entries: Sequence[Record], wall_s: float) -> list[str]:
    """All lines of the end of a run."""
    lines = [*results(records).splitlines(), ""]
    for part in (
        firmware(records),
        comparisons(records),
        ceilings(records),
        saturations(records),
        real_time(records),
        not_measured(entries),
        [cost(records, wall_s)],
        answer(records),
    ):
        lines += part
    return lines
