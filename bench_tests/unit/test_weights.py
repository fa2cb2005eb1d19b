"""Weights on disk: what is read, what is refused, and what is left behind."""

import os
import pickle
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

from models import weights
from models.errors import SpeedproofError
from models.files import check_picture, check_writable, save_figure, save_json
from models.weights import best_weights_path, find_weights, load_into, read_checkpoint, save_checkpoint, spotter_path


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def same(left: nn.Module, right: nn.Module) -> bool:
    other = right.state_dict()
    return all(torch.equal(value, other[name]) for name, value in left.state_dict().items())


def blank() -> nn.Module:
    model = small()
    for value in model.state_dict().values():
        value.zero_()
    return model


def sentence(path: Path, module: nn.Module | None = None) -> str:
    with pytest.raises(SpeedproofError) as caught:
        load_into(small() if module is None else module, path)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    return said


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "new" / "folder" / "w.pth"
    meta = {"config": {"epochs": 3, "lr": 0.1}, "classes": ("a", "b")}
    save_checkpoint(path, {"state_dict": small().state_dict(), "meta": meta})
    assert [entry.name for entry in path.parent.iterdir()] == ["w.pth"]
    assert read_checkpoint(path)[1] == meta
    model = blank()
    load_into(model, path)
    assert same(model, small())


def test_a_bare_state_dict_and_safetensors_load_too(tmp_path):
    state = small().state_dict()
    torch.save(state, tmp_path / "bare.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    # Files from before PyTorch 0.4.1, as torchvision's first ones, have no such counter.
    torch.save({name: value for name, value in state.items() if "batches" not in name}, tmp_path / "older.pth")
    for name in ("bare.pth", "old.pth", "w.safetensors", "older.pth"):
        model = blank()
        load_into(model, tmp_path / name)
        assert same(model, small()), name


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["torch", "pickle", "legacy"])
def test_a_pickle_that_would_run_code_does_not(tmp_path, how):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    content = {"conv1.weight": Evil(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    assert "a pickle can run code: save `model.state_dict()` alone, or use safetensors" in sentence(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()  # it would have


def test_a_truncated_file_is_one_sentence(tmp_path):
    torch.save(small().state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        assert "weights" in sentence(tmp_path / "cut.pth")
    safetensors.torch.save_file(small().state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-5])
    assert "truncated or not a weights file" in sentence(tmp_path / "w.safetensors")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([".pth", ".safetensors"]), st.booleans(), st.booleans())
def test_damaged_bytes_give_weights_or_one_sentence(tmp_path, seed, suffix, zipped, noise):
    path, dice = tmp_path / f"damaged{suffix}", random.Random(seed)
    if noise:
        path.write_bytes(dice.randbytes(dice.randrange(1, 300)))
    else:
        torch.save({"a": torch.zeros(2), "b": "text"}, path, _use_new_zipfile_serialization=zipped)
        content = bytearray(path.read_bytes())
        for _ in range(3):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content)
    try:
        state, _ = read_checkpoint(path)
    except SpeedproofError as error:
        said = str(error)
    else:
        said = str(path) if all(isinstance(value, torch.Tensor) for value in state.values()) else "no weights"
    assert str(path) in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(1)], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"state_dict": [1, 2]}, "holds no state dict"),
        ({"epoch": 3, "model": {"a": torch.zeros(1)}}, "holds no state dict"),
        ({"conv1.weight": torch.zeros(1)}, r"6 of 7 tensors are missing.*1 are foreign"),
        ({1: torch.zeros(1)}, "1 are foreign"),
        ({"0.weight": torch.zeros(4, 3, 3)}, "another shape"),
        (small().state_dict() | {"0.weight": torch.zeros(4, 3, 5, 5)}, r"1 of 7 tensors .*\(first: 0\.weight\)"),
        (small().state_dict() | {"fc.bias": torch.zeros(4)}, r"0 of 7 tensors.*1 are foreign \(first: fc\.bias\)"),
    ],
    ids=["list", "empty", "list inside", "other key", "foreign", "numbers", "few", "shape", "more"],
)
def test_what_does_not_fit_is_one_sentence_and_changes_nothing(tmp_path, content, said):
    path, model = tmp_path / "other.pth", small()
    torch.save(content, path)
    with pytest.raises(SpeedproofError, match=said):
        load_into(model, path)
    assert same(model, small())


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    assert "check the path, or train them with `python -m optim.train`" in sentence(tmp_path / "none.pth")
    assert "Is a directory" in sentence(tmp_path)
    assert "check the path" in sentence(tmp_path / "none.safetensors")


