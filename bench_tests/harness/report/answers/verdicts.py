"""Whether a recipe or a lower precision is worth it at one size and batch: a verdict on speed, size and quality.

Each is taken on the backend on which it is fastest, and held against the fastest lossless fp32 row: whatever that one
has over PyTorch is to be had for nothing. Of cycles, where no original runs, the reference is the plain engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench_tests.harness.report.material import Entry, Interval
from bench_tests.harness.report.picks import best_lossless, over, ranked, tolerated

SMALLER = 0.9  # of the original's bytes: less saves hardly a download


@dataclass(frozen=True)
class Offer:
    """A recipe, or a precision of the original, at one size and batch, against ``base``; None without a lossless row.

    ``speed`` is faster, same or slower. ``kept`` says of the quality: kept (surely within what is tolerated), open (the
    interval reaches beyond that), lost (beyond it), or unjudged. Where a run names no tolerated
    drop, none is.
    """

    entry: Entry
    base: Entry | None
    ratio: Interval
    speed: str
    kept: str
    tolerated: float | None

    @property
    def way(self) -> tuple[str, str]:
        """Recipe and precision."""
        return self.entry.variant.recipe, self.entry.variant.precision

    @property
    def original_bytes(self) -> float | None:
        """Of the original on disk, as its fp32 file."""
        found = self.entry.number_of("size_bytes_original")
        return found if found or self.base is None else float(self.base.record["size_bytes"])

    @property
    def smaller(self) -> float | None:
        """How many times smaller than the original on disk."""
        whole = self.original_bytes
        return whole / float(self.entry.record["size_bytes"]) if whole else None

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if self.kept == "lost":
            return "costs quality" if self.speed == "faster" else "not worth it"
        if self.speed == "faster":
            return {"kept": "worth it", "open": "worth it with a doubt", "unjudged": "faster, not judged"}[self.kept]
        return "only smaller" if self.smaller is not None and self.smaller * SMALLER > 1 else "not worth it"


VERDICTS = (
    "worth it", "worth it with a doubt", "faster, not judged", "costs quality", "only smaller", "not worth it"
)  # fmt: skip


def offers(cell: Sequence[Entry]) -> list[Offer]:
    """All recipes and lower precisions of one size and batch, the fastest first."""
    base, best = best_lossless(cell), {}
    for entry in ranked(cell):
        key = (entry.variant.recipe, entry.variant.precision)
        if not entry.lossless and key not in best:
            best[key] = entry
    return [_offer(entry, base, tolerated([entry])) for entry in best.values()]


def _offer(entry: Entry, base: Entry | None, allowed: float | None) -> Offer:
    ratio = over(entry, base) if base is not None else entry.speedup
    speed = "faster" if ratio.low > 1 else "slower" if ratio.high < 1 else "same"
    return Offer(entry, base, ratio, speed, _kept(entry, allowed), allowed)


def _kept(entry: Entry, allowed: float | None) -> str:
    drop = entry.drop
    if drop is None:
        return "unjudged"
    if allowed is None:
        return "lost" if drop.low > 0 else "open" if drop.high > 0 else "kept"
    if drop.value > allowed:
        return "lost"
    return "kept" if drop.high <= allowed else "open"
