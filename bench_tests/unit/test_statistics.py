import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench_tests.harness import statistics
from bench_tests.harness.saturation import Saturation, saturation
from bench_tests.unit import strategies


@given(strategies.time_lists(), st.floats(0, 0.49))
def test_trimmed_mean_is_scipys(samples, share):
    assert statistics.trimmed_mean(samples, share) == pytest.approx(stats.trim_mean(samples, share))


def test_trimmed_mean_drops_one_in_ten_on_each_side():
    assert statistics.trimmed_mean([1e-9, *[2.0] * 8, 1e9]) == 2.0
    assert statistics.trimmed_mean([1.0, *[2.0] * 7, 3.0 + 9]) > 2.0  # 9 samples: nothing to drop


@given(strategies.time_lists(), st.integers(1, 64))
def test_summary_follows_numpy_and_agrees_with_itself(samples, images):
    summary = statistics.summarise(samples, images)
    assert summary.median_s == pytest.approx(np.median(samples))
    assert summary.p95_s == pytest.approx(np.percentile(samples, 95))
    assert summary.minimum_s == min(samples)
    assert summary.samples == len(samples)
    assert summary.stddev_s == pytest.approx(np.std(samples, ddof=1) if len(samples) > 1 else 0.0)
    assert summary.fps * summary.ms_per_image == pytest.approx(1e3)
    assert summary.fps == pytest.approx(images / summary.trimmed_mean_s)


@given(strategies.paired_times(maximum=12))
def test_estimate_is_the_median_of_all_pairwise_means(times):
    logs = np.log(times[0] / times[1])
    walsh = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(logs, 2)]
    assert np.log(statistics.paired_ratio(*times).estimate) == pytest.approx(np.median(walsh), abs=1e-9)


@given(st.integers(6, 16), st.integers(0, 2**32))
def test_interval_is_the_set_that_the_signed_rank_test_accepts(pairs, seed):
    """Inverting scipy's exact test: a ratio just inside the interval is accepted at 5 %, one just outside is not."""
    logs = np.random.default_rng(seed).normal(size=pairs)  # continuous, since ties have no exact distribution
    ratio = statistics.paired_ratio(np.exp(logs), np.ones(pairs))
    for bound, inwards in ((np.log(ratio.low), 1e-9), (np.log(ratio.high), -1e-9)):
        assert stats.wilcoxon(logs - bound - inwards, method="exact").pvalue > 0.05
        assert stats.wilcoxon(logs - bound + inwards, method="exact").pvalue <= 0.05


@pytest.mark.parametrize(("pairs", "attained"), [(1, 0.0), (2, 0.5), (3, 0.75), (5, 0.9375), (6, 0.96875)])
def test_few_pairs_give_the_extremes_and_say_what_they_attain(pairs, attained):
    logs = np.arange(1.0, pairs + 1)
    ratio = statistics.paired_ratio(np.exp(logs), np.ones(pairs))
    assert ratio.confidence == pytest.approx(attained)
    assert (np.log(ratio.low), np.log(ratio.high)) == (pytest.approx(1), pytest.approx(pairs))


@pytest.mark.parametrize("pairs", [30, 50])
def test_normal_approximation_continues_the_exact_ranks(monkeypatch, pairs):
    exact = statistics._interval_rank(pairs, 0.95)
    monkeypatch.setattr(statistics, "_EXACT_PAIRS", 0)
    approximate = statistics._interval_rank(pairs, 0.95)
    assert abs(exact[0] - approximate[0]) <= 1
    assert exact[1] == pytest.approx(approximate[1], abs=2e-3)


@given(strategies.paired_times(maximum=60), st.sampled_from([0.8, 0.95]))
def test_swapping_the_sides_inverts_ratio_and_interval(times, confidence):
    there = statistics.paired_ratio(times[0], times[1], confidence)
    back = statistics.paired_ratio(times[1], times[0], confidence)
    assert there.low <= there.estimate <= there.high
    assert [back.estimate, back.low, back.high] == pytest.approx([1 / there.estimate, 1 / there.high, 1 / there.low])


