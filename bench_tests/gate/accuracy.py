"""Has the quality fallen? Outcomes of base and head on the same examples, one example paired with itself.

For outcomes of 0 and 1 two tests make the word. A drop counts as seen where McNemar's exact test rejects "as many lost
as gained" at 1 % in that direction. A drop of the margin counts as excluded where Tango's score test rejects it at
2.5 % (non-inferiority). Then

- worse: a drop is seen, and one of the margin is not excluded; better: the same with the sides swapped
- same: a drop of the margin is excluded (a drop that is seen but smaller is borne), or no example was lost
- unstable: neither; the examples are too few, and the note says how many it takes

Each alone would not do: significance calls harmless drops worse once the examples are many, and calls everything the
same while they are few. The interval that stands beside the word is Agresti and Min's of 95 %; as the bound of the
margin it would be too short where few answers change: it misses a drop of 1 point in 6.6 % of cases at 1,000 examples
of which 1 % change, Tango's test in 1.0 %.

What it is worth on 2,000 examples with a margin of 1 point, in per cent of 200,000 draws each. Every example is lost or
gained independently of the others; "changed" is the share that is either:

    changed    drop of 1 point: worse, unstable, same    no drop: worse, unstable, same or better
     0.5 %                                                         0.1      0.0     99.9
     1.0 %                       97.9     0.0      2.1             0.5      1.3     98.2
     1.3 %                       96.1     1.9      2.0             0.6      4.0     95.4
     1.5 %                       91.5     6.4      2.1             0.6      6.5     92.9
     2.0 %                       77.7    20.2      2.2             0.6     13.9     85.5
     3.0 %                       56.1    41.5      2.4             0.7     27.8     71.5
     5.0 %                       34.1    63.4      2.5             0.8     48.6     50.6

So `worse` is false in at most 1 % and `same` hides a drop of the margin in at most 2.5 %, whatever changes. A drop of 1
point is called worse in at least 95 % up to 1.3 % of changed outcomes. Above 1.5 % no rule can do that with 1 % of
false alarms: Neyman and Pearson's most powerful test, told the share beforehand, finds 94.7 % at 1.5 % and 61 % at 3 %.
What cannot be told is called unstable. A drop planted in these very examples, exactly 20 more lost than gained, is
always called worse up to 3.3 % of changed outcomes. On fewer than 400 examples nothing may be lost by luck (28 % of the
time on 128 at a drop of 1 point): it is the same all the same, or no unchanged model would pass, and the note says it.

Outcomes other than 0 and 1, losses for instance: the same words from a paired bootstrap of the mean difference, its
98 % interval for a drop that is seen, its 95 % one for a margin that is excluded. The interval is BCa, which follows
the skew of losses: on 500 differences that are lognormal (sigma 1.5) the percentile interval sees a false drop in
4.9 %, BCa in 3.1 %, Student's in 6.8 %. On 2,000 differences BCa does in 1.8 %, lognormal (sigma 1) or of a t
distribution with 3 degrees of freedom: far from the normal, count on 2 % rather than 1 %. Its jackknife costs time with
the square of the examples: 0.5 s for 2,000, 4 s for 20,000. Fewer than 50 differences decide nothing.

A point is a hundredth of the outcome's unit. Judged are means over examples: a quality that is none, such as an area
under a curve, does not belong here.

- McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12 (1947)
- Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
  Statistics in Medicine 17 (1998)
- Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43 (1987)
- Efron, "Better bootstrap confidence intervals", JASA 82 (1987)
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bench_tests.gate.verdict import Verdict
from bench_tests.harness.statistics import paired_difference, wilson_interval
from models.errors import SpeedproofError

Array = NDArray[np.float64]

_SEEN = 0.01  # level of a drop that is seen: the share of false alarms
_EXCLUDED = 0.025  # level of a margin that is excluded: the share of hidden drops
_Z_SEEN, _Z_EXCLUDED = float(stats.norm.isf(_SEEN)), float(stats.norm.isf(_EXCLUDED))
_LEAST_MARGIN = 1e-9  # points; below, no number of examples is enough
_LARGEST = 1e100  # outcome, whose square is still a number
_LEAST_DIFFERENCES = 50  # of fewer, no bootstrap knows the tails
_RESAMPLES = 9999
_BATCH_BYTES = 2**26  # of one array of resamples


class _Evidence(NamedTuple):
    """What the examples say of a change; everything in the outcomes' unit, above 0 is a gain."""

    low: float
    high: float  # 95 % interval
    drop_seen: bool
    gain_seen: bool
    drop_excluded: bool  # one of the margin
    gain_excluded: bool
    examples_needed: float  # to tell a drop of the margin from none
    test: str


