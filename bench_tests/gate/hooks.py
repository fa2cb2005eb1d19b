"""The history gate in a pytest run: what it is asked, when it judges, and whether the run is stored.

``pytest --benchmark-compare`` judges each case against a stored run once the last test has ended, before
pytest-benchmark stores anything: a run that fails is not stored, so that it never becomes the baseline, nor is one that
was interrupted. A failing verdict is a failed test of the run, ``gate::time[<case>]``: it counts, stands in JUnit's
file and makes pytest exit with 1. What is unstable is listed and fails nothing: pytest's exit codes have none for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pytest

from bench_tests.gate.history import Comparison, Run, compare, stored_run, with_stale
from bench_tests.gate.table import add_to_summary, lines, markdown
from bench_tests.gate.verdict import Verdict
from bench_tests.harness import history
from bench_tests.harness.matrix import Matrix, methods_asked
from bench_tests.harness.record import ORIGINAL, Journal, Record
from bench_tests.harness.session import Session
from models.errors import SpeedproofError

_MAY_JUDGE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
PARAMETERS = ("workload", "recipe", "backend", "precision", "size", "batch", "threads")  # parameters of a test


def add_options(parser: pytest.Parser) -> None:
    """Declare the gate's own options; the rest are pytest-benchmark's."""
    add = parser.getgroup("speedproof").addoption
    add(
        "--compare-machines",
        action="store_true",
        help="with --benchmark-compare: also a run of another machine, by speed-up, size and quality only",
    )
    add(
        "--stale-fails",
        action="store_true",
        help="fail too where a case got so much better that its stored run or its row in expectations.yaml is stale",
    )


def check_options(option: argparse.Namespace) -> None:
    """Raise SpeedproofError for what pytest-benchmark would take and the gate cannot mean."""
    if option.benchmark_compare_fail:
        raise SpeedproofError(
            "--benchmark-compare-fail: a threshold on raw times fails by chance; leave it out, --benchmark-compare "
            "alone fails beyond slower_max, larger_max, memory_max, cycles_max, worse_max of expectations.yaml"
        )
    if not option.benchmark_compare:
        if option.compare_machines:
            raise SpeedproofError("--compare-machines: there is nothing to compare with; add --benchmark-compare")
        return
    off = option.benchmark_disable and not option.benchmark_enable
    if off or option.benchmark_skip or getattr(option, "dist", "no") != "no":
        raise SpeedproofError(
            "--benchmark-compare: nothing is timed in this run, so there is nothing to compare; leave out "
            "--benchmark-disable, --benchmark-skip and -n"
        )
    named = option.benchmark_compare
    if named is not True and not Path(named).is_file() and len(Path(named).parts) > 2:
        raise SpeedproofError(f"--benchmark-compare={named}: there is no such file")


class Gate:
    """The gate of one run of pytest; conftest's hooks call it in the order of its methods."""

    def __init__(self, config: pytest.Config, matrix: Matrix, session: Session, journal: Journal) -> None:
        self._config, self._option = config, config.option
        self._matrix, self._session, self._journal = matrix, session, journal
        self._stored: dict[str, Any] | None = None
        self._stored_on = session.fingerprint.folder()
        self._base: Run | None = None
        self._collected: set[str] = set()
        self._deselected: set[str] = set()
        self._comparison: Comparison | None = None
        self._notes: list[str] = []

    def compare_with(self, stored: dict[str, Any], machine_info: dict[str, Any]) -> None:
        """Take a stored run as the baseline. Raises UsageError for one of another machine, or one that is broken.

        From then on its ``machine_info`` is this machine's: pytest-benchmark warns of any difference in it, after us,
        and breaks off where the storage lies outside of the working directory.
        """
        try:
            self._base = stored_run(stored, self._outcomes)
        except SpeedproofError as error:
            raise pytest.UsageError(f"--benchmark-compare: {error}") from None
        if not self._option.compare_machines:
            history.refuse_other_machine(self._session.fingerprint, stored)
        self._stored_on = str(stored["machine_info"].get("fingerprint", "an unknown machine"))
        self._stored = stored
        stored["machine_info"] = machine_info

    def deselect(self, items: Iterable[pytest.Item]) -> None:
        """Keep which cases -k, -m, --deselect or --last-failed took out: nobody asked for them."""
        self._deselected |= self._cases(items)

    def collect(self, items: Iterable[pytest.Item]) -> None:
        """Keep which cases will run. Raises UsageError where the stored run that was named is not there."""
        self._collected = self._cases(items)
        named = self._option.benchmark_compare
        if named and named is not True and self._stored is None:
            raise pytest.UsageError(
                f"--benchmark-compare={named}: no stored run of that name or number can be read in "
                f"{self._option.benchmark_storage}; without a name it is the last one"
            )

    def _cases(self, items: Iterable[pytest.Item]) -> set[str]:
        found = set()
        for item in items:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if set(PARAMETERS) <= set(parameters):
                found.add(self._session.case(**{name: parameters[name] for name in PARAMETERS}).id)
        return found

    def complete(self, output: dict[str, Any]) -> None:
        """Add to the stored run what the command line asked for, so that a later one can tell what has vanished."""
        output["asked_for"] = self._asked_for()

    def judge(self, session: pytest.Session) -> None:
        """Compare, say so, and keep a run that failed or did not end out of the history."""
        if session.exitstatus not in _MAY_JUDGE:
            self._store_nothing("the run did not end")
            return
        if self._option.collectonly:
            return
        verdicts: list[Verdict] = []
        if self._base is not None:
            reasons = dict.fromkeys(self._collected - self._journal.records.keys(), "it did not run")
            reasons |= {str(row["case"]): f"{row['status']}: {row['reason']}" for row in self._journal.not_measured}
            head = Run(self._journal.records, reasons, self._outcomes)
            self._comparison = compare(self._base, head, self._asked, other_machine=self._other_machine())
            verdicts = self._comparison.verdicts
        if self._option.stale_fails:
            verdicts = with_stale(verdicts, self._journal.records)
        if self._comparison is not None or verdicts:
            self._comparison = Comparison(verdicts, self._comparison.not_asked if self._comparison else [])
            warning = add_to_summary(f"{self._title()}\n\n{markdown(verdicts)}\n")
            self._notes += [warning] if warning else []
        failing = [verdict for verdict in verdicts if verdict.fails]
        session.testscollected += len(failing)  # or pytest would speak of more than 100 %
        for verdict in failing:
            self._config.hook.pytest_runtest_logreport(report=_failed_test(verdict))
        if failing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self._store_nothing("the gate failed; to accept this, store a run without --benchmark-compare")
        elif any(verdict.word == "unstable" for verdict in verdicts):
            self._store_nothing("the gate could not decide; to accept this, store a run without --benchmark-compare")
        elif all(entry.has_error for entry in self._benchmark.benchmarks):
            self._store_nothing("nothing was measured")

    def report(self) -> list[str]:
        """The lines for the end of the run; none where no gate was asked for."""
        found = []
        if self._comparison is not None:
            changes = history.changes_since((self._stored or {}).get("versions", {}), self._session)
            found = [self._title(), *(changes if self._stored else []), *lines(self._comparison.verdicts)]
            if self._comparison.not_asked:
                found.append(
                    f"cases of the stored run that were not asked for this time: {len(self._comparison.not_asked)}"
                )
        elif self._option.benchmark_compare and self._stored is None and self._journal.records:
            first = "; this one is the first" if self._saving else "; --benchmark-autosave stores this one"
            found = [f"gate: passed: there is no stored run to compare with{first}"]
        return found + self._notes

    @property
    def _benchmark(self) -> Any:
        """pytest-benchmark's session, which is not there yet when the gate is made."""
        return self._config._benchmarksession  # type: ignore[attr-defined]

    @property
    def _saving(self) -> bool:
        return bool(self._benchmark.save or self._benchmark.autosave)

    def _title(self) -> str:
        if self._stored is None:
            return "compared with bench_tests/expectations.yaml"
        name = Path(list(self._benchmark.compared_mapping)[-1]).name
        title = f"compared with {name} of {str(self._stored.get('datetime', 'an unknown time'))[:16]}"
        if self._other_machine():
            title += f", which is of another machine, {self._stored_on}: speed-up, size and quality only"
        return title

    def _other_machine(self) -> bool:
        return self._stored_on != self._session.fingerprint.folder()

    def _store_nothing(self, reason: str) -> None:
        if self._saving:
            written = f"; {self._option.benchmark_json} is written all the same" if self._option.benchmark_json else ""
            self._notes.append(f"not stored: {reason}{written}")
        self._benchmark.save = self._benchmark.autosave = None

    def _asked_for(self) -> dict[str, str]:
        option = self._option
        asked = {name: getattr(option, name) for name in ("workload", "data", "backend", "precision", "size", "batch")}
        asked["recipe"] = option.recipe or ("methods" if methods_asked(option) else ORIGINAL)
        return {name: str(value) for name, value in asked.items()}

    def _asked(self, record: Record) -> bool:
        """Whether this command line asks for a stored case that is not among those measured.

        In each respect it must name what the case is, or say the same as the stored run's command line did.
        """
        if record["case"] in self._collected:
            return True
        if record["case"] in self._deselected or any("::" in str(name) for name in self._option.file_or_dir):
            return False
        matrix, workload = self._matrix, str(record["workload"])
        known = self._session.workload(workload) if workload in matrix.workloads else None
        today: dict[str, tuple[str | int, ...]] = {
            "workload": matrix.workloads, "data": (known.data_name,) if known else (), "recipe": matrix.recipes,
            "backend": matrix.backends, "precision": matrix.precisions,
            "size": matrix.sizes or (known.sizes if known else ()),
            "batch": matrix.batches or (known.batches if known else ()),
        }  # fmt: skip
        then, now = (self._stored or {}).get("asked_for", {}), self._asked_for()
        threads = record["threads"] == self._session.settings.threads
        return threads and all(record[name] in values or then.get(name) == now[name] for name, values in today.items())

    def _outcomes(self, record: Record) -> np.ndarray | None:
        """The outcomes of a record's examples, from the folder of runs that its history belongs to."""
        folders = [self._journal.folder.parent]
        named = self._option.benchmark_compare
        if isinstance(named, str) and Path(named).is_file():
            folders += [Path(named).parent / "runs", Path(named).parent.parent / "runs"]
        for folder in folders:
            try:
                with np.load(folder / str(record["arrays_file"])) as arrays:
                    return np.asarray(arrays["outcomes"], dtype=np.float64)
            except (OSError, KeyError, ValueError, EOFError, BadZipFile):  # gone, broken, or never judged
                continue
        return None


def _failed_test(verdict: Verdict) -> pytest.TestReport:
    """A failing verdict as the report of a test."""
    name = f"{verdict.quantity}[{verdict.case}]"
    change = "" if verdict.head == "-" else f"from {verdict.base} to {verdict.head}"
    effect = "" if verdict.effect is None else verdict.words()
    words = ", ".join(part for part in (verdict.word, effect, change, verdict.note) if part)
    return pytest.TestReport(f"gate::{name}", ("gate", None, name), {}, "failed", words, "call")
