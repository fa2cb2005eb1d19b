"""The statistics of base against head: laws, and how often they err on made-up samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench_tests.gate.speed import LEVEL, MARGIN, effect, holm, judge, sample
from bench_tests.gate.study import replayed

MIRROR = {"slower": "faster", "faster": "slower", "same": "same", "unstable": "unstable"}
SAMPLES = st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=24)
TIMES = st.lists(st.tuples(st.floats(1e-5, 1.0), st.floats(1e-5, 1.0)), min_size=8, max_size=20)


def word(samples) -> str:
    return judge({"case": effect(samples)}, {})["case"]


@given(SAMPLES)
def test_swapped_sides_swap_the_word(samples):
    assert word([-value for value in samples]) == MIRROR[word(samples)]


@given(SAMPLES, st.randoms())
def test_the_order_of_the_samples_does_not_matter(samples, dice):
    shuffled = list(samples)
    dice.shuffle(shuffled)
    first, second = effect(samples), effect(shuffled)
    assert second.mean == pytest.approx(first.mean)
    assert second.high - second.low == pytest.approx(first.high - first.low)


@given(SAMPLES, st.floats(0, 0.2))
def test_the_word_is_monotone_in_the_effect(samples, more):
    worst = ["faster", "same", "unstable", "slower"].index
    before, after = word(samples), word([value + more for value in samples])
    if before == "slower":
        assert after == "slower"
    if after == "faster":
        assert before == "faster"
    if before == "same":
        assert worst(after) >= worst("same")


@given(TIMES, st.floats(1e-3, 1e3))
def test_seconds_or_milliseconds_are_the_same(times, unit):
    base, head = zip(*times, strict=True)
    assert sample([unit * t for t in base], [unit * t for t in head]) == pytest.approx(sample(base, head), abs=1e-9)


@given(TIMES, st.randoms())
def test_the_order_of_the_blocks_does_not_matter(times, dice):
    shuffled = list(times)
    dice.shuffle(shuffled)
    assert sample(*zip(*shuffled, strict=True)) == pytest.approx(sample(*zip(*times, strict=True)), abs=1e-12)


@given(st.floats(1e-4, 1.0), st.floats(1.001, 2.0), st.floats(1e-4, 10.0))
def test_a_constant_on_both_sides_weakens_the_effect(base, ratio, constant):
    plain = sample([base] * 8, [base * ratio] * 8)
    assert 0 < sample([base + constant] * 8, [base * ratio + constant] * 8) < plain


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_stricter_than_each_test_and_no_stricter_than_bonferroni(p_values):
    adjusted = holm(p_values)
    for case, p in p_values.items():
        assert p <= adjusted[case] <= min(1.0, len(p_values) * p) + 1e-12
    smallest = min(p_values, key=p_values.get)
    assert adjusted[smallest] == pytest.approx(min(1.0, len(p_values) * p_values[smallest]))


def test_holm_on_a_table_by_hand():
    # Holm (1979) by hand: 0.01 x 4, 0.013 x 3, then never less than the one before.
    found = holm({"a": 0.01, "b": 0.013, "c": 0.014, "d": 0.19})
    assert found == pytest.approx({"a": 0.04, "b": 0.04, "c": 0.04, "d": 0.19})


def test_the_interval_is_students():
    samples = [0.03, 0.05, 0.04, 0.06]
    found = effect(samples)
    by_scipy = stats.ttest_1samp(samples, 0.0)
    interval = by_scipy.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_slower == pytest.approx(stats.ttest_1samp(samples, 0.0, alternative="greater").pvalue)


def test_samples_that_agree_by_chance_are_not_believed():
    assert effect([0.03, 0.03, 0.03]).high > 0.03


def shares(bias: float, slowdown: float, runs: int, cases: int = 6) -> dict[str, float]:
    """How often the first of some cases, slower by ``slowdown``, gets each word, and any of the others an alarm.

    The estimates have the standard deviation ``bias`` between instances; looks are as in `compare`: decided cases are
    left out after a generation, and a small function, whose bias is large, has four instances in each.
    """
    dice, counts = np.random.default_rng(0), {"slower": 0, "alarm": 0}
    per = 4 if bias > 0.005 else 1
    for _ in range(runs):
        drawn = dice.normal(0, bias, (cases, 6 * per))
        drawn[0] += np.log1p(slowdown)
        words, _ = replayed({str(case): row.reshape(6, per).tolist() for case, row in enumerate(drawn)})
        counts["slower"] += words["0"] == "slower"
        counts["alarm"] += any(words[str(case)] in {"slower", "faster"} for case in range(1, cases))
    return {name: count / runs for name, count in counts.items()}


@pytest.mark.parametrize(
    ("bias", "slowdown", "found"),
    [(0.003, 0.03, 0.8), (0.005, 0.05, 0.95), (0.025, 0.05, 0.95)],
    ids=["large, 3 %", "large, 5 %", "13 us, 5 %"],
)
def test_how_often_it_errs_on_the_spreads_of_the_noise_study(bias, slowdown, found):
    measured = shares(bias, slowdown, runs=100)
    assert measured["alarm"] <= LEVEL
    assert measured["slower"] >= found - 0.05


def test_the_margin_is_that_of_the_documentation():
    assert word([MARGIN * 0.9] * 6) != "slower"
    assert word([MARGIN * 1.2] * 6) == "slower"
