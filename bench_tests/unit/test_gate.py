"""Base against head as a user runs it: two versions of some toys in a repository of their own, real processes."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from bench_tests.gate import quiet
from bench_tests.gate.__main__ import main
from bench_tests.gate.study import neighbour
from bench_tests.gate.trees import both_trees
from models.errors import SpeedproofError

ROOT = Path(__file__).parents[2]

TOYS = """
import os
import signal

import torch
from torch import nn

from models.workload import Workload


class Toy(nn.Module):
    def __init__(self, repeats, scale=1.0, dies=False):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(256, 256)
        self.repeats, self.scale, self.dies = repeats, scale, dies

    def forward(self, x):
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(self.repeats):
            y = self.layer(x)
        return self.scale * y


def workload(name, **options):
    def example(size, batch, seed):
        return (torch.randn(batch, 256, generator=torch.Generator().manual_seed(seed)),)

    return Workload(
        name=name, task="A toy.", scenario="A test.", platform="Any.", build=lambda size, weights: Toy(**options),
        example=example, sizes=(64,), batches=(256,),
    )


SAME = workload("same", repeats=2)
SLOWER = workload("slower", repeats={slower})
DYING = workload("dying", repeats=1, dies={dies})
"""


# Whether the test machine is busy must not decide, nor need it be measured for long.
QUICK = """
import sys
from bench_tests.gate import quiet
from bench_tests.gate.__main__ import main
quiet.BUSY = 2.0
sys.exit(main())
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Our tree, by links, with toys of which the committed version is the faster one."""
    root = tmp_path_factory.mktemp("repository")
    for part in ("models", "optim", "bench_tests", "pyproject.toml"):
        (root / part).symlink_to(ROOT / part)
    (root / "gate_toys.py").write_text(TOYS.format(slower=2, dies=False))
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "base")
    (root / "gate_toys.py").write_text(TOYS.format(slower=4, dies=True))
    return root


def command(repository: Path, *more: str, workloads: str = "SAME,SLOWER,DYING") -> list[str]:
    specs = ",".join(f"gate_toys:{name}" for name in workloads.split(","))
    return [
        sys.executable, "-c", QUICK, "--base", "HEAD", f"--workload={specs}", "--backend=eager",
        "--precision=fp32", "--threads=1", "--budget=1s", *more,
    ]  # fmt: skip


def environment(repository: Path) -> dict[str, str]:
    return os.environ | {"SPEEDPROOF_CACHE": str(repository.parent / "cache"), "PYTHONPATH": str(repository)}


def run(repository: Path, *more: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(repository, *more, **options), cwd=repository, env=environment(repository), capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def judged(repository) -> subprocess.CompletedProcess:
    return run(repository, "--markdown", "table.md")


def line(judged: subprocess.CompletedProcess, case: str, word: str = "") -> str:
    found = [row for row in judged.stdout.splitlines() if case in row and "time" in row and word in row]
    assert found, judged.stdout + judged.stderr
    return found[0]


def test_a_planted_slowdown_is_told_and_a_dying_case_fails_alone(judged, repository):
    assert judged.returncode == 1, judged.stdout + judged.stderr
    assert "slower" in line(judged, "slower-none").replace("slower-none", "")
    assert "the system killed the process" in line(judged, "dying-none")
    assert "slower" in (repository / "table.md").read_text()
    assert not list(Path(tempfile.gettempdir()).glob("speedproof-gate-*/checkout"))
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, text=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_nothing_changed_is_no_alarm(repository):
    done = run(repository, workloads="SAME")
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: a noisy machine, too few samples to tell
    assert "slower" not in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--base", "nowhere"], "--base nowhere: git knows no such commit"),
        (["--head", "/"], "--head /: expected the root of a Speedproof tree"),
        (["--budget", "soon"], "--budget soon: expected seconds above 0"),
        (["-k", "nothing_like_it"], "no case is left to compare"),
        (["-k", "a and"], "-k 'a and': "),
        (["--backend", "onix"], "--backend: unknown backend 'onix'"),
    ],
)
def test_bad_options_are_one_sentence(repository, monkeypatch, capsys, options, said):
    monkeypatch.chdir(repository)
    monkeypatch.syspath_prepend(repository)
    first = command(repository).index("--base")
    assert main([*command(repository)[first:], *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (sentence,) = told.err.splitlines()
    assert said in sentence


def test_ctrl_c_leaves_nothing_behind(repository):
    process = subprocess.Popen(
        command(repository, workloads="SAME"), cwd=repository, env=environment(repository), stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(children := psutil.Process(process.pid).children(recursive=True)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, text=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_other_dependencies_have_an_environment_of_their_own(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy, symlinks=True)
    (copy / "pyproject.toml").unlink()
    (copy / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["not-a-package-of-anybody==9"]\n')
    git(copy, "commit", "-qam", "others")
    (copy / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = []\n')
    with pytest.raises(SpeedproofError, match="its dependencies cannot be installed"), both_trees("HEAD", copy):
        pass
    (copy / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["not-a-package-of-anybody==9"]\n')
    with both_trees("HEAD", copy) as (base, head):
        assert base.python == head.python
        assert base.cache == head.cache  # the same code, whatever else differs
        assert (base.folder / "bench_tests").resolve() == (head.folder / "bench_tests").resolve()


HOLD = """
import pathlib
from bench_tests.gate import quiet
with quiet.alone(pathlib.Path(".")):
    print("in", flush=True)
    input()
"""


def test_two_gates_wait_for_each_other(tmp_path):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first, second = (
        subprocess.Popen([sys.executable, "-c", HOLD], cwd=tmp_path, env=environment, text=True, **pipes)
        for _ in range(2)
    )
    ready = selectors.DefaultSelector()
    for process in (first, second):
        ready.register(process.stdout, selectors.EVENT_READ, (process, second if process is first else first))
    ((key, _),) = ready.select(timeout=60)
    holder, waiter = key.data
    assert "another gate measures" in waiter.stderr.readline()
    assert len(ready.select(timeout=0.2)) == 1  # the holder alone is in
    holder.communicate("\n", timeout=60)
    said, _ = waiter.communicate("\n", timeout=60)
    assert said == "in\n"


def test_a_neighbour_is_seen():
    cpus = os.sched_getaffinity(0)
    watch = quiet.Watch(cpus, len(cpus))
    with contextlib.ExitStack() as stack:
        for _ in cpus:
            stack.enter_context(neighbour())
        time.sleep(1)
        assert watch.foreign_share() > quiet.BUSY


def test_own_processes_are_no_neighbours():
    cpus = os.sched_getaffinity(0)
    watch = quiet.Watch(cpus, len(cpus))
    own = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in cpus]
    try:
        time.sleep(0.7)
        assert watch.foreign_share() < 0.5  # the rest of the machine may be at work too
    finally:
        for process in own:
            process.kill()
            process.wait()
    assert watch.foreign_share() < 0.5  # nor what they did before they ended
