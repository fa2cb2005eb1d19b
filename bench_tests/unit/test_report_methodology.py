"""Methodology and sources: every number in a table is the record's or the history's, every command can be repeated."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_tests.harness import parity
from bench_tests.harness.report.document import Cite, Items, Listing, plain
from bench_tests.harness.report.load import read
from bench_tests.harness.report.material import Material
from bench_tests.harness.report.phrases import differences, ranged, share
from bench_tests.harness.report.sections import checking, hardware
from bench_tests.harness.report.sections.methodology import methodology
from bench_tests.harness.report.sections.methods import MODULES, docstring, papers
from bench_tests.harness.report.sections.repeating import portable, rebuilt
from bench_tests.harness.report.sections.sources import ARXIV, sources
from bench_tests.harness.report.wording import duration
from bench_tests.unit.stored import material, matrix, record, run, write
from bench_tests.unit.test_report_introduction import HOSTILE, blocks, hostile, sparse, step, table, text

STATIC = {"method": "static", "bits": 8, "calibration": "minmax", "percentile": 99.9, "seed": 3, "float_layers": []}


def made(tmp_path, *stored):
    return read([write(tmp_path / f"part{at}.json", content) for at, content in enumerate(stored)])


def listings(section):
    return "\n".join(block.text for block in blocks(section) if isinstance(block, Listing))


def cells(found):
    return [[cell.text for cell in row.cells] for row in found.rows]


def test_constants_are_those_of_the_modules_that_import_torch():
    from optim.backends.avr.build import UNO

    for precision, (factor, *terms) in checking.TOLERANCES.items():
        floor = parity.FLOORS[precision]
        assert (floor.largest, floor.rms, floor.gain) == tuple(terms)
        assert parity._FACTORS.get(precision, 2.0) == factor
    assert checking.TOLERANCES.keys() == parity.FLOORS.keys()
    assert (UNO.flash_bytes, UNO.sram_bytes) == (hardware.UNO_FLASH_BYTES, hardware.UNO_SRAM_BYTES)


def test_a_row_for_each_run_with_its_machine(tmp_path):
    other = run(matrix((224,), (1,)), when="2026-11-21T11:00:00", versions={"torch": "2.14.0", "commit": "fedc-dirty"})
    section = methodology(made(tmp_path, run(matrix()), other))
    environment = cells(table(section, "environment"))
    assert [row[:3] for row in environment] == [
        ["part0", "2026-11-20 10:00", "0123456789ab"], ["part1", "2026-11-21 11:00", "fedc-dirty"],
    ]  # fmt: skip
    assert [row[10:] for row in environment] == [["80", "0"], ["8", "0"]]
    versions = cells(table(section, "versions"))
    assert ["torch", "2.13.0+cpu", "part0"] in versions
    assert ["torch", "2.14.0", "part1"] in versions
    assert ["openvino", "2026.4.1", "part0"] in versions


def test_data_and_weights_are_told_once_for_the_same(tmp_path):
    records = matrix((128, 224), (1, 8), weights="best.pth")
    records += matrix((256,), (1,), weights="best.pth", weights_own=False)
    section = methodology(made(tmp_path, run(records)))
    assert cells(table(section, "data")) == [
        ["resnet18", "imagenette", "test", "1,975", "128, 224 px", "best.pth", "yes"],
        ["resnet18", "imagenette", "test", "1,975", "256 px", "best.pth", "no"],
    ]
    assert "In 8 records the weights are not of the size" in text(section)


@pytest.mark.parametrize(
    ("workload", "judged_by", "drop", "units"),
    [
        ("resnet18", {}, "A drop beyond 1 point for resnet18", ["%", "points"]),
        (
            "theirs", {"quality": "loss", "quality_loss": 2.5, "quality_higher_is_better": False},
            "A drop beyond 0.01 for theirs", ["its own", "its own"],
        ),
    ],
)  # fmt: skip
def test_quality_is_told_in_its_unit(tmp_path, workload, judged_by, drop, units):
    section = methodology(made(tmp_path, run([record(workload=workload, **judged_by)])))
    assert drop in text(section)
    told = {row.cells[0].text: row.cells[1].text for row in table(section, "metrics").rows}
    assert [told["quality"], told["change"]] == units


def test_the_best_epoch_is_the_one_that_the_file_names(tmp_path):
    epochs = [{"validation_top1": score} for score in (0.6, 0.8, 0.9)]
    history = {"config": {}, "epochs": epochs, "best_validation_top1": 0.8}
    made_of = table(methodology(made(tmp_path, run([record()]), history)), "trainings")
    (row,) = made_of.rows
    told = dict(zip((column.name for column in made_of.columns), (cell.value for cell in row.cells), strict=True))
    assert (told["best_epoch"], told["best_validation"]) == (2, 0.8)


def test_parameters_that_a_step_looks_at_stand_in_its_table(tmp_path):
    tuned = {"alpha": 0.0, "temperature": 2.0, "lr": 0.01, "speed": 0.2, "smallest_area": 0.35}
    records = [
        record(recipe="int8", recipe_steps=step(**STATIC)),
        record(recipe="entropy", recipe_steps=step(**STATIC | {"calibration": "entropy"})),
        record(recipe="weights", recipe_steps=step(**STATIC | {"method": "weights"})),
        record(recipe="half", recipe_steps=step(method="structured", amount=0.5, gradual=False, fine_tune=tuned)),
    ]
    section = methodology(made(tmp_path, run(records)))
    assert cells(table(section, "parameters-quantize")) == [
        ["method", "static", "int8, entropy"], ["method", "weights", "weights"], ["bits", "8", "all 3"],
        ["calibration", "minmax", "int8"], ["calibration", "entropy", "entropy"], ["seed", "3", "all 3"],
        ["float_layers", "none", "all 3"],
    ]  # fmt: skip
    pruned = {row[0]: row[1] for row in cells(table(section, "parameters-prune"))}
    assert pruned == {
        "method": "structured", "amount": "0.5", "fine_tune.optimizer": "sgd", "fine_tune.alpha": "0",
        "fine_tune.lr": "0.01", "fine_tune.smallest_area": "0.35",
    }  # fmt: skip
    steps = {row[0]: row[2] for row in cells(table(section, "recipes-followed"))}
    assert steps["half"] == "structured pruning of 50 %"
    assert steps["entropy"] == "static quantization"


def test_recipes_that_tell_nothing_are_named(tmp_path):
    silent = record(recipe="theirs", recipe_steps=json.dumps({"file": "theirs.pt", "steps": [], "student": None}))
    assert "Of theirs the records do not tell how they were made" in text(methodology(made(tmp_path, run([silent]))))


def test_commands_of_a_history_tell_the_steps_of_the_recipe_of_its_name(tmp_path):
    history = {
        "commands": [
            "python -m optim.distill --student resnet18", "python -m optim.prune --pruning-method structured",
            "python -m optim.quantize --quantization-method static",
        ],
        "validation_top1": {"first": [0.5, 0.7, 0.6], "last": [0.8]}, "top1": 0.79, "seed": 0,
    }  # fmt: skip
    found = read([
        write(tmp_path / "run.json", run([record(recipe="small", recipe_steps=step(**STATIC))])),
        write(tmp_path / "small.json", history),
    ])  # fmt: skip
    section = methodology(found)
    followed = cells(table(section, "recipes-followed"))
    assert followed[0][2] == "distillation, then structured pruning, then static quantization"
    assert "optim.distill --student resnet18\npython -m optim.prune" in listings(section)
    trained = table(section, "trainings")
    names = [column.name for column in trained.columns]
    rows = [dict(zip(names, (cell.value for cell in row.cells), strict=True)) for row in trained.rows]
    assert [(row["weights"], row["epochs_run"], row["best_epoch"], row["best_validation"], row["test"])
            for row in rows] == [("small: first", 3, 2, 0.7, None), ("small: last", 1, 1, 0.8, 0.79)]  # fmt: skip
    assert "Hinton" in text(sources(found))
    assert "DepGraph" in text(sources(found))


def test_a_training_s_row_is_its_history(tmp_path):
    config = {"data": "imagenette", "size": 224, "lr": 0.016, "batch_size": 64, "epochs": 3, "seed": 5}
    epochs = [{"validation_top1": score, "duration_s": 10.0} for score in (0.6, 0.9, 0.8)]
    history = {"config": config, "epochs": epochs, "test_top1": 0.85, "teacher": "resnet50"}
    row = table(methodology(made(tmp_path, run([record()]), history)), "trainings").rows[0]
    shown = {cell.text for cell in row.cells}
    assert {"imagenette", "224", "0.016", "64", "5", "2", "90.0 % top1", "85.0 % top1", "30.0 s", "resnet50"} <= shown


def test_largest_errors_are_the_records_and_link_to_them(tmp_path):
    records = [
        record(parity_largest_error=1e-6, parity_rms_error=5e-7, parity_gain_error=1e-8),
        record(batch=2, parity_largest_error=9e-6, parity_rms_error=1e-7, parity_gain_error=2e-8),
        record(recipe="int8", parity_largest_error=4e-3, parity_rms_error=1e-3, parity_gain_error=3e-4),
    ]
    rows = table(methodology(made(tmp_path, run(records))), "parity").rows
    assert [row.record for row in rows] == [1, 2]
    assert [cell.value for cell in rows[0].cells] == ["fp32", 2, 9e-6, 2e-5, 5e-7, 1e-5, 2e-8, 1e-5]
    assert rows[1].cells[0].value == "int8"


def test_coverage_is_the_records(tmp_path):
    records = [record(batch=batch, coverage=json.dumps({"CPU/f32": batch, "CPU/u8": 1})) for batch in (2, 7)]
    rows = table(methodology(made(tmp_path, run(records))), "coverage").rows
    assert [[cell.value for cell in row.cells[3:]] for row in rows] == [["CPU/f32", 2, "2 to 7"], ["CPU/u8", 2, "1"]]


def test_ranges_of_blocks_calls_and_instances_are_the_records(tmp_path):
    small = {"instances": 6, "speedup_confidence": 0.96875}
    records = [record(blocks=8, calls_per_block=3), record(batch=2, blocks=400, calls_per_block=70, **small)]
    words = text(methodology(made(tmp_path, run(records))))
    assert "These cases have 8 to 400 blocks of 3 to 70 calls." in words
    assert "1 case of these was built 6 times on each side, and the interval is over these instances" in words
    assert "(it attains 96.9 %)" in words


def test_metrics_are_those_that_the_records_have(tmp_path):
    names = {row.cells[0].text for row in table(methodology(material(tmp_path)), "metrics").rows}
    assert {"mean", "x eager", "quality", "of measured peak", "size on disk"} <= names
    assert not {"GPU busy", "cycles a character", "of real time"} & names
    on_chip = run([record(clock="cycles", flash_bytes=1, cycles_per_character=2.0)])
    assert "cycles a character" in {
        row.cells[0].text for row in table(methodology(made(tmp_path, on_chip)), "metrics").rows
    }


def test_the_command_commit_cores_and_seed_of_each_run_stand_there(tmp_path):
    section = methodology(
        made(tmp_path, run(matrix()), run([record(data="speech_happy")], commit_info={}, versions={}))
    )
    commands = listings(section)
    assert "git checkout 0123456789ab\npytest bench_tests --workload resnet18 --size 128,224" in commands
    assert "python -m models.data fetch imagenette\npython -m models.data fetch speech" in commands
    assert "python -m optim.train --workload resnet18 --data imagenette --size 128 224" in commands
    words = text(section)
    assert "on taskset -c 0,1, seed 0" in words
    assert "of a tree that was no repository" in words
    assert "part0.json part1.json -o report" in commands


def test_distilled_weights_are_not_said_to_be_trained_alone(tmp_path):
    history = write(tmp_path / "best.json", {"config": {"alpha": 0.9}, "epochs": [{"validation_top1": 0.8}]})
    stored = write(tmp_path / "run.json", run([record(weights="best.pth")]))
    section = methodology(read([stored, history]))
    assert "optim.train" not in listings(section)
    assert "best learned from a teacher (python -m optim.distill)" in text(section)
    assert "optim.train" in listings(methodology(read([stored])))


def test_a_dirty_tree_is_said(tmp_path):
    words = text(methodology(made(tmp_path, run([record()], versions={"commit": "abc-dirty"}))))
    assert "commit abc with tracked files changed" in words


def test_a_command_that_no_run_kept_is_rebuilt_and_said_to_be(tmp_path):
    asked = {"workload": "None", "backend": "eager,onnxruntime", "recipe": "original", "size": "None"}
    old = run(matrix((224,), (1, 8), precisions=("fp32",)), command="", asked_for=asked)
    found = made(tmp_path, old)
    words = shlex.split(rebuilt(found.runs[0], found.entries))
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["pytest", "bench_tests"]
    assert options == {
        "--workload": "resnet18", "--backend": "eager,onnxruntime", "--precision": "fp32", "--size": "224",
        "--batch": "1,8", "--data": "imagenette", "--threads": "2", "--examples": "1975",
        "--benchmark-json": "part0.json",
    }  # fmt: skip
    assert "rebuilt from what its records say" in text(methodology(found))


@pytest.mark.parametrize(
    ("changes", "experiment"),
    [
        ({"workload": "kws_streaming"}, "bench_tests/test_streaming.py"),
        ({"workload": "kws"}, "bench_tests/test_kws.py"),
        ({"workload": "tinychat_text"}, "bench_tests/test_tinychat.py"),
        ({"workload": "tinychat_text", "clock": "cycles"}, "bench_tests/test_firmware.py"),
        ({"recipe": "int8"}, "bench_tests/test_methods.py"),
        ({}, "bench_tests"),
    ],
)
def test_a_rebuilt_command_asks_for_the_experiment_of_its_cases(tmp_path, changes, experiment):
    found = made(tmp_path, run([record(**changes)], command=""))
    assert shlex.split(rebuilt(found.runs[0], found.entries))[1] == experiment


def test_a_rebuilt_command_is_understood(tmp_path):
    """Every option of it is one of the matrix, or pytest-benchmark's."""
    from bench_tests.harness.matrix import add_options

    known = {"--benchmark-json"}

    class Parser:
        def getgroup(self, *_):
            return self

        def addoption(self, name, **_):
            known.add(name)

        add_argument = addoption

    add_options(Parser())
    found = made(tmp_path, run([record(data="speech_happy", recipe="int8", seed=3)], command=""))
    assert {word for word in shlex.split(rebuilt(found.runs[0], found.entries)) if word.startswith("--")} <= known


