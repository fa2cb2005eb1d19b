"""Training on speech: its augmentation against what it promises, the balance of classes, and every method's command."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from models.crnn import Crnn
from models.errors import SpeedproofError
from models.weights import read_checkpoint
from models.workload import DataChoice, load_workload
from optim import speech
from optim.augment import draw
from optim.augment_speech import CLEAN, DICE, FREQUENCY_MASK, GAIN_DB, RATIO_DB, TIME_MASK, mask, random_waveforms
from optim.command import load_model
from optim.distill import DistillConfig, distill
from optim.distill.__main__ import main as distill_main
from optim.distill.teacher import kept_logits
from optim.kinds import load_data, score_on_test
from optim.prune.__main__ import main as prune_main
from optim.quantize import QuantizeConfig, quantize
from optim.quantize.__main__ import main as quantize_main
from optim.recipe import Recipe, follow
from optim.recipe import method as following
from optim.recipe.__main__ import main as recipe_main
from optim.schedule import SPEECH, TrainConfig
from optim.train import main as train_main
from optim.train import train

TONES = DataChoice("synthetic_tones")
QUICK = TrainConfig(**{**SPEECH, "epochs": 3, "lr": 0.01, "batch_size": 64})
LEARN = DistillConfig(**{**SPEECH, "epochs": 2, "lr": 0.01, "batch_size": 64}, size=1000, views=1)
STUDENT = "kws_channels2_gru8"
MIDDLE = torch.full((DICE, 4), 0.5)  # no shift, no gain, 20 dB


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """No data set, no weights, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))


@pytest.fixture(scope="module")
def data():
    workload = load_workload("kws", TONES)
    return load_data(workload.build(1000, None), workload, 1000)


def noisy(count: int, samples: int, seed: int = 0) -> torch.Tensor:
    return 0.05 * torch.randn(count, samples, generator=torch.Generator().manual_seed(seed))


@given(st.floats(0, 0.999))
def test_noise_has_the_ratio_that_is_drawn(share):
    clips, noise, dice = noisy(4, 16000), noisy(1, 50000, 1)[0], MIDDLE.clone()
    dice[1], dice[2] = torch.rand(4), share * (1 - CLEAN)
    added = (random_waveforms(clips, noise, dice) - clips).square().mean(1)
    ratio_db = 10 * torch.log10(clips.square().mean(1) / added)
    expected = RATIO_DB[0] + share * (RATIO_DB[1] - RATIO_DB[0])
    assert ratio_db.tolist() == pytest.approx([expected] * 4, abs=0.01)


def test_some_clips_stay_without_noise():
    clips, noise, dice = noisy(4, 16000), noisy(1, 50000, 1)[0], MIDDLE.clone()
    dice[2] = torch.tensor([0.0, 0.74, 0.75, 1.0])
    assert (random_waveforms(clips, noise, dice) != clips).any(1).tolist() == [True, True, False, False]


@given(st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_shift_moves_silence_in_and_gain_is_in_decibels(shift, gain):
    clips, dice = torch.zeros(4, 16000), MIDDLE.clone()
    clips[:, 8000] = 0.1
    dice[0], dice[3] = shift, gain
    found = random_waveforms(clips, torch.zeros(20000), dice)
    (place,) = set(found.argmax(1).tolist())
    assert abs(place - 8000) <= 1600
    assert place == pytest.approx(8000 + (1 - 2 * shift) * 1600, abs=1.5)
    assert 20 * math.log10(found[0, place] / 0.1) == pytest.approx(
        GAIN_DB[0] + gain * (GAIN_DB[1] - GAIN_DB[0]), abs=0.01
    )
    assert found.count_nonzero() == 4


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.15])
def test_a_clip_is_heard_faster_or_slower_about_its_middle(factor):
    speed, dice = 0.2, MIDDLE.clone()
    dice[2], dice[8] = 1.0, 0.5 + (factor - 1) / (2 * speed)
    seconds = (torch.arange(16000) - 7999.5) / 16000
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * seconds).repeat(4, 1)
    found = random_waveforms(tone, torch.zeros(20000), dice, speed)
    inside = seconds.abs() * factor < 0.4999
    assert (found[0] - 0.5 * torch.sin(2 * torch.pi * 440 * factor * seconds))[inside].abs().max() < 0.005
    assert found[0][seconds.abs() * factor > 0.5001].eq(0).all()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(300, 20000), st.integers(1, 30000), st.floats(0, 1))
