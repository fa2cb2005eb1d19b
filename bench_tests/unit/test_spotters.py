"""The keyword spotters: the network against its equations, checkpoints of many sizes, examples, data and quality."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models.crnn import Crnn, CrnnConfig, Spotter, build_crnn
from models.data.speech import speech_split
from models.errors import SpeedproofError
from models.kws import stratified, streaming_workload
from models.logmel import LogMel
from models.streaming import StreamingCrnn
from models.weights import WEIGHTS_DIR, load_into, save_checkpoint
from models.workload import DataChoice, Weights, load_workload

TONES = DataChoice("synthetic_tones")
NAMES = ("kws", "kws_waveform", "kws_streaming")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without trained weights: those of the repository make no difference."""
    monkeypatch.chdir(tmp_path)


def parameters(config=None):
    return sum(parameter.numel() for parameter in Crnn(config).parameters())


def test_sizes_are_those_of_the_course():
    assert parameters() == 70_443
    assert parameters(CrnnConfig(channels=4, gru=16)) == 6_679
    assert Crnn().features(torch.zeros(1, 40, 101)).shape == (1, 11, 144)
    assert CrnnConfig().steps(16_000) == 11
    assert [CrnnConfig().steps(samples) for samples in (201, 3_039, 3_040, 4_319, 4_320)] == [0, 0, 1, 1, 2]


