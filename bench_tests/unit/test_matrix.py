"""What the command line refuses, in one sentence that names the option, and the order of the cases."""

import argparse
import itertools

import pytest
import torch

from bench_tests.harness.case import Case
from bench_tests.harness.matrix import (
    Matrix,
    _check_experiments,
    _usual_backends,
    _usual_recipes,
    add_options,
    cases,
    experiments,
    is_for,
    methods_asked,
    read_options,
)
from bench_tests.unit import toys
from models.errors import SpeedproofError
from models.workload import DataChoice, Workload
from optim.backends import backend_names, load_backend
from optim.backends.base import Target

TOYS = "bench_tests.unit.toys"
SAME_NAME = toys.small(0)
BAD_NAME = toys._toy("a name/of a file", toys.Mlp, toys.MLP.example)


class Parser(argparse.ArgumentParser):
    """Pytest's parser as far as the options need it."""

    def getgroup(self, *_):
        return self

    addoption = argparse.ArgumentParser.add_argument


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))


def read(*arguments: str) -> Matrix:
    parser = Parser()
    add_options(parser)
    return read_options(parser.parse_args(arguments))


BAD = {
    "--workload": ["nonsense", "resnet18,nonsense", "no.such.module:X", f"{TOYS}:NOTHING", f"{TOYS}:PLAIN", f"{TOYS}:",
                   ",", "", f"{TOYS}:SMALL,{__name__}:SAME_NAME", f"{__name__}:BAD_NAME"],
    "--recipe": ["nonsense", "int8,nonsense", "no.such.module:X", f"{TOYS}:SMALL", "/nowhere.pt", ","],
    "--backend": ["nonsense", "all,nonsense", "eager,nonsense", "no.such.module:X", f"{TOYS}:NOTHING", f"{TOYS}:SMALL",
                  ",", ""],
    "--precision": ["fp8", "int8", "fp32,float32", ",", ""],
    "--size": ["abc", "0", "-1", "7", "31", "224.0", "224,x", ",", "", "1e3"],
    "--batch": ["abc", "0", "-1", "1.5", "4,x", ",", ""],
    "--threads": ["0", "-1", "99", "abc", "1.5", "1,2", ""],
    "--device": ["tpu", "CPU", "cuda:99", ""],
    "--data": ["nonsense", "folder"],
    "--data-dir": ["/no/such/folder"],
    "--keyword": ["happy"],  # images have none
    "--weights": ["/no/such/file.pth"],
    "--examples": ["0", "-5", "abc", "1.5", ""],
    "--budget": ["0", "-1", "nan", "inf", "abc", ""],
    "--case-timeout": ["0", "-1", "nan", "inf", "abc", ""],
    "--seed": ["-1", "abc", "nan", ""],
}  # fmt: skip


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BAD.items() for value in values])
def test_bad_value_is_one_sentence_that_names_the_option(option, value):
    with pytest.raises(SpeedproofError) as caught:
        read(f"{option}={value}")
    assert option in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(SpeedproofError, match="--device cuda: this torch sees no GPU"):
        read("--device=cuda")


def test_digits_have_no_folder(tmp_path):
    with pytest.raises(SpeedproofError, match="--data-dir"):
        read("--data=digits", f"--data-dir={tmp_path}")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "folder"])
def test_damaged_weights_are_one_sentence(tmp_path, damage):
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1000)}, file)
    if damage == "folder":
        file = tmp_path
    else:
        content = {"truncated": file.read_bytes()[:1000], "empty": b"", "text": b"hello"}[damage]
        file.write_bytes(content)
    with pytest.raises(SpeedproofError, match=r"^--weights: ") as caught:
        read(f"--weights={file}")
    assert "\n" not in str(caught.value)


def test_unwritable_cache_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SpeedproofError, match="SPEEDPROOF_CACHE"):
        read()


def test_every_option_has_bad_values():
    parser = Parser()
    add_options(parser)
    assert {action.option_strings[0] for action in parser._actions} - {"-h"} == set(BAD)


