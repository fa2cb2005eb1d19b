"""The study's table, picture, kept runs and options, on made-up runs: the real ones take minutes each."""

import json
from dataclasses import asdict

import numpy as np
import psutil
import pytest

from bench_tests.gate import study
from bench_tests.gate.rates import Run
from bench_tests.harness.fingerprint import fingerprint

CASES = ("small", "large")


def made_up(seed: int, bias: float = 0.005) -> Run:
    dice = np.random.default_rng(seed)
    blocks = {
        case: [
            {"base": [1e-3] * 8, "head": (1e-3 * np.exp(dice.normal(0, bias) + dice.normal(0, 1e-3, 8))).tolist()}
            for _ in range(6)
        ]
        for case in CASES
    }
    return Run(blocks, {case: [2.0] * 6 for case in CASES}, [1.0] * 6, lost_s=0.0)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "_DRAWN", 50)
    return tmp_path


def kept(file, count: int = 4, **other) -> None:
    """Runs of an earlier study with the default options."""
    machine = fingerprint(1, "cpu").folder()
    identity = {"machine": machine, "budget_s": 12.0, "seed": 0, "neighbour": False, **other}
    file.write_text(json.dumps({"identity": identity, "runs": [asdict(made_up(seed)) for seed in range(count)]}))


def test_kept_runs_are_judged_and_drawn_without_measuring_again(elsewhere, capsys):
    kept(elsewhere / "gate_study.json")
    assert study.main(["--runs", "4"]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0].strip(): line for line in said}
    assert "0 of 4 [0.0, 49.0] %" in rows["a false alarm for any of them"]
    assert "4 of 4" in rows["10% found: small"]
    assert {f"{share}% found: {case}" for share in (3, 5, 10) for case in CASES} <= rows.keys()
    assert "median 15, longest 15" in said[-2]  # three pairs of each case, and three starts
    assert (elsewhere / "gate_study.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runs", "0"], "--runs, --budget and --seed: expected"),
        (["--budget", "nan"], "--runs, --budget and --seed: expected"),
        (["--seed", "-1"], "--runs, --budget and --seed: expected"),
        (["--picture", "."], "--picture .: expected a file that ends in .png, .svg or .pdf"),
        (["--picture", "study.txt"], "--picture study.txt: expected a file that ends in .png, .svg or .pdf"),
        (["--runs-file", "."], "--runs-file .: this is a folder"),
        (["--runs-file", "other.txt"], "--runs-file other.txt: these are no runs of a study"),
        (["--budget", "9"], "--runs-file gate_study.json: its runs differ in budget_s"),
        (["--neighbour"], "--runs-file gate_study.json: its runs differ in neighbour"),
    ],
)
def test_bad_options_are_one_sentence_and_harm_no_kept_runs(elsewhere, capsys, options, said):
    file = elsewhere / "gate_study.json"
    kept(file)
    (elsewhere / "other.txt").write_text('{"runs": 3}')
    before = file.read_bytes()
    assert study.main(options) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert said in sentence
    assert file.read_bytes() == before


def test_the_neighbour_is_no_child_and_ends_with_the_study():
    before = {process.pid for process in psutil.process_iter()}
    with study.neighbour():
        mine = {process.pid for process in psutil.Process().children(recursive=True)}
        new = [process for process in psutil.process_iter() if process.pid not in before | mine]
        (busy,) = [process for process in new if study._NEIGHBOUR in " ".join(process.cmdline())]
    busy.wait(10)
