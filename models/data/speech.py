"""Speech Commands: one-second clips of single words, of which one word is to be spotted.

The layout is the official one, ``<root>/<word>/<speaker>_nohash_<n>.wav`` or ``.flac`` (Warden 2018, arXiv:1804.03209).

1. Clips are split by speaker (`models.data.splits`).
2. All clips of a split are decoded once a process and kept as 16-bit integers; silence is added, or audio cropped, at
   both ends alike to make them equally long.
3. Clips of the keyword are class 1, of every other word class 0.

Where no data set is on the machine, made-up clips (`models.data.synthetic`) take its place, under a name of their own.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from models.data import synthetic
from models.data.audio import SAMPLE_RATE, SUFFIXES, read_audio
from models.data.fetch import data_root
from models.data.splits import own_split, speaker_of, split_files, word_of
from models.errors import SpeedproofError
from models.workload import DataChoice, in_a_name

FOLDERS = ("speech_commands_v0.01", "speech_commands_v0.02")
NOISE_FOLDER = "_background_noise_"
COURSE_KEYWORD = "sheila"
FEWEST_CLIPS = 100  # with fewer of the keyword neither training nor a figure is worth anything
SYNTHETIC = "synthetic_tones"
# SHA-256 of the names of the clips of record: 8,558 FLAC files, a part of version 0.01 with all of its 30 words.
_RECORD = "e87dc463f2bf6e1d998047200179ca3b9c6ae4a7736497ff55b5d83115c2f100"


@dataclass(frozen=True, eq=False)
class Clips(Dataset[tuple[Tensor, int]]):
    """One split: ``waveforms`` int16 (N, samples) at 16 kHz, to be read only; ``labels`` int64 (N,), 1 is the keyword.

    ``speakers``, ``words`` and ``files`` (relative to ``root``, the data set's folder, None for made-up clips) have one
    entry a clip.
    """

    waveforms: Tensor
    labels: np.ndarray
    speakers: tuple[str, ...]
    words: tuple[str, ...]
    files: tuple[str, ...]
    keyword: str
    root: Path | None = None

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the waveform, float32 (samples,) within -1..1, and its label."""
        return self.waveforms[index].float() / 2**15, int(self.labels[index])

    def background(self) -> Tensor:
        """Return the data set's noise, as `background`."""
        return _background(self.root)


def speech_split(choice: DataChoice, split: str, size: int) -> Clips:
    """The clips of ``train``, ``validation`` or ``test``, each ``size`` milliseconds long.

    Raises SpeedproofError where the data set, or enough clips of the keyword, are not there, or a clip does not decode.
    """
    root = speech_root(choice)
    keyword = _keyword(choice, root)
    files = split_files(root)[split]
    words = tuple(word_of(file) for file in files)
    if keyword not in words or set(words) == {keyword}:
        raise SpeedproofError(
            f"{words.count(keyword)} of the {len(words)} clips in the {split} split of {root} say {keyword!r}, "
            f"expected some of it and some of other words: choose another keyword, or add clips of more speakers"
        )
    return Clips(
        waveforms=_waveforms(root, split, size * SAMPLE_RATE // 1000),
        labels=np.asarray([word == keyword for word in words], np.int64),
        speakers=tuple(speaker_of(file) for file in files),
        words=words,
        files=files,
        keyword=keyword,
        root=root,
    )


def background(choice: DataChoice) -> Tensor:
    """Noise without speech, float32 (samples,) within -1..1: the data set's own, else white, pink and brown noise."""
    return _background(speech_root(choice))


def data_name(choice: DataChoice) -> str:
    """``speech_<keyword>`` for the data of record, in the usual place of version 0.01, or ``synthetic_tones``.

    Another place adds its folder's name, other clips in the usual one a hash of their names, and a split that is not
    the data set's own a hash of it: figures and weights of different clips never share a name. Raises SpeedproofError
    where the data set that was asked for, or enough clips of the keyword, are not there.
    """
    root = speech_root(choice)
    if root is None:
        return SYNTHETIC
    usual = root.resolve() == (data_root() / FOLDERS[0]).resolve()
    clips = own_split(root) or (_own_clips(root) if usual else "")  # a split's hash is of all its clips
    parts = ("speech", _keyword(choice, root), "" if usual else in_a_name(root), clips)
    return "_".join(part for part in parts if part)


@cache
def _own_clips(root: Path) -> str:
    """``clips_`` and a short hash of the clips' names where they are not those of record, else nothing."""
    names = sorted(file for files in split_files(root).values() for file in files)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return "" if digest == _RECORD else f"clips_{digest[:8]}"


def speech_root(choice: DataChoice) -> Path | None:
    """The data set's folder; None where the machine has none, or ``synthetic_tones`` is the name that was chosen.

    Raises SpeedproofError where a folder, or a keyword of real speech, was asked for and is not there.
    """
    if choice.name == SYNTHETIC:
        return None
    if choice.directory is not None:
        if not choice.directory.is_dir():
            raise SpeedproofError(f"--data-dir {choice.directory}: no such folder; expected one of Speech Commands")
        return choice.directory
    for root in (data_root() / folder for folder in FOLDERS):
        if root.is_dir():
            return root
    if choice.keyword:
        raise no_speech(f"--keyword {choice.keyword!r}: ")
    return None


def no_speech(what: str = "") -> SpeedproofError:
    """Return the error that tells how to get the data set."""
    return SpeedproofError(
        f"{what}no Speech Commands at {data_root() / FOLDERS[0]}: fetch them with `python -m models.data fetch "
        f"speech`, or set SPEEDPROOF_DATA to the folder that holds your copy"
    )


def _keyword(choice: DataChoice, root: Path | None) -> str:
    """The word to spot. Raises SpeedproofError where there are too few clips of it."""
    if root is None:
        return synthetic.KEYWORD
    keyword = choice.keyword or COURSE_KEYWORD
    counts = _word_counts(root)
    if counts[keyword] >= FEWEST_CLIPS:
        return keyword
    if keyword in counts:
        said = f"{root} holds {counts[keyword]} of the at least {FEWEST_CLIPS} clips that are needed"
    else:
        near = get_close_matches(keyword.lower(), counts, 1)
        said = f"no such word in {root}" + (f" (the closest is {near[0]!r})" if near else "")
    most = ", ".join(f"{word} ({number:,})" for word, number in counts.most_common(3))
    raise SpeedproofError(f"--keyword {keyword!r}: {said}; choose another, most clips are of {most}")


@cache
def _word_counts(root: Path) -> Counter[str]:
    return Counter(word_of(file) for files in split_files(root).values() for file in files)


@lru_cache(maxsize=6)  # three splits at two lengths
def _waveforms(root: Path | None, split: str, samples: int) -> Tensor:
    """All clips of a split, decoded on all cores: int16 (N, samples)."""
    files = split_files(root)[split]
    with torch.inference_mode(False):  # whoever asks first: the clips are kept, and written to by other threads
        waveforms = torch.zeros(len(files), samples, dtype=torch.int16)

    def decode(index: int) -> None:
        clip = synthetic.tone(files[index]) if root is None else read_audio(root / files[index])
        steps = (clip * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)
        if len(steps) > samples:
            cut = (len(steps) - samples) // 2
            waveforms[index] = steps[cut : cut + samples]
        else:
            silence = (samples - len(steps)) // 2
            waveforms[index, silence : silence + len(steps)] = steps

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(tqdm(pool.map(decode, range(len(files))), f"decoding {split}", len(files), unit="clip", disable=None))
    return waveforms


@cache
def _background(root: Path | None) -> Tensor:
    files: list[Path] = []
    if root is not None and (root / NOISE_FOLDER).is_dir():
        files = sorted(path for path in (root / NOISE_FOLDER).iterdir() if path.suffix.lower() in SUFFIXES)
    return torch.cat([read_audio(path) for path in files]) if files else synthetic.noise()
