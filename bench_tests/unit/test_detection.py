"""What a keyword spotter is judged by: figures against scikit-learn and plain loops, intervals by laws and coverage."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from bench_tests.harness.statistics import paired_difference
from models.detection import (
    far_frr_area,
    far_frr_area_interval,
    paired_auc_difference,
    paired_error_ratio,
    qualities,
    roc_auc,
    roc_auc_interval,
    speaker_interval,
)
from models.errors import SpeedproofError

# Few distinct values, so that ties are common, and those of a saturated softmax.
scores = st.sampled_from([0.0, 1e-30, 0.25, 0.5, 0.5 + 1e-16, 0.75, 1.0 - 1e-16, 1.0])


@st.composite
def judged(draw, others: int = 0):
    """(probabilities, ..., labels) of clips of both classes; ``others`` more lists of probabilities."""
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=30).filter(lambda found: len(set(found)) == 2))
    lists = [draw(st.lists(scores, min_size=len(labels), max_size=len(labels))) for _ in range(1 + others)]
    return (*map(np.array, lists), np.array(labels))


def course_area(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The area threshold by threshold, the last one above all probabilities."""
    points = []
    for threshold in [*sorted(set(probabilities.tolist())), 2.0]:
        detected = probabilities >= threshold
        points.append((np.mean(detected & (labels == 0)), np.mean(~detected & (labels == 1))))
    return sum((left[0] - right[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points))


def made_up(clips: int = 400, speakers: int = 60, seed: int = 0, apart: float = 1.5, by_voice: float = 0.5):
    """Probabilities, labels and speakers in which a voice shifts all of its clips."""
    dice = np.random.default_rng(seed)
    owners = dice.integers(speakers, size=clips)
    labels = (dice.random(clips) < 0.2).astype(np.int64)
    logits = apart * labels + by_voice * dice.standard_normal(speakers)[owners] + dice.standard_normal(clips)
    return 1 / (1 + np.exp(-logits)), labels, tuple(f"speaker{owner}" for owner in owners)


@given(judged())
def test_roc_auc_is_scikit_learns(drawn):
    probabilities, labels = drawn
    assert roc_auc(probabilities, labels) == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-12)


@given(judged())
def test_the_area_is_the_courses_and_follows_from_roc_auc(drawn):
    probabilities, labels = drawn
    share = labels.mean()
    area = far_frr_area(probabilities, labels)
    assert area == pytest.approx(course_area(probabilities, labels), abs=1e-12)
    assert area == pytest.approx(share * (1 - share) * (1 - roc_auc_score(labels, probabilities)), abs=1e-12)


def test_the_area_of_a_known_curve():
    """Two keywords, three others, one wrong pair of six: pi (1 - pi) / 6 = 0.04."""
    assert far_frr_area([0.9, 0.4, 0.6, 0.2, 0.1], [1, 1, 0, 0, 0]) == pytest.approx(0.04)


@given(judged())
def test_only_the_order_of_probabilities_counts(drawn):
    probabilities, labels = drawn
    ranks = np.unique(probabilities, return_inverse=True)[1]
    assert roc_auc(ranks / (1 + ranks.max()), labels) == pytest.approx(roc_auc(probabilities, labels), abs=1e-12)
    assert roc_auc(-probabilities, labels) == pytest.approx(1 - roc_auc(probabilities, labels), abs=1e-12)


@given(judged())
def test_outcomes_are_a_mean_over_the_clips(drawn):
    probabilities, labels = drawn
    found = {quality.name: quality for quality in qualities(probabilities, labels, ["one"] * len(labels))}
    assert list(found) == ["roc_auc", "far_frr_area", "top1"]
    assert [quality.higher_is_better for quality in found.values()] == [True, False, True]
    for quality in found.values():
        assert quality.outcomes.shape == quality.answers.shape == (quality.examples,) == labels.shape
        assert quality.outcomes.dtype == np.float64
        assert quality.outcomes.mean() == pytest.approx(quality.value, abs=1e-12)
        assert quality.answers.tolist() == [int(probability >= 0.5) for probability in probabilities]
    assert {quality.interval for quality in found.values()} == {None}  # of a single speaker there is none
    assert found["top1"].value == pytest.approx(np.mean((probabilities >= 0.5) == labels))


def test_outcomes_have_the_variance_of_the_figure():
    """The standard error that a mean over the outcomes claims is the one by which the figure varies over new clips."""
    for name, index in (("roc_auc", 0), ("far_frr_area", 1)):
        sets = (made_up(300, 300, seed)[:2] for seed in range(150))
        drawn = [qualities(scores, labels, ["one"] * 300)[index] for scores, labels in sets]
        claimed = np.mean([quality.outcomes.std(ddof=1) / quality.examples**0.5 for quality in drawn])
        assert claimed == pytest.approx(np.std([quality.value for quality in drawn], ddof=1), rel=0.15), name