def test_meta_data_of_another_kind_is_ignored(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": 7}, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth")[1] == {}


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "below" / "w.pth"
    for attempt in (
        lambda: save_checkpoint(path, {}),
        lambda: save_json(path, {}),
        lambda: check_writable(path.parent),
    ):
        with pytest.raises(SpeedproofError, match=r"cannot write .*file/below.*choose another folder"):
            attempt()
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    "error", [RuntimeError("PytorchStreamWriter failed writing"), OSError(28, "No space left"), KeyboardInterrupt()]
)
def test_a_failed_save_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, error):
    path = tmp_path / "w.pth"
    path.write_text("old")

    def fail(content, scratch):
        Path(scratch).write_text("half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else SpeedproofError):
        save_checkpoint(path, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.pth"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("new/a.svg", b"<?xml")], ids=str
)
def test_a_picture_is_of_the_format_of_its_name(tmp_path, name, begins):
    check_picture(tmp_path / name, "--picture")
    save_figure(tmp_path / name, Figure())
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert len(list((tmp_path / name).parent.iterdir())) == 1


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")

    def fail(self, scratch, **options):
        Path(scratch).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(SpeedproofError, match=r"cannot write .*a\.png \(.*No space left on device\)"):
        save_figure(path, Figure())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["a.txt", "a", "png", "folder.png", "file/a.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_before(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SpeedproofError, match=r"expected a file that ends in \.png, \.svg or \.pdf|cannot write"):
        check_picture(tmp_path / name, "--picture")


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        ("kws", "baseline"), ("kws_waveform", "baseline"), ("kws_streaming", "baseline"), ("kws_gru16", "gru16"),
        ("kws_streaming_gru16", "gru16"), ("kws_cnn_hidden20", "cnn_hidden20"),
    ],
)  # fmt: skip
def test_a_spotter_has_the_same_weights_offline_and_streaming(workload, name):
    assert spotter_path(workload, "speech_happy") == Path(f"weights/kws/speech_happy_{name}.pt")


def test_checking_a_folder_makes_it_and_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS_DIR", tmp_path)
    monkeypatch.setattr(best_weights_path, "__defaults__", (tmp_path,))

    def make(*names: str) -> None:
        for name in names:
            (tmp_path / name).touch()

    return make


def found(workload: str, size: int, data: str = "imagenette") -> tuple[str | None, bool]:
    path, own = find_weights(workload, size, data)
    return path.name if path else None, own


def test_the_weights_of_the_own_size_come_first_then_224_then_the_nearest(there):
    assert found("net", 128) == (None, False)
    there("best_net_64.pth", "best_net_160.pth")
    assert found("net", 64) == ("best_net_64.pth", True)
    assert found("net", 96) == ("best_net_64.pth", False)
    assert found("net", 128) == ("best_net_160.pth", False)
    assert found("net", 112) == ("best_net_64.pth", False)  # the smaller one of two equally near
    there("best_net_224.pth")
    assert found("net", 65) == ("best_net_224.pth", False)
    assert found("net", 160) == ("best_net_160.pth", True)


def test_only_weights_of_the_same_workload_and_data_count(there):
    there("best_net_224_digits.pth", "best_net_128_224.pth", "best_net_0x_64.pth", "best_net_.pth", "best_net_٣.pth")
    there("best_net_224.resume", "best_network_96.pth", "xbest_net_96.pth", "best_net_96.pth.old")
    assert found("net", 128) == (None, False)
    assert found("net", 128, "digits") == ("best_net_224_digits.pth", False)
    assert found("net", 224, "digits") == ("best_net_224_digits.pth", True)
    assert found("net_0x", 128) == ("best_net_0x_64.pth", False)
    assert found("net_128", 160) == ("best_net_128_224.pth", False)
    assert found("net_0x", 64, "digits") == (None, False)


def test_names_say_the_data_unless_it_is_the_one_of_record():
    assert best_weights_path("resnet18", 224, "imagenette", Path("w")) == Path("w/best_resnet18_224.pth")
    assert best_weights_path("resnet18", 64, "digits") == Path("weights/best_resnet18_64_digits.pth")
