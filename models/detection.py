"""What a keyword spotter is judged by on single clips: ROC AUC, the FA/FR area, accuracy, and intervals by speaker.

A probability is that of the keyword, a label is 1 for the keyword and 0 for any other word.

- **ROC AUC**: the share of pairs of a keyword's clip and another one that are in the right order, ties counted half.
- **FA/FR area**, the metric of the course "Deep Learning in Audio" (markovka17/dla, hw2_kws): for every threshold the
  false alarms and the false rejections, each divided by the number of all clips; the area under the second over the
  first by the trapezoid rule. It equals pi (1 - pi) (1 - ROC AUC), pi being the keyword's share of the clips, so that
  figures of differently mixed clips must not be compared. The course stops at the threshold 1; here one lies above all
  probabilities, because a float32 softmax does reach 1.
- **Intervals** by bootstrap over speakers (Field & Welsh, "Bootstrapping clustered data", JRSS B 69, 2007): speakers
  are drawn with replacement, and all clips of a drawn speaker count, since clips of one voice succeed and fail
  together. Bias-corrected and accelerated (Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987), because
  near 1 plain quantiles claim too much: of 150 made-up sets of 1,700 clips, 170 of the keyword, with a ROC AUC of
  0.998 they held it in 88 %, and lay above it in the rest; these hold it in 91 %. One without width is no certainty:
  where all clips are in the right order, so they are in every draw.
- **Outcomes**, one a clip, for paired comparisons that take a mean over examples: the clip's influence on the figure
  (DeLong et al., "Comparing the Areas under Two or More Correlated ROC Curves", Biometrics 44, 1988). Their mean is the
  figure, and the variance of their mean is DeLong's variance of the figure; the placements themselves would have the
  first property only, and claim a precision as if there were as many keywords as clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from models.errors import SpeedproofError
from models.workload import Quality

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # weights of the clips (B, N) to a figure for each row (B,)

RESAMPLES = 2000
_TAILS = (0.025, 0.975)
_LOST_DRAWS = 0.05  # share of draws that may lack a class: the keyword by three speakers misses in e^-3 of them
_BATCH_BYTES = 2**25  # of one array of weights


class Interval(NamedTuple):
    """A figure with the bounds of its 95 % interval."""

    estimate: float
    low: float
    high: float


def roc_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """ROC AUC of probabilities (N,) with labels (N,) of 0 and 1. Raises SpeedproofError where it does not exist."""
    scores, positive = _checked(probabilities, labels)
    return float(_weighted_auc(scores, positive)(np.ones((1, scores.size)))[0])


def far_frr_area(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The FA/FR area, lower is better, of probabilities (N,) with labels (N,). Raises SpeedproofError as `roc_auc`."""
    scores, positive = _checked(probabilities, labels)
    thresholds = np.append(np.unique(scores), np.inf)  # a clip at the threshold is detected
    rejections = np.searchsorted(np.sort(scores[positive]), thresholds) / scores.size
    alarms = ((~positive).sum() - np.searchsorted(np.sort(scores[~positive]), thresholds)) / scores.size
    return float(-np.trapezoid(rejections, alarms))


