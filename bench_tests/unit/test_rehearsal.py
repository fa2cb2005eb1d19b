"""The child process: its death, its memory and its errors are one case's reason, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest

from bench_tests.harness import rehearsal
from bench_tests.harness.case import Case, NotMeasuredError, Settings, explained
from bench_tests.harness.rehearsal import rehearse, rehearse_once
from bench_tests.harness.session import Session
from models.errors import SpeedproofError

TOYS = "bench_tests.unit.toys"
SETTINGS = Settings(threads=1, specs={"small0": f"{TOYS}:SMALL"}, timeout_s=60)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def warm_server(tmp_path_factory):
    """The first child waits until its server has imported torch: not what is timed here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEEDPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        rehearse(_case("eager"), SETTINGS)


@pytest.fixture(autouse=True)
def no_child_survives():
    yield
    assert _children() == []


def _children() -> list[psutil.Process]:
    """Live children of the server that forks them."""
    server = psutil.Process(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
    return [child for child in server.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def _case(backend: str) -> Case:
    return Case("small0", "digits", backend if backend == "eager" else f"{TOYS}:{backend}", "fp32", 16, 1, 1)


@pytest.mark.parametrize(
    ("backend", "status", "reason"),
    [
        ("CRASHING", "failed", "crashed: the process that tried it died of SIGSEGV"),
        ("HANGING", "failed", "hung: not built and run once within 2 s (--case-timeout)"),
        ("EATING", "out of memory", "out of memory: .*alloc.*"),
        ("WRAPPED", "out of memory", "out of memory: .*alloc.*"),
        ("REFUSING", "failed", "trouble cannot run Toy: take another backend"),
        ("BREAKING", "failed", f"{TOYS}:BREAKING failed: KeyError: .*nobody has.*"),
    ],
)
def test_trouble_is_the_reason_and_the_session_goes_on(backend, status, reason):
    started = time.monotonic()
    with pytest.raises(NotMeasuredError) as caught:
        rehearse(_case(backend), Settings(**{**vars(SETTINGS), "timeout_s": 2}))
    assert time.monotonic() - started < 10
    assert caught.value.status == status
    assert "\n" not in caught.value.reason
    assert caught.match(f"^{reason.replace('(', '[(]').replace(')', '[)]')}$")
    assert rehearse(_case("eager"), SETTINGS).build_s > 0


def test_peak_memory_is_that_of_the_model():
    small, greedy = (rehearse(_case(backend), SETTINGS) for backend in ("eager", "GREEDY"))
    assert 280 < (greedy.cpu_peak_memory_bytes - small.cpu_peak_memory_bytes) / 2**20 < 320
    assert abs(greedy.cpu_base_memory_bytes - small.cpu_base_memory_bytes) < 10 * 2**20
    assert small.cpu_base_memory_bytes < small.cpu_peak_memory_bytes


def test_more_than_there_is_ends_the_child(monkeypatch):
    # Not much more than the child has from the start.
    limit_bytes = rehearse(_case("eager"), SETTINGS).cpu_base_memory_bytes + 100 * 2**20
    monkeypatch.setattr("bench_tests.harness.rehearsal.available_memory_bytes", lambda: limit_bytes)
    monkeypatch.setattr("bench_tests.harness.rehearsal._MEMORY_SHARE", 1.0)
    with pytest.raises(NotMeasuredError, match="out of memory: more than") as caught:
        rehearse(_case("HOARDING"), SETTINGS)
    assert caught.value.status == "out of memory"


def test_child_works_in_the_environment_of_its_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "another"))
    assert not rehearse(_case("CACHING"), SETTINGS).from_cache
    assert rehearse(_case("CACHING"), SETTINGS).from_cache
    assert (tmp_path / "another" / "toy").is_dir()


def test_second_run_needs_no_child_until_something_changes(tmp_path, monkeypatch):
    spec = tmp_path / "own_toy.py"
    spec.write_text(f"from {TOYS} import SMALL\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = replace(SETTINGS, specs={"small0": "own_toy:SMALL"})
    first = rehearse_once(_case("eager"), Session(settings))
    assert not first.kept
    monkeypatch.setattr(rehearsal, "rehearse", _no_child)
    assert rehearse_once(_case("eager"), Session(settings)) == replace(first, kept=True)
    with pytest.raises(NoChild):
        rehearse_once(replace(_case("eager"), batch=2), Session(settings))
    for place, name, change in (
        (rehearsal, "versions", lambda device, packages: {"torch": "99"}),
        (rehearsal, "available_memory_bytes", lambda: first.cpu_peak_memory_bytes),
        (Session, "digest", lambda session, case: "another content"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, change)
            with pytest.raises(NoChild):
                rehearse_once(_case("eager"), Session(settings))
    spec.write_text(f"from {TOYS} import SMALL  # changed\n")
    with pytest.raises(NoChild):
        rehearse_once(_case("eager"), Session(settings))


def test_nothing_is_kept_of_a_child_that_died():
    for _ in range(2):
        with pytest.raises(NotMeasuredError, match="SIGSEGV"):
            rehearse_once(_case("CRASHING"), Session(SETTINGS))


class NoChild(Exception):
    """Raised where a child would have started."""


def _no_child(*_):
    raise NoChild


def test_interrupted_parent_takes_its_child_along():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        rehearse(_case("HANGING"), SETTINGS)
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 4
    timer.join()
    assert rehearse(_case("eager"), SETTINGS).build_s > 0


def test_killed_parent_takes_its_child_along():
    code = (
        "from bench_tests.unit.test_rehearsal import *\n"
        "from bench_tests.unit.test_rehearsal import _case, _children\n"
        "def tell():\n"
        "    while not _children(): time.sleep(0.05)\n"
        "    print(_children()[0].pid, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    rehearse(_case('eager'), SETTINGS)\n"
        "    threading.Thread(target=tell, daemon=True).start()\n"
        "    rehearse(_case('HANGING'), SETTINGS)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(timeout=10)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (MemoryError(), "out of memory", "out of memory: no message"),
        (NotMeasuredError("skipped", "as it is"), "skipped", "as it is"),
        (SpeedproofError("one sentence"), "failed", "one sentence"),
        (ValueError("first\nsecond"), "failed", "eager failed: ValueError: first"),
        (RuntimeError("can't allocate memory: 9 GB"), "out of memory", "out of memory: can't allocate memory: 9 GB"),
    ],
)
def test_explained(error, status, reason):
    failure = explained(_case("eager"), error)
    assert (failure.status, failure.reason) == (status, reason)