def test_qualities_bring_their_intervals_over_speakers():
    probabilities, labels, speakers = made_up(300, 300)
    found = qualities(probabilities, labels, speakers)
    expected = roc_auc_interval(probabilities, labels, speakers)
    assert found[0].interval == (expected.low, expected.high)
    assert found[1].interval[0] < found[1].value < found[1].interval[1]
    assert found[2].interval is None  # a share, for which the harness has Wilson's


def test_paired_outcomes_give_delongs_interval():
    """DeLong's covariance of two correlated areas, written out from the placements of each clip."""
    before, labels, _ = made_up(300, 300)
    after = np.clip(before + 0.1 * np.random.default_rng(1).standard_normal(300), 0, 1)
    wins = [
        (model[labels == 1][:, None] > model[labels == 0]) + 0.5 * (model[labels == 1][:, None] == model[labels == 0])
        for model in (before, after)
    ]
    keywords, others = (np.var(np.diff([w.mean(axis) for w in wins], axis=0), ddof=1) for axis in (1, 0))
    delong = float(np.sqrt(keywords / (labels == 1).sum() + others / (labels == 0).sum()))
    first, second = (qualities(model, labels, ["one"] * 300)[0].outcomes for model in (before, after))
    estimate, _, high = paired_difference(first, second)
    assert estimate == pytest.approx(wins[0].mean() - wins[1].mean(), abs=1e-12)
    assert high - estimate == pytest.approx(delong * stats.t.ppf(0.975, 299), rel=0.02)