@given(strategies.paired_times(), st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_ratio_depends_on_neither_unit_nor_order(times, scale, random):
    order = list(range(len(times[0])))
    random.shuffle(order)
    plain = statistics.paired_ratio(*times)
    other = statistics.paired_ratio(times[0][order] * scale, times[1][order] * scale)
    assert [other.estimate, other.low, other.high] == pytest.approx([plain.estimate, plain.low, plain.high])
    assert (other.pairs, other.confidence) == (plain.pairs, plain.confidence)


@pytest.mark.parametrize("pairs", [8, 20, 60])
def test_interval_covers_as_often_as_it_says(pairs):
    draw = np.random.default_rng(pairs)
    speedup, runs = 1.3, 1000
    covered = 0
    for _ in range(runs):
        drift = np.exp(draw.normal(0, 0.3, pairs))  # shared by both sides of a block
        reference = speedup * drift * np.exp(0.05 * draw.standard_t(4, pairs))
        candidate = drift * np.exp(0.05 * draw.standard_t(4, pairs))
        ratio = statistics.paired_ratio(reference, candidate)
        covered += ratio.low <= speedup <= ratio.high
    assert 0.92 <= covered / runs <= 0.98


def test_biased_instances_are_covered_only_when_counted_as_units():
    """An A/A comparison of a tiny function: 10 instances, each with its own 2.5 % bias, 40 blocks on each."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 40)
    by_block = by_instance = 0
    for _ in range(200):
        bias = np.exp(draw.normal(0, 0.025, 10))[labels]
        reference, candidate = bias * np.exp(draw.normal(0, 0.005, 400)), np.ones(400)
        block = statistics.paired_ratio(reference, candidate)
        instance = statistics.paired_ratio_by_instance(reference, candidate, labels)
        assert instance.pairs == 10
        by_block += block.low <= 1 <= block.high
        by_instance += instance.low <= 1 <= instance.high
    assert by_block < 0.6 * 200
    assert by_instance >= 0.91 * 200


@given(strategies.paired_times(), st.data())
def test_ratio_by_instance_is_the_median_of_its_instances(times, data):
    labels = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(times[0]), max_size=len(times[0]))))
    ratio = statistics.paired_ratio_by_instance(times[0], times[1], labels)
    each = [np.log(statistics.paired_ratio(times[0][labels == n], times[1][labels == n]).estimate) for n in set(labels)]
    assert np.log(ratio.estimate) == pytest.approx(np.median(each), abs=1e-9)
    assert ratio.low <= ratio.estimate <= ratio.high
    assert ratio.pairs == len(each)


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_interval_follows_its_formula(examples, share):
    successes = round(share * examples)
    p, z = successes / examples, stats.norm.ppf(0.975)
    centre = (p + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * np.sqrt(p * (1 - p) / examples + z**2 / (4 * examples**2))
    low, high = statistics.wilson_interval(successes, examples)
    assert [low, high] == pytest.approx([centre - half, centre + half], abs=1e-9)
    assert 0 <= low <= high <= 1


@given(strategies.fps_by_batch, st.floats(0, 0.5))
def test_saturation_is_the_first_batch_close_to_the_best(fps, within):
    found = saturation(fps, within)
    assert fps[found.best_batch] == max(fps.values())
    assert found.batch <= found.best_batch
    assert fps[found.batch] >= (1 - within) * max(fps.values())
    assert all(value < (1 - within) * max(fps.values()) for batch, value in fps.items() if batch < found.batch)


def test_saturation_of_a_typical_curve():
    assert saturation({8: 99.0, 1: 40.0, 4: 96.0, 2: 70.0, 16: 100.0}) == Saturation(4, 16)


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [1.0, np.inf], [1.0, 0.0], [-1.0], [[1.0]]])
def test_samples_that_are_no_times_are_refused(bad):
    for function in (
        statistics.trimmed_mean,
        lambda samples: statistics.summarise(samples, 1),
        lambda samples: statistics.paired_ratio(samples, samples),
        lambda samples: statistics.paired_ratio_by_instance(samples, samples, samples),
    ):
        with pytest.raises(ValueError, match="expected"):
            function(bad)


def test_arguments_that_make_no_sense_are_refused():
    for call in (
        lambda: statistics.trimmed_mean([1.0], share=0.5),
        lambda: statistics.summarise([1.0], 0),
        lambda: statistics.paired_ratio([1.0], [1.0, 2.0]),
        lambda: statistics.paired_ratio([1.0], [1.0], confidence=95),
        lambda: statistics.paired_ratio_by_instance([1.0], [1.0], [1, 2]),
        lambda: statistics.wilson_interval(3, 2),
        lambda: statistics.wilson_interval(0, 0),
        lambda: saturation({}),
        lambda: saturation({1: 1.0}, within=1.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_paired_difference_of_outcomes_holds_its_estimate_and_turns_with_its_sides(pairs):
    left, right = (np.array([pair[side] for pair in pairs], dtype=float) for side in (0, 1))
    estimate, low, high = statistics.paired_difference(left, right)
    assert estimate == pytest.approx(left.mean() - right.mean())
    assert -1 - 1e-9 <= low <= estimate <= high <= 1 + 1e-9
    assert statistics.paired_difference(right, left) == pytest.approx((-estimate, -high, -low))


def test_paired_difference_covers_the_truth_as_often_as_it_says():
    dice = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        kinds = dice.choice(4, 128, p=[0.85, 0.03, 0.02, 0.10])  # both right, lost, gained, both wrong
        _, low, high = statistics.paired_difference((kinds <= 1).astype(float), (kinds % 2 == 0).astype(float))
        covered += low <= 0.01 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_paired_difference_of_other_figures_is_students():
    before, after = np.array([1.0, 2.0, 4.0]), np.array([0.5, 2.5, 3.0])
    _, low, high = statistics.paired_difference(before, after)
    expected = stats.ttest_rel(before, after).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_paired_difference_needs_pairs():
    with pytest.raises(ValueError, match="the same two or more examples"):
        statistics.paired_difference([1.0, 0.0], [1.0])
