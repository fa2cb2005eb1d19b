"""Rows of expectations.yaml: which one holds, which are refused, and what a known failure does to a test."""

from types import SimpleNamespace

import pytest

from bench_tests.harness import history
from bench_tests.harness.case import Case, NotMeasuredError
from bench_tests.harness.expectations import Expectation, expectation, read_expectations
from bench_tests.harness.measure import Measurement
from bench_tests.harness.record import Journal
from models.errors import SpeedproofError

CASE = Case("small", "digits", "eager", "bf16", 16, 1, 2)


@pytest.fixture
def written(tmp_path):
    def write(text):
        file = tmp_path / "expectations.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def test_first_row_that_fits_holds(written):
    file = written(
        """rows:
  - {case: "small-*-fp32-*", agreement_min: 0.5}
  - {case: "small-digits-original-eager-bf16-16px-b?-t2", drop_max: 0.25}
  - {case: "small-*", agreement_min: 1}
"""
    )
    assert expectation(CASE.id, file) == Expectation("small-digits-original-eager-bf16-16px-b?-t2", None, 0.25)
    assert expectation("small-other", file).agreement_min == 1
    assert expectation("SMALL-other", file) == Expectation("SMALL-other")  # no row: no bounds


def test_limits_of_the_gate_are_read_beside_the_bounds(written):
    file = written("rows:\n  - {case: '*', drop_max: 0.1, slower_max: 0, worse_max: 0.5}")
    row = expectation(CASE.id, file)
    assert (row.drop_max, row.slower_max, row.worse_max, row.larger_max) == (0.1, 0, 0.5, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows:\n  - {case: a, drop_maximum: 0.1}", "drop_max, drop_min, known_failure"),
        ("rows:\n  - {drop_max: 0.1}", "not understood"),
        ("rows:\n  - 5", "not understood"),
        ("rows: 5", "list `rows`"),
        ("rows:", "list `rows`"),
        ("", "list `rows`"),
        ("lines: []", "list `rows`"),
        ("rows: [", "cannot be read"),
        (b"rows: \xff\xfe", "cannot be read"),
        ("rows:\n  - {case: a, agreement_min: most}", "agreement_min is 'most', expected a number"),
        ("rows:\n  - {case: a, drop_max: yes}", "drop_max is True, expected a number"),
        ("rows:\n  - {case: a, slower_max: -1}", "slower_max is -1, expected a number of at least 0"),
        ("rows:\n  - {case: a, worse_max: .nan}", "worse_max is nan, expected a number above 0"),
        ("rows:\n  - {case: a, worse_max: 0}", "worse_max is 0, expected a number above 0"),
        ("rows:\n  - {case: a, memory_max: .inf}", "memory_max is inf, expected a number of at least 0"),
        ("rows:\n  - {case: a, larger_max: none}", "larger_max is 'none', expected a number of at least 0"),
        ("rows:\n  - {case: 5}", "case is 5, expected a pattern"),
        ("rows:\n  - {case: a, known_failure: 1}", "expected a reason"),
    ],
)
def test_bad_file_is_one_sentence(written, text, words):
    with pytest.raises(SpeedproofError, match=words) as caught:
        read_expectations(written(text))
    assert "\n" not in str(caught.value)
    assert "expectations.yaml" in str(caught.value)


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(SpeedproofError, match="cannot be read"):
        read_expectations(tmp_path / "none.yaml")


def test_file_of_the_repository_is_understood():
    assert read_expectations()


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """What the fixture `measure` makes of an outcome, and the journal and benchmark after it."""

    def measure(outcome, known_failure=None):
        def run(self, benchmark):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome, {}

        monkeypatch.setattr(Measurement, "run", run)
        monkeypatch.setattr(history, "expectation", lambda case_id: Expectation(case_id, known_failure=known_failure))
        benchmark = SimpleNamespace(has_error=False, enabled=True, extra_info={})
        journal = Journal.start(tmp_path)
        caught = None
        try:
            history.measurer(benchmark, SimpleNamespace(), journal)(CASE)
        except BaseException as error:
            caught = error
        return caught, benchmark, journal

    return measure


def test_measured_case_is_kept(measured):
    caught, benchmark, journal = measured({"fps": 1.0})
    assert caught is None
    assert not benchmark.has_error
    assert benchmark.extra_info["fps"] == journal.records[CASE.id]["fps"] == 1.0


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (NotMeasuredError("failed", "parity: no"), pytest.fail.Exception, "failed"),
        (SpeedproofError("no such thing"), pytest.fail.Exception, "failed"),
        (KeyError("unforeseen"), KeyError, "failed"),
        (NotMeasuredError("out of memory", "out of memory: 9 GiB"), pytest.skip.Exception, "out of memory"),
        (MemoryError(), pytest.skip.Exception, "out of memory"),
    ],
)
def test_case_without_a_number_is_listed_and_not_stored(measured, error, kind, status):
    caught, benchmark, journal = measured(error)
    assert isinstance(caught, kind)
    assert benchmark.has_error
    assert benchmark.extra_info == {}
    assert not journal.records
    assert [(entry["case"], entry["status"]) for entry in journal.not_measured] == [(CASE.id, status)]
    assert journal.not_measured[0]["reason"]


def test_known_failure_is_expected_until_it_passes(measured):
    caught, _, journal = measured(NotMeasuredError("failed", "parity: no"), known_failure="upstream bug 5")
    assert isinstance(caught, pytest.xfail.Exception)
    assert str(caught) == "upstream bug 5 (parity: no)"
    assert journal.not_measured[0]["reason"] == "parity: no"
    caught, benchmark, journal = measured({"fps": 1.0}, known_failure="upstream bug 5")
    assert isinstance(caught, pytest.fail.Exception)
    assert "update its row" in str(caught)
    assert benchmark.has_error
    assert not journal.records
    assert journal.not_measured[0]["status"] == "failed"
