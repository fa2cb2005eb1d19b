"""Reading audio files: what comes out of every usual format and rate, and what is refused with which sentence."""

import random
import struct
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data.audio import SAMPLE_RATE, read_audio
from models.errors import SpeedproofError


def sine(rate: int, frequency: float = 1000.0, amplitude: float = 0.5, seconds: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def written(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def amplitude_of(waveform: torch.Tensor, frequency: float) -> float:
    """The amplitude of a sine in the middle of a waveform, by least squares."""
    middle = waveform.double().numpy()[1000:-1000]
    angle = 2 * np.pi * frequency * np.arange(len(middle)) / SAMPLE_RATE
    basis = np.stack([np.sin(angle), np.cos(angle)], 1)
    return float(np.hypot(*np.linalg.lstsq(basis, middle, rcond=None)[0]))


def refused(path: Path) -> str:
    with pytest.raises(SpeedproofError) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"audio {path}")
    return str(caught.value).removeprefix(f"audio {path}")


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=300), st.sampled_from(["wav", "flac"]))
def test_16_bit_samples_come_out_exactly(tmp_path, steps, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "wav":  # by the standard library, not by the one that reads it
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(struct.pack(f"<{len(steps)}h", *steps))
    else:
        written(path, np.asarray(steps, np.int16))
    waveform = read_audio(path)
    assert (waveform.dtype, waveform.shape) == (torch.float32, (len(steps),))
    assert (waveform * 2**15).tolist() == steps


@pytest.mark.parametrize(
    ("subtype", "suffix", "error"),
    [
        ("PCM_U8", "wav", 2**-7), ("PCM_16", "wav", 2**-15), ("PCM_24", "wav", 2**-23), ("PCM_32", "wav", 2**-23),
        ("FLOAT", "wav", 2**-24), ("DOUBLE", "wav", 2**-24), ("PCM_S8", "flac", 2**-7), ("PCM_24", "flac", 2**-23),
    ],
)  # fmt: skip
def test_every_depth_is_read_within_its_own_step(tmp_path, subtype, suffix, error):
    samples = sine(SAMPLE_RATE)
    waveform = read_audio(written(tmp_path / f"a.{suffix}", samples, subtype=subtype))
    assert waveform.dtype == torch.float32
    assert np.abs(waveform.double().numpy() - samples).max() <= error


def test_stereo_is_averaged(tmp_path):
    left, right = sine(SAMPLE_RATE, 500), sine(SAMPLE_RATE, 700, 0.3)
    waveform = read_audio(written(tmp_path / "a.wav", np.stack([left, right], 1)))
    assert np.abs(waveform.numpy() - (left + right) / 2).max() < 2**-14


def test_channels_that_cancel_out_are_refused(tmp_path):
    left = sine(SAMPLE_RATE)
    dither = np.random.default_rng(0).uniform(-(2**-16), 2**-16, left.shape)
    for right in (-left, -left + dither):
        said = refused(written(tmp_path / "a.wav", np.stack([left, right], 1)))
        assert said == " has 2 channels that cancel each other out: give one of them as a mono file"
    for right in (np.zeros_like(left), -0.99 * left):
        assert read_audio(written(tmp_path / "a.wav", np.stack([left, right], 1))).abs().max() > 0.002
    assert not read_audio(written(tmp_path / "a.wav", np.zeros((100, 2)))).any()  # silence is audio


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_another_rate_keeps_length_frequency_and_amplitude(tmp_path, rate):
    waveform = read_audio(written(tmp_path / "a.wav", sine(rate), rate))
    assert len(waveform) == SAMPLE_RATE // 2
    assert amplitude_of(waveform, 1000) == pytest.approx(0.5, rel=0.01)
    spectrum = np.abs(np.fft.rfft(waveform.numpy() * np.hanning(len(waveform))))
    assert np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)[spectrum.argmax()] == pytest.approx(1000, abs=2)


@pytest.mark.parametrize(("rate", "frequency"), [(44100, 10_000), (48000, 15_000), (44100, 20_000)])
def test_what_16_khz_cannot_hold_is_filtered_out_instead_of_folded(tmp_path, rate, frequency):
    waveform = read_audio(written(tmp_path / "a.wav", sine(rate, frequency), rate))
    assert waveform[1000:-1000].abs().max() < 0.5 / 100


