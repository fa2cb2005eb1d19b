"""Audio files: WAV or FLAC of the usual rates and depths, read as one channel at 16 kHz.

1. The file is decoded block by block (libsndfile, through ``soundfile``), so that many channels cost no more memory
   than one.
2. Channels are averaged.
3. Another rate than 16 kHz is resampled by a polyphase FIR filter (``scipy.signal.resample_poly``, Kaiser window).
   Above 16 kHz what lies over 8 kHz is filtered out; below it, down to 8 kHz, the upper half of the spectrum stays
   empty, which a model trained on full-band speech may mind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly
from torch import Tensor

from models.errors import SpeedproofError

SAMPLE_RATE = 16000  # Hz
SUFFIXES = {".wav", ".flac"}
FORMATS = {"WAV", "WAVEX", "RF64", "FLAC"}  # libsndfile's names
LOWEST_HZ, HIGHEST_HZ = 8_000, 384_000
LOUDEST = 2.0  # a float file may overshoot full scale, but one in units of 16-bit steps is a mistake
CANCELLED = 1e-3  # of the channels' peak, -60 dB: no recording's mean is so much quieter, but dither's is
BLOCK_VALUES = 1 << 20
_UNKNOWN_LENGTH = 2**63 - 1  # what libsndfile says of a FLAC whose header has no number of samples


def read_audio(path: Path) -> Tensor:
    """Samples of a WAV (8 to 32 bit, or float) or FLAC file: float32 (samples,), mono, 16 kHz, within -1..1.

    Stereo is averaged, other rates from 8 to 384 kHz are resampled, and what overshoots full scale is clipped. Raises
    SpeedproofError, in one sentence, for a file that is missing, empty, truncated, of another format or rate, that does
    not tell its length, or that holds NaN, infinity, values of another scale or channels that cancel each other out.
    """
    if path.is_dir():
        raise SpeedproofError(f"audio {path} is a folder: expected a WAV or FLAC file")
    if not path.exists():
        raise SpeedproofError(f"audio {path}: no such file; check the path")
    with _opened(path) as sound:
        mono, rate = _mono(path, sound), sound.samplerate
    if rate != SAMPLE_RATE:
        shared = math.gcd(rate, SAMPLE_RATE)
        mono = resample_poly(mono, SAMPLE_RATE // shared, rate // shared)
    return torch.from_numpy(np.clip(mono, -1, 1, out=mono))


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """A sound file of a format and rate that are understood; whatever goes wrong while it is open is a sentence."""
    try:
        with soundfile.SoundFile(path) as sound:
            if sound.format not in FORMATS:
                raise SpeedproofError(f"audio {path} is of format {sound.format}: convert it to WAV or FLAC")
            if not LOWEST_HZ <= sound.samplerate <= HIGHEST_HZ:
                raise SpeedproofError(
                    f"audio {path} has a sample rate of {sound.samplerate:,} Hz: "
                    f"expected {LOWEST_HZ:,} to {HIGHEST_HZ:,} Hz, best {SAMPLE_RATE:,}"
                )
            yield sound
    except SpeedproofError:
        raise
    except Exception as error:  # libsndfile and its wrapper say broken in many ways
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise SpeedproofError(f"audio {path} does not decode ({reason}): give a WAV or FLAC file") from error


def _mono(path: Path, sound: soundfile.SoundFile) -> np.ndarray:
    """All samples as float32 (frames,), the mean over channels."""
    if sound.frames == _UNKNOWN_LENGTH:  # libsndfile fails at the end of such a file, and truncation would not show
        raise SpeedproofError(
            f"audio {path} does not tell how long it is, as a FLAC that was streamed: convert it to WAV, or encode it "
            f"again into a file"
        )
    mono = np.empty(sound.frames, np.float32)
    have, loudest = 0, 0.0
    while len(block := sound.read(BLOCK_VALUES // sound.channels, dtype="float32", always_2d=True)):  # (frames, C)
        peak = np.abs(block).max()
        if not np.isfinite(peak):
            raise SpeedproofError(f"audio {path} holds NaN or infinite samples: write it again from clean ones")
        if peak > LOUDEST:
            raise SpeedproofError(f"audio {path} holds samples of up to {peak:.4g}: scale them to -1..1")
        loudest = max(loudest, float(peak))
        mono[have : have + len(block)] = block.mean(1)
        have += len(block)
    if have < sound.frames:
        raise SpeedproofError(
            f"audio {path} is truncated: {have:,} of {sound.frames:,} samples are there; fetch or record it again"
        )
    if not have:
        raise SpeedproofError(f"audio {path} holds no samples: remove it or record it again")
    if sound.channels > 1 and max(mono.max(), -mono.min()) < CANCELLED * loudest:
        raise SpeedproofError(
            f"audio {path} has {sound.channels} channels that cancel each other out: give one of them as a mono file"
        )
    return mono
