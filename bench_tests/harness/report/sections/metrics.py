"""The metrics of a report, each with its unit and the reason for which it is there."""

from __future__ import annotations

from collections.abc import Collection

from bench_tests.harness.report.digits import is_share
from bench_tests.harness.report.document import Cell, Column, Row, Table
from bench_tests.harness.report.material import Material


def metrics(material: Material) -> Table:
    """The metrics that these records have: what each is, in which unit, and why it is there."""
    names = {name for entry in material.entries for name in entry.record}
    columns = tuple(
        Column(name, label, numeric=False)
        for name, label in (("metric", "metric"), ("unit", "unit"), ("what", "what it is"), ("why", "why it is there"))
    )
    shares = {is_share(entry) for entry in material.entries if entry.quality is not None}
    rows = tuple(
        Row(tuple(Cell(text, text) for text in (metric, _unit(key, unit, shares), *texts)))
        for key, metric, unit, *texts in _METRICS
        if key in names
    )
    return Table("metrics", "The metrics", columns, rows)


def _unit(key: str, unit: str, shares: Collection[bool]) -> str:
    """Of a first quality that is no share, a loss for instance, not per cent or points."""
    if key not in ("quality", "quality_drop") or False not in shares:
        return unit
    return f"{unit}; of a loss its own" if True in shares else "its own"


# A key that a record must have, then: metric, unit, what it is, why it is there.
_METRICS = (
    ("trimmed_mean_s", "mean", "ms", "time of a call, without the fastest and the slowest 10 % of the blocks",
     "what a caller waits for; trimmed, since other processes only ever add time"),
    ("stddev_s", "standard deviation, p95", "ms", "spread of the blocks, and what 95 % stay below",
     "a service is held to its slow calls"),
    ("fps", "FPS", "1/s", "examples a second: batch over mean", "capacity: how many machines a load takes"),
    ("speedup", "x eager", "ratio", "paired speed-up over PyTorch eager fp32, with its 95 % interval",
     "the question itself; in pairs, so that a busy machine does not decide it"),
    ("speedup_over_best_fp32", "x best fp32", "ratio", "over the fastest row that changes no number",
     "the honest gain of a lossy way: part of a speed-up over eager is to be had for nothing"),
    ("quality", "quality", "%", "top-1 accuracy, ROC AUC, right next characters or a metric of the workload's own",
     "a faster model that is worse answers another question"),
    ("quality_drop", "change", "points", "quality less the original's on the same examples, with its interval",
     "paired, it shows changes that two separate intervals would hide"),
    ("agreement", "agreement", "%", "same answers as the original", "users notice changed answers, right ones too"),
    ("size_bytes", "size on disk", "MB", "what the backend runs from", "downloads, flash, start-up"),
    ("parameters", "parameters, MACs", "count", "numbers in the model, multiply-adds a call",
     "what a method took away, whatever the backend makes of it"),
    ("cpu_peak_memory_bytes", "CPU memory", "MiB", "peak of a process that does nothing else",
     "how many instances fit on a machine, libraries included"),
    ("gpu_peak_memory_bytes", "GPU memory", "MiB", "the allocator's peak", "which batch still fits"),
    ("gpu_utilisation_percent", "GPU busy", "%", "share of time in which a kernel ran",
     "a card that waits is fed too slowly"),
    ("gflops", "GFLOP/s", "10^9/s", "arithmetic of the fp32 model over the mean",
     "comparable across sizes and batches"),
    ("share_of_peak", "of measured peak", "%", "GFLOP/s over the best that software reaches here",
     "how much is left to win: near 100 %, only less arithmetic helps"),
    ("share_of_theoretical_peak", "of theory", "%",
     "the same over cores x clock x operations a cycle, or the data sheet",
     "compares with other machines; turbo may exceed it"),
    ("real_time_factor", "of real time", "%", "time over the length of the audio", "a stream must stay below 100 %"),
    ("build_s", "build, first call", "s", "what comes before the first answer", "start-up and updates"),
    ("cycles_per_character", "cycles a character", "count", "of whole answers, exact",
     "what a person at an UNO waits for"),
    ("flash_bytes", "flash, SRAM", "bytes", "the program's, and its variables with the deepest stack",
     "it fits or not"),
)  # fmt: skip
