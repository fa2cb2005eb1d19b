"""Keys of artefacts change with everything that changes the artefact, and with nothing else; folders are whole."""

import copy
import functools
import importlib.util
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from models.errors import SpeedproofError
from optim.backends.cache import artefact, check_writable, module_digest, signature, tensors_digest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(folder))
    return folder


def double(x):
    return x * 2


def triple(x):
    return x + x + x


def scale(factor):
    return lambda x: x * factor


SAME_CODE = {
    "twice": lambda x: x * 2,
    "thrice": lambda x: x * 3,
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: x.relu(),
}


@dataclass(frozen=True)
class Options:
    width: int


class Net(nn.Module):
    """Everything that a module may carry."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.arange(12).view(3, 4))
            self.linear.bias.zero_()
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.plain = torch.ones(3)
        self.list = [1, 2.0, "three"]
        self.tensors = {"a": [torch.ones(2)]}
        self.function = double
        self.option = 0.5
        self.shape = (1, 2)
        self.names = {"x", "y", "z"}
        self.constant, self.called, self.closure = SAME_CODE["twice"], SAME_CODE["tanh"], scale(2)
        self.partial = functools.partial(torch.sum, dim=0)
        self.options = Options(1)
        self.device = torch.device("cpu")
        self.parts = [nn.Linear(1, 1, bias=False)]
        self.parts[0].weight.data.fill_(1)


def _change(statement):
    def change(net):
        with torch.no_grad():
            names = {"net": net, "torch": torch, "nn": nn, "triple": triple, "scale": scale, "same_code": SAME_CODE}
            exec(statement, names)

    return change


CHANGES = {
    "weight": "net.linear.weight[0, 0] += 1e-6",
    "weight's sign of zero": "net.linear.bias[0] = -0.0",
    "two equal-sized weights swapped": "net.linear.weight[[0, 1]] = net.linear.weight[[1, 0]].clone()",
    "dtype": "net.half()",
    "buffer": "net.kept[1] = 2",
    "non-persistent buffer": "net.passing[1] = 2",
    "plain tensor": "net.plain[1] = 2",
    "tensor in a dictionary": "net.tensors['a'][0][1] = 2",
    "list": "net.list[0] = 2",
    "order of a list": "net.list.reverse()",
    "type of an element": "net.list[1] = 2",
    "function": "net.function = triple",
    "option": "net.option = 0.25",
    "tuple": "net.shape = (1, 3)",
    "set": "net.names.add('w')",
    "option of a part": "net.linear.in_features = 5",
    "another attribute": "net.more = None",
    "another part": "net.more = nn.ReLU()",
    "another class of a part": "net.linear = nn.Identity()",
    "constant of a function": "net.constant = same_code['thrice']",
    "what a function calls": "net.called = same_code['relu']",
    "closure of a function": "net.closure = scale(3)",
    "argument of a partial": "net.partial.keywords['dim'] = 1",
    "field of a dataclass": "net.options = type(net.options)(2)",
    "device": "net.device = torch.device('meta')",
    "weight of a module in a list": "net.parts[0].weight.fill_(2)",
}


@pytest.mark.parametrize("name", CHANGES)
def test_digest_changes_with(name):
    net = Net()
    before = module_digest(net)
    assert module_digest(net) == before
    _change(CHANGES[name])(net)
    assert module_digest(net) != before


def test_digest_of_a_copy_is_equal():
    net = Net()
    assert module_digest(copy.deepcopy(net)) == module_digest(net) == module_digest(Net())


def test_digest_is_equal_in_another_process():
    code = "from bench_tests.unit.test_cache import *; print(module_digest(Net()), end='')"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout == module_digest(_as_imported().Net())


def _as_imported():
    return importlib.import_module("bench_tests.unit.test_cache")


def test_digest_changes_with_the_source_file(tmp_path):
    digests = set()
    for index, text in enumerate(["x", "x", "x + 1"]):
        file = tmp_path / f"version{index}.py"
        file.write_text(
            f"from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return {text}\n"
        )
        spec = importlib.util.spec_from_file_location("versioned", file)
        module = importlib.util.module_from_spec(spec)
        sys.modules["versioned"] = module
        spec.loader.exec_module(module)
        digests.add(module_digest(module.Net()))
        del sys.modules["versioned"]
    assert len(digests) == 2


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(2, 3),
        torch.zeros(3, 2, dtype=torch.float64),
        torch.zeros(6),
        torch.zeros(3, 2, dtype=torch.int32),
        torch.ones(3, 2),
    ],
)
def test_tensors_are_told_apart(other):
    tensor = torch.zeros(3, 2)
    assert tensors_digest((other,)) != tensors_digest((tensor,))
    assert tensors_digest((tensor, other)) != tensors_digest((other, tensor))
    assert tensors_digest((tensor,)) == tensors_digest((tensor.t().contiguous().t(),))  # layout is no content
    same_form = (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
    assert (signature((other,)) == signature((tensor,))) == same_form


def _write(text):
    return lambda folder: (folder / "content").write_text(text)


def test_artefact_is_built_once_for_equal_parts(cache):
    parts = {"module": "abc", "versions": {"torch": "1"}, "inputs": ["float32[1]"]}
    folder, hit = artefact("kind", parts, _write("first"))
    assert not hit
    again, hit = artefact("kind", dict(reversed(parts.items())), _write("second"))
    assert (again, hit) == (folder, True)
    assert (folder / "content").read_text() == "first"
    for other in ({"versions": {"torch": "2"}}, {"inputs": ["float32[2]"]}, {"module": "abd"}, {"more": 1}):
        assert not artefact("kind", parts | other, _write("other"))[1]
    assert not artefact("other kind", parts, _write("other"))[1]


def test_failed_build_leaves_nothing(cache):
    def build(folder):
        (folder / "half").write_text("written")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artefact("kind", {"a": 1}, build)
    assert list(cache.iterdir()) == []
    assert not artefact("kind", {"a": 1}, _write("whole"))[1]


def test_unwritable_cache_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "file" / "cache"))
    for use in (check_writable, lambda: artefact("kind", {}, _write("x"))):
        with pytest.raises(SpeedproofError, match=r"cannot be written.*SPEEDPROOF_CACHE"):
            use()


def test_concurrent_builders_agree_on_one_folder(cache):
    at_once = threading.Barrier(4)
    found = []

    def build(folder):
        at_once.wait(10)
        for index in range(20):
            (folder / str(index)).write_text("x" * 1000)
            time.sleep(1e-3)

    builders = [threading.Thread(target=lambda: found.append(artefact("kind", {"a": 1}, build)[0])) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(found) == 4
    (folder,) = set(found)
    assert list((cache / "kind").iterdir()) == [folder]
    assert {path.name for path in folder.iterdir()} == {"key.json", *map(str, range(20))}
    assert {(folder / str(index)).stat().st_size for index in range(20)} == {1000}
