"""What a list of measured times says: summaries of one side, and paired ratios of two with their intervals.

Pure functions on numpy arrays; nothing here measures anything. Sources:

- Hodges & Lehmann, "Estimates of Location Based on Rank Tests", Annals of Mathematical Statistics 34 (1963): the median
  of the pairwise (Walsh) averages, which one wild block in ten does not move.
- Hollander & Wolfe, "Nonparametric Statistical Methods", section 3.3: its distribution-free interval.
- Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927): proportions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

_EXACT_PAIRS = 50  # up to here the null distribution is counted out; beyond, the normal one agrees to 1e-3


@dataclass(frozen=True)
class Summary:
    """The times of one function. ``fps`` and ``ms_per_image`` come from the trimmed mean."""

    trimmed_mean_s: float
    median_s: float
    minimum_s: float
    stddev_s: float  # of the sample (n - 1); 0.0 for a single one
    p95_s: float
    fps: float
    ms_per_image: float
    samples: int


@dataclass(frozen=True)
class Ratio:
    """A speed-up, reference time over candidate time: above 1 the candidate is faster.

    ``pairs`` counts the independent units that the interval rests on: paired blocks, or rebuilt instances.
    ``confidence`` is what the interval really attains; fewer than 6 pairs cannot reach 95 % (5 reach 93.75 %, 3 reach
    75 %, 1 reaches none), and the interval is then the extreme Walsh averages, the widest that the data can give.
    """

    estimate: float
    low: float
    high: float
    pairs: int
    confidence: float


def trimmed_mean(samples: ArrayLike, share: float = 0.1) -> float:
    """Mean without the ``floor(share * n)`` fastest and as many slowest samples."""
    if not 0 <= share < 0.5:
        raise ValueError(f"share of trimmed samples: expected 0 <= share < 0.5, got {share}")
    ordered = np.sort(_positive(samples, "samples"))
    dropped = int(share * ordered.size)
    return float(ordered[dropped : ordered.size - dropped].mean())


def summarise(times_s: ArrayLike, images_per_call: int) -> Summary:
    """Summarise the times of single calls, each of which handled ``images_per_call`` images."""
    if images_per_call < 1:
        raise ValueError(f"images per call: expected at least 1, got {images_per_call}")
    times = _positive(times_s, "times_s")
    mean_s = trimmed_mean(times)
    return Summary(
        trimmed_mean_s=mean_s,
        median_s=float(np.median(times)),
        minimum_s=float(times.min()),
        stddev_s=float(times.std(ddof=1)) if times.size > 1 else 0.0,
        p95_s=float(np.quantile(times, 0.95)),
        fps=images_per_call / mean_s,
        ms_per_image=1e3 * mean_s / images_per_call,
        samples=int(times.size),
    )


def paired_ratio(reference_s: ArrayLike, candidate_s: ArrayLike, confidence: float = 0.95) -> Ratio:
    """Speed-up from paired blocks: block i of the reference was timed next to block i of the candidate.

    Hodges-Lehmann on the log-ratios with the interval of Wilcoxon's signed-rank test. It takes the log-ratios as
    independent and symmetric, so it knows nothing of a bias that all blocks share: below about 100 us use
    `paired_ratio_by_instance`. Memory grows with the square of the pairs.
    """
    return _ratio(_log_ratios(reference_s, candidate_s), confidence)


def paired_ratio_by_instance(
    reference_s: ArrayLike, candidate_s: ArrayLike, instance: ArrayLike, confidence: float = 0.95
) -> Ratio:
    """Speed-up of a function so small that where its instance lies in memory decides more than any number of blocks.

    ``instance[i]`` names the rebuilt instance that pair i was timed on. Each instance gives one Hodges-Lehmann
    estimate; the result is their median, and the interval is taken over instances, since rounds on one instance
    repeat its bias instead of averaging it away.
    """
    logs = _log_ratios(reference_s, candidate_s)
    labels = np.asarray(instance)
    if labels.shape != logs.shape:
        raise ValueError(f"instance: expected one label for each of {logs.size} pairs, got shape {labels.shape}")
    per_instance = np.array([np.median(_walsh_averages(logs[labels == label])) for label in np.unique(labels)])
    median = float(np.median(per_instance))
    interval = _ratio(per_instance, confidence)
    # Median and interval are different estimators: above 20 skewed instances the one could leave the other.
    return Ratio(
        estimate=float(np.exp(median)),
        low=min(interval.low, float(np.exp(median))),
        high=max(interval.high, float(np.exp(median))),
        pairs=interval.pairs,
        confidence=interval.confidence,
    )


def wilson_interval(successes: int, examples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion such as an accuracy, ``successes`` of ``examples``, that stays within 0 and 1."""
    if not 0 <= successes <= examples or examples < 1:
        raise ValueError(f"expected 0 <= successes <= examples and an example, got {successes} of {examples}")
    interval = stats.binomtest(successes, examples).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(before: ArrayLike, after: ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of ``before - after`` over the same examples, and its interval.

    For outcomes of 0 and 1 (right or wrong) the interval is that of Agresti & Min, "Simple Improved Confidence
    Intervals for Comparing Matched Proportions", Statistics in Medicine 24 (2005): half an example is added to each of
    the four kinds of pairs. Otherwise it is Student's.
    """
    left, right = (np.asarray(side, dtype=np.float64) for side in (before, after))
    if left.shape != right.shape or left.ndim != 1 or left.size < 2:
        raise ValueError(f"expected two lists of the same two or more examples, got {left.shape} and {right.shape}")
    difference = left - right
    estimate, count = float(difference.mean()), left.size
    if set(np.unique(left)) | set(np.unique(right)) <= {0.0, 1.0}:
        lost, gained = int((difference > 0).sum()) + 0.5, int((difference < 0).sum()) + 0.5
        centre = (lost - gained) / (count + 2)
        spread = float(np.sqrt(lost + gained - (lost - gained) ** 2 / (count + 2))) / (count + 2)
        reach = spread * float(stats.norm.ppf((1 + confidence) / 2))
        low, high = max(-1.0, centre - reach), min(1.0, centre + reach)
    else:
        reach = float(difference.std(ddof=1) / np.sqrt(count) * stats.t.ppf((1 + confidence) / 2, count - 1))
        low, high = estimate - reach, estimate + reach
    return estimate, min(estimate, low), max(estimate, high)


def _positive(samples: ArrayLike, name: str) -> Array:
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}: expected a non-empty list of numbers, got shape {array.shape}")
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name}: expected finite numbers above 0, got {array.min()} to {array.max()}")
    return array


def _log_ratios(reference_s: ArrayLike, candidate_s: ArrayLike) -> Array:
    reference, candidate = _positive(reference_s, "reference_s"), _positive(candidate_s, "candidate_s")
    if reference.size != candidate.size:
        raise ValueError(f"expected pairs, got {reference.size} reference and {candidate.size} candidate times")
    logs: Array = np.log(reference) - np.log(candidate)
    return logs


def _walsh_averages(values: Array) -> Array:
    """All averages of two values, each with itself included, in ascending order: n (n + 1) / 2 of them."""
    first, second = np.triu_indices(values.size)
    return np.sort((values[first] + values[second]) / 2)


def _ratio(logs: Array, confidence: float) -> Ratio:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    averages = _walsh_averages(logs)
    rank, attained = _interval_rank(logs.size, confidence)
    low, estimate, high = np.exp([averages[rank - 1], np.median(averages), averages[-rank]])
    return Ratio(float(estimate), float(low), float(high), int(logs.size), attained)


def _interval_rank(pairs: int, confidence: float) -> tuple[int, float]:
    """Which order statistic of the Walsh averages bounds the interval on either side, and the confidence it attains.

    The rank C is the largest with P(T <= C - 1) <= (1 - confidence) / 2, T being the signed-rank statistic under its
    null distribution (Hollander & Wolfe); scipy has that distribution only behind its test.
    """
    total = pairs * (pairs + 1) // 2
    if pairs > _EXACT_PAIRS:
        spread = np.sqrt(total * (2 * pairs + 1) / 12)
        below = stats.norm.cdf((np.arange(total // 2 + 1) + 0.5 - total / 2) / spread)
    else:
        subsets = np.zeros(total + 1)  # of the ranks 1..pairs, by their sum; below 2**53, so exact
        subsets[0] = 1
        for rank in range(1, pairs + 1):
            subsets[rank:] += subsets[:-rank].copy()
        below = np.cumsum(subsets) / 2.0**pairs
    rank = max(1, int(np.searchsorted(2 * below, 1 - confidence, side="right")))
    return rank, max(0.0, float(1 - 2 * below[rank - 1]))
