"""Students of the keyword spotter: their names, and the convolutional network against its equations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.cnn import CENTRE, Cnn, CnnConfig
from models.crnn import Crnn
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
    "name", ["kws_", "kws_tiny", "kws_cnn_gru16", "kws_gru", "kws_gru5x5", "kws_kernel5", "kws_cnn_x"]
)
def test_what_names_no_sizes_is_no_student(name):
    assert not known_workload(name)
    with pytest.raises(SpeedproofError, match=f"unknown workload '{name}'"):
        load_workload(name, TONES)


@pytest.mark.parametrize("name", ["kws_gru0", "kws_cnn_hidden0", "kws_cnn_kernel41x5"])
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
    with pytest.raises(SpeedproofError, match=r"parts\.weight"):
        load_workload("kws_cnn", TONES).build(1000, found.path)