def roc_auc_interval(
    probabilities: ArrayLike, labels: ArrayLike, speakers: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """ROC AUC with its interval; ``speakers`` (N,) names the speaker of each clip."""
    return speaker_interval(_weighted_auc(*_checked(probabilities, labels)), speakers, resamples, seed)


def far_frr_area_interval(
    probabilities: ArrayLike, labels: ArrayLike, speakers: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The FA/FR area with its interval, in which the keyword's share of the clips varies from draw to draw too."""
    scores, positive = _checked(probabilities, labels)
    auc = _weighted_auc(scores, positive)

    def area(weights: Array) -> Array:
        share = weights[:, positive].sum(1) / weights.sum(1)
        return np.asarray(share * (1 - share) * (1 - auc(weights)))

    return speaker_interval(area, speakers, resamples, seed)


def paired_auc_difference(
    before: ArrayLike,
    after: ArrayLike,
    labels: ArrayLike,
    speakers: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """ROC AUC of ``after`` less that of ``before`` (N,) on the same clips, both of each draw; below 0 is a loss."""
    first, second = (_weighted_auc(*_checked(scores, labels)) for scores in (before, after))
    return speaker_interval(lambda weights: second(weights) - first(weights), speakers, resamples, seed)


def paired_error_ratio(
    before: ArrayLike,
    after: ArrayLike,
    labels: ArrayLike,
    speakers: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """1 - ROC AUC of ``after`` over that of ``before``, paired alike: 1.5 is half as many wrong pairs again.

    Infinite where only ``before`` makes no error at all, and 1 where neither makes one.
    """
    first, second = (_weighted_auc(*_checked(scores, labels)) for scores in (before, after))

    def ratio(weights: Array) -> Array:
        # Rounded, or the last bit of a sum would be an error where there is none: a wrong pair is 1e-9 of all or more.
        errors, base = (np.round(1 - auc(weights), 12) for auc in (second, first))
        lost = np.isnan(base)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(lost, np.nan, np.where(errors == base, 1.0, errors / base))

    return speaker_interval(ratio, speakers, resamples, seed)


def speaker_interval(
    statistic: Statistic, speakers: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """A figure of weighted clips, and its interval by bootstrap over speakers; equal seeds draw equal speakers.

    ``statistic`` takes weights (B, N) and returns (B,), NaN for a draw in which the figure does not exist. Raises
    SpeedproofError where that are more than a twentieth of the draws.
    """
    names, owners = np.unique(np.asarray(speakers), return_inverse=True)  # (S,), (N,)
    draws = np.random.default_rng(seed).multinomial(
        names.size, np.full(names.size, 1 / names.size), resamples
    )  # (R, S)
    found = _of_draws(statistic, draws, owners)
    if names.size < 2 or found.size < (1 - _LOST_DRAWS) * resamples:
        raise SpeedproofError(
            f"no interval from clips of {names.size} speakers: too few of them say the keyword, or any other word, "
            f"expected at least four of each; judge on more clips"
        )
    estimate = float(statistic(np.ones((1, owners.size)))[0])
    # Draws themselves are the bounds: between an infinite one and the next there is nothing.
    levels = _levels(estimate, found, _of_draws(statistic, 1 - np.eye(names.size), owners))
    low = np.quantile(found, levels[0], method="lower")
    high = np.quantile(found, levels[1], method="higher")
    return Interval(estimate, float(low), float(high))


def _of_draws(statistic: Statistic, draws: NDArray[Any], owners: NDArray[np.int64]) -> Array:
    """The figure of each draw of speakers (R, S) in which it exists, a few draws at a time."""
    step = max(1, _BATCH_BYTES // (8 * owners.size))
    parts = [statistic(draws[at : at + step, owners].astype(np.float64)) for at in range(0, len(draws), step)]
    found = np.concatenate(parts)
    return np.asarray(found[~np.isnan(found)])


def _levels(estimate: float, found: Array, left_out: Array) -> Array:
    """Which quantiles of the draws are the bounds: shifted by their bias and the skewness of the speakers' parts."""
    below = ((found < estimate).mean() + (found <= estimate).mean()) / 2
    if not 0 < below < 1 or not np.isfinite(left_out).all():
        return np.array(_TAILS)
    parts = left_out.mean() - left_out
    spread = float((parts**2).sum())
    acceleration = float((parts**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    bias = float(ndtri(below))
    turned = bias + ndtri(_TAILS)
    return np.asarray(ndtr(bias + turned / (1 - acceleration * turned)))


def qualities(probabilities: ArrayLike, labels: ArrayLike, speakers: Sequence[str]) -> tuple[Quality, ...]:
    """The qualities of the Workload contract: ``roc_auc``, ``far_frr_area``, and ``top1`` at the threshold 0.5.

    Takes probabilities (N,), labels (N,) and who spoke each clip; answers are 1 where the probability is at least 0.5.
    Intervals are by bootstrap over speakers, and left out where they are too few. Raises SpeedproofError where one
    class is missing or a probability is no number.
    """
    scores, positive = _checked(probabilities, labels)
    answers = (scores >= 0.5).astype(np.int64)
    right = (answers == positive).astype(np.float64)
    placements = _placements(scores, positive)
    auc, area = roc_auc(scores, positive), far_frr_area(scores, positive)
    others = np.where(positive, (~positive).sum(), positive.sum())  # (N,) clips of the class that each is not of
    influence = auc + (placements - auc) * scores.size / (scores.size - others)
    wrong_pairs = (1 - placements) * others / scores.size - area
    bounds: list[tuple[float, float] | None] = []
    for interval in (roc_auc_interval, far_frr_area_interval):
        try:
            found = interval(scores, positive, speakers)
        except SpeedproofError:
            bounds.append(None)
        else:
            bounds.append((found.low, found.high))
    return (
        Quality("roc_auc", auc, scores.size, True, influence, answers, bounds[0]),
        Quality("far_frr_area", area, scores.size, False, wrong_pairs, answers, bounds[1]),
        Quality("top1", float(right.mean()), scores.size, True, right, answers),
    )


def _placements(scores: Array, positive: NDArray[np.bool_]) -> Array:
    """For each clip the share of the other class that it stands on the right side of, ties counted half: (N,)."""
    placements = np.empty(scores.size)
    for own, sign in ((positive, 1), (~positive, -1)):
        others = np.sort(sign * scores[~own])
        below, up_to = (np.searchsorted(others, sign * scores[own], side) for side in ("left", "right"))
        placements[own] = (below + up_to) / (2 * others.size)
    return placements


def _weighted_auc(scores: Array, positive: NDArray[np.bool_]) -> Statistic:
    """ROC AUC of weighted clips, NaN where a class has no weight: the clips are sorted once for all weights."""
    order = np.argsort(scores)
    first = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where each distinct probability begins
    keyword = positive[order].astype(np.float64)

    def auc(weights: Array) -> Array:
        ordered = weights[:, order]
        keywords, others = (np.add.reduceat(ordered * mask, first, axis=1) for mask in (keyword, 1 - keyword))
        below = others.cumsum(1) - others / 2
        pairs = keywords.sum(1) * others.sum(1)
        with np.errstate(invalid="ignore"):
            return np.asarray((keywords * below).sum(1) / pairs)

    return auc


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    scores, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != truth.shape:
        raise ValueError(f"expected a label for each probability, got shapes {scores.shape} and {truth.shape}")
    positive = truth == 1
    if not np.isfinite(scores).all():
        raise SpeedproofError(
            f"{(~np.isfinite(scores)).sum()} of {scores.size} probabilities are NaN or infinite: the model is broken, "
            f"or its input is; check its weights"
        )
    if positive.all() or not positive.any():
        raise SpeedproofError(
            f"{positive.sum()} of {scores.size} clips are of the keyword: a spotter is judged on clips of the keyword "
            f"and of other words; judge on more clips (--examples all)"
        )
    return scores, positive
