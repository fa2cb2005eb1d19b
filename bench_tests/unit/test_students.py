"""Students of the keyword spotter: their names, and the convolutional network against its equations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.cnn import CENTRE, Cnn, CnnConfig
from models.crnn import Crnn, CrnnConfig
from models.errors import SpeedproofError
from models.weights import save_checkpoint
from models.workload import DataChoice, known_workload, load_workload

TONES = DataChoice("synthetic_tones")


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("kws_channels4_gru16", Crnn, 6_679), ("kws_cnn", Cnn, 1_670), ("kws_cnn_hidden20", Cnn, 2_046),
        ("kws_cnn_channels3_kernel5x20_stride3x8_hidden12", Cnn, 2_516),
    ],
)  # fmt: skip
def test_a_students_name_is_its_sizes(name, kind, count):
    workload = load_workload(name, TONES)
    model = workload.build(1000, None)
    assert (workload.name, type(model), parameters(model)) == (name, kind, count)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), workload.build(1000, None).parameters(), strict=True)
    )
    with torch.inference_mode():
        assert model(*workload.example(1000, 3, 1)).shape == (3, 2)


@pytest.mark.parametrize(
    "name",
    [
        "kws_", "kws_tiny", "kws_cnn_gru16", "kws_gru", "kws_gru5x5", "kws_kernel5", "kws_cnn_x", "kws_chanels4",
        "kws_mels20", "kws_classes3", "kws_cnn_mels20", "kws_streaming_", "kws_streaming_mels20", "kws_waveform_gru16",
        "kws_channels4_channels8", "kws_cnn_hidden20_hidden20", "kws_streaming_gru16_gru8",
    ],
)  # fmt: skip
def test_what_names_no_sizes_is_no_student(name):
    assert not known_workload(name)
    with pytest.raises(SpeedproofError, match=f"unknown workload '{name}': .* a student such as kws_channels4_gru16 "):
        load_workload(name, TONES)


@pytest.mark.parametrize(
    "name", ["kws_gru0", "kws_gru99999999", "kws_streaming_gru0", "kws_cnn_hidden0", "kws_cnn_hidden99999999",
             "kws_cnn_kernel41x5"]
)  # fmt: skip
def test_impossible_sizes_are_one_sentence(name):
    with pytest.raises(SpeedproofError, match="makes no network"):
        load_workload(name, TONES)


@given(st.integers(0, 2**32), st.integers(30, 120))
def test_logits_are_those_of_the_equations(seed, frames):
    """In float64 numpy, window by window; batch norm in eval mode is an affine map of each channel."""
    model = Cnn(CnnConfig(channels=2, hidden=3)).double().eval()
    logmel = noise(seed, 1, 40, frames).double() * 3 + CENTRE
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    x = logmel[0].numpy() - CENTRE
    steps = (frames - 10) // 5 + 1
    maps = np.array(
        [
            [[(x[4 * b : 4 * b + 8, 5 * t : 5 * t + 10] * state["conv.weight"][c, 0]).sum() for t in range(steps)]
             for b in range(9)]
            for c in range(2)
        ]
    )  # fmt: skip
    maps = np.maximum(maps / np.sqrt(1 + 1e-5), 0).reshape(18, steps)
    parts = np.array(
        [[(maps[:, t : t + 5] * state["parts.weight"][h]).sum() for t in range(steps - 4)] for h in range(3)]
    )
    pooled = np.maximum(parts / np.sqrt(1 + 1e-5), 0).max(1)
    expected = state["classify.weight"] @ pooled + state["classify.bias"]
    with torch.inference_mode():
        assert np.allclose(model(logmel)[0].numpy(), expected)


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_rows_of_a_batch_do_not_know_each_other(seed, batch):
    model, logmel = Cnn().eval(), noise(seed, batch, 40, 101)
    with torch.inference_mode():
        assert torch.allclose(model(logmel), torch.cat([model(row[None]) for row in logmel]), atol=1e-5)


def test_a_clip_too_short_is_refused():
    with pytest.raises(SpeedproofError, match="29 frames are too few, expected at least 30"):
        Cnn()(torch.zeros(1, 40, 29))


@pytest.mark.parametrize("make", [Cnn, Crnn])
@pytest.mark.parametrize("shape", [(1, 16_000), (40, 101), (1, 80, 101), (1, 1, 40, 101)])
def test_what_is_no_log_mel_is_one_sentence(make, shape):
    with pytest.raises(SpeedproofError) as caught:
        make()(torch.zeros(shape))
    assert str(caught.value) == (
        f"an input of shape {shape} does not fit: expected log-mels (batch, 40, frames), which models.logmel.LogMel "
        f"makes of waveforms"
    )


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("kws_gru16", 190), ("kws_kernel5x30", 290), ("kws_cnn_hidden20", 290), ("kws_cnn_kernel8x20_span3", 290),
        ("kws_kernel5x2", 13), ("kws_cnn_kernel8x1_span1", 13),  # 201 samples, which the front end needs
    ],
)  # fmt: skip
def test_the_smallest_size_is_the_shortest_clip_that_a_student_takes(name, smallest):
    workload = load_workload(name, TONES)
    assert workload.smallest_size == smallest
    assert workload.build(smallest, None)(*workload.example(smallest, 1, 1)).shape == (1, 2)
    with pytest.raises(SpeedproofError, match=r"too (few|short)"):
        workload.build(smallest, None)(*workload.example(smallest - 1, 1, 1))


def test_a_student_finds_its_weights_and_refuses_anothers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = Cnn(CnnConfig(hidden=20))
    save_checkpoint(
        tmp_path / "weights/kws/synthetic_tones_cnn_hidden20.pt", {"state_dict": trained.state_dict(), "meta": {}}
    )
    workload = load_workload("kws_cnn_hidden20", TONES)
    found = workload.weights(1000)
    assert found.own
    own = workload.build(1000, found.path)
    assert torch.equal(own.classify.weight, trained.classify.weight)
    assert workload.weights(500) == replace(
        found, description="synthetic_tones_cnn_hidden20.pt, trained at 1000 ms", own=False
    )
    with pytest.raises(SpeedproofError) as caught:
        load_workload("kws_cnn_hidden16", TONES).build(1000, found.path)
    assert "holds a CNN of 2 channels, kernel 8 x 10, 9 bands, hidden 20, span 5 where one of" in str(caught.value)
    assert "2 channels, kernel 8 x 10, 9 bands, hidden 16, span 5 was expected" in str(caught.value)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    workload = load_workload("kws_cnn_hidden20", TONES)
    no_channels = {"conv.weight": torch.zeros(0, 1, 8, 10), "parts.weight": torch.zeros(20, 0, 5)}
    for state in (Crnn().state_dict(), no_channels):
        save_checkpoint(tmp_path / "other.pt", {"state_dict": state, "meta": {}})
        with pytest.raises(SpeedproofError, match="does not fit Cnn"):
            workload.build(1000, tmp_path / "other.pt")


@pytest.mark.parametrize("name", ["kws_gru16", "kws_streaming_gru16"])
def test_a_students_name_is_the_size_of_its_weights(tmp_path, name):
    workload = load_workload(name, TONES)
    for gru in (16, 64):  # the first as a bare state dict, which tells nothing of its size
        save_checkpoint(tmp_path / f"gru{gru}.pt", {"state_dict": Crnn(CrnnConfig(gru=gru)).state_dict(), "meta": {}})
    assert workload.build(1000, tmp_path / "gru16.pt").config == CrnnConfig(gru=16)
    with pytest.raises(SpeedproofError, match=r"gru64\.pt holds a CRNN of .* GRU 64 x 2 .* where one of .* GRU 16 x 2"):
        workload.build(1000, tmp_path / "gru64.pt")


@pytest.mark.parametrize("sizes", ["channels4_gru16", "gru8_stride2x4", "gru8_kernel5x30_layers1"])
def test_a_student_on_a_stream_has_its_own_weights_and_judges_a_clip_as_offline(tmp_path, monkeypatch, sizes):
    monkeypatch.chdir(tmp_path)
    offline = load_workload(f"kws_{sizes}", TONES)
    model = offline.build(1000, None)
    with torch.no_grad():
        model.classify.weight.mul_(20)  # random weights hardly tell one clip from another
    path = tmp_path / "weights" / "kws" / f"synthetic_tones_{sizes}.pt"
    save_checkpoint(path, {"state_dict": model.state_dict(), "meta": {}})

    workload = load_workload(f"kws_streaming_{sizes}", TONES)
    found = workload.weights(100)
    assert (workload.name, found.own, found.path.resolve()) == (f"kws_streaming_{sizes}", True, path)
    streaming = workload.build(100, found.path)
    assert streaming.config == model.config
    with torch.inference_mode():
        assert streaming(*workload.example(100, 2, 1))[0].shape == (2, 1)

    def of_a_chunk(inputs):
        with torch.inference_mode():
            return streaming(*inputs)

    def of_a_clip(inputs):
        with torch.inference_mode():
            return (model(*inputs),)

    streamed = workload.quality(of_a_chunk, "test", 500, 12, 24)[0]
    whole = offline.quality(of_a_clip, "test", 1000, 12, 24)[0]
    assert streamed.outcomes == pytest.approx(whole.outcomes, abs=1e-4)
    assert np.std(whole.outcomes) > 0.01


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kws_streaming_cnn_hidden20", "a convolutional student does not run on a stream"),
        ("kws_streaming_kernel5x8", "longer than its stride and within a second, not of 8 frames"),
        ("kws_streaming_kernel5x102", "longer than its stride and within a second, not of 102 frames"),
    ],
)
def test_what_cannot_stream_is_one_sentence(name, said):
    with pytest.raises(SpeedproofError, match=said):
        load_workload(name, TONES)
