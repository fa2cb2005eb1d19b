"""From which batch on larger ones only add latency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Saturation:
    """``batch`` is the smallest one whose FPS is close to the best, ``best_batch`` the one of the best."""

    batch: int
    best_batch: int


def saturation(fps_by_batch: Mapping[int, float], within: float = 0.05) -> Saturation:
    """The smallest batch whose FPS is within ``within`` of the best: larger ones only add latency."""
    if not 0 <= within < 1:
        raise ValueError(f"within: expected 0 <= within < 1, got {within}")
    batches = sorted(fps_by_batch)
    if not batches or not all(0 < fps_by_batch[batch] < math.inf for batch in batches):
        raise ValueError(f"fps_by_batch: expected finite numbers above 0, got {dict(fps_by_batch)}")
    best = max(batches, key=lambda batch: fps_by_batch[batch])
    least = (1 - within) * fps_by_batch[best]
    return Saturation(batch=next(batch for batch in batches if fps_by_batch[batch] >= least), best_batch=best)
