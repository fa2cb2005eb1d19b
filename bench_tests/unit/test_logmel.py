"""The log-mel front end against its definition in float64, and what it does to silence, full scale and gain."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.audio import read_audio
from models.data.speech import speech_root
from models.data.splits import split_files
from models.errors import SpeedproofError
from models.logmel import FLOOR, LogMel, mel_filters
from models.workload import DataChoice
from optim.backends import load_backend
from optim.backends.base import Target

LOG_MEL = LogMel().eval()
TOLERANCE = 1e-4


def mel(hertz):
    return 1127.0 * math.log1p(hertz / 700)


def triangle(bin, index, mels=40):
    """Weight of a bin in one filter, straight from the picture of it."""
    low, centre, high = (700 * math.expm1(mel(8000) * (index + offset) / (mels + 1) / 1127) for offset in (0, 1, 2))
    hertz = 40.0 * bin
    if not low < hertz < high:
        return 0.0
    return (hertz - low) / (centre - low) if hertz <= centre else (high - hertz) / (high - centre)


FILTERS = np.array([[triangle(bin, index) for index in range(40)] for bin in range(201)])


def mel_power(clip):
    """Float64 (40, T), by numpy's FFT."""
    clip = np.asarray(clip, np.float64)
    hann = np.hanning(401)[:-1]  # periodic
    padded = np.concatenate([clip[200:0:-1], clip, clip[-2:-202:-1]])
    frames = [padded[start : start + 400] * hann for start in range(0, 160 * (len(clip) // 160) + 1, 160)]
    return (np.abs(np.fft.rfft(frames)) ** 2 @ FILTERS).T


def reference(clip):
    return np.log(mel_power(clip).clip(1e-9, 1e9))


def ours(clip):
    with torch.inference_mode():
        return LOG_MEL(torch.as_tensor(np.asarray(clip), dtype=torch.float32)[None])[0].numpy()


def assert_as_defined(found, clip):
    """Within 1e-4 in each band that is at most 60 dB below the loudest one of its frame.

    Quieter ones carry the rounding errors of the loud ones, as with torch.stft: 3e-7 of the loudest amplitude.
    """
    power = mel_power(clip)
    loudest = power.max(0)
    audible = power > 1e-6 * loudest
    assert found[audible] == pytest.approx(reference(clip)[audible], abs=TOLERANCE)
    amplitude = np.sqrt(power.clip(1e-9, 1e9))
    assert (
        np.abs(np.exp(found.astype(np.float64) / 2) - amplitude) <= 3e-7 * np.sqrt(loudest) + 1e-5 * amplitude
    ).all()


def noise(samples, seed=0, scale=0.1):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * np.float32(scale)


def test_filters_are_those_of_the_definition():
    assert mel_filters(40) == pytest.approx(FILTERS, abs=1e-9)
    assert (mel_filters(40).sum(0) > 0).all()


@settings(max_examples=40)
@given(st.integers(201, 20_000), st.integers(0, 99), st.sampled_from([1e-3, 0.03, 0.3, 1.0]))
def test_noise_of_any_length_and_level_is_as_defined(samples, seed, scale):
    clip = noise(samples, seed, scale)
    assert ours(clip).shape == (40, 1 + samples // 160)
    assert ours(clip) == pytest.approx(reference(clip), abs=TOLERANCE)


def test_real_clips_are_as_defined():
    root = speech_root(DataChoice())
    if root is None:
        pytest.skip("no Speech Commands on this machine")
    files = split_files(root)["validation"]
    for file in files[:: max(1, len(files) // 50)]:
        clip = read_audio(root / file).numpy()
        assert_as_defined(ours(clip), clip)


def test_silence_is_the_floor():
    assert (ours(np.zeros(16_000)) == np.float32(math.log(FLOOR))).all()


@pytest.mark.parametrize("hertz", [0, 50, 440, 1000, 3999, 8000])
def test_a_tone_at_full_scale_is_as_defined(hertz):
    tone = np.cos(2 * np.pi * hertz / 16_000 * np.arange(16_000)).astype(np.float32)
    assert_as_defined(ours(tone), tone)


def test_clipping_at_full_scale_is_as_defined():
    clip = np.clip(noise(16_000, 3, 3.0), -1, 1)
    assert np.abs(clip).mean() > 0.7
    assert ours(clip) == pytest.approx(reference(clip), abs=TOLERANCE)


@given(st.floats(0.05, 20), st.integers(0, 9))
@settings(max_examples=20)
def test_gain_adds_a_constant_where_nothing_is_clamped(gain, seed):
    clip = noise(8_000, seed, 0.05)
    assert mel_power(clip).min() * gain**2 > FLOOR
    assert ours(clip * gain) - ours(clip) == pytest.approx(2 * math.log(gain), abs=TOLERANCE)


@given(st.integers(1, 5), st.integers(0, 9))
@settings(max_examples=10)
def test_a_clip_is_the_same_in_any_batch(batch, seed):
    clips = torch.stack([torch.from_numpy(noise(4_000, seed + row, 0.1 + row)) for row in range(batch)])
    with torch.inference_mode():
        together = LOG_MEL(clips)
    for row in range(batch):
        assert together[row].numpy() == pytest.approx(ours(clips[row]), abs=1e-5)


@pytest.mark.parametrize("samples", [0, 1, 200])
def test_too_short_a_clip_is_refused(samples):
    with pytest.raises(
        SpeedproofError, match=rf"^a waveform of {samples} samples is too short .* at least 201 samples"
    ):
        LOG_MEL(torch.zeros(1, samples))


def test_it_has_no_state_and_converts_to_float64():
    assert not LOG_MEL.state_dict()
    clip = noise(3_000)
    wide = LogMel().double()(torch.from_numpy(clip).double()[None])[0].numpy()
    assert wide == pytest.approx(reference(clip), abs=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_of_it_gives_the_same(backend):
    runner = load_backend(backend)
    if reason := runner.missing("fp32", Target()):
        pytest.skip(reason)
    clips = torch.stack([torch.from_numpy(noise(5_000, row)) for row in range(3)])
    (found,) = runner.compile(LOG_MEL, (clips,), "fp32", Target())(clips)
    for row in range(3):
        assert found[row].numpy() == pytest.approx(reference(clips[row]), abs=TOLERANCE)
