"""How a workload is found by its name."""

import sys

import pytest
import torch

from models.data.chat import OWN
from models.data.speech import SYNTHETIC
from models.errors import SpeedproofError
from models.workload import DataChoice, load_workload, workload_names
from optim.backends.base import as_tuple

SOURCE = """
from models.workload import Workload
import torch
MINE = Workload("mine", "t", "s", "p", lambda size, weights: torch.nn.Identity(),
                lambda size, batch, seed: (torch.zeros(batch, size),), (1,), (1,))
NUMBER = 7
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("toy_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", workload_names())
def test_every_registered_workload_is_found_under_its_name(name):
    data, unit = {"kws": (SYNTHETIC, "ms"), "tinychat": (OWN, "chars")}.get(name.split("_")[0], ("digits", "px"))
    choice = DataChoice(data)
    workload = load_workload(name, choice)
    assert workload.name == name
    assert workload.data_name == choice.name
    assert workload.size_unit == unit
    assert all(size >= workload.smallest_size for size in workload.sizes)
    model, example = workload.build(workload.sizes[0], None), workload.example(workload.sizes[0], 3, 1)
    with torch.inference_mode():
        outputs = as_tuple(model(*example))
    assert all(tensor.shape[0] == 3 for tensor in (example[0], outputs[0]))


@pytest.mark.parametrize("spec", ["resnet19", "", "models.resnet", "ResNet18"])
def test_an_unknown_workload_lists_the_known_ones(spec):
    with pytest.raises(SpeedproofError) as caught:
        load_workload(spec)
    assert str(caught.value) == (
        f"unknown workload {spec!r}: expected one of {', '.join(workload_names())}, or a student such as "
        f"kws_channels4_gru16 or tinychat_hidden128x96x64, or pkg.module:OBJECT for your own"
    )


def test_an_own_workload_is_found_in_the_working_directory(here):
    (here / "toy_pkg").mkdir()
    (here / "toy_pkg" / "__init__.py").touch()
    (here / "toy_pkg" / "module.py").write_text(SOURCE)
    workload = load_workload("toy_pkg.module:MINE")
    assert (workload.name, workload.data_name) == ("mine", "none")
    assert workload.data("test", 1) is None
    assert workload.quality(lambda x: x, "test", 1, 1, None) == ()
    assert workload.weights(1).path is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def", "SyntaxError"),
        ("import toy_nowhere", "No module named 'toy_nowhere'"),
    ],
)
def test_a_module_that_fails_to_import_is_one_sentence(here, source, said):
    (here / "toy_broken.py").write_text(source)
    with pytest.raises(SpeedproofError, match="module 'toy_broken' failed to import") as caught:
        load_workload("toy_broken:MINE")
    assert said in str(caught.value)
    assert "python -c 'import toy_broken'" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("toy_mine:NUMBER", r"expected 'NUMBER' in toy_mine to be a Workload, found int; see README"),
        ("toy_mine:OTHER", r"module 'toy_mine' defines no 'OTHER'; see README"),
        ("toy_mine:", r"module 'toy_mine' defines no ''; see README"),
        ("toy_absent:MINE", r"module 'toy_absent' failed to import"),
        (":MINE", r"module '' failed to import"),
    ],
)
def test_what_is_no_workload_is_one_sentence(here, spec, said):
    (here / "toy_mine.py").write_text(SOURCE)
    with pytest.raises(SpeedproofError, match=said):
        load_workload(spec)
