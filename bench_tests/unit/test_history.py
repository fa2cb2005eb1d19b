"""Whole runs of pytest in a process of its own: what is stored, compared, refused, and left of an interrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench_tests.harness.record import read_journal

ROOT = Path(__file__).parents[2]
TOYS = "bench_tests.unit.toys"
SMALL = "small0-digits-original-{}-fp32-16px-b1-t1"
EAGER, CRASHING, EATING, TENSORRT = (
    SMALL.format(name) for name in ("eager", f"{TOYS}.CRASHING", f"{TOYS}.EATING", "tensorrt")
)

# A run of its own starts with the harness's slowest parts, which other tests look at: they are kept short here.
QUICK = """
import os
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
from bench_tests.harness import peaks, timing
timing._BLOCK_S = 2e-3
peaks._BUDGET_S = peaks._COPY_BUDGET_S = 0.05
peaks._COPY_BYTES = 2**20
"""

AFTER_MEASURING = """
import pytest
from bench_tests.harness.timing import case_clock

@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
@pytest.mark.parametrize("claim", ["holds", "fails"])
def test_claim(case, measure, claim):
    record = measure(case)
    assert record["speedup"] > 0
    assert claim == "holds"
"""


class Runs:
    """Runs pytest on the matrix, from the root of the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.storage = folder, folder / "storage"
        (folder / "speedproof_quick.py").write_text(QUICK)
        self.environment = os.environ | {"SPEEDPROOF_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder)}

    def command(self, *arguments: str, workload: str = f"{TOYS}:SMALL", backend: str = "eager") -> list[str]:
        chosen = [] if any(argument.endswith(".py") for argument in arguments) else ["bench_tests/test_inference.py"]
        return [
            sys.executable, "-m", "pytest", "-q", "-p", "speedproof_quick", "-p", "no:cacheprovider",
            f"--workload={workload}", f"--backend={backend}", "--size=16", "--batch=1", "--precision=fp32",
            "--budget=0.02", "--examples=32", "--threads=1", f"--benchmark-storage=file://{self.storage}",
            *chosen, *arguments,
        ]  # fmt: skip

    def __call__(self, *arguments: str, cache: str | None = None, **options: str) -> subprocess.CompletedProcess:
        environment = self.environment | ({"SPEEDPROOF_CACHE": cache} if cache else {})
        command = self.command(*arguments, **options)
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    def stored(self, name: str) -> Path:
        (file,) = self.storage.glob(f"*/*_{name}.json")
        return file

    def journal(self) -> list[dict]:
        """Entries of the newest run."""
        return read_journal(max(self.storage.glob("runs/*/journal.jsonl"), key=lambda file: file.stat().st_mtime))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def first(runs):
    """A run with a case that is measured, one that runs out of memory, and one that cannot run here."""
    done = runs("--benchmark-save=first", backend=f"eager,{TOYS}:EATING,tensorrt")
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads(runs.stored("first").read_text())


def _one_sentence(done: subprocess.CompletedProcess, words: str) -> None:
    assert done.returncode == 4, done.stdout + done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    assert len(errors) == 1, done.stdout + done.stderr
    assert words in errors[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert len(lines) <= 2, lines


def test_run_is_stored_with_all_that_belongs_to_it(runs, first):
    done, stored = first
    (entry,) = stored["benchmarks"]
    record = entry["extra_info"]
    assert entry["param"] == record["case"] == EAGER
    assert record.keys() >= {
        "speedup", "speedup_low", "speedup_high", "fps", "trimmed_mean_s", "gflop", "quality_top1", "agreement",
        "cpu_peak_memory_bytes", "coverage", "weights", "speedup_over_best_fp32", "parity_rms_error",
    }  # fmt: skip
    assert entry["stats"]["rounds"] == record["blocks"]
    assert entry["stats"]["median"] == pytest.approx(record["median_s"])
    assert stored["versions"].keys() >= {"python", "torch"}
    assert stored["fingerprint"]["threads"] == 1
    assert stored["machine_info"]["fingerprint"] == record["fingerprint"]
    with np.load(runs.storage / "runs" / record["arrays_file"]) as arrays:
        assert len(arrays["candidate_s"]) == record["blocks"]
    assert "Traceback" not in done.stdout + done.stderr
    assert "fastest: eager" in done.stdout


def test_out_of_memory_and_skipped_cases_are_rows_and_no_failure(first):
    _, stored = first
    found = {entry["case"]: entry for entry in stored["not_measured"]}
    assert set(found) == {EATING, TENSORRT}
    assert found[EATING]["status"] == "out of memory"
    assert found[EATING]["reason"].startswith("out of memory: ")
    assert found[TENSORRT]["status"] == "skipped"
    assert found[TENSORRT]["reason"].startswith("tensorrt fp32: ")


def test_failing_case_has_a_reason_and_others_are_compared(runs, first):
    written = runs.folder / "second.json"  # what is compared and not decided is not saved
    done = runs(f"--benchmark-json={written}", "--benchmark-compare", backend=f"{TOYS}:CRASHING,eager")
    assert done.returncode == 1, done.stdout + done.stderr
    stored = json.loads(written.read_text())
    assert [entry["param"] for entry in stored["benchmarks"]] == [EAGER]
    assert stored["not_measured"] == [
        {"case": CRASHING, "status": "failed", "reason": "crashed: the process that tried it died of SIGSEGV"}
    ]
    assert f"{CRASHING}: crashed: the process that tried it died of SIGSEGV" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "error" not in done.stdout.splitlines()[-1]
    assert "Comparing against benchmarks from" in done.stdout + done.stderr
    assert "(NOW)" in done.stdout
    assert "(0001_first)" in done.stdout
    assert [(entry["case"], entry["status"]) for entry in runs.journal()] == [(CRASHING, "failed"), (EAGER, "measured")]
    assert "Traceback" not in done.stdout + done.stderr


def test_run_of_another_machine_is_refused(runs, first):
    _, stored = first
    file = runs.folder / "other.json"
    stored["machine_info"]["fingerprint"] = "another-cpu-8c-8t-passive-12345678"
    file.write_text(json.dumps(stored))
    _one_sentence(runs(f"--benchmark-compare={file}"), "of another-cpu-8c-8t-passive-12345678, this one is of")


def test_claim_that_fails_after_measuring_is_not_stored(runs):
    test = runs.folder / "test_claim.py"
    test.write_text(AFTER_MEASURING)
    output = runs.folder / "claim.json"
    done = runs("-p", "conftest", f"--rootdir={ROOT}", "-c", "pytest.ini", str(test), f"--benchmark-json={output}")
    assert done.returncode == 1, done.stdout + done.stderr
    stored = json.loads(output.read_text())
    (entry,) = stored["benchmarks"]
    assert entry["params"]["claim"] == "holds"
    assert [entry["status"] for entry in stored["not_measured"]] == ["failed"]
    assert [entry["status"] for entry in runs.journal()] == ["measured", "measured", "failed"]


def _heed_interrupts() -> None:
    """Take Ctrl-C as usual, also below a shell that started the tests in the background, which makes them ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_run_keeps_what_is_finished(runs):
    output = runs.folder / "interrupted.json"
    command = runs.command(f"--benchmark-json={output}", backend=f"eager,{TOYS}:HANGING")
    started = time.time()
    with subprocess.Popen(
        command, cwd=ROOT, env=runs.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=_heed_interrupts,
    ) as run:  # fmt: skip
        process = psutil.Process(run.pid)
        finished = False
        while not finished and time.time() < started + 120 and run.poll() is None:
            time.sleep(0.2)
            journals = (file for file in runs.storage.glob("runs/*/journal.jsonl") if file.stat().st_mtime > started)
            finished = any(entry["status"] == "measured" for file in journals for entry in read_journal(file))
        time.sleep(1)  # the next case hangs in its child by now
        children = process.children(recursive=True)
        run.send_signal(signal.SIGINT)
        try:
            printed, _ = run.communicate(timeout=60)
        finally:
            run.kill()  # where it has not ended by itself
    assert finished, printed
    assert run.returncode == 2, printed
    assert "Traceback" not in printed
    assert "KeyboardInterrupt" in printed
    assert [entry["param"] for entry in json.loads(output.read_text())["benchmarks"]] == [EAGER]
    assert [(entry["case"], entry["status"]) for entry in runs.journal()] == [(EAGER, "measured")]
    assert len(children) >= 2  # the server and the case's child
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_unwritable_cache_is_one_sentence(runs):
    (runs.folder / "file").write_text("")
    _one_sentence(runs(cache=str(runs.folder / "file" / "cache")), "set SPEEDPROOF_CACHE to a folder that can")


@pytest.mark.parametrize("option", ["--benchmark-storage=file://{}/storage", "--benchmark-json={}/run.json"])
def test_results_that_could_not_be_kept_are_one_sentence(runs, option):
    (runs.folder / "no_folder").touch()
    _one_sentence(runs(option.format(runs.folder / "no_folder")), f"{option.partition('=')[0]}: cannot write to ")


def test_workload_that_does_not_import_is_one_sentence(runs):
    (runs.folder / "broken_workload.py").write_text("import numpy\nraise RuntimeError('two\\nlines')\n")
    done = runs(workload="broken_workload:WORKLOAD")
    _one_sentence(
        done, "--workload broken_workload:WORKLOAD: module 'broken_workload' failed to import (RuntimeError: two"
    )


def test_run_without_a_number_ends_as_any_other(runs, tmp_path):
    """Nothing to compare with and nothing to save: pytest-benchmark warns of both."""
    nothing = f"file://{tmp_path}"
    done = runs(
        f"--benchmark-storage={nothing}", "--benchmark-compare", "--benchmark-autosave", backend=f"{TOYS}:REFUSING"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert "1 failed" in done.stdout.splitlines()[-1]
    assert "another exception" not in done.stdout
    (journal,) = tmp_path.glob("runs/*/journal.jsonl")
    assert [entry["status"] for entry in read_journal(journal)] == ["failed"]


def test_checks_alone_store_nothing(runs):
    output = runs.folder / "disabled.json"
    done = runs("--benchmark-disable", f"--benchmark-json={output}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert not output.exists()