def test_one_sample_is_audio(tmp_path):
    for rate in (SAMPLE_RATE, 8000, 44100):
        waveform = read_audio(written(tmp_path / "a.wav", np.asarray([0.25]), rate))
        assert len(waveform) == (2 if rate == 8000 else 1)
        # An impulse loses what lies above the new band.
        assert waveform[0] == pytest.approx(0.25 * min(1, SAMPLE_RATE / rate), rel=0.05)


def test_full_scale_is_not_exceeded(tmp_path):
    square = np.sign(sine(44100, 440))
    waveform = read_audio(written(tmp_path / "a.wav", 1.5 * square, 44100, "FLOAT"))
    assert waveform.abs().max() == 1.0


def test_an_hour_of_stereo_needs_memory_for_one_channel_of_it(tmp_path):
    seconds = 3600
    block = np.zeros((SAMPLE_RATE * 60, 2), np.int16)
    block[7] = 2**14
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", SAMPLE_RATE, 2) as file:
        for _ in range(seconds // 60):
            file.write(block)
    tracemalloc.start()
    waveform = read_audio(tmp_path / "hour.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (tmp_path / "hour.wav").unlink()  # pytest keeps the folder
    assert len(waveform) == seconds * SAMPLE_RATE
    assert waveform.nonzero().squeeze(1).tolist() == [minute * 60 * SAMPLE_RATE + 7 for minute in range(60)]
    assert peak < 1.1 * 4 * len(waveform)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path, value):
    samples = sine(SAMPLE_RATE)
    samples[100] = value
    stereo = np.stack([samples, sine(SAMPLE_RATE)], 1)
    for content in (samples, stereo):
        assert "holds NaN or infinite samples" in refused(written(tmp_path / "a.wav", content, subtype="FLOAT"))


def test_floats_in_units_of_16_bit_steps_are_refused(tmp_path):
    path = written(tmp_path / "a.wav", 30_000 * sine(SAMPLE_RATE), subtype="FLOAT")
    assert refused(path) == " holds samples of up to 1.5e+04: scale them to -1..1"


@pytest.mark.parametrize("rate", [1, 7999, 384_001, 2**31 - 1])
def test_a_rate_that_is_no_audio_is_refused(tmp_path, rate):
    path = written(tmp_path / "a.wav", np.zeros(16))
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    assert f"has a sample rate of {rate:,} Hz: expected 8,000 to 384,000 Hz" in refused(path)


def test_files_that_are_no_audio_are_named(tmp_path):
    assert refused(tmp_path / "none.wav") == ": no such file; check the path"
    assert refused(tmp_path) == " is a folder: expected a WAV or FLAC file"
    for name, content in {"empty.wav": b"", "text.wav": b"this is no sound\n" * 9, "text.raw": b"ab", "a": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert "does not decode (" in refused(tmp_path / name)
    assert "holds no samples" in refused(written(tmp_path / "nothing.wav", np.zeros(0)))
    assert " is of format AIFF: convert it" in refused(written(tmp_path / "a.aiff", np.zeros(9)))


def test_a_flac_that_does_not_tell_its_length_is_refused(tmp_path):
    """As an encoder writes it that cannot go back to the header: the 36 bits of the number of samples are zero."""
    path = written(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 40_000))
    content = bytearray(path.read_bytes())
    assert int.from_bytes(content[18:26], "big") % 2**36 == 40_000
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert " does not tell how long it is" in refused(path)


def test_a_truncated_flac_is_no_shorter_clip(tmp_path):
    path = written(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 40_000))
    path.write_bytes(path.read_bytes()[:30_000])
    said = refused(path)
    assert "is truncated" in said or "does not decode" in said


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from(["a.wav", "a.flac"]), st.booleans())
def test_damaged_bytes_give_audio_or_one_sentence(tmp_path, seed, name, cut):
    dice, path = random.Random(seed), tmp_path / name
    content = bytearray(written(path, sine(SAMPLE_RATE)).read_bytes())
    if cut:
        content = content[: dice.randrange(len(content))]
    else:
        for _ in range(6):
            content[dice.randrange(min(len(content), 200))] = dice.randrange(256)
    path.write_bytes(content)
    try:
        waveform = read_audio(path)
    except SpeedproofError as error:
        said = str(error)
    else:
        said = f"audio {path}" if len(waveform) and waveform.isfinite().all() else "a wrong answer"
    assert said.startswith(f"audio {path}")
    assert "\n" not in said