def pairs_in_order(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """ROC AUC pair by pair."""
    keywords, others = probabilities[labels == 1][:, None], probabilities[labels == 0]
    return float(np.mean((keywords > others) + (keywords == others) / 2))


def wrong_pairs(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The FA/FR area pair by pair."""
    share = labels.mean()
    return share * (1 - share) * (1 - pairs_in_order(probabilities, labels))


@pytest.mark.parametrize(
    ("interval", "figure"),
    [(roc_auc_interval, pairs_in_order), (far_frr_area_interval, wrong_pairs)],
    ids=["roc_auc", "area"],
)
def test_an_interval_is_that_of_scipys_bootstrap_of_speakers(interval, figure):
    """Copies of the drawn speakers' clips, judged one draw after the other, with other draws."""
    probabilities, labels, speakers = made_up(120, 25)
    clips = [np.flatnonzero(np.asarray(speakers) == name) for name in np.unique(speakers)]

    def judge(drawn):
        chosen = np.concatenate([clips[index] for index in drawn])
        return figure(probabilities[chosen], labels[chosen])

    slow = stats.bootstrap(
        (np.arange(len(clips)),), judge, n_resamples=4000, vectorized=False, random_state=np.random.default_rng(0)
    ).confidence_interval
    estimate, low, high = interval(probabilities, labels, speakers, resamples=8000)
    width = slow.high - slow.low
    assert estimate == pytest.approx(figure(probabilities, labels))
    assert (low, high) == pytest.approx((slow.low, slow.high), abs=0.08 * width)


def test_draws_in_batches_are_the_draws_at_once(monkeypatch):
    probabilities, labels, speakers = made_up(100, 20)
    whole = roc_auc_interval(probabilities, labels, speakers, resamples=50)
    monkeypatch.setattr("models.detection._BATCH_BYTES", 8 * 100 * 7)
    assert roc_auc_interval(probabilities, labels, speakers, resamples=50) == whole
    assert roc_auc_interval(probabilities, labels, speakers, resamples=50, seed=1) != whole


def test_an_interval_knows_that_clips_of_one_voice_are_alike():
    """Each of 20 voices says the keyword more or less clearly, and each time alike."""
    dice = np.random.default_rng(0)
    owners, labels = np.repeat(np.arange(20), 20), np.tile([1, 0], 200)
    logits = labels * (1.5 + dice.standard_normal(20)[owners]) + 0.3 * dice.standard_normal(400)
    _, low, high = roc_auc_interval(logits, labels, [str(owner) for owner in owners])
    _, alone_low, alone_high = roc_auc_interval(logits, labels, [str(index) for index in range(400)])
    assert high - low > 1.5 * (alone_high - alone_low)


def test_intervals_cover_the_truth():
    """Voices shift a clip by 0.5 sigma: the true area is Phi(1.5 / sqrt(2 * 1.25)) for clips of two voices."""
    truth = stats.norm.cdf(1.5 / np.sqrt(2 * 1.25))
    sets = [made_up(400, 60, seed) for seed in range(150)]
    found = [roc_auc_interval(p, labels, speakers, resamples=200) for p, labels, speakers in sets]
    assert 0.88 <= np.mean([low <= truth <= high for _, low, high in found]) <= 1.0


@given(judged(others=1), st.randoms(use_true_random=False))
def test_a_paired_difference_is_turned_by_turning_the_pair(drawn, random):
    before, after, labels = drawn
    speakers = [str(index) for index in range(labels.size)]
    try:
        there = paired_auc_difference(before, after, labels, speakers, resamples=21)
    except SpeedproofError:  # too few clips of a class
        return
    back = paired_auc_difference(after, before, labels, speakers, resamples=21)
    assert there.estimate == pytest.approx(roc_auc_score(labels, after) - roc_auc_score(labels, before), abs=1e-12)
    assert there == pytest.approx((-back.estimate, -back.high, -back.low), abs=1e-12)


def test_a_paired_difference_of_a_model_and_itself_is_nothing():
    probabilities, labels, speakers = made_up()
    assert paired_auc_difference(probabilities, probabilities**2, labels, speakers) == (0, 0, 0)
    assert paired_error_ratio(probabilities, probabilities**2, labels, speakers) == (1, 1, 1)


def test_pairing_sees_what_two_intervals_do_not():
    before, labels, speakers = made_up(800, 100)
    after = before + 0.1 * np.random.default_rng(0).standard_normal(800)
    _, low, high = paired_auc_difference(before, after, labels, speakers)
    assert low < high < 0
    assert roc_auc_interval(before, labels, speakers).low < roc_auc_interval(after, labels, speakers).high


def test_the_error_ratio_by_its_definition():
    before, labels, speakers = made_up(800, 100)
    after = before + 0.1 * np.random.default_rng(0).standard_normal(800)
    estimate, low, high = paired_error_ratio(before, after, labels, speakers)
    assert estimate == pytest.approx((1 - roc_auc_score(labels, after)) / (1 - roc_auc_score(labels, before)))
    assert 1 < low < estimate < high


def test_the_error_ratio_to_a_model_without_error_has_no_bound():
    labels = np.array([1, 0] * 20)
    speakers = [str(index) for index in range(40)]
    flawless, flawed = labels.astype(float), labels.astype(float)
    flawed[0] = -1.0
    assert paired_error_ratio(flawless, flawed, labels, speakers)[0] == np.inf
    assert paired_error_ratio(flawless, flawed, labels, speakers).high == np.inf
    assert paired_error_ratio(flawed, flawless, labels, speakers) == (0, 0, 1)  # 1 in the draws without the flaw


def test_too_few_speakers_have_no_interval():
    probabilities, labels, _ = made_up(60)
    with pytest.raises(SpeedproofError, match=r"clips of 1 speakers: too few"):
        roc_auc_interval(probabilities, labels, ["one"] * 60)
    two = np.where(labels == 1, "one", np.arange(60).astype(str))  # a single voice says the keyword
    with pytest.raises(SpeedproofError, match=r"at least four of each"):
        roc_auc_interval(probabilities, labels, two)


@pytest.mark.parametrize(
    ("probabilities", "labels", "said"),
    [
        ([0.1, np.nan], [0, 1], r"1 of 2 probabilities are NaN or infinite"),
        ([0.1, np.inf], [0, 1], r"1 of 2 probabilities are NaN or infinite"),
        ([0.1, 0.2], [0, 0], r"0 of 2 clips are of the keyword.*--examples all"),
        ([0.1, 0.2], [1, 1], r"2 of 2 clips are of the keyword"),
        ([], [], r"0 of 0 clips"),
    ],
)
@pytest.mark.parametrize("judge", [roc_auc, far_frr_area, qualities], ids=lambda judge: judge.__name__)
def test_what_cannot_be_judged_is_said(judge, probabilities, labels, said):
    speakers = [["one"] * len(labels)] if judge is qualities else []
    with pytest.raises(SpeedproofError, match=said):
        judge(probabilities, labels, *speakers)


def test_lists_of_other_lengths_are_a_mistake():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        roc_auc([0.1, 0.2], [0, 1, 1])


def test_a_statistic_that_no_draw_has_is_an_error():
    with pytest.raises(SpeedproofError, match="no interval"):
        speaker_interval(lambda weights: np.full(len(weights), np.nan), ["a", "b", "c"])