def test_good_values():
    matrix = read(
        f"--workload={TOYS}:SMALL, resnet18", "--backend=openvino,eager", "--precision=bf16", "--size=64,32,064",
        "--batch=4,1,4", "--threads=1", "--examples=all", "--budget=0.5", "--case-timeout=9", "--seed=3",
    )  # fmt: skip
    assert matrix.workloads == ("small0", "resnet18")
    assert matrix.backends == ("openvino", "eager")
    assert (matrix.precisions, matrix.sizes, matrix.batches) == (("bf16",), (64, 32), (4, 1))
    settings = matrix.settings
    assert settings.specs == {"small0": f"{TOYS}:SMALL"}
    assert (settings.threads, settings.examples, settings.budget_s, settings.timeout_s) == (1, None, 0.5, 9.0)
    assert (settings.seed, settings.data, settings.device) == (3, DataChoice("digits"), "cpu")


def test_speech_takes_a_keyword_and_no_images():
    with pytest.raises(SpeedproofError, match="--data synthetic_tones is complete as it is"):
        read("--workload=kws", "--keyword=rising", "--data=synthetic_tones")
    with pytest.raises(SpeedproofError, match="unknown data set 'synthetic_tones': expected one of digits"):
        read("--workload=resnet18", "--data=synthetic_tones")


def test_chats_take_a_corpus_and_no_images():
    assert read("--workload=tinychat", "--data=own_sentences").settings.data == DataChoice("own_sentences")
    with pytest.raises(SpeedproofError, match="--data digits is of images, and tinychat is about chats: give nothing"):
        read("--workload=tinychat", "--data=digits")
    with pytest.raises(SpeedproofError, match="--data synthetic_tones is of speech, and tinychat is about chats"):
        read("--workload=tinychat", "--data=synthetic_tones")


@pytest.mark.parametrize(
    ("experiment", "workload", "fits"),
    [
        ("test_kws.py", "kws_channels4_gru16", True), ("test_kws.py", "kws_waveform", True),
        ("test_kws.py", "kws_streaming", False), ("test_kws.py", "resnet18", False),
        ("test_streaming.py", "kws_streaming_gru16", True), ("test_streaming.py", "kws", False),
        ("test_inference.py", "kws_streaming", True), ("test_tinychat.py", "tinychat_text_hidden16", True),
        ("test_tinychat.py", "kws", False), ("test_firmware.py", "tinychat_text_hidden16", True),
        ("test_firmware.py", "tinychat", False),
    ],
)  # fmt: skip
def test_an_experiment_that_measures_nothing_is_refused(experiment, workload, fits):
    assert is_for(experiment, workload) == fits
    options = argparse.Namespace(recipe=None, backend="all", file_or_dir=[f"bench_tests/{experiment}"])
    if fits:
        _check_experiments([workload, "resnet18"], ["eager", "avr"], ["original", "tinychat_2bit"], options)
    else:
        with pytest.raises(SpeedproofError, match=f"--workload {workload}: {experiment} is not made for it"):
            _check_experiments([workload], ["eager", "avr"], ["original", "tinychat_2bit"], options)


@pytest.mark.parametrize(
    ("backend", "recipe", "fits"),
    [("avr", "tinychat_2bit", True), ("avr_plain", "file", True), ("avr", "original", False), ("eager", "file", False)],
)
def test_firmware_is_of_integers_on_a_chip(backend, recipe, fits):
    assert is_for("test_firmware.py", "tinychat_text", backend, recipe) == fits
    assert is_for("test_tinychat.py", "tinychat_text", backend, recipe) == (backend == "eager")


def firmware_options(*files: str, backend: str = "all") -> argparse.Namespace:
    return argparse.Namespace(recipe=None, backend=backend, file_or_dir=list(files))


def test_firmware_has_backends_and_recipes_of_its_own():
    alone, both = firmware_options("test_firmware.py"), firmware_options("test_firmware.py", "test_tinychat.py")
    assert _usual_backends(alone) == ("avr", "avr_plain")
    assert _usual_backends(both) == (*backend_names(), "avr", "avr_plain")
    assert _usual_backends(firmware_options("test_tinychat.py")) == backend_names()
    assert {"tinychat_2bit", "tinychat_1bit"} <= set(_usual_recipes(alone))
    assert _usual_recipes(both) == ("original", *_usual_recipes(alone))
    for file, backend, recipe in (
        ("test_tinychat.py", "avr", "tinychat_2bit"),
        ("test_firmware.py", "eager", "tinychat_2bit"),
        ("test_firmware.py", "avr", "original"),
    ):
        with pytest.raises(SpeedproofError, match=f"--backend {backend} and --recipe .*: nothing is left of {file}"):
            _check_experiments(["tinychat_text"], [backend], [recipe], firmware_options(file, backend=backend))


