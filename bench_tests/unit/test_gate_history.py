"""The history gate: laws of its verdicts on records made by hand, and whole runs that pass and fail."""

import json
import math
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_tests.gate import history, hooks
from bench_tests.gate.history import Run, compare, judge_case, judge_time, stored_run
from bench_tests.gate.quantities import judge_memory, judge_quality
from bench_tests.harness.expectations import Expectation
from bench_tests.harness.statistics import wilson_interval
from bench_tests.unit.test_history import EAGER, TENSORRT, Runs
from models.errors import SpeedproofError

SESSION = SimpleNamespace(fingerprint=SimpleNamespace(folder=lambda: "this-machine"))
RANK = {"faster": 0, "same": 1, "unstable": 2, "slower": 3}


def record(speedup=2.0, width=0.01, *, backend="onnxruntime", recipe="original", threads=1, **more):
    """A record whose interval is ``width`` to either side in the logarithm."""
    return {
        "case": f"small-digits-{recipe}-{backend}-fp32-16px-b1-t{threads}", "workload": "small", "data": "digits",
        "recipe": recipe, "backend": backend, "precision": "fp32", "size": 16, "batch": 1, "threads": threads,
        "speedup": speedup, "speedup_low": speedup * math.exp(-width), "speedup_high": speedup * math.exp(width),
        "median_s": 1e-3, "size_bytes": 1000, "cpu_peak_memory_bytes": 400 * 2**20, "device": "cpu",
        "weights": "random", "coverage": '{"cpu/float32": 3}', "quality": "not judged", **more,
    }  # fmt: skip


def judged(accuracy, examples=100, **more):
    """A record with an accuracy."""
    low, high = wilson_interval(round(accuracy * examples), examples)
    quality = {"quality": "top1", "quality_top1": accuracy, "quality_top1_low": low, "quality_top1_high": high}
    return record(quality_examples=examples, **quality, **more)


speedups, widths, limits = st.floats(0.2, 20), st.floats(0, 0.5), st.floats(0, 50)
threads = st.sampled_from([1, 2])


@given(speedups, speedups, widths, widths, limits, threads)
def test_swapping_the_runs_swaps_faster_and_slower(first, second, width1, width2, limit, count):
    base, head = record(first, width1, threads=count), record(second, width2, threads=count)
    there, back = judge_time("a", base, head, limit), judge_time("a", head, base, limit)
    swapped = {"slower": "faster", "faster": "slower"}
    assert (there.word in swapped) == (back.word in swapped)
    if there.word in swapped:
        assert back.word == swapped[there.word]
    logs = [[math.log1p(value / 100) for value in (one.low, one.effect, one.high)] for one in (there, back)]
    assert logs[0] == pytest.approx([-value for value in reversed(logs[1])], abs=1e-9)