def reference(state, logmel, layers):
    """The network by its equations (Cho et al., 1406.1078, with PyTorch's second bias), float64 numpy."""
    state = {name: value.double().numpy() for name, value in state.items()}
    x = F.conv2d(logmel.double()[:, None], torch.tensor(state["conv.weight"]), torch.tensor(state["conv.bias"]), (2, 8))
    x = x.flatten(1, 2).numpy()  # (B, features, steps)
    steps = [x[:, :, step] for step in range(x.shape[2])]

    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    for layer in range(layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w, u, b, c = (state[f"gru.{name}_l{layer}"] for name in names)
        h, outputs = np.zeros((len(x), u.shape[1])), []
        for step in steps:
            reset, update, new = np.split(step @ w.T + b, 3, 1)
            old_reset, old_update, old_new = np.split(h @ u.T + c, 3, 1)
            z = sigmoid(update + old_update)
            h = (1 - z) * np.tanh(new + sigmoid(reset + old_reset) * old_new) + z * h
            outputs.append(h)
        steps = outputs
    outputs = np.stack(steps, 1)
    hidden = np.tanh(outputs @ state["attention.0.weight"].T + state["attention.0.bias"])
    scores = np.exp(hidden @ state["attention.2.weight"].T + state["attention.2.bias"])
    pooled = (scores / scores.sum(1, keepdims=True) * outputs).sum(1)
    return pooled @ state["classify.weight"].T + state["classify.bias"]


@pytest.mark.parametrize("config", [CrnnConfig(), CrnnConfig(channels=2, gru=8, layers=1, attention=3, classes=4)])
@pytest.mark.parametrize("frames", [20, 101])
def test_logits_are_those_of_the_equations(config, frames):
    torch.manual_seed(0)
    model = Crnn(config).eval()
    logmel = torch.randn(3, 40, frames)
    with torch.inference_mode():
        assert model(logmel).numpy() == pytest.approx(reference(model.state_dict(), logmel, config.layers), abs=1e-5)


def test_a_spotter_is_its_front_end_and_its_network():
    spotter, crnn = build_crnn(Spotter, None), build_crnn(Crnn, None)
    waveform = torch.randn(2, 16_000) * 0.1
    with torch.inference_mode():
        assert torch.equal(spotter(waveform), crnn(LogMel()(waveform)))
        for row in range(2):  # a clip is judged alike in any batch
            assert spotter(waveform[row : row + 1])[0].numpy() == pytest.approx(spotter(waveform)[row], abs=1e-5)


def test_a_clip_too_short_is_refused():
    with pytest.raises(SpeedproofError, match=r"19 frames are too few .* at least 20, which are 3040 samples"):
        Crnn()(torch.zeros(1, 40, 19))


@pytest.mark.parametrize(
    "wrong",
    [
        {"gru": 0}, {"gru": 4097}, {"kernel": (41, 20)}, {"kernel": (5,)}, {"kernel": (5, 20, 1)}, {"stride": ()},
        {"channels": 1.5}, {"attention": -1}, {"attention": 4097}, {"dropout": 1.0},
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(SpeedproofError, match="makes no network"):
        CrnnConfig(**wrong)


def saved(path, config=None, meta=None):
    torch.manual_seed(3)
    model = Crnn(config).eval()
    save_checkpoint(path, {"state_dict": model.state_dict(), "meta": meta or {}})
    return model


@pytest.mark.parametrize("make", [Crnn, Spotter, StreamingCrnn])
def test_a_checkpoint_is_built_in_its_own_size(tmp_path, make):
    model = saved(tmp_path / "own.pt", CrnnConfig(channels=4, gru=16), {"crnn": {"channels": 4, "gru": 16}})
    built = build_crnn(make, tmp_path / "own.pt")
    assert type(built) is make
    assert not built.training
    assert built.config == model.config
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in built.state_dict().items())
    load_into(StreamingCrnn(model.config), tmp_path / "own.pt")  # without a word of its size, where that is known


def test_without_weights_it_is_seeded():
    state = torch.get_rng_state()
    first, second = (build_crnn(Crnn, None).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_checkpoint_of_another_size_names_both(tmp_path):
    saved(tmp_path / "small.pt", CrnnConfig(channels=4, gru=16))
    with pytest.raises(SpeedproofError) as caught:
        build_crnn(Crnn, tmp_path / "small.pt")
    assert "4 channels, kernel 5 x 20, stride 2 x 8, GRU 16 x 2 (6,679 parameters)" in str(caught.value)
    assert "8 channels, kernel 5 x 20, stride 2 x 8, GRU 64 x 2 (70,443 parameters)" in str(caught.value)


@pytest.mark.parametrize("meta", [{}, {"crnn": {"channels": 4, "gru": 16}}])
@pytest.mark.parametrize("make", [Crnn, StreamingCrnn])
def test_a_size_that_is_asked_for_is_what_a_checkpoint_must_have(tmp_path, make, meta):
    model = saved(tmp_path / "small.pt", CrnnConfig(channels=4, gru=16), meta)
    built = build_crnn(make, tmp_path / "small.pt", model.config)
    assert torch.equal(built.classify.weight, model.classify.weight)
    for other in (CrnnConfig(), CrnnConfig(channels=4, gru=16, layers=1), CrnnConfig(channels=4, gru=16, attention=3)):
        with pytest.raises(
            SpeedproofError, match=r"GRU 16 x 2 \(6,679 .* where one of .* give a checkpoint of that size$"
        ):
            build_crnn(make, tmp_path / "small.pt", other)


def test_a_stride_that_only_the_meta_data_tell_counts_too(tmp_path):
    saved(tmp_path / "fine.pt", CrnnConfig(gru=8, stride=(2, 4)), {"crnn": {"gru": 8, "stride": [2, 4]}})
    assert build_crnn(Crnn, tmp_path / "fine.pt", CrnnConfig(gru=8, stride=(2, 4))).config.stride == (2, 4)
    with pytest.raises(SpeedproofError, match=r"stride 2 x 4, .* where one of .* stride 2 x 8, "):
        build_crnn(Crnn, tmp_path / "fine.pt", CrnnConfig(gru=8))


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"crnn": {"gru": 0}}, "makes no network"),
        ({"crnn": {"gru": 16}}, "GRU 64 x 2 .* where one of .* GRU 16 x 2"),
        ({"crnn": {"width": 3}}, "expected some of attention, channels"),
        ({"crnn": {"kernel": 3}}, "no size of a CRNN"),
        ({"crnn": {"kernel": [5]}}, "two each for kernel and stride"),
        ({"crnn": "small"}, "expected some of attention, channels"),
    ],
)
def test_a_checkpoint_that_tells_a_wrong_size_is_refused(tmp_path, meta, said):
    saved(tmp_path / "odd.pt", meta=meta)
    with pytest.raises(SpeedproofError, match=said):
        build_crnn(Crnn, tmp_path / "odd.pt")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    save_checkpoint(tmp_path / "other.pt", {"state_dict": {"fc.weight": torch.zeros(2, 2)}, "meta": {}})
    with pytest.raises(SpeedproofError, match="does not fit Crnn"):
        build_crnn(Crnn, tmp_path / "other.pt")


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_described_and_finds_its_weights(name):
    workload = load_workload(name, TONES)
    assert (workload.name, workload.data_name, workload.size_unit) == (name, "synthetic_tones", "ms")
    assert workload.weights(1000).description == "random initialisation, seed 0 (no trained weights found)"
    assert not workload.weights(1000).own
    path = WEIGHTS_DIR / "kws" / "synthetic_tones_baseline.pt"
    saved(path, CrnnConfig(gru=8), {"crnn": {"gru": 8}})
    found = load_workload(name, TONES).weights(1000)
    assert (found.path, found.own) == (path, True)
    assert load_workload(name, TONES).build(1000, found.path).config.gru == 8
    shorter = load_workload(name, TONES).weights(500)
    if name == "kws_streaming":  # chunks, of the same clips
        assert shorter == found
    else:
        assert shorter == Weights(path, "synthetic_tones_baseline.pt, trained at 1000 ms", own=False)


def test_a_clip_shorter_than_the_network_is_refused():
    with pytest.raises(SpeedproofError, match=r"^--size 189: kws needs at least 190 ms$"):
        load_workload("kws", TONES).check_size(189)
    workload = load_workload("kws", TONES)
    assert workload.build(190, None)(*workload.example(190, 1, 0)).shape == (1, 2)


