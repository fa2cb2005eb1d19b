"""A worker as the driver sees it, whatever becomes of the process: stand-ins that answer as they are told."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from bench_tests.gate import speed
from bench_tests.gate.compare import GENERATIONS, SMALL_GENERATIONS, Comparison, Progress
from bench_tests.gate.process import Process, WorkerError
from bench_tests.gate.trees import Tree
from bench_tests.gate.worker import described, settings_of
from bench_tests.harness.case import Case, Settings
from models.workload import DataChoice

CASE = Case("toy", "none", "eager", "fp32", 64, 1, 1)
STAND_IN = """
import json, os, signal, sys, time
for line in sys.stdin:
    request = json.loads(line)
    answer = {{"pid": os.getpid(), "cpus": sorted(os.sched_getaffinity(0))}}
    if request["do"] != "start":
        {body}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def worker(tmp_path):
    """Starts a stand-in that does something when asked for more than to start."""
    opened = []

    def start(body: str, cpu: int | None = None) -> Process:
        package = tmp_path / "bench_tests" / "gate"
        package.mkdir(parents=True, exist_ok=True)
        (package / "worker.py").write_text(STAND_IN.format(body=body))
        tree = Tree("stand-in", tmp_path, sys.executable, tmp_path / "cache")
        process = Process(tree, Settings(timeout_s=0.5), cpu)
        opened.append(process)
        process.start()
        return process

    yield start
    for process in opened:
        process.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("time.sleep(60)", "hung: no answer to check within 0.5 s"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed: the process died of SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the system killed the process: out of memory?"),
        ("sys.exit('no such thing')", "the process ended with exit code 1 (no such thing)"),
    ],
    ids=["hangs", "crashes", "is killed", "ends"],
)
def test_a_lost_worker_is_told_in_words_and_gone(worker, body, said):
    process = worker(body)
    with pytest.raises(WorkerError) as error:
        process.check(CASE)
    assert str(error.value) == said
    assert not process.alive
    with pytest.raises(WorkerError):
        process.build(CASE)


def test_an_error_of_the_case_leaves_the_worker_alive(worker):
    process = worker("answer = {'error': 'the outputs differ'}")
    with pytest.raises(WorkerError, match="the outputs differ"):
        process.check(CASE)
    assert process.alive


def test_a_ready_worker_is_pinned_and_one_without_a_core_is_not(worker):
    cpu = max(os.sched_getaffinity(0))
    assert worker("pass", cpu).check(CASE)["cpus"] == [cpu]
    assert worker("pass").check(CASE)["cpus"] == sorted(os.sched_getaffinity(0))


def test_a_worker_ends_with_its_driver(worker):
    process = worker("pass")
    pid = process.check(CASE)["pid"]
    process.close()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # noqa: PTH110 - Path hides what /proc denies
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110


def test_settings_reach_a_worker_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.pt").touch()
    given = Settings(
        device="cpu", threads=3, data=DataChoice("folder", tmp_path / "data", "happy"), weights=tmp_path / "w.pt",
        specs={"mine": "my_model:WORKLOAD"}, recipes={"small": "small.pt", "own": "my_recipes:R"}, examples=None,
        budget_s=1.5, timeout_s=9.0, seed=4,
    )  # fmt: skip
    found = settings_of(json.loads(json.dumps(described(given))))
    assert found.recipes == {"small": str(tmp_path / "small.pt"), "own": "my_recipes:R"}
    assert {name: value for name, value in vars(found).items() if name != "recipes"} == {
        name: value for name, value in vars(given).items() if name != "recipes"
    }


@pytest.mark.parametrize(
    ("call_s", "pairs"),
    [(1e-5, SMALL_GENERATIONS), (1e-3, GENERATIONS), (0.1, GENERATIONS), (0.3, 6), (0.6, 3), (0.7, 2), (5.0, 0)],
)
def test_a_budget_is_divided_and_never_exceeded(call_s, pairs):
    progress = Progress(CASE)
    progress.plan(call_s, 8.0)
    assert progress.most == pairs
    if pairs < speed.FEWEST:
        assert f"too small for calls of {call_s:.2g} s: give at least" in progress.unmeasured.note
        needed = int(progress.unmeasured.note.split()[-2])
        again = Progress(CASE)
        again.plan(call_s, needed)
        assert again.unmeasured is None


@pytest.mark.parametrize(
    ("body", "word"),
    [("answer = {'error': 'unknown workload'}", "new"), ("os.kill(os.getpid(), signal.SIGKILL)", "unstable")],
)
def test_a_base_that_dies_is_not_taken_for_one_that_lacks_the_case(tmp_path, body, word):
    sides = []
    for name, does in (("base", body), ("head", "answer = {'record': {}}")):
        package = tmp_path / name / "bench_tests" / "gate"
        package.mkdir(parents=True)
        (package / "worker.py").write_text(STAND_IN.format(body=does))
        sides.append(Tree(name, tmp_path / name, Path(sys.executable), tmp_path / "cache"))
    comparison = Comparison(tuple(sides), Settings(timeout_s=30), [CASE], budget_s=1, seed=0, say=lambda _: None)
    (verdict,) = comparison.run()
    assert (verdict.word, verdict.note.startswith("base: ")) == (word, True)
