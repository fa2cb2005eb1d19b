"""pytest's entrance: options, fixtures, and hooks that call named functions of the harness."""

import os

# Read once, when torch loads its OpenMP: waiting threads that spin distort whatever is measured beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.logger import PytestBenchmarkWarning

from bench_tests.harness import history, table
from bench_tests.harness.case import Case
from bench_tests.harness.expectations import read_expectations
from bench_tests.harness.matrix import Matrix, add_options, cases, methods_asked, read_options
from bench_tests.harness.record import Journal, Record
from bench_tests.harness.session import Session
from models.errors import SpeedproofError

STARTED = time.perf_counter()
MATRIX = pytest.StashKey[Matrix]()
SESSION = pytest.StashKey[Session]()
JOURNAL = pytest.StashKey[Journal]()
COMPARED = pytest.StashKey[dict[str, str]]()
PROGRESS = pytest.StashKey[history.Progress]()
PARAMETERS = ("workload", "recipe", "backend", "precision", "size", "batch", "threads")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the matrix."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and choose the folder of this machine's histories before pytest-benchmark opens it."""
    try:
        matrix = read_options(config.option)
        read_expectations()
    except SpeedproofError as error:
        raise pytest.UsageError(str(error)) from None
    # Outside of tests, where pytest.ini's filters make them errors too: nothing to compare with, and nothing to save.
    warnings.filterwarnings("default", category=PytestBenchmarkWarning)
    warnings.filterwarnings("ignore", "Not saving anything", PytestBenchmarkWarning)
    torch.set_num_threads(matrix.settings.threads)
    config.stash[MATRIX] = matrix
    config.stash[SESSION] = session = Session(matrix.settings)
    config.stash[JOURNAL] = Journal.start(history.use_own_storage(config, session.fingerprint))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect the experiment that was asked for: methods where a recipe is named, else the original models."""
    other = "test_inference.py" if methods_asked(config.option) else "test_methods.py"
    return True if collection_path.name == other else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test that asks for `case` with the matrix; what cannot run here is skipped with its reason."""
    if "case" not in metafunc.fixturenames:
        return
    rows = []
    for case, reason in cases(metafunc.config.stash[MATRIX]):
        marks = [pytest.mark.skip(reason=f"{case.backend} {case.precision}: {reason}")] if reason else []
        rows.append(pytest.param(*(getattr(case, name) for name in PARAMETERS), id=case.id, marks=marks))
    metafunc.parametrize(PARAMETERS, rows)


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    workload: str,
    recipe: str,
    backend: str,
    precision: str,
    size: int,
    batch: int,
    threads: int,
) -> Case:
    """The case that a test's parameters name."""
    data = request.config.stash[SESSION].workload(workload).data_name
    return Case(workload, data, backend, precision, size, batch, threads, recipe)


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Session:
    """What the cases of this run share."""
    return request.config.stash[SESSION]


@pytest.fixture
def measure(
    request: pytest.FixtureRequest, benchmark: Any, session: Session
) -> Iterator[Callable[[Case], Record | None]]:
    """Measure a case and keep its record; one that fails its checks fails the test and enters no history."""
    yield history.measurer(benchmark, session, request.config.stash[JOURNAL])
    benchmark.skipped = True  # a case without a number: pytest-benchmark would warn that it was not used


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count what will run, and make sure that what comes of it can be kept."""
    config = session.config
    if not config.option.collectonly and any("case" in getattr(item, "fixturenames", ()) for item in session.items):
        history.check_storage(config.option, config.stash[JOURNAL])
    config.stash[PROGRESS] = history.Progress(len(session.items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep a failed test out of the history, and a skipped case in the list of those without a number."""
    report = yield
    history.keep_unmeasured(item, report, item.config.stash[JOURNAL])
    return report


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Show with ``-v`` what a finished case showed, and how long the run will take."""
    if report.when != "call" or not report.passed or PROGRESS not in config.stash:
        return None
    return "passed", ".", config.stash[PROGRESS].words(report.nodeid, config.stash[JOURNAL].records)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Name the hardware as the history's folder does."""
    machine_info["fingerprint"] = config.stash[SESSION].fingerprint.folder()


def pytest_benchmark_compare_machine_info(config: pytest.Config, compared_benchmark: dict[str, Any]) -> None:
    """Refuse to compare times of different machines, and keep what is compared with."""
    history.refuse_other_machine(config.stash[SESSION].fingerprint, compared_benchmark)
    config.stash[COMPARED] = compared_benchmark.get("versions", {})


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add versions, fingerprint and the cases that were not measured."""
    history.complete_json(output_json, config.stash[SESSION], config.stash[JOURNAL])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Compare the cases with each other, then let pytest-benchmark write undisturbed."""
    if JOURNAL in session.config.stash:
        table.add_best_fp32(session.config.stash[JOURNAL].records)
    with history.uninterruptible():
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, the answer, and what the harness cost."""
    stash = terminalreporter.config.stash
    journal = stash.get(JOURNAL, None)
    if journal is not None and journal.records:
        terminalreporter.section("Speedproof")
        changes = history.changes_since(stash[COMPARED], stash[SESSION]) if COMPARED in stash else []
        for line in [*changes, *table.report(journal.records, journal.not_measured, time.perf_counter() - STARTED)]:
            terminalreporter.write_line(line)