def test_defaults_are_the_workloads_own():
    matrix = read(f"--workload={TOYS}:SMALL")
    assert (matrix.sizes, matrix.batches, matrix.backends) == (None, None, backend_names())
    shapes = dict.fromkeys((case.size, case.batch) for case, _ in cases(matrix))
    assert tuple(shapes) == tuple(itertools.product(toys.SMALL.sizes, toys.SMALL.batches))


def _matrix():
    return read(
        f"--workload={TOYS}:SMALL,{TOYS}:MLP", "--backend=all", "--precision=fp32,bf16,fp16", "--size=32,64",
        "--batch=1,4",
    )  # fmt: skip


def test_neighbours_share_workload_size_and_batch():
    shapes = [(case.workload, case.size, case.batch) for case, _ in cases(_matrix())]
    blocks = [shape for shape, _ in itertools.groupby(shapes)]
    assert len(blocks) == len(set(blocks)) == 8


def test_every_cell_runs_or_has_its_reason_once():
    matrix = _matrix()
    found = list(cases(matrix))
    target = Target("cpu", matrix.settings.threads)
    runs = [case for case, reason in found if reason is None]
    expected = [
        Case(workload.name, workload.data_name, backend, precision, size, batch, target.threads)
        for workload in (toys.SMALL, toys.MLP)
        for size, batch in itertools.product((32, 64), (1, 4))
        for backend, precision in itertools.product(backend_names(), ("fp32", "bf16", "fp16"))
        if load_backend(backend).missing(precision, target) is None
    ]
    assert runs == expected
    skips = [(case.workload, case.backend, reason) for case, reason in found if reason is not None]
    assert len(skips) == len(set(skips))
    missing = {
        (name, backend, reason)
        for name in ("small0", "mlp")
        for backend, precision in itertools.product(backend_names(), ("fp32", "bf16", "fp16"))
        if (reason := load_backend(backend).missing(precision, target)) is not None
    }
    assert set(skips) == missing
    assert len({case.id for case, _ in found}) == len(found)


def test_workloads_of_the_tests_are_workloads():
    assert isinstance(SAME_NAME, Workload)
    assert isinstance(BAD_NAME, Workload)


def test_recipes_are_cases_of_their_own_and_int8_has_one_precision():
    found = list(cases(read("--backend=eager", "--size=64", "--batch=1", "--recipe=original,int8,distilled")))
    assert [(case.recipe, case.precision) for case, reason in found if reason is None] == [
        ("original", "fp32"), ("original", "bf16"), ("int8", "fp32"), ("distilled", "fp32"), ("distilled", "bf16"),
    ]  # fmt: skip
    assert [reason for _, reason in found if reason] == [
        "recipe int8 is quantized: what it leaves in float runs in fp32 only"
    ]
    assert found[2][0].id.startswith("resnet18-digits-int8-eager-fp32-64px")


@pytest.mark.parametrize(
    ("files", "recipe", "expected"),
    [
        ([], None, {"test_inference.py"}), (["bench_tests"], None, {"test_inference.py"}),
        ([], "int8", {"test_methods.py"}),
        (["bench_tests/test_kws.py"], None, {"test_kws.py"}), (["bench_tests/test_kws.py"], "int8", {"test_kws.py"}),
        (["test_kws.py::test_kws", "x/test_streaming.py"], None, {"test_kws.py", "test_streaming.py"}),
    ],
)  # fmt: skip
def test_experiments_are_those_that_are_named(files, recipe, expected):
    assert experiments(argparse.Namespace(recipe=recipe, file_or_dir=files)) == expected


def test_methods_are_asked_for_by_file_or_recipe():
    options = argparse.Namespace(recipe=None, file_or_dir=["bench_tests"])
    assert not methods_asked(options)
    assert methods_asked(argparse.Namespace(recipe="int8", file_or_dir=[]))
    assert methods_asked(argparse.Namespace(recipe=None, file_or_dir=["bench_tests/test_methods.py"]))