def test_commands_lose_the_places_of_the_machine_that_measured():
    command = "pytest bench_tests --recipe original,/home/me/a.pt,settings/b.pt --benchmark-storage file:///x/y -q"
    assert portable(command) == "pytest bench_tests --recipe original,a.pt,settings/b.pt -q"
    assert portable("pytest --benchmark-storage=file:///x --data-dir=/home/me/data") == "pytest --data-dir=data"
    assert portable("pytest 'without its end") == "pytest 'without its end"


@given(st.lists(st.text(), max_size=5))
def test_a_portable_command_without_places_is_the_command(words):
    assert portable(shlex.join(words)) == shlex.join(words) or any("/" in word or "--bench" in word for word in words)


def test_settings_tell_all_examples_apart_from_none(tmp_path):
    everything = run([record()], settings={"examples": None, "seed": 0})
    section = methodology(made(tmp_path, run([record()]), everything))
    assert ["examples that quality is judged on", "all", "part1"] in cells(table(section, "settings"))
    assert ["examples that quality is judged on", "128", "part0"] in cells(table(section, "settings"))


@given(st.dictionaries(st.text(min_size=1), st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)), max_size=5))
def test_differences_hold_every_setting_of_every_thing_once(things):
    rows = differences("n", "t", things, ("setting", "value", "things")).rows
    told = [tuple(str(cell.value) for cell in row.cells) for row in rows]
    assert len({pair[:2] for pair in told}) == len(told)
    for setting in "abc":
        holders = [name for name, found in things.items() if setting in found]
        assert sorted(", ".join(holders)) == sorted(", ".join(names for name, _, names in told if name == setting))


