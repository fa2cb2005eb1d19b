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

from bench_tests.gate import hooks
from bench_tests.harness import history, table
from bench_tests.harness.case import Case
from bench_tests.harness.expectations import read_expectations
from bench_tests.harness.matrix import EXPERIMENTS, Matrix, add_options, cases, experiments, is_for, read_options
from bench_tests.harness.record import Journal, Record
from bench_tests.harness.report import after_run
from bench_tests.harness.session import Session
from models.errors import SpeedproofError

STARTED = time.perf_counter()
MATRIX = pytest.StashKey[Matrix]()
SESSION = pytest.StashKey[Session]()
JOURNAL = pytest.StashKey[Journal]()
GATE = pytest.StashKey[hooks.Gate]()
PROGRESS = pytest.StashKey[history.Progress]()
REPORT = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the matrix, of the gate and of the report."""
    add_options(parser)
    hooks.add_options(parser)
    after_run.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and choose the folder of this machine's histories before pytest-benchmark opens it."""
    try:
        hooks.check_options(config.option)
        after_run.check_options(config.option)
        matrix = read_options(config.option)
        read_expectations()
    except SpeedproofError as error:
        raise pytest.UsageError(str(error)) from None
    # Outside of tests, where pytest.ini's filters make them errors too: nothing to compare with, and nothing to save.
    warnings.filterwarnings("default", category=PytestBenchmarkWarning)
    warnings.filterwarnings("ignore", "Not saving anything|Can't compare", PytestBenchmarkWarning)
    torch.set_num_threads(matrix.settings.threads)
    config.stash[MATRIX] = matrix
    config.stash[SESSION] = session = Session(matrix.settings)
    config.stash[JOURNAL] = journal = Journal.start(history.use_own_storage(config, session.fingerprint))
    config.stash[GATE] = hooks.Gate(config, matrix, session, journal)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect the experiment that was asked for, see `experiments`; files named on the command line are not asked."""
    others = EXPERIMENTS.keys() - experiments(config.option)
    return True if collection_path.name in others else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test that asks for `case` with the matrix; what cannot run here is skipped with its reason."""
    if "case" not in metafunc.fixturenames:
        return
    rows = []
    for case, reason in cases(metafunc.config.stash[MATRIX]):
        if not is_for(metafunc.definition.path.name, case.workload, case.backend, case.recipe):
            continue
        marks = [pytest.mark.skip(reason=f"{case.backend} {case.precision}: {reason}")] if reason else []
        rows.append(pytest.param(*(getattr(case, name) for name in hooks.PARAMETERS), id=case.id, marks=marks))
    metafunc.parametrize(hooks.PARAMETERS, rows)


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
    cell = {"backend": backend, "precision": precision, "size": size, "batch": batch, "threads": threads}
    return request.config.stash[SESSION].case(workload, recipe=recipe, **cell)


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Session:
    """What the cases of this run share."""
    return request.config.stash[SESSION]


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any, session: Session) -> Iterator[Callable[..., Record | None]]:
    """Measure a case and keep its record; one that fails its checks fails the test and enters no history."""
    yield history.measurer(benchmark, session, request.config.stash[JOURNAL])
    benchmark.skipped = True  # a case without a number: pytest-benchmark would warn that it was not used


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Tell the gate which cases were not asked for."""
    if items:
        items[0].config.stash[GATE].deselect(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count what will run, and make sure that what comes of it can be kept."""
    config = session.config
    if not config.option.collectonly and any("case" in getattr(item, "fixturenames", ()) for item in session.items):
        history.check_storage(config.option, config.stash[JOURNAL])
        config.stash[GATE].collect(session.items)
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


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Take what is compared with; times of different machines are refused."""
    config.stash[GATE].compare_with(compared_benchmark, machine_info)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add versions, fingerprint, the cases that were not measured and what was asked for."""
    arguments = config.invocation_params.args
    history.complete_json(output_json, config.stash[SESSION], config.stash[JOURNAL], arguments)
    config.stash[GATE].complete(output_json)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Compare the cases with each other and with a stored run, then let pytest-benchmark write undisturbed."""
    stash = session.config.stash
    with history.uninterruptible():
        if GATE in stash:
            table.add_best_fp32(stash[JOURNAL].records)
            stash[GATE].judge(session)
            if session.config.option.report and not session.config.option.collectonly:
                stash[REPORT] = after_run.report_run(session.config)
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, the answer, what the harness cost, and the gate's verdicts."""
    stash = terminalreporter.config.stash
    if GATE not in stash:
        return
    journal, lines = stash[JOURNAL], []
    if journal.records:
        lines = table.report(journal.records, journal.not_measured, time.perf_counter() - STARTED)
    lines += [*stash[GATE].report(), *([stash[REPORT]] if REPORT in stash else [])]
    if lines:
        terminalreporter.section("Speedproof")
    for line in lines:
        terminalreporter.write_line(line)