@given(speedups, speedups, widths, st.floats(1e-3, 1e3), st.floats(0.5, 2), limits, threads)
def test_verdict_depends_on_neither_unit_nor_reference(first, second, width, scale, reference, limit, count):
    base, head = record(first, width, threads=count), record(second, width, threads=count)
    plain = judge_time("a", base, head, limit)
    other = [
        record(row["speedup"] * reference, width, threads=count, median_s=row["median_s"] * scale)
        for row in (base, head)
    ]
    scaled = judge_time("a", other[0], other[1], limit)
    found = [(one.effect, one.low, one.high) for one in (plain, scaled)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    edge = math.log1p(limit / 100)
    bounds = [math.log1p(value / 100) for value in found[0][1:]]
    if min(abs(bound - at) for bound in bounds for at in (0, edge, -edge)) > 1e-9:  # no tie that rounding decides
        assert plain.word == scaled.word


@given(speedups, speedups, speedups, widths, widths, limits, threads)
def test_verdict_is_monotone_in_the_effect(base, one, other, width1, width2, limit, count):
    words = [
        judge_time("a", record(base, width1, threads=count), record(head, width2, threads=count), limit).word
        for head in sorted((one, other), reverse=True)  # the slower one last
    ]
    assert RANK[words[0]] <= RANK[words[1]]


def test_interval_is_that_of_three_independent_errors():
    """Against a simulation: both runs off by their own errors, and processes off from each other."""
    dice, base, head = np.random.default_rng(0), record(2.0, 0.04), record(1.9, 0.02)
    errors = [dice.normal(scale=reach / 1.96, size=400_000) for reach in (0.04, 0.02, math.log(1.03))]
    effects = 100 * np.expm1(math.log(2.0 / 1.9) + sum(errors))
    verdict = judge_time("a", base, head, 5)
    assert verdict.effect == pytest.approx(100 * (2.0 / 1.9 - 1))
    assert [verdict.low, verdict.high] == pytest.approx(np.quantile(effects, [0.025, 0.975]), abs=0.05)


@pytest.mark.parametrize(
    ("slowdown", "count", "word"),
    [
        (1.0, 1, "same"), (1.01, 1, "same"), (1.05, 1, "slower"), (1.5, 1, "slower"), (1 / 1.5, 1, "faster"),
        (1.05, 2, "unstable"), (1.5, 2, "slower"), (1.28, 2, "unstable"),
    ],
)  # fmt: skip
def test_five_per_cent_are_found_with_one_thread_and_a_jump_of_two_is_no_regression(slowdown, count, word):
    base, head = record(2.0, 0.005, threads=count), record(2.0 / slowdown, 0.005, threads=count)
    verdict = judge_time("a", base, head, 5)
    assert verdict.word == word
    assert ("one thread is steadier" in verdict.note) == (word == "unstable")


def test_small_functions_differ_more_between_processes():
    base, head = record(2.0, 0.005, instances=6), record(2.0 / 1.055, 0.005, instances=6)
    assert judge_time("a", base, head, 5).word == "unstable"
    assert judge_time("a", base, record(2.0 / 1.1, 0.005, instances=6), 5).word == "slower"


def test_slowdown_that_is_shown_to_be_within_the_limit_passes():
    base, head = record(2.0, 0.001), record(2.0 / 1.1, 0.001)
    assert judge_time("a", base, head, 5).word == "slower"
    assert judge_time("a", base, head, 20).word == "same"


def test_model_that_became_slower_everywhere_is_not_called_the_same():
    base, head = record(1.0), record(1.0, median_s=2e-3)
    verdict = judge_time("a", base, head, 5)
    assert verdict.word == "unstable"
    assert verdict.effect == 0
    assert "2.00 times as long, and so did PyTorch" in verdict.note
    assert judge_time("a", base, head, 5, other_machine=True).word == "same"
    assert "ms" not in judge_time("a", base, head, 5, other_machine=True).head


@pytest.mark.parametrize(("factor", "word"), [(1.09, "same"), (1.2, "worse"), (1 / 1.2, "better")])
def test_memory_may_jitter(factor, word):
    base, head = record(), record(cpu_peak_memory_bytes=400 * 2**20 * factor)
    assert [verdict.word for verdict in judge_memory("a", base, head, 10)] == [word]


def test_on_a_card_its_own_memory_counts():
    base, head = (record(gpu_peak_memory_bytes=size * 2**20) for size in (100, 200))
    (verdict,) = judge_memory("a", base, head, 10)
    assert (verdict.word, verdict.base, verdict.head) == ("worse", "100 MiB", "200 MiB")


def test_interval_of_two_accuracies_is_newcombes():
    """Statistics in Medicine 17 (1998), page 877, table II, method 10, contrast (a): 56/70 - 48/80."""
    base, head = judged(48 / 80, 80), judged(56 / 70, 70)
    (verdict,) = judge_quality("a", base, head, (None, None), 1)
    assert [verdict.low, verdict.high] == pytest.approx([5.24, 33.39], abs=0.005)
    assert (verdict.word, verdict.note) == ("better", "other examples than then")
    (verdict,) = judge_quality("a", head, base, (None, None), 1)
    assert verdict.word == "worse"
    assert [verdict.low, verdict.high] == pytest.approx([-33.39, -5.24], abs=0.005)
    lower_is_better = {"quality_higher_is_better": False}
    (verdict,) = judge_quality("a", base | lower_is_better, head | lower_is_better, (None, None), 1)
    assert (verdict.word, verdict.effect < 0, verdict.low < verdict.high < 0) == ("worse", True, True)


def test_outcomes_are_paired_where_both_runs_have_them():
    right = np.ones(2000)
    some = right.copy()
    some[:60] = 0
    base, head = judged(1.0, 2000), judged(some.mean(), 2000)
    (paired,) = judge_quality("a", base, head, (right, some), 1)
    assert paired.word == "worse"
    assert paired.effect == pytest.approx(-3)
    (unpaired,) = judge_quality("a", base, head, (None, some), 1)
    assert unpaired.note == "the outcomes of single examples are gone"
    assert unpaired.high - unpaired.low > 0
    (other,) = judge_quality("a", base, head, (right[:1000], some), 1)  # of other examples
    assert other.note == unpaired.note


def test_quality_that_is_no_mean_has_no_interval_and_one_that_is_lost_is_missing():
    area = {"quality": "auc", "quality_examples": 100}
    base, head = record(quality_auc=0.95, **area), record(quality_auc=0.90, **area)
    (verdict,) = judge_quality("a", base, head, (np.zeros(100), np.zeros(100)), 1)
    assert (verdict.word, verdict.low) == ("worse", None)
    assert verdict.effect == pytest.approx(-5)
    (verdict,) = judge_quality("a", base, record(), (None, None), 1)
    assert (verdict.word, verdict.note) == ("missing", "now: not judged")
    assert judge_quality("a", record(), head, (None, None), 1) == []


def test_all_quantities_stand_in_one_list_and_cycles_instead_of_time():
    base = judged(0.9, cycles=1000)
    head = judged(0.9, cycles=1001) | {"size_bytes": 1001}
    plain = {verdict.quantity: verdict.word for verdict in judge_case(base, head, Expectation("*"))}
    assert {plain["cycles"], plain["size_bytes"]} == {"worse"}
    assert {"top1", "memory", "coverage"} <= plain.keys()
    assert "time" not in plain
    row = Expectation("*", larger_max=1, cycles_max=1)
    assert not any(verdict.fails for verdict in judge_case(base, head, row))
    assert "memory" not in {verdict.quantity for verdict in judge_case(base, head, row, other_machine=True)}


def _run(*records, reasons=None):
    return Run({row["case"]: row for row in records}, reasons or {}, lambda row: None)


def _words(comparison):
    return {(verdict.case, verdict.quantity): verdict.word for verdict in comparison.verdicts}


def test_missing_new_and_not_asked_for():
    kept, gone, skipped, other, new = (record(backend=name) for name in ("kept", "gone", "skipped", "other", "new"))
    base = _run(kept, gone, skipped, other, reasons={new["case"]: "failed: parity"})
    head = _run(kept, new, reasons={skipped["case"]: "out of memory: 9 GiB"})
    found = compare(base, head, lambda row: row["backend"] == "gone")
    assert found.not_asked == [other["case"]]
    notes = {verdict.case: (verdict.word, verdict.note) for verdict in found.verdicts if verdict.quantity == "case"}
    assert notes == {
        new["case"]: ("new", "failed: parity"),
        gone["case"]: ("missing", "it is not among the cases any more"),
        skipped["case"]: ("missing", "out of memory: 9 GiB"),
    }
    assert _words(found)[kept["case"], "time"] == "same"


@pytest.mark.parametrize(
    ("before", "now", "renamed"),
    [
        ({"recipe_steps": "PruneConfig(0.5)"}, {"recipe_steps": "PruneConfig(0.5)"}, True),
        ({"recipe_steps": "PruneConfig(0.5)"}, {"recipe_steps": "PruneConfig(0.7)"}, False),
        ({"recipe_steps": "PruneConfig(0.5)"}, {"recipe_steps": "PruneConfig(0.5)", "workload": "other"}, False),
        ({"recipe_steps": "PruneConfig(0.5)"}, {"recipe_steps": "PruneConfig(0.5)", "backend": "eager"}, False),
        ({"module_digest": "abc"}, {"module_digest": "abc", "workload": "other"}, True),
        ({"module_digest": "abc"}, {"module_digest": "def"}, False),
        ({}, {}, False),
    ],
)
def test_renamed_case_is_listed_and_compared(before, now, renamed):
    base, head = record(3.0, recipe="half", **before), record(2.0, recipe="pruned50", **now)
    found = compare(_run(base), _run(head), lambda row: True)
    words = _words(found)
    assert ((base["case"], "case") not in words) == renamed
    assert (words.get((head["case"], "time")) == "slower") == renamed
    assert words[head["case"], "case"] == ("same" if renamed else "new")
    assert any(verdict.note == f"renamed: it was {base['case']}" for verdict in found.verdicts) == renamed


def test_row_or_baseline_that_lags_behind_is_stale(monkeypatch):
    row = Expectation("*", speedup_min=1.2)
    monkeypatch.setattr(history, "expectation", lambda case: row)
    base, head = record(1.5), record(2.0)
    verdicts = compare(_run(base), _run(head), lambda row: True).verdicts
    assert {verdict.word for verdict in verdicts} == {"faster", "same"}
    stale = [verdict for verdict in history.with_stale(verdicts, {head["case"]: head}) if verdict.word not in ("same",)]
    assert [(verdict.quantity, verdict.word, verdict.fails) for verdict in stale] == [
        ("time", "stale", True), ("speed-up", "stale", True)
    ]  # fmt: skip
    assert history.with_stale([], {head["case"]: record(1.5)}) == []


def _stored(**changes):
    return {"machine_info": {}, "benchmarks": [{"extra_info": judged(0.9) | changes}, {"extra_info": {"own": 1}}]}


def test_stored_run_keeps_our_cases_and_the_reasons_of_the_others():
    reasons = [{"case": "b", "status": "failed", "reason": "parity"}]
    run = stored_run(_stored() | {"not_measured": reasons}, lambda row: None)
    assert list(run.records.values()) == [judged(0.9)]
    assert run.reasons == {"b": "failed: parity"}


@pytest.mark.parametrize(
    "stored",
    [
        {}, {"machine_info": {}, "benchmarks": [5]}, {"machine_info": None, "benchmarks": []},
        _stored() | {"asked_for": 5}, _stored() | {"versions": None},
        _stored(speedup="fast"), _stored(speedup=0), _stored(speedup_low=math.nan), _stored(median_s=None),
        _stored(cpu_peak_memory_bytes=0), _stored(size_bytes="big"), _stored(coverage="none"), _stored(threads=[]),
        _stored(quality_top1="good"), _stored() | {"not_measured": [5]},
    ],
)  # fmt: skip
def test_broken_stored_run_is_one_sentence(stored):
    with pytest.raises(SpeedproofError, match="the stored run cannot be compared with") as caught:
        stored_run(stored, lambda row: None)
    assert "\n" not in str(caught.value)


def test_stored_record_that_lacks_a_value_is_one_sentence():
    for name in ("speedup", "speedup_high", "median_s", "threads", "backend", "size"):
        entry = record()
        del entry[name]
        with pytest.raises(SpeedproofError, match=name):
            stored_run({"machine_info": {}, "benchmarks": [{"extra_info": entry}]}, lambda row: None)


def _options(**changes):
    plain: dict[str, object] = {
        "benchmark_compare": [], "benchmark_compare_fail": None, "benchmark_disable": False, "benchmark_enable": False,
        "benchmark_skip": False, "compare_machines": False, "stale_fails": False, "collectonly": False,
        "benchmark_json": None,
    }  # fmt: skip
    return SimpleNamespace(**plain | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"benchmark_compare_fail": ["mean:5%"]}, "--benchmark-compare-fail: .* slower_max"),
        ({"benchmark_compare": True, "benchmark_disable": True}, "nothing is timed in this run"),
        ({"benchmark_compare": True, "benchmark_skip": True}, "nothing is timed in this run"),
        ({"benchmark_compare": True, "dist": "load"}, "nothing is timed in this run"),
        ({"benchmark_compare": "no/such/file.json"}, "there is no such file"),
        ({"compare_machines": True}, "add --benchmark-compare"),
    ],
)
def test_what_the_gate_cannot_mean_is_refused(changes, words):
    with pytest.raises(SpeedproofError, match=words):
        hooks.check_options(_options(**changes))