@pytest.mark.parametrize(("name", "shape"), [("kws", (40, 101)), ("kws_waveform", (16_000,))])
def test_examples_are_clips_for_even_seeds_and_noise_for_odd_ones(name, shape):
    workload = load_workload(name, TONES)
    clips = workload.data("test", 1000)
    real = torch.stack([clips[index][0] for index in range(len(clips))])
    for seed in range(4):
        (example,) = workload.example(1000, 2, seed)
        assert example.shape == (2, *shape)
        assert example.dtype == torch.float32
        assert torch.equal(example, workload.example(1000, 2, seed)[0])
        distance = min(float((clip - example[0]).abs().max()) for clip in real)
        assert (distance < 1e-4) == (seed % 2 == 0)
    assert not torch.equal(workload.example(1000, 2, 0)[0], workload.example(1000, 2, 2)[0])


@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_streaming_example_is_in_the_middle_of_a_stream(size, seed):
    workload = load_workload("kws_streaming", TONES)
    chunk, *state = workload.example(size, 2, seed)
    assert chunk.shape == (2, 16 * size)
    assert all(tensor.abs().max() > 0 for tensor in state)
    with torch.inference_mode():
        outputs = workload.build(size, None)(chunk, *state)
    assert outputs[0].shape == (2, 1)
    assert [(out.shape, out.dtype) for out in outputs[1:]] == [(tensor.shape, tensor.dtype) for tensor in state]


def test_a_streaming_workload_of_a_student_has_its_state(tmp_path):
    saved(tmp_path / "small.pt", CrnnConfig(gru=8), {"crnn": {"gru": 8}})
    workload = streaming_workload("student", TONES, Weights(tmp_path / "small.pt", "small", own=True))
    example = workload.example(100, 1, 0)
    with torch.inference_mode():
        probability, *_ = workload.build(100, workload.weights(100).path)(*example)
    assert 0 < float(probability) < 1


def test_data_are_the_clips_and_their_log_mels():
    clips, mels = (load_workload(name, TONES).data("validation", 500) for name in ("kws_waveform", "kws"))
    assert len(clips) == len(mels) == len(speech_split(TONES, "validation", 500))
    with torch.inference_mode():
        for index in (0, len(clips) - 1):
            assert mels[index][1] == clips[index][1]
            assert mels[index][0].numpy() == pytest.approx(LogMel()(clips[index][0][None])[0].numpy(), abs=1e-5)
    assert mels.features is mels.features
    assert load_workload("kws", TONES).data("validation", 500) is mels


@given(st.integers(1, 40), st.integers(1, 400), st.data())
@settings(max_examples=60)
def test_every_beginning_of_the_order_has_its_share_of_keywords(keywords, others, data):
    labels = np.array([1] * keywords + [0] * others)
    order = stratified(labels, None)
    assert sorted(order) == list(range(len(labels)))
    limit = data.draw(st.integers(1, len(labels)))
    assert list(stratified(labels, limit)) == list(order[:limit])
    share = keywords / len(labels)
    assert abs(labels[order[:limit]].sum() - share * limit) <= 1
    assert labels[order[0]] == 1


def counting(module, rows):
    def predict(inputs):
        rows.append(len(inputs[0]))
        with torch.inference_mode():
            outputs = module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return predict


def pairs_in_order(probabilities, labels):
    positive, negative = probabilities[labels == 1][:, None], probabilities[labels == 0]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())


@pytest.mark.parametrize(
    ("name", "size", "batch"), [("kws", 1000, 8), ("kws_waveform", 1000, 3), ("kws_streaming", 70, 5)]
)
def test_quality_is_that_of_the_clips(name, size, batch):
    workload = load_workload(name, TONES)
    clips = speech_split(TONES, "test", 1000)
    chosen = stratified(clips.labels, 31)
    with torch.inference_mode():
        spotter = build_crnn(Spotter, None)
        logits = torch.cat([spotter(clips[index][0][None]) for index in chosen]).double()
    probabilities, labels = logits.softmax(1)[:, 1].numpy(), clips.labels[chosen]
    rows: list[int] = []
    found = workload.quality(counting(workload.build(size, None), rows), "test", size, batch, 31)
    assert set(rows) == {batch}
    assert (found[0].name, found[0].examples, found[0].higher_is_better) == ("roc_auc", 31, True)
    # Rounding may swap the few pairs that are all but equal.
    assert found[0].value == pytest.approx(pairs_in_order(probabilities, labels), abs=0.02)
    assert 0.02 < found[0].value < 0.98


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_has_a_perfect_quality(name):
    workload = load_workload(name, TONES)
    clips = speech_split(TONES, "validation", 1000)
    order = stratified(clips.labels, None)
    asked = iter(order)

    def of_a_clip(inputs):
        label = float(clips.labels[next(asked)])
        return (torch.tensor([[1 - label, label]]),)

    def of_a_chunk(inputs):  # the label goes along as state from a clip's first chunk on
        _, clock, tail, *rest = inputs
        if clock[0] == 0:
            tail = torch.full_like(tail, float(clips.labels[next(asked)]))
        return (tail[:, :1], clock + 1, tail, *rest)

    predict = of_a_chunk if name == "kws_streaming" else of_a_clip

    found = workload.quality(predict, "validation", 1000, 1, None)
    assert (found[0].value, found[0].examples) == (1.0, len(clips))
