"""``python -m bench_tests.pareto RUN.json``: quality against latency, size and arithmetic, with the Pareto front.

A stored run of pytest-benchmark (``--benchmark-json`` or a file below ``.benchmarks``) in which several recipes were
compared, for instance of ``test_methods.py`` or ``test_kws.py``. Each recipe stands with its fastest backend. On the
front are those that no other beats in both respects at once.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_tests.harness.record import Record, Value
from models.command import run
from models.errors import SpeedproofError
from models.files import check_picture, save_figure

# Of a record: what is on the axis, by which factor it is shown, and how it is called.
COSTS = (("median_s", 1e6, "latency, us"), ("size_bytes", 1e-3, "size, kB"), ("macs", 1e-6, "million MACs"))
# What the records of one picture share.
PLACE = ("workload", "data", "size", "unit", "batch", "threads", "device", "quality")
_ALIGN = ("left", "bottom"), ("left", "top"), ("right", "bottom"), ("right", "top")


def read_records(file: Path) -> list[Record]:
    """The fastest record of each recipe, its costs as floats. Raises SpeedproofError where they cannot be drawn."""
    try:
        entries = json.loads(file.read_text())["benchmarks"]
        records = [dict(entry["extra_info"]) for entry in entries if "case" in entry["extra_info"]]
        for record in records:
            _check_costs(record)
        fastest: dict[tuple[Value, ...], Record] = {}
        for record in sorted(records, key=lambda record: float(record["median_s"])):
            fastest.setdefault((str(record["recipe"]), record["threads"], record["device"]), record)
        places = {tuple(record[name] for name in PLACE) for record in fastest.values()}
        for record in fastest.values():
            if not all(map(math.isfinite, errors_of(record))):
                raise ValueError(f"{record['quality']} of {record['case']} or its interval is not finite")
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpeedproofError(
            f"{file}: no stored run that can be drawn ({type(error).__name__}: {error}); give one of recipes whose "
            f"quality was judged, written by --benchmark-json"
        ) from error
    if len(fastest) < 2 or len(places) != 1:
        raise SpeedproofError(
            f"{file}: expected at least two recipes of one {', '.join(PLACE)}, found "
            f"{len({recipe for recipe, *_ in fastest})} recipes of {len(places)}"
        )
    return list(fastest.values())


def _check_costs(record: Record) -> None:
    """Make the costs floats. Raises KeyError, TypeError or ValueError where one is missing or cannot be drawn."""
    if "macs" not in record:
        record["macs"] = float(record["gflop"]) * 5e8
    for name, *_ in COSTS:
        record[name] = cost = float(record[name])
        if not 0 < cost < math.inf:
            raise ValueError(f"{name} of {record['case']} is {cost}, expected a positive number")


def errors_of(record: Record) -> tuple[float, float, float]:
    """One less the first quality, and the bounds of its interval, in per cent."""
    name = str(record["quality"])
    value = float(record[f"quality_{name}"])
    low, high = (float(record.get(f"quality_{name}_{end}", value)) for end in ("low", "high"))
    return 100 * (1 - value), 100 * (1 - high), 100 * (1 - low)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of some (cost, error) no other beats in one respect without being worse in the other; by cost."""
    order = sorted(range(len(points)), key=lambda index: points[index])
    kept: list[int] = []
    for index in order:
        if not kept or points[index][1] < points[kept[-1]][1]:
            kept.append(index)
    return kept


def draw(records: Sequence[Record], file: Path) -> None:
    """One panel a cost, error bars from the intervals, the front as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5), layout="constrained")
    panels: Any = figure.subplots(1, len(COSTS), sharey=True)
    errors = [errors_of(record) for record in records]
    floor = min(error for error, *_ in errors if error > 0) / 3 if any(error > 0 for error, *_ in errors) else 1e-3
    for axes, (name, factor, label) in zip(panels, COSTS, strict=True):
        costs = [factor * float(record[name]) for record in records]
        shown = [max(error, floor) for error, *_ in errors]
        for x, y, (_, low, high) in zip(costs, shown, errors, strict=True):
            axes.plot([x, x], [max(low, floor), max(high, floor)], color="0.8", linewidth=1, zorder=1)
            axes.plot(x, y, "o", color="#0072b2", zorder=2)
        best = front(list(zip(costs, shown, strict=True)))
        axes.plot([costs[i] for i in best], [shown[i] for i in best], color="#d55e00", zorder=1, drawstyle="steps-post")
        for place, index in enumerate(best):
            horizontal, vertical = _ALIGN[place % 2]
            offset = (3, 3 if vertical == "bottom" else -3)
            axes.annotate(
                str(records[index]["recipe"]), (costs[index], shown[index]), xytext=offset,
                textcoords="offset points", fontsize=7, ha=horizontal, va=vertical,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3, which="both")
    first = records[0]
    panels[0].set_ylabel(f"1 - {first['quality']}, % (bars: 95 %)")
    count = len(front([(float(record["median_s"]), error[0]) for record, error in zip(records, errors, strict=True)]))
    figure.suptitle(
        f"{first['workload']} on {first['data']}, {first['size']} {first['unit']}, batch {first['batch']}: "
        f"{count} of {len(records)} settings are on the front of quality and latency"
    )
    save_figure(file, figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the picture is written, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m bench_tests.pareto", description="Draw the front of a stored run.")
    parser.add_argument("run", type=Path, metavar="RUN.json", help="a stored run in which recipes were compared")
    parser.add_argument("-o", "--output", type=Path, default=Path("pareto.png"), metavar="FILE", help="(pareto.png)")
    options = parser.parse_args(arguments)

    def body() -> None:
        check_picture(options.output, "--output")
        draw(read_records(options.run), options.output)
        print(f"{options.output}: written")

    return run(body, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