def test_what_the_gate_can_mean_is_taken():
    hooks.check_options(_options())
    hooks.check_options(_options(benchmark_disable=True))
    hooks.check_options(_options(benchmark_compare=True, benchmark_disable=True, benchmark_enable=True))
    hooks.check_options(_options(benchmark_compare="0001", compare_machines=True))


@pytest.mark.parametrize(
    ("status", "measured", "kept"),
    [(0, True, True), (1, True, True), (2, True, False), (3, True, False), (0, False, False)],
)
def test_interrupted_or_empty_run_leaves_the_history_as_it_was(status, measured, kept):
    benchmark = SimpleNamespace(save="nightly", autosave=None, benchmarks=[SimpleNamespace(has_error=not measured)])
    config = SimpleNamespace(option=_options(), _benchmarksession=benchmark)
    journal = SimpleNamespace(records={"a": record()} if measured else {}, not_measured=[])
    gate = hooks.Gate(config, SimpleNamespace(), SESSION, journal)
    gate.judge(SimpleNamespace(exitstatus=pytest.ExitCode(status), testscollected=1))
    assert (benchmark.save == "nightly") == kept
    assert (gate.report() == []) == kept


def test_stored_run_that_is_not_there_is_refused_before_hours_are_spent():
    config = SimpleNamespace(option=_options(benchmark_compare="0099", benchmark_storage="file://here"))
    gate = hooks.Gate(config, SimpleNamespace(), SESSION, SimpleNamespace())
    with pytest.raises(pytest.UsageError, match="--benchmark-compare=0099: no stored run of that name or number"):
        gate.collect([])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def baseline(runs):
    """The first run, and what it stored, with an interval so wide that chance cannot make the next one slower."""
    done = runs("--benchmark-compare", "--benchmark-save=base")
    assert done.returncode == 0, done.stdout + done.stderr
    stored = json.loads(runs.stored("base").read_text())
    (entry,) = stored["benchmarks"]
    entry["extra_info"]["speedup_low"] /= 4
    entry["extra_info"]["speedup_high"] *= 4
    entry["extra_info"]["median_s"] *= 100
    runs.stored("base").write_text(json.dumps(stored))
    return done, stored


