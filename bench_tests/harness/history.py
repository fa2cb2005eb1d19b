"""What the harness adds to pytest-benchmark's histories: own folders, honest entries, and why a case is not in one."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench_tests.harness.case import Case, NotMeasuredError, explained
from bench_tests.harness.expectations import expectation
from bench_tests.harness.fingerprint import Fingerprint, differences, versions
from bench_tests.harness.measure import Measurement
from bench_tests.harness.record import Journal, Record
from bench_tests.harness.session import Session
from models.errors import SpeedproofError
from models.files import check_writable
from optim.backends import backend_names, load_backend

_DEFAULT_STORAGE = "file://./.benchmarks"
_PACKAGES = ("torchao", "torch-pruning", "pytest-benchmark")  # beside those of the backends


def use_own_storage(config: pytest.Config, fingerprint: Fingerprint) -> Path:
    """Give each fingerprint its own folder of histories, unless the user chose one; return where runs are kept.

    Must run before pytest-benchmark is configured. Our table replaces its own, except where runs are compared.
    """
    option = config.option
    if option.benchmark_storage == _DEFAULT_STORAGE:
        option.benchmark_storage = f"file://./.benchmarks/{fingerprint.folder()}"
    if not option.benchmark_compare and not option.benchmark_verbose:
        option.benchmark_quiet = True
    location = str(option.benchmark_storage).removeprefix("file://")
    return Path(location) if "://" not in location else Path(".benchmarks") / fingerprint.folder()


def check_storage(option: argparse.Namespace, journal: Journal) -> None:
    """Raise UsageError where results could not be kept, before hours are spent on them."""
    folders = {"--benchmark-storage": journal.folder.parent.parent}
    if option.benchmark_json:
        folders["--benchmark-json"] = Path(option.benchmark_json).parent
    for name, folder in folders.items():
        try:
            check_writable(folder)
        except SpeedproofError as error:
            raise pytest.UsageError(f"{name}: {error}") from None


def measurer(benchmark: Any, session: Session, journal: Journal) -> Callable[..., Record | None]:
    """The `measure` fixture: it takes a case through the harness and keeps what comes of it.

    An experiment's own ``check`` of a case comes before all others: it raises NotMeasuredError, or gives what it found
    for the record.
    """

    def measure(case: Case, check: Callable[[Case, Session], Record] | None = None) -> Record | None:
        benchmark.has_error = True  # until all checks have passed: an interrupted case must not be stored either
        expected = expectation(case.id)
        failure = None
        try:
            found = {} if check is None else check(case, session)
            record, arrays = Measurement(case, session, expected).run(benchmark)
        except Exception as error:
            failure = explained(case, error)
            journal.add_not_measured(case.id, failure.status, failure.reason)
            foreseen = isinstance(error, NotMeasuredError | SpeedproofError) or failure.status != "failed"
            if not foreseen and expected.known_failure is None:
                raise  # its traceback is what helps
        if failure is not None:
            if failure.status != "failed":
                pytest.skip(failure.reason)
            if expected.known_failure is not None:
                pytest.xfail(f"{expected.known_failure} ({failure.reason})")
            pytest.fail(f"{case.id}: {failure.reason}", pytrace=False)
        if expected.known_failure is not None:
            reason = "it passed, but expectations.yaml calls it a known failure: update its row"
            journal.add_not_measured(case.id, "failed", reason)
            pytest.fail(f"{case.id}: {reason}", pytrace=False)
        if not benchmark.enabled:
            return None
        record |= found
        journal.add(case.id, record, arrays)
        benchmark.extra_info.update(record)
        benchmark.has_error = False
        return record

    return measure


def keep_unmeasured(item: pytest.Item, report: pytest.TestReport, journal: Journal) -> None:
    """Journal a case whose test was skipped before it began, and withdraw one whose assertion failed after measuring.

    pytest-benchmark would store the latter.
    """
    fixtures = getattr(item, "funcargs", {})
    if "case" not in getattr(item, "fixturenames", ()):
        return
    if report.when == "setup" and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        journal.add_not_measured(item.callspec.id, "skipped", reason.removeprefix("Skipped: "))  # type: ignore[attr-defined]
    if report.failed and "benchmark" in fixtures:
        fixtures["benchmark"].has_error = True
        if "case" in fixtures and fixtures["case"].id in journal.records:
            journal.add_not_measured(
                fixtures["case"].id, "failed", f"its test failed in {report.when}, after measuring"
            )


def complete_json(output: dict[str, Any], session: Session, journal: Journal, arguments: Iterable[str]) -> None:
    """Add to pytest-benchmark's JSON what belongs to the run, and what a report tells of it.

    Versions, fingerprint, cases without a number, the command, its settings, and what each workload says of itself.
    """
    for entry in output["benchmarks"]:
        honest = journal.records.get(entry["extra_info"].get("case", ""), {}).get("speedup_over_best_fp32")
        if honest is not None:
            entry["extra_info"]["speedup_over_best_fp32"] = honest
    output["fingerprint"] = asdict(session.fingerprint)
    output["versions"] = _versions(session)
    output["not_measured"] = journal.not_measured
    output["command"] = shlex.join(["pytest", *arguments])
    settings = session.settings
    output["settings"] = {
        name: getattr(settings, name) for name in ("device", "threads", "examples", "budget_s", "timeout_s", "seed")
    }
    names = {str(record["workload"]) for record in journal.records.values()}
    output["workloads"] = {
        name: {
            fact: getattr(session.workload(name), fact) for fact in ("task", "scenario", "platform", "tolerated_drop")
        }
        for name in sorted(names)
    }


def _versions(session: Session) -> dict[str, str]:
    packages = {*_PACKAGES, *(load_backend(name).package for name in backend_names())}
    return versions(session.settings.device, sorted(packages))


def changes_since(compared: dict[str, str], session: Session) -> list[str]:
    """What changed in versions and settings since a stored run: an upgrade may be what made a model slower."""
    return [f"since the compared run: {change}" for change in differences(compared, _versions(session))]


def refuse_other_machine(current: Fingerprint, compared: dict[str, Any]) -> None:
    """Raise UsageError where a stored run was made on other hardware or with other threads."""
    stored = compared.get("machine_info", {}).get("fingerprint")
    if stored != current.folder():
        raise pytest.UsageError(
            f"--benchmark-compare: the stored run is of {stored or 'an unknown machine'}, this one is of "
            f"{current.folder()}; times of different machines or thread counts are not compared, speed-up, size and "
            f"quality are with --compare-machines"
        )


@contextlib.contextmanager
def uninterruptible() -> Iterator[None]:
    """Hold back Ctrl-C while a file is written, so that none is left half-written."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """Words behind each finished test: how far the run is, and how long it will take."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self._started = total, 0, time.perf_counter()

    def words(self, nodeid: str, records: Mapping[str, Record]) -> str:
        """One more is done: its speed-up, the count and the time left."""
        self.done += 1
        record = records.get(nodeid.partition("[")[2].rstrip("]"))
        left_s = (time.perf_counter() - self._started) / self.done * (self.total - self.done)
        result = f"{record['speedup']:.2f}x, {record['ms_per_image']:.2f} ms an image, " if record else ""
        left = f"{left_s / 60:.0f} min left" if left_s > 90 else f"{left_s:.0f} s left"
        return f"PASSED {result}{self.done}/{self.total}, {left}"