@given(st.floats(1e-9, 1e4))
def test_times_keep_their_value(value):
    number, unit = duration(value).split(" ")
    assert float(number.replace(",", "")) * {"s": 1, "ms": 1e-3, "us": 1e-6}[unit] == pytest.approx(value, rel=0.006)


def test_words_for_shares_and_ranges():
    assert [share(value) for value in (0, 1e-6, 0.0031, 0.0123, 0.5, 1.0, 1.09)] == [
        "0 %", "under 0.01 %", "0.31 %", "1.2 %", "50 %", "all", "109 %",
    ]  # fmt: skip
    assert (ranged([3, 1, 2]), ranged([4]), ranged([])) == ("1 to 3", "4", "")


def test_every_paper_of_methods_and_models_has_a_whole_reference():
    modules = {*MODULES.values(), "optim.train", "models.crnn", "models.cnn", "models.resnet", "models.efficientnet"}
    modules |= {"models.bits", "models.data.speech"}
    assert {paper.number for paper in papers(map(docstring, modules))} <= ARXIV.keys()


def test_sources_are_only_those_that_apply(tmp_path):
    words = text(sources(material(tmp_path)))
    assert "Deep Residual Learning" in words
    assert "Imagenette" in words
    assert "Hodges & Lehmann" in words
    for other in ("Distilling", "DeLong", "Speech Commands", "Ternary", "Integer-Arithmetic"):
        assert other not in words
    int8 = made(tmp_path, run([record(recipe="int8", recipe_steps=step(**STATIC))]))
    assert "Integer-Arithmetic-Only" in text(sources(int8))
    software = cells(table(sources(int8), "software"))
    assert ["torchao", "not recorded"] in [row[:2] for row in software]
    speech = record(workload="kws", data="speech_happy", quality="roc_auc", quality_roc_auc=0.9)
    assert "DeLong" in text(sources(made(tmp_path, run([speech]))))
    assert "Agresti" not in text(sources(made(tmp_path, run([speech]))))


