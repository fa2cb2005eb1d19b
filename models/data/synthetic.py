"""Made-up audio for a machine without any: tones that stand for words, and noise. All of it follows from seeds.

The word to spot is a tone that rises; the others are one that falls, one that rises and falls again, one that keeps its
pitch, and a burst of noise. Speakers differ in pitch, speed and overtones, clips in place, loudness and noise: the
faintest drown, so that no model is right about all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.data.audio import SAMPLE_RATE

KEYWORD = "rising"
WORDS = (KEYWORD, "falling", "bent", "steady", "burst")
SPEAKERS = 150
CLIPS = {KEYWORD: 3}  # a speaker says the keyword three times, any other word once
COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls with frequency to this power
NOISE_S = 60


def tone_files() -> tuple[str, ...]:
    """Names of the clips in the layout of Speech Commands: ``rising/synthetic_7_nohash_0``."""
    return tuple(
        f"{word}/synthetic_{speaker}_nohash_{clip}"
        for word in WORDS
        for speaker in range(SPEAKERS)
        for clip in range(CLIPS.get(word, 1))
    )


def tone(file: str) -> Tensor:
    """The clip of a name of `tone_files`: float32 (16000,) within -1..1, always the same."""
    word, name = file.split("/")
    speaker, clip = (int(part) for part in name.removeprefix("synthetic_").split("_nohash_"))
    voice = np.random.default_rng([0, speaker])
    pitch, rise, slowness, overtone = voice.uniform([300, 1.3, 0.25, 0.1], [900, 2.0, 0.5, 0.7])
    dice = np.random.default_rng([1, speaker, clip, WORDS.index(word)])
    length = round(slowness * dice.uniform(0.9, 1.1) * SAMPLE_RATE)
    share = np.arange(length) / length  # 0..1 over the word
    course = {KEYWORD: share, "falling": 1 - share, "bent": 1 - np.abs(2 * share - 1), "steady": 0.5}
    if word == "burst":
        sound = dice.standard_normal(length)
    else:
        frequency = np.broadcast_to(pitch * dice.uniform(0.95, 1.05) * rise ** course[word], length)  # Hz
        phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
        sound = np.sin(phase) + overtone * np.sin(2 * phase)
    sound *= np.sin(np.pi * share)  # fades in and out
    clean = np.zeros(SAMPLE_RATE)
    start = dice.integers(SAMPLE_RATE - length)
    clean[start : start + length] = sound / np.sqrt(np.mean(sound**2))
    loudness_db, ratio_db = dice.uniform([-35, -12], [-15, 12])  # of the noise, and of the word above it
    noisy = 10 ** (loudness_db / 20) * (dice.standard_normal(SAMPLE_RATE) + 10 ** (ratio_db / 20) * clean)
    return torch.from_numpy(noisy.clip(-1, 1).astype(np.float32))


def noise() -> Tensor:
    """White, pink and brown noise, a minute each: float32 (samples,), r.m.s. 0.1, nothing below 20 Hz."""
    dice = np.random.default_rng(2)
    frequency = np.fft.rfftfreq(NOISE_S * SAMPLE_RATE, 1 / SAMPLE_RATE)
    parts = []
    for power in COLOURS.values():
        spectrum = np.fft.rfft(dice.standard_normal(NOISE_S * SAMPLE_RATE))
        spectrum *= np.where(frequency < 20, 0, np.maximum(frequency, 20) ** -power)
        part = np.fft.irfft(spectrum)
        parts.append(0.1 * part / np.sqrt(np.mean(part**2)))
    return torch.from_numpy(np.concatenate(parts).clip(-1, 1).astype(np.float32))
