"""The README is true: its example runs, and it names every registered thing and every option."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench_tests.gate import hooks
from bench_tests.harness.matrix import add_options
from bench_tests.harness.report import after_run
from models.data.images import DATA_NAMES
from models.workload import workload_names
from optim.backends import backend_names
from optim.backends.base import PRECISIONS
from optim.recipe import RECIPES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_example_of_an_own_model_runs(tmp_path):
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    assert len(example[1].splitlines()) <= 25
    (tmp_path / "my_model.py").write_text(example[1])
    command = [sys.executable, "-m", "pytest", "bench_tests", "--workload", "my_model:WORKLOAD", "--backend"]
    command += ["eager,onnxruntime", "--precision", "fp32", "--batch", "1", "--budget", "0.2", "-p", "no:cacheprovider"]
    command += [f"--benchmark-storage=file://{tmp_path}/histories"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "SPEEDPROOF_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout
    assert re.search(r"^fastest: (onnxruntime|eager), \d", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", [*workload_names(), *backend_names(), *PRECISIONS, *DATA_NAMES, *RECIPES])
def test_every_registered_name_is_documented(name):
    assert f"`{name}`" in README


class _Parser:
    """Collects what a pytest parser is given."""

    def __init__(self) -> None:
        self.options: list[str] = []

    def getgroup(self, *_: str) -> _Parser:
        return self

    def addoption(self, name: str, **_: object) -> None:
        self.options.append(name)


def test_every_option_is_documented():
    parser = _Parser()
    add_options(parser)
    after_run.add_options(parser)
    hooks.add_options(parser)
    assert len(parser.options) > 10
    missing = [option for option in parser.options if f"`{option}`" not in README]
    assert not missing