def judge_outcomes(
    case: str,
    quantity: str,
    base: ArrayLike,
    head: ArrayLike,
    *,
    margin: float = 1.0,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Verdict:
    """Judge a head by its outcomes on the examples on which the base was judged.

    ``base``, ``head``: (N,) outcomes of the same examples in the same order, 0 and 1 or any finite numbers, as in
    `Quality.outcomes`. ``margin``: the drop in points that is not borne (100 x a workload's `tolerated_drop`).
    ``seed`` is the bootstrap's. The effect is in points and turned so that below 0 is worse, also where a lower
    outcome is better. Raises SpeedproofError for outcomes of different examples, fewer than two, or a useless margin.
    """
    before, after = (_outcomes(case, quantity, side, outcomes) for side, outcomes in (("base", base), ("head", head)))
    if before.shape != after.shape:
        raise SpeedproofError(
            f"{case}: {quantity} was judged on {before.size} examples in base and on {after.size} in head: "
            f"judge both on the same examples"
        )
    binary = set(np.unique(before)) | set(np.unique(after)) <= {0.0, 1.0}
    if not _LEAST_MARGIN <= margin < (100 if binary else math.inf):
        limit = " and less than 100" if binary else ""
        raise SpeedproofError(
            f"{case}: the margin of {quantity} is {margin} points, expected {_LEAST_MARGIN} or more{limit}"
        )
    change = after - before if higher_is_better else before - after  # (N,), below 0 is lost
    lost, gained, count = int((change < 0).sum()), int((change > 0).sum()), change.size
    evidence = _of_counts(lost, gained, count, margin / 100) if binary else _of_differences(change, margin / 100, seed)
    word, why = _word(evidence, lost, count, f"{margin:g} point{'s' * (margin != 1)}")
    tally = f"{lost:,} lost, {gained:,} gained of {count:,}, {evidence.test}"
    show = _accuracy if binary else _mean
    return Verdict(
        case,
        quantity,
        word,
        base=show(before),
        head=show(after),
        effect=100 * float(change.mean()),
        low=100 * evidence.low,
        high=100 * evidence.high,
        note=f"{tally}; {why}" if why else tally,
    )


def _outcomes(case: str, quantity: str, side: str, outcomes: ArrayLike) -> Array:
    try:
        array = np.asarray(outcomes, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or array.size < 2 or not (np.abs(array) < _LARGEST).all():
        raise SpeedproofError(
            f"{case}: the outcomes of {quantity} in {side} cannot be judged, expected a list of two or more finite "
            f"numbers, one an example: measure the quality again"
        )
    return array


def _word(evidence: _Evidence, lost: int, count: int, margin: str) -> tuple[str, str]:
    """The verdict's word, and why it is so."""
    needed = f"{_rounded_up(max(evidence.examples_needed, count + 1)):,}"  # skew may take more than the formula says
    if evidence.drop_seen and not evidence.drop_excluded:
        return "worse", ""
    if evidence.gain_seen and not evidence.gain_excluded:
        return "better", ""
    if evidence.drop_excluded:
        seen = "a drop" if evidence.drop_seen else "a gain" if evidence.gain_seen else ""
        return "same", f"{seen}, but of less than {margin}" if seen else f"a drop of {margin} is excluded"
    if not lost:
        return "same", f"but too few examples to exclude a drop of {margin}: it takes about {needed}"
    return "unstable", f"too few examples to tell a drop of {margin} from none: it takes about {needed}"


def _rounded_up(examples: float) -> int:
    """To two digits: a formula of a noisy share knows no more."""
    step = int(10 ** max(0, math.floor(math.log10(examples)) - 1))
    return math.ceil(examples / step) * step


def _of_counts(lost: int, gained: int, count: int, margin: float) -> _Evidence:
    """Of outcomes of 0 and 1, which are wholly told by the numbers of examples lost and gained."""
    probability = float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    seen = probability <= 2 * _SEEN  # two-sided
    outcomes = np.repeat([-1.0, 1.0, 0.0], [lost, gained, count - lost - gained])
    _, low, high = paired_difference(outcomes > 0, outcomes < 0)
    return _Evidence(
        low=low,
        high=high,
        drop_seen=seen and lost > gained,
        gain_seen=seen and gained > lost,
        drop_excluded=_tango_score(lost, gained, count, margin) < -_Z_EXCLUDED,
        gain_excluded=_tango_score(gained, lost, count, margin) < -_Z_EXCLUDED,
        examples_needed=_examples_needed((lost + gained) / count, margin),
        test=f"McNemar's exact p {probability:.2g}",
    )


def _tango_score(lost: int, gained: int, count: int, margin: float) -> float:
    """Tango's statistic of "lost - gained is the margin" (a share): normal, with the variance likeliest under it."""
    linear = lost + gained - margin * (2 * count - lost + gained)
    gained_share = (linear + math.sqrt(linear**2 + 8 * count * gained * margin * (1 - margin))) / (4 * count)
    variance = count * (2 * gained_share + margin * (1 - margin))
    return (lost - gained - count * margin) / math.sqrt(variance)


def _examples_needed(changed: float, margin: float) -> float:
    """Connor's formula: examples on which a drop of the margin is told from none, ``changed`` being lost or gained.

    With a correction for counts being whole numbers: the net count must pass both bounds by one example. Drawn at the
    number it gives, 1 to 5 % changed, a drop of 1 point is called worse in 97.3 to 97.6 %, none the same in 98.1 to
    98.4 %.
    """
    changed = max(changed, margin)  # a drop of the margin changes as many
    deviations = _Z_SEEN * math.sqrt(changed) + _Z_EXCLUDED * math.sqrt(changed - margin**2)
    return ((deviations + math.sqrt(deviations**2 + 4 * margin)) / (2 * margin)) ** 2


def _of_differences(change: Array, margin: float, seed: int) -> _Evidence:
    """Of any outcomes, by a paired bootstrap of the mean difference."""
    turned = change.mean() < 0
    ordered = np.sort(-change if turned else change)  # so that neither order nor side has a say in what is drawn
    # BCa does not exist where all differences are alike, and then neither interval has a width.
    method = "BCa" if np.ptp(ordered) > 1e-6 * margin else "percentile"
    draw = partial(stats.bootstrap, (ordered,), np.mean, method=method, batch=max(1, _BATCH_BYTES // ordered.nbytes))
    drawn = draw(n_resamples=_RESAMPLES, confidence_level=1 - 2 * _SEEN, random_state=np.random.default_rng(seed))
    seen_low, seen_high = map(float, drawn.confidence_interval)
    drawn = draw(n_resamples=0, confidence_level=1 - 2 * _EXCLUDED, bootstrap_result=drawn)
    low, high = map(float, drawn.confidence_interval)
    if turned:
        seen_low, seen_high, low, high = -seen_high, -seen_low, -high, -low
    enough = change.size >= _LEAST_DIFFERENCES
    needed = ((_Z_SEEN + _Z_EXCLUDED) * float(change.std(ddof=1)) / margin) ** 2
    return _Evidence(
        low=low,
        high=high,
        drop_seen=enough and seen_high < 0,
        gain_seen=enough and seen_low > 0,
        drop_excluded=enough and low > -margin,
        gain_excluded=enough and high < margin,
        examples_needed=max(needed, _LEAST_DIFFERENCES),
        test="BCa bootstrap",
    )


def _accuracy(outcomes: Array) -> str:
    low, high = wilson_interval(int(outcomes.sum()), outcomes.size)
    return f"{100 * outcomes.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _mean(outcomes: Array) -> str:
    return f"{outcomes.mean():.4g}"
