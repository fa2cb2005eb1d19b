"""Training on a toy that learns in seconds: what it does, keeps, resumes and refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.data.images import ImageSplit, normalise
from models.errors import SpeedproofError
from models.weights import read_checkpoint, save_checkpoint
from models.workload import Workload
from optim import fit as fitting
from optim import images as imaging
from optim import train as training
from optim.augment import draw, random_views
from optim.images import accuracy
from optim.schedule import TrainConfig, learning_rate, size_at
from optim.train import main, train

QUICK = TrainConfig(epochs=4, batch_size=16, lr=0.05, warmup_epochs=0.5, precision="fp32")
SPLIT_SIZES = {"train": 49, "validation": 16, "test": 24}  # 49: the last batch would be a single image


def colours(split: str, size: int, classes: int = 4) -> ImageSplit:
    """Noisy images, each of the colour of its class; a model that sees colours at all learns them."""
    dice = np.random.default_rng(list(SPLIT_SIZES).index(split))
    labels = np.arange(SPLIT_SIZES[split]) % classes
    palette = np.random.default_rng(9).uniform(40, 215, (classes, 3))
    noise = dice.normal(0, 30, (len(labels), 3, 32, 32))
    images = (palette[labels][:, :, None, None] + noise).clip(0, 255).astype(np.uint8)
    return ImageSplit(images, tuple(map(int, labels)), tuple("abcdefgh"[:classes]), size)


def build(size: int, weights: Path | None, outputs: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, outputs),
        )  # fmt: skip
    if weights is not None:
        model.load_state_dict(read_checkpoint(weights)[0])
    return model.eval()


def example(size: int, batch: int, seed: int) -> tuple[torch.Tensor, ...]:
    return (torch.zeros(batch, 3, size, size),)


TOY = Workload("toy", "t", "s", "p", build, example, (32,), (1,), data=colours, smallest_size=16, data_name="synthetic")


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path)[0]


def assert_same(left: Path, right: Path) -> None:
    expected = weights_of(right)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(left).items())


def fit(path: Path, config: TrainConfig = QUICK, workload: Workload = TOY, size: int = 32) -> dict[str, Any]:
    return train(workload.build(size, None), workload, size, config, path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "w.pth"
    model = TOY.build(32, None)
    return path, train(model, TOY, 32, replace(QUICK, epochs=8), path), model


def test_the_toy_is_learned_and_only_weights_and_history_stay(trained):
    path, history, _ = trained
    assert history["test_top1"] > 0.6
    assert history["test_examples"] == 24
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["w.json", "w.pth"]


def test_the_history_tells_every_epoch_and_the_config(trained):
    path, history, _ = trained
    assert json.loads(path.with_suffix(".json").read_text()) == history
    assert history["complete"]
    assert history["precision"] == "torch.float32"
    config = history["config"]
    assert (config["workload"], config["data"], config["size"], config["origin"]) == (
        "toy",
        "synthetic",
        32,
        "as built",
    )
    assert (config["epochs"], config["lr"], config["seed"]) == (8, 0.05, 0)
    assert len(history["epochs"]) <= 8
    for row in history["epochs"]:
        assert row["train_loss"] > 0 < row["duration_s"]
        assert 0 <= row["validation_top1"] <= 1
        assert row["validation_loss"] > 0
    assert [history["epochs"][index]["size_px"] for index in (0, -1)] == [16, 32]
    assert history["epochs"][-1]["train_loss"] < history["epochs"][0]["train_loss"]


def test_the_best_epoch_by_validation_is_what_lands_in_the_file_and_in_the_model(trained):
    path, history, model = trained
    top1s = [row["validation_top1"] for row in history["epochs"]]
    meta = read_checkpoint(path)[1]
    assert history["best_validation_top1"] == meta["validation_top1"] == max(top1s)
    assert meta["epoch"] == top1s.index(max(top1s)) + 1
    loaded = build(32, path)
    for found in (loaded, model):
        split = colours("validation", 32)
        measured, _ = accuracy(found, split.stack(37), torch.tensor(split.labels), 32, torch.float32)
        assert measured == pytest.approx(max(top1s))
    assert not model.training


def scripted(monkeypatch: pytest.MonkeyPatch, *validation: float) -> list[dict[str, torch.Tensor]]:
    """Make validation accuracy follow a script, and keep the weights that each epoch was judged by."""
    seen: list[dict[str, torch.Tensor]] = []

    def judged(model, *_):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return validation[len(seen) - 1] if len(seen) <= len(validation) else 0.0, 1.0

    monkeypatch.setattr(imaging, "accuracy", judged)
    return seen


def test_the_best_epoch_is_kept_also_where_it_is_not_the_last(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, 0.3, 0.7, 0.7, 0.1)
    fit(tmp_path / "w.pth")
    assert all(torch.equal(value, seen[1][name]) for name, value in weights_of(tmp_path / "w.pth").items())


def test_training_stops_early_without_progress(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, 0.3, 0.5, 0.4, 0.5, 0.9)
    history = fit(tmp_path / "w.pth", replace(QUICK, epochs=9, patience=2))
    assert [row["validation_top1"] for row in history["epochs"]] == [0.3, 0.5, 0.4, 0.5]
    assert len(seen) == 5  # and once on the test images
    assert history["complete"]


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(tmp_path):
    fit(tmp_path / "a.pth")
    torch.rand(7)  # the caller's dice do not matter
    fit(tmp_path / "b.pth")
    fit(tmp_path / "c.pth", replace(QUICK, seed=1))
    assert_same(tmp_path / "a.pth", tmp_path / "b.pth")
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "a.pth", tmp_path / "c.pth")


@pytest.mark.parametrize("save", range(1, 9))
def test_an_interrupted_run_goes_on_to_the_very_same_weights(tmp_path, monkeypatch, capsys, save):
    """Interrupted at the n-th save: of the best weights, or of the state, whichever comes."""
    expected = fit(tmp_path / "whole.pth")
    saved: list[Path] = []

    def interrupted(path, content):
        saved.append(path)
        if len(saved) == save:
            raise KeyboardInterrupt
        save_checkpoint(path, content)

    monkeypatch.setattr(training, "save_checkpoint", interrupted)
    monkeypatch.setattr(fitting, "save_checkpoint", interrupted)
    try:
        fit(tmp_path / "w.pth")
    except KeyboardInterrupt:
        assert not (tmp_path / "w.json").exists()
    else:
        assert len(saved) < save
    monkeypatch.undo()
    done = sum(path.suffix == ".resume" for path in saved[: save - 1])
    capsys.readouterr()
    history = fit(tmp_path / "w.pth")
    said = capsys.readouterr().out
    if len(saved) >= save and done:
        assert f"going on after epoch {done}" in said
        assert len(said.splitlines()) == 2 + len(expected["epochs"]) - done
    assert_same(tmp_path / "w.pth", tmp_path / "whole.pth")
    assert timeless(history) == timeless(expected)
    assert not (tmp_path / "w.resume").exists()


def timeless(history: dict) -> dict:
    rows = [{name: value for name, value in row.items() if name != "duration_s"} for row in history["epochs"]]
    return {**history, "epochs": rows}


def interrupt(path: Path, monkeypatch: pytest.MonkeyPatch, config: TrainConfig = QUICK, epochs: int = 2) -> None:
    """Leave behind what a run leaves that is killed after some epochs."""
    judge, calls = accuracy, []

    def judged(*arguments):
        calls.append(1)
        if len(calls) > epochs:
            raise KeyboardInterrupt
        return judge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(imaging, "accuracy", judged)
        with pytest.raises(KeyboardInterrupt):
            fit(path, config)
    assert path.with_suffix(".resume").is_file()


def broken_state(path: Path) -> None:
    state = path.with_suffix(".resume")
    state.write_bytes(state.read_bytes()[:2000])


def broken_weights(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("damage", [broken_state, broken_weights, Path.unlink])
def test_what_is_broken_is_made_anew_after_an_interruption(tmp_path, monkeypatch, capsys, damage):
    interrupt(tmp_path / "w.pth", monkeypatch)
    damage(tmp_path / "w.pth")
    capsys.readouterr()
    fit(tmp_path / "w.pth")
    said = capsys.readouterr().out
    assert ("w.resume is broken (" in said) == (damage is broken_state)
    assert ("going on" in said) == (damage is not broken_state)
    fit(tmp_path / "whole.pth")
    assert_same(tmp_path / "w.pth", tmp_path / "whole.pth")


def test_a_finished_run_is_not_repeated(tmp_path, monkeypatch, capsys):
    first = fit(tmp_path / "w.pth")
    monkeypatch.setattr(fitting, "train_epoch", None)
    model = TOY.build(32, None)
    assert train(model, TOY, 32, QUICK, tmp_path / "w.pth") == first
    assert f"is trained already: top-1 {first['test_top1']:.1%}" in capsys.readouterr().out
    assert all(torch.equal(value, weights_of(tmp_path / "w.pth")[name]) for name, value in model.state_dict().items())


def other_config(path: Path) -> dict:
    return fit(path, replace(QUICK, lr=0.01))


def other_start(path: Path) -> dict:
    model = TOY.build(32, None)
    with torch.no_grad():
        model[0].weight.mul_(2)
    return train(model, TOY, 32, QUICK, path)


def other_images(path: Path) -> dict:
    def fewer(split, size):
        whole = colours(split, size)
        return replace(whole, images=whole.images[:16], labels=whole.labels[:16])

    return fit(path, workload=replace(TOY, data=fewer))


@pytest.mark.parametrize("other", [other_config, other_start, other_images])
@pytest.mark.parametrize("finished", [True, False])
def test_another_run_in_the_same_place_starts_anew(tmp_path, monkeypatch, capsys, other, finished):
    if finished:
        fit(tmp_path / "w.pth")
    else:
        interrupt(tmp_path / "w.pth", monkeypatch)
    capsys.readouterr()
    assert len(other(tmp_path / "w.pth")["epochs"]) == 4
    assert "going on" not in capsys.readouterr().out
    other(tmp_path / "alone.pth")
    assert_same(tmp_path / "w.pth", tmp_path / "alone.pth")


def test_an_interrupted_other_run_does_not_pass_for_the_finished_one(tmp_path, monkeypatch, capsys):
    fit(tmp_path / "w.pth")
    interrupt(tmp_path / "w.pth", monkeypatch, replace(QUICK, lr=0.01))
    assert not (tmp_path / "w.json").exists()  # it told of weights that are gone
    capsys.readouterr()
    fit(tmp_path / "w.pth")
    assert "trained already" not in capsys.readouterr().out
    fit(tmp_path / "alone.pth")
    assert_same(tmp_path / "w.pth", tmp_path / "alone.pth")


@pytest.mark.parametrize("content", ["", "[1]", '{"complete": true}', '{"complete": true, "config": 1}'])
def test_a_history_that_is_none_does_not_count(tmp_path, content):
    fit(tmp_path / "w.pth")
    (tmp_path / "w.json").write_text(content)
    assert fit(tmp_path / "w.pth")["complete"]


def test_a_loss_that_is_no_number_is_one_sentence_and_writes_nothing(tmp_path):
    with pytest.raises(SpeedproofError, match=r"the loss became (nan|inf) in epoch \d: lower --lr \(it is 1e\+30\)"):
        fit(tmp_path / "w.pth", replace(QUICK, lr=1e30))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_keeps_the_weights_that_were_there(tmp_path, monkeypatch):
    fit(tmp_path / "w.pth")
    before = (tmp_path / "w.pth").read_bytes()
    monkeypatch.setattr(imaging, "accuracy", lambda *_: (0.9, float("nan")))
    with pytest.raises(SpeedproofError, match="the loss became nan in epoch 1"):
        fit(tmp_path / "w.pth", replace(QUICK, lr=0.01))
    assert (tmp_path / "w.pth").read_bytes() == before
    assert (tmp_path / "w.json").exists()


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (replace(TOY, data=lambda split, size: None), "workload toy has no data to train on: data"),
        (
            replace(TOY, build=lambda size, weights: build(size, weights, 7)),
            "has 7 outputs and its data synthetic 4 classes",
        ),
        (
            replace(TOY, data=lambda split, size: replace(colours(split, size), labels=(0,))),
            "has 1 training images: expected at least 2",
        ),
    ],
    ids=["no data", "other classes", "one image"],
)
def test_data_that_does_not_fit_is_one_sentence(tmp_path, workload, said):
    with pytest.raises(SpeedproofError, match=said):
        fit(tmp_path / "w.pth", workload=workload)


@given(st.integers(1, 60), st.integers(32, 400), st.floats(0.05, 1), st.integers(1, 32))
def test_resolution_grows_to_the_full_one_within_its_bounds(epochs, size, start_share, smallest):
    config = TrainConfig(epochs=epochs, start_share=start_share)
    sizes = [size_at(epoch, size, config, smallest) for epoch in range(epochs)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == size
    assert all(smallest <= pixels <= size for pixels in sizes)
    assert all(pixels % 16 == 0 or pixels in (smallest, size) for pixels in sizes)
    assert all(pixels == size for pixels in sizes[int(0.75 * epochs) + 1 :])


def test_resolution_may_stop_below_the_size():
    config = TrainConfig(epochs=9, start_share=0.5, end_share=0.7)
    sizes = [size_at(epoch, 224, config, 32) for epoch in range(9)]
    assert (sizes[0], sizes[6:]) == (112, [160, 160, 160])  # 0.7 x 224 in steps of 16
    assert sizes == sorted(sizes)


@given(st.integers(1, 500), st.floats(0, 1.5))
def test_learning_rate_rises_to_the_peak_and_falls_to_nearly_nothing(steps, warmup_share):
    warmup = warmup_share * steps
    rates = [learning_rate(step, steps, warmup) for step in range(steps)]
    turn = min(steps, int(np.ceil(warmup)))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:turn] == sorted(rates[:turn])
    assert rates[turn:] == sorted(rates[turn:], reverse=True)
    assert learning_rate(steps, steps, 0.0) == pytest.approx(0, abs=1e-12)
    assert learning_rate(10, 20, 10) == 1


def smooth(count: int, edge: int) -> torch.Tensor:  # uint8 (count, 3, edge, edge), unlike its mirror image
    x = torch.linspace(20, 230, edge).expand(edge, edge)
    return torch.stack([x, x.T, (x + x.T) / 2]).round().to(torch.uint8).expand(count, 3, edge, edge)


def views(images, size=24, mirror=False, area=0.35, seed=0):
    return random_views(images, size, draw(len(images), seed, 0), mirror=mirror, smallest_area=area)


@pytest.mark.parametrize("edge", [24, 30, 96])
def test_views_without_chance_are_the_resized_image(edge):
    middle = torch.full((5, 2), 0.5)  # and square
    found = random_views(smooth(2, edge), 24, middle, mirror=False, smallest_area=1.0)
    expected = nn.functional.interpolate(smooth(2, edge).float(), (24, 24), mode="bilinear", antialias=True)
    assert (found - normalise(expected)).abs().max() < 0.06  # of a range of about four


@given(st.integers(0, 2**32), st.integers(8, 40), st.integers(8, 90), st.floats(0.1, 1))
def test_views_have_the_shape_range_and_choice_of_their_generator(seed, size, edge, area):
    images = smooth(3, edge)
    found = views(images, size, True, area, seed)
    assert found.shape == (3, 3, size, size)
    assert found.dtype == torch.float32
    assert torch.equal(found, views(images, size, True, area, seed))
    assert found.min() >= normalise(images).min() - 1e-4
    assert found.max() <= normalise(images).max() + 1e-4


def test_the_same_crop_is_taken_at_every_size():
    dice = draw(4, 0, 3)
    large, small = (random_views(smooth(4, 64), size, dice, mirror=True, smallest_area=0.35) for size in (64, 32))
    shrunk = nn.functional.interpolate(large, (32, 32), mode="bilinear", antialias=True)
    assert (shrunk - small).abs().max() < 0.06


def test_views_of_an_image_differ_from_view_to_view_and_are_the_same_again():
    assert torch.equal(draw(3, 0, 1), draw(3, 0, 1))
    assert not torch.equal(draw(3, 0, 1), draw(3, 0, 2))
    assert not torch.equal(draw(3, 0, 1), draw(3, 1, 1))


def test_different_images_of_a_batch_get_different_views():
    found = views(smooth(2, 32))
    assert not torch.equal(found[0], found[1])


def test_views_are_mirrored_half_of_the_time_and_only_where_allowed():
    rising = [
        (views(smooth(200, 32), mirror=mirror)[:, 0, 12].diff().sum(1) > 0).float().mean() for mirror in (False, True)
    ]
    assert rising[0] == 1
    assert 0.4 < rising[1] < 0.6


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    assert main([str(argument) for argument in arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The options of a toy workload of one's own, found in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "toy_workload", type(sys)("toy_workload"))
    sys.modules["toy_workload"].TOY = TOY  # type: ignore[attr-defined]
    return ("--workload", "toy_workload:TOY", "--out", tmp_path / "out", "--precision", "fp32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", 7], "--size 7: toy needs at least 16 px"),
        (["--size", 32, 7], "--size 7: toy needs at least 16 px"),
        (["--epochs", 0], "--epochs 0: expected at least 1"),
        (["--batch-size", 1], "--batch-size 1: expected at least 2"),
        (["--patience", 0], "--patience 0: expected at least 1"),
        (["--seed", -1], "--seed -1: expected at least 0"),
        (["--lr", -1], "--lr -1.0: expected a number above 0"),
        (["--lr", "nan"], "--lr nan: expected a number above 0"),
        (["--threads", 0], "--threads 0: expected at least 1"),
        (["--fine-tune-epochs", 0], "--fine-tune-epochs 0: expected at least 1"),
        (["--workload", "resnet19"], "unknown workload 'resnet19': expected one of"),
        (["--data", "digits", "--data-dir", "/tmp"], "--data-dir goes with --data folder or imagenette"),
        (["--workload", "resnet18", "--data-dir", "none"], "--data-dir none: no such folder"),
        (["--workload", "resnet18", "--data", "folder"], "--data folder needs --data-dir"),
        (["--workload", "resnet18", "--size", 32, "--keyword", "happy"], "--keyword happy: resnet18 is not about"),
        (["--workload", "resnet18", "--size", -5], "--size -5: resnet18 needs at least 32 px"),
        (["--init", "none.pth"], "no weights at none.pth: check the path"),
    ],
)
def test_bad_input_is_one_sentence_on_stderr(toy, tmp_path, capsys, options, said):
    assert run(capsys, *toy, *options).startswith(f"error: {said}")
    assert not list(tmp_path.glob("out/*"))


def test_cuda_without_a_gpu_is_one_sentence(toy, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(capsys, *toy, "--device", "cuda") == "error: --device cuda: this torch sees no GPU; use --device cpu"


def test_foreign_weights_to_start_from_are_one_sentence(tmp_path, capsys):
    torch.save({"x": torch.zeros(1)}, tmp_path / "foreign.pth")
    options = ("--workload", "resnet18", "--size", 32, "--out", tmp_path, "--init", tmp_path / "foreign.pth")
    assert f"{tmp_path / 'foreign.pth'} does not fit ResNet" in run(capsys, *options)


def test_a_place_that_cannot_be_written_is_noticed_before_training(toy, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(fitting, "train_epoch", None)
    assert run(capsys, *toy, "--out", tmp_path / "file" / "w").startswith(f"error: cannot write to {tmp_path / 'file'}")


def test_ctrl_c_is_one_sentence_and_the_same_command_goes_on(toy, tmp_path, capsys, monkeypatch):
    judge, calls = accuracy, []

    def judged(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    options = (*toy, "--size", 32, "--epochs", 3)
    monkeypatch.setattr(imaging, "accuracy", judged)
    assert run(capsys, *options, code=130) == "interrupted: the same command goes on after the last whole epoch"
    assert main(list(map(str, options))) == 0
    said = capsys.readouterr()
    assert "going on after epoch 1" in said.out
    assert said.err == ""  # no progress bar where there is no terminal
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "best_toy_32_synthetic.json",
        "best_toy_32_synthetic.pth",
    ]


def test_further_sizes_start_from_the_first_and_a_size_named_twice_is_trained_once(toy, tmp_path, capsys):
    assert main([*map(str, toy), "--size", "32", "32", "48", "--epochs", "2", "--fine-tune-epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert said.count("best_toy_32_synthetic epoch") == 2
    assert said.count("trained already") == 1
    history = json.loads((tmp_path / "out" / "best_toy_48_synthetic.json").read_text())
    assert history["config"]["origin"] == "best_toy_32_synthetic.pth"
    assert (history["config"]["epochs"], history["config"]["lr"]) == (1, pytest.approx(TrainConfig.lr / 5))
    assert [row["size_px"] for row in history["epochs"]] == [48]


def test_a_model_that_was_trained_anew_is_fine_tuned_anew(toy, tmp_path, capsys):
    command = [*map(str, toy), "--size", "32", "48", "--fine-tune-epochs", "1", "--epochs"]
    assert main([*command, "1"]) == 0
    assert main([*command, "2"]) == 0
    assert capsys.readouterr().out.count("best_toy_48_synthetic epoch 1/1") == 2


def test_a_thousand_outputs_learn_imagenettes_classes_where_imagenet_has_them(tmp_path):
    def data(split, size):
        return replace(colours(split, size, 2), classes=("n01440764", "n03888257"))

    workload = replace(TOY, build=lambda size, weights: build(size, weights, 1000), data=data)
    model = workload.build(32, None)
    assert train(model, workload, 32, replace(QUICK, epochs=8), tmp_path / "w.pth")["test_top1"] > 0.6
    image, label = data("test", 32)[1]
    with torch.inference_mode():
        assert (label, int(model(image[None]).argmax())) == (1, 701)


def test_bfloat16_trains_too(tmp_path):
    history = fit(tmp_path / "w.pth", replace(QUICK, precision="bf16", epochs=1))
    assert history["precision"] == "torch.bfloat16"


def test_a_bar_is_drawn_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(tmp_path / "w.pth", replace(QUICK, epochs=1))
    assert "epoch 1/1" in capsys.readouterr().err