def _write(runs, stored, **changes):
    """A stored run whose one record has other values."""
    edited = json.loads(json.dumps(stored))
    edited["benchmarks"][0]["extra_info"].update(changes)
    file = runs.folder / "edited.json"
    file.write_text(json.dumps(edited))
    return file


def test_first_run_is_stored_and_says_so(baseline):
    done, stored = baseline
    assert "gate: passed: there is no stored run to compare with; this one is the first" in done.stdout
    assert "Can't compare" not in done.stdout + done.stderr
    assert stored["asked_for"]["backend"] == "eager"


def test_run_like_the_stored_one_passes_and_is_stored(runs, baseline, monkeypatch):
    summary = runs.folder / "no_folder" / "summary.md"
    monkeypatch.setitem(runs.environment, "GITHUB_STEP_SUMMARY", str(summary))
    done = runs("--benchmark-compare", "--benchmark-save=again", backend="eager,tensorrt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compared with 0001_base.json" in done.stdout
    undecided = "gate: undecided: " in done.stdout  # a test machine at work
    assert undecided or "gate: passed: " in done.stdout
    assert undecided == ("not stored: the gate could not decide" in done.stdout)
    stored = list(runs.storage.glob("*/*_again.json"))
    assert len(stored) == (not undecided)
    assert done.stdout.count("warning: GITHUB_STEP_SUMMARY") == 1
    for file in stored:
        file.unlink()


def test_slower_run_fails_and_is_not_stored(runs, baseline, monkeypatch):
    _, stored = baseline
    fast = {f"speedup{end}": 3 * stored["benchmarks"][0]["extra_info"]["speedup"] for end in ("", "_low", "_high")}
    summary, output, junit = (runs.folder / name for name in ("summary.md", "slower.json", "junit.xml"))
    summary.write_text("# Before\n")
    monkeypatch.setitem(runs.environment, "GITHUB_STEP_SUMMARY", str(summary))
    done = runs(
        f"--benchmark-compare={_write(runs, stored, **fast)}", "--benchmark-save=slower", f"--benchmark-json={output}",
        f"--junitxml={junit}",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert not list(runs.storage.glob("*/*_slower.json"))
    said = "not stored: the gate failed; to accept this, store a run without --benchmark-compare; "
    assert f"{said}{output} is written all the same" in done.stdout
    assert json.loads(output.read_text())["benchmarks"]
    assert "1 failed, 1 passed" in done.stdout.splitlines()[-1]
    (failed,) = ElementTree.parse(junit).getroot().iter("failure")
    assert failed.get("message").startswith("slower, +")
    assert summary.read_text().startswith("# Before\ncompared with edited.json")
    assert "| slower" in summary.read_text()
    assert "Traceback" not in done.stdout + done.stderr


def test_what_vanished_fails_and_what_nobody_asked_for_does_not(runs, baseline):
    """The stored run is of another machine, too."""
    _, stored = baseline
    edited = json.loads(json.dumps(stored))
    for change in ({"backend": "vanished"}, {"backend": "tensorrt"}, {"precision": "bf16"}):
        entry = json.loads(json.dumps(stored["benchmarks"][0]))
        cell = "-{backend}-{precision}-".format(**entry["extra_info"] | change)
        entry["extra_info"] |= {**change, "case": EAGER.replace("-eager-fp32-", cell)}
        edited["benchmarks"].append(entry)
    edited["asked_for"] |= {"backend": "eager,tensorrt", "precision": "fp32,bf16"}  # the backends then as now
    edited["machine_info"]["fingerprint"] = "another-cpu-8c-1t-passive-12345678"
    file = runs.folder / "vanished.json"
    file.write_text(json.dumps(edited))
    done = runs(
        f"--benchmark-compare={file}", "--compare-machines", "--benchmark-save=vanished", backend="eager,tensorrt"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "another-cpu-8c-1t-passive-12345678: speed-up, size and quality only" in done.stdout
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("missing ")}
    vanished = EAGER.replace("eager", "vanished")
    assert rows.keys() == {vanished, TENSORRT}
    assert rows[vanished].endswith("it is not among the cases any more")
    assert "skipped: tensorrt fp32: " in rows[TENSORRT]
    assert "cases of the stored run that were not asked for this time: 1" in done.stdout
    assert not list(runs.storage.glob("*/*_vanished.json"))
    assert "Traceback" not in done.stdout + done.stderr
