"""The statistics of base against head: laws, and how often they err on made-up samples."""

import subprocess
import sys

import numpy as np
import pyperf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench_tests.gate import rates
from bench_tests.gate.compare import GENERATIONS, SMALL_GENERATIONS
from bench_tests.gate.rates import Run, replayed
from bench_tests.gate.speed import LEVEL, MARGIN, effect, holm, judge, sample

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

    The estimates have the standard deviation ``bias`` between pairs of processes; looks are as in `compare`: decided
    cases are left out after a look, and a small function, whose bias is large, has more pairs.
    """
    dice, counts = np.random.default_rng(0), {"slower": 0, "alarm": 0}
    pairs = SMALL_GENERATIONS if bias > 0.015 else GENERATIONS
    for _ in range(runs):
        drawn = dice.normal(0, bias, (cases, pairs))
        drawn[0] += np.log1p(slowdown)
        words, _ = replayed({str(case): row.tolist() for case, row in enumerate(drawn)})
        counts["slower"] += words["0"] == "slower"
        counts["alarm"] += any(words[str(case)] in {"slower", "faster"} for case in range(1, cases))
    return {name: count / runs for name, count in counts.items()}


@pytest.mark.parametrize(
    ("bias", "slowdown", "found"),
    [(0.004, 0.03, 0.8), (0.009, 0.05, 0.95), (0.027, 0.05, 0.95)],
    ids=["large, 3 %", "large, 5 %", "13 us, 5 %"],
)
def test_how_often_it_errs_on_the_spreads_of_the_noise_study(bias, slowdown, found):
    measured = shares(bias, slowdown, runs=300)
    assert measured["alarm"] <= LEVEL
    assert measured["slower"] >= found - 0.05


def test_the_margin_is_that_of_the_documentation():
    assert word([MARGIN * 0.9] * 6) != "slower"
    assert word([MARGIN * 1.2] * 6) == "slower"


def processes(effect: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(6, 40) seconds of a call of base and head: six processes a side that differ by 0.5 %, blocks by 1 %."""
    dice = np.random.default_rng(seed)
    base, head = 1e-3 * np.exp(dice.normal(0, 0.005, (2, 6, 1)) + dice.normal(0, 0.01, (2, 6, 40)))
    return base, head * (1 + effect)


@pytest.mark.parametrize(("effect_", "expected"), [(-0.1, "faster"), (0.0, "same"), (0.05, "slower"), (0.1, "slower")])
def test_pyperf_and_the_u_test_agree_on_the_same_times(effect_, expected, tmp_path):
    base, head = processes(effect_, seed=3)
    samples = [sample(before, after) for before, after in zip(base, head, strict=True)]
    assert word(samples) == expected

    for name, times in (("base", base), ("head", head)):
        runs = [pyperf.Run(list(row), metadata={"name": "toy"}, collect_metadata=False) for row in times]
        pyperf.Benchmark(runs).dump(str(tmp_path / f"{name}.json"))
    command = [sys.executable, "-m", "pyperf", "compare_to", "base.json", "head.json"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
    assert ("not significant" if expected == "same" else f"x {expected}") in said, said

    # google/benchmark's compare.py: two-sided, on the repetitions.
    p = stats.mannwhitneyu(np.median(base, 1), np.median(head, 1)).pvalue
    assert (p < 0.05) == (expected != "same")


def recorded(samples: dict[str, list[float]]) -> Run:
    """A run whose pairs of processes say these logarithms."""
    blocks = {
        case: [{"base": [1e-3] * 8, "head": [1e-3 * float(np.exp(value))] * 8} for value in values]
        for case, values in samples.items()
    }
    return Run(blocks, {case: [2.0] * len(values) for case, values in samples.items()}, [1.0] * 6, lost_s=0.5)


def test_a_recorded_run_says_what_was_put_into_it():
    run = recorded({"still": [0.001, -0.001, 0.0, 0.001, 0.0, -0.001], "wild": [0.1, -0.1, 0.05, -0.05, 0.1, -0.1]})
    words, taken = replayed(run.samples())
    assert words == {"still": "same", "wild": "unstable"}
    assert taken == {"still": 3, "wild": 6}
    assert run.early_s() == pytest.approx(3 * 2.0 + 6 * 2.0 + 6 * 1.0 + 0.5)
    assert replayed(rates.slowed(run.samples(), "still", 0.05))[0]["still"] == "slower"


def test_generations_that_were_not_counted_leave_a_case_undecided():
    run = recorded({"one": [0.0, 0.0], "other": [0.0, 0.0]})
    assert set(replayed(run.samples())[0].values()) == {"unstable"}


def test_the_gate_beside_it_alarms_where_processes_differ():
    steady, jumping = recorded({"case": [0.0] * 6}), recorded({"case": [0.0] * 6})
    for index, pair in enumerate(jumping.blocks["case"]):
        pair["base"] = [1e-3 * (1.2 if index % 2 else 1.0)] * 8
    assert rates.plain_alarms([steady], "mean").happened == 0
    assert rates.plain_alarms([steady], "mean", "case", 0.06).happened == 5
    assert rates.plain_alarms([jumping], "mean") == rates.Rate(3, 5)
    assert rates.u_test_alarms([steady]).happened == 0
    assert rates.u_test_alarms([steady], "case", 0.01).happened == 1


def test_runs_drawn_anew_are_made_of_what_was_recorded():
    first, second = recorded({"a": [0.0, 0.01], "b": [0.1]}), recorded({"a": [0.02], "b": [0.2, 0.3, 0.4]})
    made = rates.drawn([first.samples(), second.samples()], 50, seed=0)
    assert {(len(new["a"]), len(new["b"])) for new in made} == {(2, 3)}
    assert {round(value, 6) for new in made for value in new["a"]} == {0.0, 0.01, 0.02}
    assert rates.drawn([recorded({"a": []}).samples()], 50, seed=0) == []
