"""Distillation: its loss against independent references, what it keeps and resumes, and what it refuses."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench_tests.unit.test_train import QUICK, TOY, build, colours, example
from models.data.images import ImageSplit
from models.errors import SpeedproofError
from models.files import cache_root
from models.weights import read_checkpoint
from models.workload import Workload, load_workload
from optim import images as imaging
from optim.distill import DistillConfig, attention_map, distill, distillation_loss, retrain, sweep, sweep_table
from optim.distill import teacher as asking
from optim.distill.__main__ import main
from optim.distill.teacher import kept_logits
from optim.images import ImageData, accuracy
from optim.kinds import load_data, score_on_test
from optim.saved import save_model

CONFIG = DistillConfig(**{**asdict(QUICK), "label_smoothing": 0.0, "views": 2}, size=32, alpha=0.7, temperature=3.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def teacher():
    """A toy that knows its colours."""
    model = build(32, None)
    retrain(model, TOY, replace(CONFIG, epochs=16, patience=16))
    return model


def logits(seed: int, rows: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(rows, classes, generator=dice) * 3 for _ in range(2))
    return student.requires_grad_(), teacher, torch.randint(classes, (rows,), generator=dice)


@given(st.integers(0, 2**32), st.floats(0.5, 20), st.floats(0, 1))
def test_loss_is_its_two_parts_by_alpha(seed, temperature, alpha):
    student, teacher, labels = logits(seed)
    soft = nn.KLDivLoss(reduction="batchmean")(
        (student / temperature).log_softmax(1), (teacher / temperature).softmax(1)
    )
    hard = nn.CrossEntropyLoss()(student, labels)
    found = [distillation_loss(student, teacher, labels, temperature, share) for share in (0.0, 1.0, alpha)]
    assert found[0].item() == pytest.approx(hard.item(), rel=1e-5)
    assert found[1].item() == pytest.approx(temperature**2 * soft.item(), rel=1e-4, abs=1e-5)
    assert found[2].item() == pytest.approx((alpha * found[1] + (1 - alpha) * found[0]).item(), rel=1e-5, abs=1e-6)


@given(st.integers(0, 2**32))
def test_gradients_keep_their_size_as_the_temperature_grows(seed):
    """At a high temperature they tend to those of half the squared distance of centred logits, divided by C."""
    student, teacher, labels = logits(seed)
    distillation_loss(student, teacher, labels, 1e3, 1.0).backward()
    centred = (student - student.mean(1, True)) - (teacher - teacher.mean(1, True))
    expected = (centred / student.numel()).detach()
    assert torch.allclose(student.grad, expected, atol=0.02 * float(expected.abs().max()))


def test_unlabeled_rows_count_in_the_soft_part_alone():
    student, teacher, labels = logits(3)
    labels[2:] = -1
    found = distillation_loss(student, teacher, labels, 2.0, 0.5)
    soft = distillation_loss(student, teacher, labels, 2.0, 1.0)
    hard = nn.functional.cross_entropy(student[:2], labels[:2])
    assert found.item() == pytest.approx((soft / 2 + hard / 2).item())
    alone = distillation_loss(student, teacher, torch.full((6,), -1), 2.0, 0.5)
    assert alone.item() == pytest.approx((soft / 2).item())


def test_attention_is_where_a_layer_is_active():
    features = torch.zeros(2, 3, 4, 4)
    features[:, :, 1, 2] = 5
    assert torch.equal(attention_map(features).reshape(2, 4, 4)[:, 1, 2], torch.ones(2))
    assert torch.allclose(attention_map(torch.randn(2, 3, 4, 4)).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"views": 0},
        {"teacher_size": 16},
        {"transfer": "attention", "layers": (("0", "0"), ("3", "3"))},
        {"transfer": "feature", "layers": (("3", "0"),)},
    ],
    ids=["kept logits", "asked every step", "smaller teacher", "attention", "feature"],
)
def test_the_student_learns_and_both_arguments_stay_as_they_are(teacher, change):
    student = build(32, None)
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in (teacher, student)]
    alone = {"alpha": 1.0, "temperature": 1.0}  # the teacher says all
    config = replace(CONFIG, epochs=24, patience=24, lr=0.1, **alone, **change)
    learned = distill(teacher, student, TOY, config)
    for model, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_hooks for module in learned.modules())
    assert score_on_test(learned, TOY, 32, "fp32")[0] > 0.6
    assert not learned.training


def test_logits_of_a_compiled_teacher_are_those_of_the_teacher(teacher, monkeypatch):
    data = load_data(teacher, TOY, 32)
    plain = kept_logits(teacher, data, CONFIG)
    monkeypatch.setattr(asking, "_WORTH_AN_EXPORT", 1)
    fast = kept_logits(teacher, data, replace(CONFIG, views=3))  # the first two are found
    assert torch.equal(fast[:2], plain)
    monkeypatch.setenv("SPEEDPROOF_CACHE", f"{cache_root()}2")
    assert torch.allclose(kept_logits(teacher, data, CONFIG), plain, atol=1e-5)


def test_the_same_seed_gives_the_same_student_and_another_one_does_not(teacher):
    first, again, other = (distill(teacher, build(32, None), TOY, replace(CONFIG, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in again.state_dict().items())
    assert not torch.equal(first.state_dict()["0.weight"], other.state_dict()["0.weight"])


def testkept_logits_are_asked_for_once(teacher):
    calls = []
    hook = teacher.register_forward_hook(lambda *_: calls.append(1))
    distill(teacher, build(32, None), TOY, CONFIG)
    asked = len(calls)
    distill(teacher, build(32, None), TOY, replace(CONFIG, alpha=0.1, epochs=3))  # another student's run
    assert len(calls) - asked == 1  # which classes it knows
    distill(teacher, build(32, None), TOY, replace(CONFIG, seed=4))  # other views
    assert len(calls) - asked > 2
    hook.remove()


def test_an_interrupted_student_goes_on_to_the_very_same_weights(teacher, tmp_path, monkeypatch, capsys):
    whole = distill(teacher, build(32, None), TOY, CONFIG)
    judge, calls = accuracy, []

    def judged(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(imaging, "accuracy", judged)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, build(32, None), TOY, CONFIG, keep=tmp_path / "student.pt")
    assert (tmp_path / "student.resume").is_file()
    other = retrain(build(32, None), TOY, CONFIG, keep=tmp_path / "student.pt")  # without the teacher: another run
    assert len(other["epochs"]) == 4
    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(imaging, "accuracy", judged)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, build(32, None), TOY, CONFIG, keep=tmp_path / "student.pt")
    capsys.readouterr()
    found = distill(teacher, build(32, None), TOY, CONFIG, keep=tmp_path / "student.pt")
    assert "going on after epoch 2" in capsys.readouterr().out
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in whole.state_dict().items())
    assert not (tmp_path / "student.resume").exists()
    history = json.loads((tmp_path / "student.json").read_text())
    assert [row["size_px"] for row in history["epochs"]][-1] == 32
    assert history["config"]["temperature"] == 3.0


def test_a_sweep_is_a_row_a_pair_and_gives_the_best_student(teacher):
    student, rows = sweep(teacher, build(32, None), TOY, replace(CONFIG, epochs=2), [1.0, 4.0], [0.0, 1.0])
    assert [(row["temperature"], row["alpha"]) for row in rows] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    best = max(rows, key=lambda row: row["validation_top1"])
    data = load_data(student, TOY, 32)
    top1, _ = data.validation.judge(student, 32, torch.float32)
    assert top1 == best["validation_top1"]
    table = sweep_table(rows, ImageData.score).splitlines()
    assert table[0].split() == ["temperature", "alpha", "0", "alpha", "1"]
    assert sum("*" in line for line in table) >= 1


def thousand(size: int, weights: Path | None) -> nn.Module:
    return build(size, weights, 1000)


WNIDS = ("n01440764", "n02102040", "n02979186", "n03000684")


def named_colours(split: str, size: int) -> ImageSplit:
    return replace(colours(split, size), classes=WNIDS)


def test_a_thousand_way_teacher_teaches_the_classes_that_imagenet_has():
    workload = Workload("t", "t", "s", "p", thousand, example, (32,), (1,), data=named_colours, smallest_size=16)
    teacher = thousand(32, None)
    retrain(teacher, workload, replace(CONFIG, epochs=8))
    assert score_on_test(teacher, workload, 32, "fp32")[0] > 0.6
    student_of = replace(workload, build=build)
    student = distill(teacher, build(32, None), student_of, replace(CONFIG, epochs=8, alpha=1.0))
    assert score_on_test(student, student_of, 32, "fp32")[0] > 0.6


def test_further_images_without_labels_are_learned_from(teacher, tmp_path):
    from PIL import Image

    for index, image in enumerate(colours("test", 32).images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{index}.png")
    own = build(32, None)
    history = retrain(own, TOY, replace(CONFIG, unlabeled=str(tmp_path), epochs=1), teacher)
    alone = retrain(build(32, None), TOY, replace(CONFIG, epochs=1), teacher)
    assert history["epochs"][0]["train_loss"] != alone["epochs"][0]["train_loss"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": 0.0}, "--temperature 0: expected a number above 0"),
        ({"temperature": float("nan")}, "--temperature nan: expected a number above 0"),
        ({"alpha": 1.5}, "--alpha 1.5: expected a number from 0 to 1"),
        ({"transfer": "magic"}, "--transfer 'magic': expected one of none, feature, attention"),
        ({"transfer": "feature"}, "goes with --layers"),
        ({"layers": (("0", "0"),)}, "goes with --layers"),
        ({"transfer": "attention", "layers": (("99", "0"),)}, "--layers: Sequential has no module .99."),
        (
            {"transfer": "feature", "layers": (("8", "0"),)},
            r"--layers 8=0: expected layers with outputs \(B, C, H, W\)",
        ),
        ({"transfer": "attention", "layers": (("8", "0"),)}, r"--layers 8=0: expected layers with outputs"),
        ({"unlabeled": "nowhere"}, "--unlabeled nowhere: no such folder"),
        ({"views": -1}, "--views -1: expected at least 0"),
        ({"transfer_weight": -1.0}, "--transfer-weight -1: expected a number from 0"),
    ],
)
def test_what_cannot_be_distilled_is_one_sentence(teacher, tmp_path, change, said):
    with pytest.raises(SpeedproofError, match=said):
        distill(teacher, build(32, None), TOY, replace(CONFIG, **change), keep=tmp_path / "student.pt")
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]


def test_a_teacher_of_other_classes_is_one_sentence(tmp_path):
    with pytest.raises(SpeedproofError, match="the teacher has 7 outputs and the data 4 classes"):
        distill(build(32, None, 7), build(32, None), TOY, CONFIG)


def run(capsys, *arguments: object, code: int) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr()


DIGITS = ("--size", 32, "--epochs", 1, "--precision", "fp32", "--threads", 2)


def test_the_command_writes_a_student_that_is_loaded_again(tmp_path, capsys):
    path = tmp_path / "out" / "student.pt"
    teacher, digits = tmp_path / "teacher.pt", load_workload("resnet18")
    save_model(teacher, digits.build(32, None), digits, 32, {})
    out, err = run(
        capsys, "--teacher", teacher, "--student", "resnet18", "--save-path", path, *DIGITS, "--views", 1,
        "--temperature", 1, 4, "--alpha", 0.5, code=0,
    )  # fmt: skip
    assert err == ""
    assert f"{path}: top-1 " in out
    assert "alpha 0.5" in out
    state, meta = read_checkpoint(path)
    assert (meta["workload"], meta["method"], len(meta["sweep"])) == ("resnet18", "distill", 2)
    assert state["fc.weight"].shape == (10, 512)
    out, _ = run(capsys, "--teacher", path, "--student", path, "--save-path", path, *DIGITS, "--views", 0, code=0)
    assert "top-1" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--teacher", "resnet19"], "--teacher resnet19: neither a weights file nor one of resnet18, "),
        (["--alpha", 2], "--alpha 2: expected a number from 0 to 1"),
        (["--layers", "a"], "--layers a: expected TEACHER=STUDENT"),
        (["--save-path", "/"], "--save-path /: this is a folder"),
        (["--data", "digits", "--data-dir", "/"], "--data-dir goes with --data folder or imagenette"),
        (["--epochs", 0], "--epochs 0: expected at least 1"),
        (["--size", -5], "--size -5: resnet18 needs at least 32 px"),
        (["--keyword", "happy"], "--keyword happy: resnet18 is not about speech"),
        ([], "--teacher resnet18: no trained weights for digits; train them with `python -m optim.train --workload"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, capsys, options, said):
    usual = ["--teacher", "resnet18", "--student", "resnet18", "--save-path", tmp_path / "student.pt", *DIGITS]
    _, err = run(capsys, *usual, *options, code=2)
    (line,) = err.splitlines()
    assert said in line
    assert not (tmp_path / "student.pt").exists()