def test_no_source_stands_twice_and_every_address_is_whole(tmp_path):
    records = [record(), record(recipe="x", workload="tinychat", data="z80ai", recipe_steps=step(method="bits"))]
    items = [
        item for block in blocks(sources(made(tmp_path, run(records)))) if isinstance(block, Items)
        for item in block.items
    ]  # fmt: skip
    assert len({plain(item) for item in items}) == len(items)
    for item in items:
        links = [span for span in item if isinstance(span, Cite)]
        assert len(links) == 1
        assert links[0].url.startswith("https://")


@pytest.mark.parametrize("records", [sparse(), hostile(), [record()], []])
def test_sparse_and_hostile_material_never_raises(tmp_path, records):
    bare = {
        "versions": {HOSTILE: HOSTILE}, "fingerprint": {"affinity": HOSTILE, "cpu_model": None}, "settings": {},
        "workloads": {}, "commit_info": None, "command": "", "datetime": "",
        "not_measured": [{"case": HOSTILE, "status": HOSTILE, "reason": HOSTILE}],
    }  # fmt: skip
    odd = {"config": {"lr": HOSTILE, "alpha": HOSTILE}, "epochs": [{"validation_x": 1e300}, {}], "test_x": HOSTILE}
    found = made(tmp_path, run(records, **bare), odd, {"commands": [HOSTILE], "epochs": []})
    assert plain(methodology(found).blocks[0].sentence)
    assert sources(found).title == "Sources"


def test_nothing_measured():
    nothing = Material((), ())
    assert "No run was given" in text(methodology(nothing))
    assert sources(nothing).parts == ()
