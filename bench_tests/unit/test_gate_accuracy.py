"""Has the quality fallen, has a deterministic value changed: verdicts on outcomes and records made by hand or drawn."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from bench_tests.gate import accuracy
from bench_tests.gate.accuracy import judge_outcomes
from bench_tests.gate.exact import judge_exact
from models.errors import SpeedproofError

SWAPPED = {"worse": "better", "better": "worse"}
RANKS = ("worse", "unstable", "same", "better")

tables = st.tuples(st.integers(1, 400), st.integers(0, 40), st.integers(0, 40), st.integers(1, 100))


def outcomes(right, lost, gained, wrong):
    """Base and head of a table: right on both, lost, gained, wrong on both."""
    kinds = [right, lost, gained, wrong]
    return np.repeat([1.0, 1.0, 0.0, 0.0], kinds), np.repeat([1.0, 0.0, 1.0, 0.0], kinds)


def judge(right, lost, gained, wrong, **more):
    return judge_outcomes("case", "top1", *outcomes(right, lost, gained, wrong), **more)


def shares(count, changed, drop, draws, seed=0):
    """How often each word is said where every example is lost or gained independently of the others."""
    kinds = [(changed + drop) / 2, (changed - drop) / 2, 1 - changed]
    drawn = np.random.default_rng(seed).multinomial(count, kinds, size=draws)
    said = dict.fromkeys(RANKS, 0.0)
    for (lost, gained, agreed), times in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        said[judge(agreed - agreed // 10, lost, gained, agreed // 10).word] += times / draws
    return said


@pytest.mark.parametrize("changed", [0.01, 0.013])
def test_drop_of_one_point_on_2000_examples_is_worse(changed):
    said = shares(2000, changed, 0.01, 3000)
    assert said["worse"] >= 0.95
    assert said["better"] == 0


@pytest.mark.parametrize("changed", [0.01, 0.02, 0.03, 0.1])
def test_drop_of_one_point_is_never_passed_over_and_none_is_not_called_worse(changed):
    assert shares(2000, changed, 0.01, 3000)["same"] <= 0.03
    assert shares(2000, changed, 0.0, 3000)["worse"] <= 0.01


@pytest.mark.parametrize("changed", range(20, 67, 2))
def test_drop_planted_in_the_very_examples_is_worse(changed):
    gained = (changed - 20) // 2
    assert judge(1700, gained + 20, gained, 300 - changed).word == "worse"
    assert judge(1700, gained, gained, 320 - changed).word in {"same", "unstable"}


def test_too_few_examples_are_said_with_how_many_it_takes():
    verdict = judge(1800, 30, 20, 150)
    assert verdict.word == "unstable"
    assert verdict.note == (
        "30 lost, 20 gained of 2,000, McNemar's exact p 0.2; "
        "too few examples to tell a drop of 1 point from none: it takes about 4,800"
    )
    assert judge(4320, 72, 48, 360).word != "unstable"  # 4,800 of the same


@pytest.mark.parametrize(("count", "changed"), [(2100, 0.01), (3900, 0.02)])
def test_as_many_as_it_takes_are_enough(count, changed):
    assert accuracy._rounded_up(accuracy._examples_needed(changed, 0.01)) == count
    assert shares(count, changed, 0.01, 1500)["worse"] >= 0.95
    nothing = shares(count, changed, 0.0, 1500)
    assert nothing["same"] >= 0.95
    assert nothing["worse"] <= 0.01


@given(st.integers(0, 60), st.integers(0, 60), st.integers(121, 3000), st.sampled_from([0.5, 1.0, 3.0]))
def test_it_never_takes_fewer_examples_than_were_too_few(lost, gained, count, margin):
    evidence = accuracy._of_counts(lost, gained, count, margin / 100)
    if accuracy._word(evidence, lost, count, "")[0] == "unstable":
        assert evidence.examples_needed > count


def test_examples_needed_are_connors(monkeypatch):
    """The worked example of powerandsamplesize.com after Connor: 45 and 5 % change, 5 % two-sided, power 80 %: 23."""
    monkeypatch.setattr(accuracy, "_Z_SEEN", stats.norm.isf(0.025))
    monkeypatch.setattr(accuracy, "_Z_EXCLUDED", stats.norm.isf(0.2))
    needed = accuracy._examples_needed(0.5, 0.4)
    assert math.ceil((needed - 1 / 0.4) ** 2 / needed) == 23  # without the correction


@pytest.mark.parametrize(
    ("lost", "gained", "published"),
    [
        (12, 2, "0.013"),  # Armitage & Berry (1994) p. 127 in StatsDirect's help: P = 0.0129
        (7, 6, "1"),  # Stata's mcc in the tests of R's inferr: 1.0000
        (1, 7, "0.07"),  # Bentur (2009) in Fagerland et al. (2013): 9 of 128
    ],
)
def test_mcnemars_exact_p_is_the_published_one(lost, gained, published):
    assert f"McNemar's exact p {published}" in judge(20, lost, gained, 16).note.split("; ")[0].split(", ")


def test_approval_of_1600_voters_fell():
    """Agresti, Categorical Data Analysis: 944 approve, then 880; 17.3559 on one degree of freedom, p = 3.1e-05."""
    verdict = judge(794, 150, 86, 570)
    by_hand = 2 * sum(math.comb(236, count) for count in range(87)) / 2**236
    assert f"{by_hand:.2g}" == "3.7e-05"
    assert verdict.note == "150 lost, 86 gained of 1,600, McNemar's exact p 3.7e-05"
    assert verdict.word == "worse"
    assert verdict.effect == pytest.approx(-4.0)
    assert (round(verdict.low), round(verdict.high)) == (-6, -2)
    assert verdict.base == "59.0 % [56.6, 61.4]"


def test_tangos_score_without_a_margin_is_mcnemars():
    assert accuracy._tango_score(150, 86, 1600, 1e-9) ** 2 == pytest.approx(17.3559, abs=1e-3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(121, 3000), st.floats(0.002, 0.1))
def test_tangos_score_is_that_of_the_likeliest_shares(lost, gained, count, margin):
    def unlikeliness(share):
        kinds = (share + margin, share, 1 - margin - 2 * share)
        return -sum(k * np.log(p) for k, p in zip((lost, gained, count - lost - gained), kinds, strict=True) if k)

    end = (1 - margin) / 2
    share = optimize.minimize_scalar(unlikeliness, bounds=(0, end), method="bounded", options={"xatol": 1e-12}).x
    expected = (lost - gained - count * margin) / np.sqrt(count * (2 * share + margin - margin**2))
    assert accuracy._tango_score(lost, gained, count, margin) == pytest.approx(expected, abs=1e-3)


def test_interval_of_outcomes_is_the_bootstraps():
    base, head = outcomes(1700, 40, 20, 240)
    verdict = judge_outcomes("case", "top1", base, head)
    drawn = stats.bootstrap((head - base,), np.mean, n_resamples=2000, random_state=np.random.default_rng(0))
    assert verdict.effect == pytest.approx(-1.0)
    assert verdict.low == pytest.approx(100 * drawn.confidence_interval.low, abs=0.1)
    assert verdict.high == pytest.approx(100 * drawn.confidence_interval.high, abs=0.1)


def test_margin_bears_a_drop_that_is_seen_but_small():
    verdict = judge(44_000, 400, 250, 5350)
    assert verdict.word == "same"
    assert verdict.note.endswith("; a drop, but of less than 1 point")
    assert verdict.high < 0
    assert judge(44_000, 400, 250, 5350, margin=0.3).word == "worse"
    assert judge(44_000, 250, 400, 5350).note.endswith("; a gain, but of less than 1 point")
    assert judge(44_000, 250, 400, 5350, margin=0.3).word == "better"
    assert judge(44_000, 300, 300, 5350).note.endswith("; a drop of 1 point is excluded")


def test_nothing_lost_is_the_same_and_says_what_it_cannot_exclude():
    verdict = judge(100, 0, 0, 28)
    assert verdict.word == "same"
    assert verdict.note.endswith("too few examples to exclude a drop of 1 point: it takes about 2,100")
    assert judge(100, 1, 0, 27).word == "unstable"
    assert judge(1900, 0, 0, 100).note.endswith("; a drop of 1 point is excluded")


@given(tables, st.sampled_from([0.5, 1.0, 5.0]))
def test_swapping_the_sides_swaps_the_verdict(table, margin):
    base, head = outcomes(*table)
    there = judge_outcomes("case", "top1", base, head, margin=margin)
    back = judge_outcomes("case", "top1", head, base, margin=margin)
    turned = judge_outcomes("case", "errors", 1 - base, 1 - head, margin=margin, higher_is_better=False)
    if {there.word, back.word} & set(SWAPPED):
        assert back.word == SWAPPED[there.word]
    assert (back.effect, back.low, back.high) == pytest.approx((-there.effect, -there.high, -there.low))
    assert (back.base, back.head) == (there.head, there.base)
    assert turned.word == there.word
    assert (turned.effect, turned.low, turned.high) == pytest.approx((there.effect, there.low, there.high))


@given(tables, st.integers(0, 2**32))
def test_order_of_examples_does_not_matter(table, seed):
    base, head = outcomes(*table)
    order = np.random.default_rng(seed).permutation(base.size)
    assert judge_outcomes("case", "top1", base[order], head[order]) == judge_outcomes("case", "top1", base, head)


@given(tables, st.integers(0, 3000), st.integers(0, 3000))
def test_examples_on_which_both_agree_do_not_turn_the_verdict(table, right, wrong):
    before = judge(*table)
    after = judge(table[0] + right, table[1], table[2], table[3] + wrong)
    assert after.word in {before.word, "same"}
    assert np.sign(after.effect) == np.sign(before.effect)


@given(tables, st.integers(1, 20), st.sampled_from([0.5, 1.0, 5.0]))
def test_more_lost_examples_never_help(table, more, margin):
    """Examples that both had right are lost by the head."""
    right, lost, gained, wrong = table
    words = [
        judge(right + 20 - moved, lost + moved, gained, wrong, margin=margin).word for moved in (0, more // 2, more)
    ]
    assert words == sorted(words, key=RANKS.index, reverse=True)


@settings(max_examples=40)
@given(st.integers(2, 90), st.sampled_from([-0.05, 0.0, 0.05]), st.sampled_from([1e-12, 0.01, 0.2]), st.integers(0, 99))
def test_losses_know_neither_side_nor_order(count, drop, noise, seed):
    dice = np.random.default_rng(seed)
    base = dice.gamma(1.0, 1.0, count)
    head = base + drop + noise * dice.standard_t(3, count)
    order = dice.permutation(count)
    there = judge_outcomes("case", "loss", base, head, higher_is_better=False)
    back = judge_outcomes("case", "loss", head, base, higher_is_better=False)
    mixed = judge_outcomes("case", "loss", base[order], head[order], higher_is_better=False)
    if {there.word, back.word} & set(SWAPPED):
        assert back.word == SWAPPED[there.word]
    assert (back.effect, back.low, back.high) == pytest.approx((-there.effect, -there.high, -there.low), abs=1e-6)
    assert mixed.word == there.word
    assert (mixed.effect, mixed.low, mixed.high) == pytest.approx((there.effect, there.low, there.high), abs=1e-6)


@pytest.mark.parametrize(("drop", "noise", "word"), [(0.02, 0.1, "worse"), (0.0, 0.1, "same"), (-0.02, 0.1, "better")])
def test_losses_are_judged_in_their_own_points(drop, noise, word):
    dice = np.random.default_rng(0)
    base = dice.gamma(1.0, 1.0, 2000)
    head = base + drop + dice.normal(0, noise, 2000)
    verdict = judge_outcomes("case", "loss", base, head, higher_is_better=False)
    assert verdict.word == word
    assert verdict.effect == pytest.approx(-100 * drop, abs=1)
    expected = stats.ttest_rel(base, head).confidence_interval(0.95)
    assert (verdict.low, verdict.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.05)
    assert verdict.base == f"{base.mean():.4g}"
    assert judge_outcomes("case", "loss", base, head, higher_is_better=False) == verdict
    assert judge_outcomes("case", "loss", base, head, higher_is_better=False, seed=1).low != verdict.low


def test_too_few_losses_are_said_with_how_many_it_takes():
    dice = np.random.default_rng(0)
    base = dice.gamma(1.0, 1.0, 200)
    head = base + dice.normal(0, 0.2, 200)
    verdict = judge_outcomes("case", "loss", base, head, higher_is_better=False)
    needed = (stats.norm.isf(0.01) + stats.norm.isf(0.025)) ** 2 * (head - base).var(ddof=1) / 0.01**2
    assert verdict.word == "unstable"
    assert needed <= int(verdict.note.split()[-1].replace(",", "")) <= 1.1 * needed


def test_a_handful_of_losses_decides_nothing():
    verdict = judge_outcomes("case", "score", np.arange(1.5, 20), np.arange(1.0, 19.5))
    assert verdict.word == "unstable"
    assert verdict.note.endswith("it takes about 50")


@pytest.mark.parametrize(("change", "word"), [(0.5, "better"), (-0.5, "worse"), (0.0, "same"), (-0.001, "same")])
def test_losses_that_all_change_alike_are_judged_too(change, word):
    base = np.array([0.25, 0.5, 2.0, 4.0] * 13)
    verdict = judge_outcomes("case", "score", base, base + change)
    assert verdict.word == word
    assert (verdict.low, verdict.high) == pytest.approx((100 * change, 100 * change))


@pytest.mark.parametrize(
    ("base", "head", "margin", "words"),
    [
        ([1, 0, 1], [1, 0], 1.0, "judged on 3 examples in base and on 2 in head: judge both on the same examples"),
        ([1], [1], 1.0, "in base cannot be judged"),
        ([], [], 1.0, "two or more"),
        ([1, 0], [1, np.nan], 1.0, "in head cannot be judged"),
        ([1, -np.inf], [1, 0], 1.0, "in base cannot be judged"),
        ([1, 0], [1e308, -1e308], 1.0, "in head cannot be judged"),
        ([1, 0], [[1, 0]], 1.0, "in head cannot be judged"),
        ([1, 0], ["right", "wrong"], 1.0, "in head cannot be judged"),
        ([1, 0], [None, object()], 1.0, "in head cannot be judged"),
        ([1, 0], [1, 0], 0.0, "margin of top1 is 0.0 points, expected 1e-09 or more and less than 100"),
        ([1, 0], [1, 0], 100, "or more and less than 100"),
        ([1, 0.5], [1, 0], np.nan, "margin of top1 is nan points, expected 1e-09 or more"),
    ],
)
def test_outcomes_that_cannot_be_judged_are_one_sentence(base, head, margin, words):
    with pytest.raises(SpeedproofError, match=words) as caught:
        judge_outcomes("some-case", "top1", base, head, margin=margin)
    assert str(caught.value).startswith("some-case: ")
    assert "\n" not in str(caught.value)


RECORD = {
    "size_bytes": 11_390_000, "parameters": 11_180_000, "macs": 1_814_000_000, "cycles": 94_783, "int8_operators": 24,
    "coverage": json.dumps({"cpu/int8": 24, "cpu/float32": 21}), "speedup": 7.9, "backend": "openvino",
}  # fmt: skip
NUMBERS = ("size_bytes", "parameters", "macs", "cycles", "int8_operators")


def test_equal_records_are_the_same_in_everything():
    verdicts = judge_exact("case", RECORD, dict(RECORD), {})
    assert [verdict.quantity for verdict in verdicts] == [*NUMBERS, "coverage"]
    assert {verdict.word for verdict in verdicts} == {"same"}
    assert [verdict.effect for verdict in verdicts] == [0.0] * 5 + [None]
    assert {verdict.note for verdict in verdicts} == {""}
    assert verdicts[0].base == verdicts[0].head == "11,390,000"


@pytest.mark.parametrize("name", NUMBERS)
@given(base=st.integers(0, 10**10), head=st.integers(0, 10**10))
def test_one_more_is_worse_but_for_operators_in_int8(name, base, head):
    (verdict,) = judge_exact("case", {name: base}, {name: head}, {})
    (back,) = judge_exact("case", {name: head}, {name: base}, {})
    larger = "better" if name == "int8_operators" else "worse"
    assert verdict.word == ("same" if head == base else larger if head > base else SWAPPED[larger])
    assert back.word == SWAPPED.get(verdict.word, "same")
    if base:
        assert verdict.effect == pytest.approx(100 * (head / base - 1), abs=1e-6)
    assert verdict.fails == (verdict.word == "worse")


def test_tolerance_is_in_per_cent_of_the_base_either_way():
    for head, word in [(102, "same"), (103, "worse"), (98, "same"), (97, "better")]:
        (verdict,) = judge_exact("case", {"cycles": 100}, {"cycles": head}, {"cycles": 2, "macs": 50})
        assert verdict.word == word
        assert verdict.note == ("within the tolerance of 2 %" if word == "same" else "")


def test_what_grew_from_nothing_has_no_per_cent():
    (verdict,) = judge_exact("case", {"int8_operators": 0}, {"int8_operators": 3}, {})
    assert (verdict.word, verdict.effect) == ("better", None)


def test_other_coverage_is_the_same_and_named():
    head = RECORD | {"coverage": json.dumps({"cpu/int8": 24, "cpu/bfloat16": 2, "cpu/float32": 20})}
    *numbers, coverage = judge_exact("case", RECORD, head, {})
    assert {verdict.word for verdict in numbers} == {"same"}
    assert (coverage.word, coverage.base, coverage.head) == ("same", "45 operators", "46 operators")
    assert coverage.note == "changed: cpu/bfloat16 0 to 2, cpu/float32 21 to 20"


def test_what_one_of_the_two_lacks_is_not_compared():
    names = {"size_bytes": 10}
    verdicts = judge_exact("case", names | {"int8_operators": 24}, names | {"coverage": '{"cpu/int8": 1}'}, {})
    assert [(verdict.quantity, verdict.word) for verdict in verdicts] == [
        ("size_bytes", "same"), ("int8_operators", "missing"), ("coverage", "new"),
    ]  # fmt: skip
    assert verdicts[1].note == "not compared: no int8_operators in head"
    assert verdicts[2].note == "not compared: no coverage in base"
    assert judge_exact("case", {"speedup": 2.0}, {"speedup": 1.0}, {}) == []


@pytest.mark.parametrize(
    ("record", "tolerances", "words"),
    [
        ({"size_bytes": "large"}, {}, "size_bytes is 'large', expected a number"),
        ({"size_bytes": -1}, {}, "size_bytes is -1, expected"),
        ({"cycles": True}, {}, "cycles is True, expected"),
        ({"cycles": math.nan}, {}, "cycles is nan, expected"),
        ({"coverage": "{"}, {}, "coverage is '{', expected a JSON object"),
        ({"coverage": "[1]"}, {}, "expected a JSON object"),
        ({"coverage": '{"cpu/int8": "many"}'}, {}, "expected a JSON object"),
        ({"coverage": 5}, {}, "coverage is 5, expected a JSON object"),
        ({"cycles": 1}, {"cycle": 1}, "tolerance for 'cycle' is not understood; expected one of size_bytes, "),
        ({"cycles": 1}, {"coverage": 1}, "tolerance for 'coverage' is not understood"),
        ({"cycles": 1}, {"cycles": -1}, "tolerance of cycles is -1, expected 0 per cent or more"),
        ({"cycles": 1}, {"cycles": math.nan}, "tolerance of cycles is nan"),
    ],
)
def test_records_that_cannot_be_compared_are_one_sentence(record, tolerances, words):
    with pytest.raises(SpeedproofError, match=words.replace("[", r"\[")) as caught:
        judge_exact("some-case", {"size_bytes": 1, "cycles": 1, "coverage": "{}"}, record, tolerances)
    assert str(caught.value).startswith("some-case: ")
    assert "\n" not in str(caught.value)
