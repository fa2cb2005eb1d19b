"""The introduction, and what reads docstrings: every method parses, every figure is the profile's or the record's."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness.report.answers.busy import hardware_answer
from bench_tests.harness.report.document import Cite, Code, Paragraph, Table, plain
from bench_tests.harness.report.load import read
from bench_tests.harness.report.material import Material
from bench_tests.harness.report.profile_facts import loads, possible, roofline_s
from bench_tests.harness.report.sections.introduction import introduction
from bench_tests.harness.report.sections.methods import MODULES, docstring, marked, method, papers
from bench_tests.unit.stored import FINGERPRINT, material, matrix, record, run, write

METHODS = sorted(set(MODULES.values()))
HOSTILE = '<script>alert(1)</script>"\n`{brace}` ' + "x" * 500


def layer(name="conv", family="convolutions", bound="compute", time_s=1e-3, flop=1e8, bytes_moved=1e6, **more):
    return {
        "name": name, "kind": f"{name} kind", "family": family, "calls": 1, "operators": 2, "time_s": time_s,
        "flop": flop, "bytes_moved": bytes_moved, "parameters": 1000, "bound": bound, "take": "INT8, prune",
    } | more  # fmt: skip


def profile(*rows, workload="resnet18", threads=2, fingerprint=FINGERPRINT, **more):
    total_s = sum(row["time_s"] for row in rows)
    return {
        "workload": workload, "data": "imagenette", "size": 224, "batch": 1, "threads": threads, "device": "cpu",
        "fingerprint": fingerprint, "total_s": total_s, "ceiling": {"peak_gflops": 200.0, "copy_gb_per_s": 40.0},
        "rows": [row | {"share": row["time_s"] / total_s} for row in rows],
    } | more  # fmt: skip


def made(tmp_path, records, *profiles, **of_run):
    files = [write(tmp_path / "run.json", run(records, **of_run))]
    files += [write(tmp_path / f"profile{at}.json", content) for at, content in enumerate(profiles)]
    return read(files)


def blocks(section):
    found = list(section.blocks)
    for part in section.parts:
        found += blocks(part)
    return found


def text(section):
    """All that a section says in sentences."""
    words = [section.title]
    for block in blocks(section):
        words += [plain(block.sentence)] if isinstance(block, Paragraph) else []
        words += [plain(item) for item in getattr(block, "items", ())]
    return "\n".join(words)


def table(section, name):
    return next(block for block in blocks(section) if isinstance(block, Table) and block.name == name)


@pytest.mark.parametrize("module", METHODS)
def test_docstring_of_every_method_has_steps_mechanism_limits_and_risk(module):
    told = method(module)
    assert len(told.steps) >= 3
    for sentence in (told.title, told.mechanism, told.limits, told.risk):
        assert len(plain(sentence)) > 20
    assert "Limits:" not in plain(told.mechanism)
    assert "Risk:" not in plain(told.limits)
    assert told.papers


@pytest.mark.parametrize("module", METHODS)
def test_docstring_is_read_as_python_reads_it(module):
    assert docstring(module) == importlib.import_module(module).__doc__.strip("\n")


@pytest.mark.parametrize("module", METHODS)
def test_every_number_of_arxiv_becomes_a_link(module):
    numbers = set(re.findall(r"\b\d{4}\.\d{5}\b|\b1\d{3}\.\d{4}\b", docstring(module)))
    assert {paper.number for paper in method(module).papers} == numbers
    links = [
        span.url
        for sentence in (method(module).title, *method(module).steps, method(module).about)
        for span in sentence
        if isinstance(span, Cite)
    ]
    assert {url.rpartition("/")[2] for url in links} == numbers


def test_papers_know_their_authors():
    words = "after Arik et al., 1703.05390. Choi et al. (1904.03814); (Warden 2018, arXiv:1804.03209), (1308.3432)."
    assert [(paper.who, paper.number) for paper in papers([words])] == [
        ("Arik et al.", "1703.05390"), ("Choi et al.", "1904.03814"), ("Warden", "1804.03209"), ("", "1308.3432"),
    ]  # fmt: skip


def test_steps_of_every_recipe_have_a_module():
    from optim.bits import BitsConfig
    from optim.prune.config import METHODS as PRUNING
    from optim.quantize.config import METHODS as QUANTIZATION
    from optim.recipe import RECIPES

    kinds = {step["method"] for recipe in RECIPES.values() for step in json.loads(recipe.description())["steps"]}
    assert kinds | set(PRUNING) | set(QUANTIZATION) | {BitsConfig().kind} <= MODULES.keys()


def test_a_module_that_is_not_there_says_nothing():
    told = method("optim.no_such_method")
    assert (told.steps, told.mechanism, told.papers, told.about) == ((), (), (), ())


def test_marks_become_code_and_text_stays():
    assert marked("a ``b c`` d\n  `e` f") == ("a ", Code("b c"), " d ", Code("e"), " f")


@given(st.text().filter(lambda words: "`" not in words and "arXiv" not in words))
def test_text_without_marks_keeps_its_words(words):
    assert plain(marked(words)).replace("arXiv ", "") == " ".join(words.split())


layers = st.lists(
    st.builds(
        layer,
        bound=st.sampled_from(["compute", "memory", "overhead"]),
        time_s=st.floats(1e-7, 1),
        flop=st.floats(0, 1e10),
        bytes_moved=st.floats(0, 1e9),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50)
@given(layers)
def test_shares_add_up_and_the_limit_is_that_of_the_roofline(tmp_path_factory, rows):
    file = write(tmp_path_factory.mktemp("profile") / "profile.json", profile(*rows))
    found = read([file]).profiles[0]
    assert sum(load.share for load in loads(found)) == pytest.approx(1)
    least_s = sum(max(row["flop"] / 200e9, row["bytes_moved"] / 40e9) for row in rows)
    limit = possible(found)
    assert (limit is None) == (least_s == 0)
    assert limit is None or limit == pytest.approx(found.total_s / least_s)
    assert limit is None or possible(found, 4.0, 4.0) == pytest.approx(4 * limit)
    for row in found.rows:
        assert roofline_s(found, row, 2.0, 1.0) <= roofline_s(found, row)


def test_the_class_that_dominates_is_named_with_its_share(tmp_path):
    rows = layer(time_s=9e-3, flop=9e8), layer("relu", "others", "memory", 1e-3, 0, 2e7)
    section = introduction(made(tmp_path, matrix(), profile(*rows)))
    words = text(section)
    assert "90 % of it is bound by arithmetic and 10 % by memory traffic" in words
    assert "reach 100 GFLOP/s, 50 % of what the roofline allows them" in words
    assert "take 5.00 ms and be 2.0 times as fast" in words  # 4.5 ms of arithmetic and 0.5 ms of bytes
    assert "convolutions 90 % and others 10 %" in words
    heaviest = table(section, "bottlenecks-1")
    assert [row.cells[0].text for row in heaviest.rows] == ["conv", "relu"]
    assert heaviest.rows[0].cells[4].value == pytest.approx(100)


def step(**config):
    return json.dumps({"steps": [config], "student": None, "teacher": None, "file": None})


@pytest.mark.parametrize(
    ("bound", "method_name", "verdict"),
    [
        ("compute", "static", "which eight bits address"),
        ("overhead", "static", "which eight bits do not address"),
        ("compute", "structured", "it fits"),
        ("overhead", "structured", "it does not fit"),
        ("compute", "global", "address none of it"),
        ("compute", "weights", "nothing is won or lost"),
        ("overhead", "dynamic", "they take 0 % of the time: it does not fit"),
        ("overhead", "distill", "only where it has fewer operators"),
        ("memory", "distill", "a student with less of it addresses"),
    ],
)
def test_whether_a_method_fits_follows_from_the_profile(tmp_path, bound, method_name, verdict):
    records = [record(), record(recipe="other", backend="openvino", recipe_steps=step(method=method_name))]
    section = introduction(made(tmp_path, records, profile(layer(bound=bound))))
    fits = [line for line in text(section).splitlines() if "resnet18 at size 224" in line and verdict in line]
    assert len(fits) == 1


def test_what_int8_can_win_uses_the_measured_peaks(tmp_path):
    int8 = record(recipe="int8", backend="openvino", recipe_steps=step(method="static"), peak_gflops=1500.0)
    section = introduction(made(tmp_path, [record(), int8], profile(layer(time_s=1e-3, flop=1e8, bytes_moved=1))))
    # 1e8 FLOP at 200 GFLOP/s are half of the time, and int8 has 1500 / 500 of the peak.
    assert "in int8 is 3.0 times that in fp32" in text(section)
    assert "the roofline allows 6.0 times the speed of eager fp32, against 2.0 without it" in text(section)


def test_without_a_profile_the_command_for_one_stands_there(tmp_path):
    words = text(introduction(material(tmp_path)))
    assert (
        "python -m bench_tests.profile --workload resnet18 --data imagenette --size 224 --batch 1 --threads 2" in words
    )
    assert "eager reaches" in words


def test_starting_points_are_the_records(tmp_path):
    found = made(tmp_path, matrix(), profile(layer(), layer("fc")))
    rows = table(introduction(found), "models").rows
    assert [row.cells[2].value for row in rows] == [128, 224]
    for row in rows:
        source = found.entries[row.record]
        assert source.variant == ("original", "eager", "fp32")
        assert source.batch == 1
        assert row.cells[3].value == 2000  # of the profile's layers
        assert row.cells[4].value == source.record["gflop"]
        assert row.cells[5].value == source.record["size_bytes"] / 1e6
        assert row.cells[6].value == source.record["quality_top1_original"]
        assert row.cells[8].value == 1e3 * source.record["trimmed_mean_s"]


def test_ceilings_are_the_records(tmp_path):
    found = made(tmp_path, matrix())
    for row in table(introduction(found), "ceilings").rows:
        source = found.entries[row.record].record
        values = source["peak_gflops"], source["peak_theoretical_gflops"], source["copy_gb_per_s"]
        assert tuple(cell.value for cell in row.cells[2:5]) == values
        assert row.cells[5].value == values[0] / values[2]


def test_firmware_has_cycles_and_flash_in_place_of_a_profile(tmp_path):
    chip = {
        "workload": "tinychat_text", "data": "z80ai", "unit": "chars", "size": 64, "clock": "cycles",
        "chip": "atmega328p", "frequency_hz": 16_000_000, "flash_bytes": 16_128, "sram_bytes": 1_024,
        "macs": 50_000, "macs_original": 150_000, "size_bytes_original": 580_000, "recipe_steps": step(method="bits"),
    }  # fmt: skip
    records = [record(recipe="a", backend="avr", cycles=25_000, **chip)]
    records += [record(recipe="b", backend="avr_plain", cycles=1_000_000, **chip)]
    words = text(introduction(made(tmp_path, records)))
    assert "20.0 cycles for each of them in b on avr_plain, 0.500 in a on avr, less than one" in words
    assert "fills 50 % of an UNO's flash and 50 % of its SRAM" in words
    assert "580,000 bytes, 18 times an UNO's flash" in words
    assert "bench_tests.profile" not in words


def test_cycles_are_those_of_a_character_as_where_the_hardware_is_judged(tmp_path):
    chip = {"workload": "tinychat_text", "data": "z80ai", "unit": "chars", "size": 64, "clock": "cycles"}
    one = record(recipe="a", backend="avr", cycles=25_000, cycles_per_character=20_000.0, macs=50_000, **chip)
    found = made(tmp_path, [one])
    assert "0.400 cycles for each of them in a on avr" in text(introduction(found))
    assert "0.40 cycles each" in text(hardware_answer(found, found.groups[0]))


def test_a_loss_is_told_in_its_own_unit(tmp_path):
    loss = record(quality="loss", quality_loss=2.5, quality_loss_original=2.4, quality_higher_is_better=False)
    (row,) = table(introduction(made(tmp_path, [loss])), "models").rows
    assert (row.cells[6].value, row.cells[6].text) == (2.4, "2.400 loss")


def test_every_lower_precision_is_held_against_each_profile(tmp_path):
    records = [record(precision=precision, peak_gflops=peak) for precision, peak in
               (("fp32", 500.0), ("bf16", 1000.0), ("fp16", 2000.0))]  # fmt: skip
    words = text(introduction(made(tmp_path, records, profile(layer()))))
    for precision, ratio in (("bf16", "2.0"), ("fp16", "4.0")):
        assert f"in {precision}: The peak measured here in {precision} is {ratio} times that in fp32" in words


def test_a_foreign_model_of_an_older_run_is_not_guessed(tmp_path):
    words = text(introduction(made(tmp_path, [record(workload="theirs")], workloads={})))
    assert "theirs: its runs do not tell its task" in words


def test_nothing_measured():
    assert "No case was measured" in text(introduction(Material((), ())))


SPARSE = (
    "case", "workload", "data", "backend", "precision", "recipe", "fingerprint", "device", "clock", "size", "batch",
    "threads", "unit", "trimmed_mean_s", "median_s", "fps", "ms_per_image", "speedup", "speedup_low", "speedup_high",
    "size_bytes", "gflop",
)  # fmt: skip


def sparse():
    return [{name: value for name, value in one.items() if name in SPARSE} for one in matrix((224,), (1, 8))]


def hostile():
    names = dict.fromkeys(("workload", "data", "recipe", "backend", "precision", "unit", "weights"), HOSTILE)
    return [record(**names, case=HOSTILE, coverage=HOSTILE, recipe_steps=steps, gflop=0.0) for steps in (
        HOSTILE, "[]", "null", '{"steps": 3}', '{"steps": [{"method": null}, {"method": ["x"], "amount": "y"}]}',
    )]  # fmt: skip


@pytest.mark.parametrize("records", [sparse(), hostile(), [record()], [record(recipe="int8")]])
def test_sparse_and_hostile_material_never_raises(tmp_path, records):
    bare: dict = {
        "versions": {},
        "fingerprint": None,
        "settings": {},
        "workloads": {},
        "commit_info": None,
        "command": "",
    }
    odd = profile(layer(HOSTILE, HOSTILE, HOSTILE, 0.0, 0, 0), layer(), ceiling={"peak_gflops": 0, "copy_gb_per_s": 0})
    section = introduction(made(tmp_path, records, odd, **bare))
    assert plain(section.blocks[0].sentence)


def test_it_does_not_import_torch(tmp_path):
    file = write(tmp_path / "run.json", run(matrix()))
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from bench_tests.harness.report import load\n"
        "from bench_tests.harness.report.sections import introduction, methodology, sources\n"
        f"material = load.read([Path({str(file)!r})])\n"
        "for part in (introduction.introduction, methodology.methodology, sources.sources):\n    part(material)\n"
        "print(sorted({'torch', 'scipy', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
