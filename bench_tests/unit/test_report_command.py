"""`python -m bench_tests.report`, and `pytest --report`, from files to files."""

import argparse
import csv
import json
import re
import subprocess
import sys

import pytest

from bench_tests.harness.report import after_run
from bench_tests.harness.report import assemble as assembling
from bench_tests.harness.report.assemble import assemble, write
from bench_tests.harness.report.document import Number, Paragraph, plain
from bench_tests.harness.report.material import Group
from bench_tests.report import main
from bench_tests.unit import stored
from bench_tests.unit.test_history import ROOT, Runs
from models.errors import SpeedproofError

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script></script>`|*_[x](y){{7*7}}#$\\\n\u202e' + "x" * 300


def _report(tmp_path, *runs, needs=(), formats="html,markdown,pdf,tables"):
    files = [stored.write(tmp_path / f"run{at}.json", run) for at, run in enumerate(runs)]
    arguments = [*map(str, files), "-o", str(tmp_path / "out"), "--formats", formats]
    assert main([*arguments, *(f"--need={need}" for need in needs)]) == 0
    return tmp_path / "out"


def test_a_report_in_every_form(tmp_path, capsys):
    run = stored.run(stored.matrix(recipes=("original", "int8")))
    out = _report(tmp_path, run, needs=["latency<=10ms", "drop<=0.6"])
    assert "report.html: written" in capsys.readouterr().out
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "<html" in (out / "report.html").read_text()
    text = (out / "report.md").read_text()
    for heading in ("In short", "Introduction", "Methodology", "Results", "Discussion", "Conclusion", "Sources"):
        assert re.search(rf"^## .*{heading}$", text, re.M)
    for name in ("results", "resources", "recipes"):
        assert list((out / "tables").glob(f"{name}-*.csv"))
        assert list((out / "tables").glob(f"{name}-*.json"))
    with (out / "tables" / "records.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["fps"]) for row in rows] == [entry["extra_info"]["fps"] for entry in run["benchmarks"]]
    assert not list(tmp_path.glob("**/.*"))  # nothing half-written is left


def test_every_picture_of_the_markdown_is_there(tmp_path):
    out = _report(tmp_path, stored.run(stored.matrix()), formats="markdown")
    named = {
        part.split(")")[0] for part in (out / "report.md").read_text().split("](") if part.split(")")[0].endswith("png")
    }
    assert named
    assert {file.name for file in out.iterdir()} == named | {"report.md"}


def test_names_of_blocks_are_unique(tmp_path):
    records = [*stored.matrix(), *stored.matrix(data="digits"), *stored.matrix(fingerprint="other")]
    document = assemble(stored.material(tmp_path, stored.run(records)))
    for blocks in (document.figures(), document.tables()):
        names = [block.name for block in blocks]
        assert len(names) == len(set(names))
    slugs = []

    def visit(section):
        slugs.append(section.slug)
        for part in section.parts:
            visit(part)

    for section in document.sections:
        visit(section)
    assert len(slugs) == len(set(slugs))


def test_figures_in_sentences_know_their_records(tmp_path):
    material = stored.material(tmp_path)
    document = assemble(material)
    sentences = [block.sentence for block in document.blocks() if isinstance(block, Paragraph)]
    numbers = [span for sentence in sentences for span in sentence if isinstance(span, Number)]
    assert numbers
    assert all(0 <= number.record < len(material.entries) for number in numbers)


@pytest.mark.parametrize(
    "place", ["case", "recipe", "backend", "workload", "data", "weights", "fingerprint", "quality"]
)
def test_a_hostile_name_is_text_everywhere(tmp_path, place):
    records = [record | {place: HOSTILE + str(at % 4)} for at, record in enumerate(stored.matrix(sizes=(224,)))]
    row = {"case": HOSTILE, "status": HOSTILE, "reason": HOSTILE}
    out = _report(
        tmp_path, stored.run(records, not_measured=[row], command=HOSTILE), formats="html,markdown,pdf,tables"
    )
    page = (out / "report.html").read_text()
    assert "<img src=x" not in page
    assert "<script>alert" not in page


def sparse():
    """Runs that lack something, each with what the report must say of it."""
    one = stored.record(backend="openvino")
    bare = {
        name: value for name, value in one.items() if not name.startswith(("quality", "agreement", "parity", "peak"))
    }
    return {
        "one case": stored.run([one]),
        "no quality": stored.run([bare]),
        "only eager": stored.run([stored.record()]),
        "one batch": stored.run(stored.matrix(batches=(1,))),
        "one size": stored.run(stored.matrix(sizes=(224,))),
        "nothing measured": stored.run([], not_measured=[{"case": "a", "status": "failed", "reason": "parity"}]),
        "old": {name: value for name, value in stored.run([one]).items() if name in ("machine_info", "benchmarks")},
        "bad figure": stored.run([one, stored.record() | {"fps": float("nan")}]),
        "cycles": stored.run([one | {"clock": "cycles", "flash_bytes": 9308, "sram_bytes": 900, "cycles": 24841}]),
        "worse than nothing": stored.run([one | {"quality_top1": 0.0, "quality_top1_low": 0.0, "quality_drop": 0.861}]),
        "speech": stored.run([one | {"unit": "ms", "size": 100, "real_time_factor": 0.001}]),
        "gpu": stored.run([one | {"device": "cuda", "gpu_utilisation_percent": 99.0, "gpu_peak_memory_bytes": 1e9}]),
    }


@pytest.mark.parametrize("name", sparse())
def test_sparse_runs_make_a_report_that_says_what_it_lacks(tmp_path, name):
    out = _report(tmp_path, sparse()[name], needs=["latency<=10ms", "drop<=0.5"])
    text = (out / "report.md").read_text()
    assert "nan" not in text.lower().split()
    if name in ("one case", "only eager", "one size", "one batch"):
        assert "pytest bench_tests" in text  # the command that would supply it


def test_machines_are_never_in_one_figure(tmp_path):
    records = [*stored.matrix(), *stored.matrix(fingerprint="other-machine")]
    material = stored.material(tmp_path, stored.run(records))
    for figure in assemble(material).figures():
        numbers = {row["record"] for rows in figure.spec["datasets"].values() for row in rows if "record" in row}
        assert len({material.entries[number].record["fingerprint"] for number in numbers}) <= 1, figure.name


@pytest.mark.parametrize("many", ["sizes", "batches", "recipes"])
def test_thousands_of_records_ask_for_no_more_than_their_number(tmp_path, monkeypatch, many):
    """10,000 records must be a matter of seconds: no question goes through all records for each record."""
    values = [f"r{at}" for at in range(200)] if many == "recipes" else range(32, 232)
    usual = {"sizes": (224,), "batches": (1,)} | {many: values}
    material = stored.material(tmp_path, stored.run(stored.matrix(**usual)))
    asked = 0
    plain_at = Group.at

    def counted(group, **where):
        nonlocal asked
        asked += 1
        return plain_at(group, **where)

    monkeypatch.setattr(Group, "at", counted)
    assemble(material)
    assert len(material.entries) == 1600
    assert asked < 100


def test_synthetic_data_are_labelled(tmp_path):
    document = assemble(stored.material(tmp_path, stored.run([stored.record(data="synthetic_tones")])))
    notes = [
        plain(block.sentence) for block in document.blocks() if isinstance(block, Paragraph) and block.kind == "note"
    ]
    assert any("synthetic" in note for note in notes)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.json"], "none.json: cannot be read"),
        (["run.json", "--formats", "html,word"], "there is no 'word'; expected some of html, markdown, pdf, tables"),
        (["run.json", "--formats", ""], "there is no ''"),
        (["run.json", "--need", "latency<=10parsecs"], "latency<=10parsecs"),
        (["run.json", "-o", "run.json"], "is a file, expected a folder"),
        (["run.json", "-o", "run.json/below"], "cannot write to"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    stored.write(tmp_path / "run.json", stored.run([stored.record()]))
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_form_that_fails_leaves_no_other_behind(tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("the last form")

    monkeypatch.setattr(assembling, "json_text", fails)
    material = stored.material(tmp_path)
    with pytest.raises(ValueError, match="the last form"):
        write(material, assemble(material), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_report_needs_no_torch(tmp_path):
    file = stored.write(tmp_path / "run.json", stored.run(stored.matrix()))
    code = (
        "import sys; from bench_tests.report import main; "
        f"assert main([{str(file)!r}, '-o', {str(tmp_path / 'out')!r}]) == 0; "
        "heavy = {'torch', 'scipy', 'matplotlib', 'pandas'} & sys.modules.keys(); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


def test_pytest_writes_a_report_of_its_run(runs, tmp_path):
    ended = runs("--report", str(tmp_path / "out"), "--need=latency<=1s", backend="eager,tensorrt")
    assert ended.returncode == 0, ended.stdout
    assert f"report: {tmp_path / 'out' / 'report.html'}, and " in ended.stdout
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [entry["extra_info"]["backend"] for entry in run["benchmarks"]] == ["eager"]
    assert run["command"].startswith("pytest ")
    assert f"--report {tmp_path / 'out'}" in run["command"]
    assert "small0" in run["workloads"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "tensorrt" in text  # skipped, with its reason
    assert "(run.json#L" in text


def options(tmp_path, **given):
    usual = {"report": tmp_path / "folder", "need": [], "benchmark_disable": False, "benchmark_enable": False}
    return argparse.Namespace(**(usual | {"benchmark_skip": False} | given))


def test_options_that_cannot_be_meant_are_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("mine")
    for given, reason in (
        ({"report": tmp_path / "file"}, "is a file, expected a folder"),
        ({"benchmark_disable": True}, "nothing is timed in this run"),
        ({"benchmark_skip": True}, "nothing is timed in this run"),
        ({"dist": "load"}, "nothing is timed in this run"),
        ({"need": ["speed>1"]}, "speed>1"),
        ({"report": None, "need": ["latency<=1s"]}, "add --report DIR"),
    ):
        with pytest.raises(SpeedproofError, match=re.escape(reason)):
            after_run.check_options(options(tmp_path, **given))
    assert (tmp_path / "file").read_text() == "mine"
    after_run.check_options(options(tmp_path, need=["latency<=1s"]))
    after_run.check_options(options(tmp_path, report=None))


def test_pytest_refuses_them_as_bad_usage(runs):
    ended = runs("--need", "latency<=1s")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "add --report DIR" in ended.stderr
