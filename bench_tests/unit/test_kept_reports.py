"""The reports that are kept: what `tox -e reports` would write today, from runs that name no path of a machine."""

import configparser
import re
import shlex
import shutil
from pathlib import Path

import pytest

from bench_tests.harness.report.answers.quantities import QUANTITIES
from bench_tests.report import main

ROOT = Path(__file__).parents[2]


def commands() -> list[list[str]]:
    """The arguments of each report that `tox -e reports` makes."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    lines = tox["testenv:reports"]["commands"].replace("\\\n", " ").strip().splitlines()
    return [shlex.split(line)[3:] for line in lines]


@pytest.mark.parametrize("arguments", commands(), ids=lambda arguments: Path(arguments[-1]).name)
def test_a_kept_report_is_the_one_that_its_command_makes(tmp_path, monkeypatch, arguments):
    for folder in ("reports", "weights"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pt", "*.pth", "*.npz"))
    monkeypatch.chdir(tmp_path)
    output = Path(arguments[arguments.index("-o") + 1])
    kept = {file.name for file in output.iterdir()}
    shutil.rmtree(output)
    assert main(arguments) == 0
    assert {file.name for file in output.iterdir()} == kept
    assert (output / "report.md").read_text() == (ROOT / output / "report.md").read_text()


def test_kept_files_are_linked_and_name_no_path_of_a_machine():
    readme = (ROOT / "README.md").read_text()
    for arguments in commands():
        assert f"({arguments[arguments.index('-o') + 1]}/report.md)" in readme
    for file in [*(ROOT / "reports").rglob("*.md"), *(ROOT / "reports").rglob("*.json")]:
        assert not re.search(r"file://|/(?:home|root|tmp|work|Users)/", file.read_text()), file


def test_every_quantity_of_a_need_is_documented():
    assert all(f"`{name}`" in (ROOT / "README.md").read_text() for name in QUANTITIES)