def test_views_stay_within_full_scale_and_follow_from_their_dice(seed, samples, noise, loudness):
    clips, behind = (loudness * torch.ones(3, samples), noisy(1, noise)[0])
    first, again = (random_waveforms(clips, behind, draw(3, seed, 0, DICE)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == clips.shape
    assert first.abs().max() <= 1
    assert loudness or not first.any()  # silence stays silent: its noise is as loud


@given(st.integers(0, 2**32), st.integers(4, 120))
def test_a_mask_is_one_band_and_one_stretch(seed, frames):
    features = noisy(8 * 40, frames, seed).reshape(8, 40, frames)
    found = mask(features, draw(8, seed, 0, DICE))
    for before, after in zip(features, found, strict=True):
        hidden = after != before
        assert torch.allclose(after[hidden], before.mean(), atol=1e-6)
        bands, steps = hidden.all(1), hidden.all(0)
        assert torch.equal(hidden, bands[:, None] | steps[None])
        for part, most in ((bands, FREQUENCY_MASK), (steps, TIME_MASK)):
            rows = part.nonzero().flatten()
            assert len(rows) <= most
            assert len(rows) == 0 or rows[-1] - rows[0] == len(rows) - 1


def test_masks_are_as_large_as_is_allowed_and_hide_nothing_at_times():
    features = noisy(4000 * 40, 101).reshape(4000, 40, 101)
    hidden = mask(features, draw(4000, 0, 0, DICE)) != features
    bands, steps = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert (int(bands.min()), int(bands.max())) == (0, FREQUENCY_MASK)
    assert (int(steps.min()), int(steps.max())) == (0, TIME_MASK)


@pytest.mark.parametrize(("share", "most_bands", "most_frames"), [(0.0, 0, 0), (0.5, 7, 17)])
def test_masks_are_made_smaller_on_request(share, most_bands, most_frames):
    features = noisy(4000 * 40, 101).reshape(4000, 40, 101)
    hidden = mask(features, draw(4000, 0, 0, DICE), share) != features
    assert int(hidden.all(2).sum(1).max()) == most_bands
    assert int(hidden.all(1).sum(1).max()) == most_frames


def test_keyword_and_other_words_are_drawn_alike(data):
    order = torch.cat([data.order(torch.Generator().manual_seed(seed)) for seed in range(20)])
    share = data.labels[order].double().mean()
    assert float(data.labels.double().mean()) < 0.45
    assert share == pytest.approx(0.5, abs=4 * 0.5 / len(order) ** 0.5)
    assert torch.equal(data.order(torch.Generator().manual_seed(3)), data.order(torch.Generator().manual_seed(3)))


def test_a_clip_that_comes_twice_is_heard_differently_unless_its_views_are_fixed(data):
    rows = (torch.tensor([5, 5]), torch.tensor([5, 7]))

    def seen(epoch: int, views: int) -> list[torch.Tensor]:
        config = replace(QUICK, views=views)
        return [view for batch in data.batches(rows, epoch, config, "cpu") for view in batch.views(1000)]

    new, again, fixed = seen(0, 0), seen(0, 0), seen(0, 2)
    assert all(torch.equal(*pair) for pair in zip(new, again, strict=True))
    assert not torch.equal(new[0], new[1])
    assert not torch.equal(new[0], new[2])
    assert torch.equal(fixed[0], fixed[1])
    assert torch.equal(fixed[0], fixed[2])
    assert torch.equal(fixed[0], seen(2, 2)[0])
    assert not torch.equal(fixed[0], seen(1, 2)[0])


def test_a_teachers_kept_word_is_of_the_masks_it_was_asked_under(data):
    config = replace(LEARN, views=2)
    teacher = load_workload(STUDENT, TONES).build(1000, None)
    masked, plain = (kept_logits(teacher, data, replace(config, masking=share)) for share in (1.0, 0.0))
    assert not torch.equal(masked, plain)
    assert torch.equal(plain, kept_logits(teacher, data, replace(config, masking=0.0)))


def test_features_are_for_the_network_and_waveforms_for_the_spotter(data):
    workload = load_workload("kws_waveform", TONES)
    heard = load_data(workload.build(1000, None), workload, 1000)
    for found, shape in ((data, (2, 40, 101)), (heard, (2, 16000))):
        (batch,) = found.batches((torch.tensor([0, 1]),), 0, QUICK, "cpu")
        assert batch.views(1000).shape == found.inputs(2, 1000).shape == shape
        assert batch.labels.tolist() == found.labels[:2].tolist()
    assert data.classes == ("other", "rising")
    with pytest.raises(SpeedproofError, match="clips of 1000 ms are asked for in 500 ms"):
        batch.views(500)


def test_the_score_is_roc_auc_of_the_keywords_probability():
    workload = load_workload("kws", TONES)
    model = workload.build(1000, None)
    split = workload.data("test", 1000)
    with torch.inference_mode():
        said = model(torch.stack([split[index][0] for index in range(len(split))])).softmax(1)[:, 1]
    expected = roc_auc_score(split.clips.labels, said.numpy())
    found, examples = score_on_test(model, workload, 1000, "fp32")
    assert found == pytest.approx(expected, abs=1e-6)
    assert examples == len(split)


def test_a_student_learns_and_its_file_tells_all(tmp_path):
    workload = load_workload(STUDENT, TONES)
    model = workload.build(1000, None)
    history = train(model, workload, 1000, replace(QUICK, epochs=8, batch_size=32), tmp_path / "s.pt")
    assert history["test_roc_auc"] > 0.7
    assert [row["size_ms"] for row in history["epochs"]] == [1000] * 8
    scores = [row["validation_roc_auc"] for row in history["epochs"]]
    state, meta = read_checkpoint(tmp_path / "s.pt")
    assert history["best_validation_roc_auc"] == meta["validation_roc_auc"] == max(scores)
    assert (meta["crnn"]["channels"], meta["crnn"]["gru"]) == (2, 8)
    assert (history["config"]["optimizer"], history["config"]["clip_norm"]) == ("adam", 5.0)
    found, own = load_model(str(tmp_path / "s.pt"), TONES, None, "--model")
    assert own.name == STUDENT
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())


def test_an_interrupted_run_goes_on_to_the_very_same_weights(tmp_path, monkeypatch, capsys):
    workload = load_workload(STUDENT, TONES)
    train(workload.build(1000, None), workload, 1000, QUICK, tmp_path / "whole.pt")
    judge, calls = speech.SpeechExam.judge, []

    def judged(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(speech.SpeechExam, "judge", judged)
        with pytest.raises(KeyboardInterrupt):
            train(workload.build(1000, None), workload, 1000, QUICK, tmp_path / "w.pt")
    capsys.readouterr()
    train(workload.build(1000, None), workload, 1000, QUICK, tmp_path / "w.pt")
    assert "going on after epoch 1" in capsys.readouterr().out
    whole = read_checkpoint(tmp_path / "whole.pt")[0]
    assert all(torch.equal(value, whole[name]) for name, value in read_checkpoint(tmp_path / "w.pt")[0].items())


def test_gradients_are_clipped(tmp_path):
    workload = load_workload(STUDENT, TONES)
    models = [workload.build(1000, None) for _ in range(2)]
    config = replace(QUICK, epochs=1, optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, warmup_epochs=0.0)
    start = {name: value.clone() for name, value in models[0].state_dict().items()}
    for model, clip in zip(models, (0.0, 1e-6), strict=True):
        config = replace(config, clip_norm=clip, momentum=0.9)
        train(model, workload, 1000, config, tmp_path / f"{clip}.pt")
    far, near = (
        max(float((value - start[name]).abs().max()) for name, value in model.state_dict().items()) for model in models
    )
    assert near < 1e-3 < far


def test_methods_one_after_another_on_a_student_of_another_size():
    workload = load_workload("kws", TONES)
    teacher = workload.build(1000, None)
    student = load_workload(STUDENT, TONES)
    learned = distill(teacher, student.build(1000, None), student, LEARN)
    assert isinstance(learned, Crnn)
    assert learned.config.gru == 8
    recipe = Recipe("smallest", (LEARN, QuantizeConfig(calibration_images=16)), student=STUDENT)
    made = follow(recipe, teacher, workload, TONES, 1000)
    kinds = {name: tensor.dtype for name, tensor in made.state_dict().items()}
    assert torch.int8 in kinds.values()
    assert score_on_test(made, student, 1000, "fp32")[0] == pytest.approx(
        score_on_test(learned, student, 1000, "fp32")[0], abs=0.05
    )


@pytest.mark.parametrize("method", ["static", "dynamic", "qat"])
def test_quantization_leaves_the_gru_in_float(method):
    workload = load_workload(STUDENT, TONES)
    model = workload.build(1000, None)
    tune = replace(LEARN, epochs=1, views=0) if method == "qat" else None
    made = quantize(model, workload, QuantizeConfig(method, 1000, calibration_images=16, fine_tune=tune))
    weights = [tensor for tensor in made.state_dict().values() if tensor.dtype == torch.int8]
    linear = model.attention[0].weight.numel() + model.attention[2].weight.numel() + model.classify.weight.numel()
    assert sum(map(torch.numel, weights)) == linear + (model.conv.weight.numel() if method != "dynamic" else 0)
    assert any(node.target == torch.ops.aten.gru.input for node in made.graph.nodes)


def run(capsys, main, *arguments: object, code: int = 0) -> str:
    assert main([str(argument) for argument in arguments]) == code
    said = capsys.readouterr()
    assert code == 0 or len(said.err.splitlines()) == 1
    return said.err if code else said.out


def test_the_commands_make_find_and_use_weights(tmp_path, capsys, monkeypatch):
    quick = ("--epochs", 1, "--lr", 0.01, "--threads", 1)
    said = run(capsys, train_main, "--workload", "kws", *quick)
    path = tmp_path / "weights" / "kws" / "synthetic_tones_baseline.pt"
    assert f"{path.relative_to(tmp_path)}: ROC AUC 0." in said
    assert "epoch 1/1 at 1000 ms: loss" in said
    assert path.with_suffix(".json").is_file()
    baseline = read_checkpoint(path)[0]
    found, _ = load_model("kws", DataChoice(), None, "--model")
    assert all(torch.equal(value, baseline[name]) for name, value in found.state_dict().items())

    said = run(capsys, distill_main, "--teacher", "kws", "--student", STUDENT, "--save-path", "s.pt", *quick,
               "--views", 1, "--alpha", 0.5, 0.9)  # fmt: skip
    assert "s.pt: ROC AUC 0." in said
    assert "alpha 0.9" in said
    said = run(capsys, quantize_main, "--model", "s.pt", "--save-path", "q.pt", "--calibration-images", 16)
    assert "4 of 4 convolutions, linear layers and additions take int8" in said
    load_model("q.pt", DataChoice(), None, "--model")

    own = Recipe("kws_test", (replace(LEARN, epochs=1), QuantizeConfig(calibration_images=16)), STUDENT, model="kws")
    monkeypatch.setitem(following.RECIPES, "kws_test", own)
    said = run(capsys, recipe_main, "kws-test")
    assert "before: " in said
    made = path.with_name("synthetic_tones_kws_test.pt")
    assert f"{made.relative_to(tmp_path)}: written" in said
    assert load_model(str(made), DataChoice(), None, "--model")[1].name == STUDENT


@pytest.mark.parametrize(
    ("main", "options", "said"),
    [
        (
            train_main,
            ["--workload", "kws", "--start-share", 0.5],
            "--start-share goes with images; kws is about speech",
        ),
        (
            train_main,
            ["--workload", "resnet18", "--size", 32, "--masking", 0.5],
            "--masking goes with speech; resnet18 is about images",
        ),
        (train_main, ["--workload", "kws", "--masking", 2], "--masking 2: expected a number from 0 to 1"),
        (
            train_main,
            ["--workload", "kws", "--size", 500, 1000],
            "--size 500 1000: kws is trained on clips of 1000 ms",
        ),
        (train_main, ["--workload", "kws", "--size", 500], "--size 500: kws is trained on clips of 1000 ms"),
        (train_main, ["--workload", "kws", "--size", -5], "--size -5: kws needs at least 190 ms"),
        (train_main, ["--workload", "kws_waveform"], "--workload kws_waveform: train kws, whose weights it has"),
        (train_main, ["--workload", "kws_streaming"], "--workload kws_streaming: train kws, whose weights it has"),
        (train_main, ["--workload", "kws_streaming_gru16"], "--workload kws_streaming_gru16: train kws_gru16, whose"),
        (
            quantize_main,
            ["--model", "kws_chanels4", "--save-path", "x.pt"],
            "--model kws_chanels4: neither a weights file nor one of resnet18, resnet50, efficientnet_lite0, kws, "
            "kws_waveform, kws_streaming, tinychat, tinychat_text, nor a student such as kws_channels4_gru16 or "
            "tinychat_hidden128x96x64, nor pkg.module:OBJECT",
        ),
        (train_main, ["--workload", "kws", "--data", "digits"], "--data digits: kws is about speech; give --keyword"),
        (prune_main, ["--model", "kws", "--save-path", "x.pt", "--data", "digits"], "--data digits: kws is about"),
        (quantize_main, ["--model", "kws", "--save-path", "x.pt", "--size", -5], "--size -5: kws needs at least"),
        (quantize_main, ["--model", "kws", "--save-path", "x.pt", "--data", "digits"], "--data digits: kws is about"),
        (recipe_main, ["kws-smallest", "--data", "digits"], "--data digits: kws is about speech"),
        (
            recipe_main,
            ["kws-smallest"],
            "recipe kws_smallest: teacher kws_channels16_gru128: no trained weights for synthetic_tones; train them "
            "with `python -m optim.train --workload kws_channels16_gru128`",
        ),
        (
            distill_main,
            ["--teacher", "kws_waveform", "--student", STUDENT, "--save-path", "x.pt"],
            "--teacher kws_waveform: no trained weights for synthetic_tones; train them with "
            "`python -m optim.train --workload kws`",
        ),
        (
            distill_main,
            ["--teacher", "kws", "--student", STUDENT, "--save-path", "x.pt", "--data", "digits"],
            "--data digits: kws_channels2_gru8 is about speech",
        ),
        (train_main, ["--workload", "kws", "--size", 50], "--size 50: kws needs at least 190 ms"),
        (train_main, ["--workload", "kws", "--optimizer", "lion"], "--optimizer 'lion': expected one of sgd, adam"),
        (train_main, ["--workload", "kws", "--clip-norm", -1], "--clip-norm -1: expected a number from 0"),
        (train_main, ["--workload", "kws", "--keyword", "happy"], "keyword 'happy': no Speech Commands at"),
        (train_main, ["--workload", "kws_small"], "unknown workload 'kws_small'"),
        (train_main, ["--workload", "kws_gru0"], "makes no network"),
        (train_main, ["--workload", "kws_gru8x8"], "unknown workload 'kws_gru8x8'"),
        (recipe_main, ["int8", "--save-path", "x.pt"], "--model is missing: recipe int8 is for any model"),
        (recipe_main, ["int8", "--recipe", "int8"], "name one recipe"),
        (
            distill_main,
            ["--teacher", "kws", "--student", "kws", "--save-path", "x.pt", "--unlabeled", "."],
            "--unlabeled goes with images; kws is about speech",
        ),
    ],
)
def test_bad_input_is_one_sentence(main, options, said, capsys, tmp_path):
    assert said in run(capsys, main, *options, code=2)
    assert not list(tmp_path.glob("*.pt"))


def test_classes_are_what_the_labels_say(data):
    clips = load_workload("kws", TONES).data("train", 1000).clips
    assert np.array_equal(data.labels.numpy(), [word == "rising" for word in clips.words])
