"""Which clips of Speech Commands there are, and which of them are for training, validation and test.

A clip belongs to the split of its speaker, so that no voice is heard in training and judged in the test.

1. The data set's own rule decides, from the speaker's name alone: a hash of it puts about 10 % of all speakers into
   validation and 10 % into the test (``which_set`` in its README, and in tensorflow/examples/speech_commands/
   input_data.py; its ``validation_list.txt`` and ``testing_list.txt`` are made so).
2. A file ``split.json`` in the data set's folder, lists of files by split, takes the rule's place. What
   ``python -m models.data split speech`` writes can be kept, changed and put there. A clip that it does not name
   belongs to no split.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tabulate import tabulate

from models.data import synthetic
from models.data.audio import SUFFIXES
from models.errors import SpeedproofError

SPLITS = ("train", "validation", "test")
SPLIT_FILE = "split.json"
HASH_RANGE = 2**27  # the data set's own constant: MAX_NUM_WAVS_PER_CLASS + 1

Split = Mapping[str, tuple[str, ...]]


def which_split(speaker: str) -> str:
    """The split of a speaker by the data set's own rule."""
    percentage = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % HASH_RANGE * (100 / (HASH_RANGE - 1))
    if percentage < 10:
        return "validation"
    return "test" if percentage < 20 else "train"


def word_of(file: str) -> str:
    """The word that is said in a clip ``word/name``."""
    return file.split("/")[0]


def speaker_of(file: str) -> str:
    """The part of a clip's name before ``_nohash_``; a name without it is a speaker of its own."""
    return Path(file).stem.split("_nohash_")[0]


@cache
def split_files(root: Path | None) -> Split:
    """The clips of each split as ``word/name``, sorted; those of the made-up data set where ``root`` is None.

    Raises SpeedproofError where there are none, and for a ``split.json`` that names missing clips, or a clip twice, or
    puts a speaker into two splits.
    """
    files = synthetic.tone_files() if root is None else _listing(root)
    if root is not None and (root / SPLIT_FILE).is_file():
        return _read(root / SPLIT_FILE, frozenset(files))
    return _by_rule(files)


def own_split(root: Path) -> str:
    """``split_`` and a short hash where a ``split.json`` splits otherwise than the rule, else nothing."""
    if not (root / SPLIT_FILE).is_file() or split_files(root) == _by_rule(_listing(root)):
        return ""
    return f"split_{hashlib.sha256(json.dumps(split_files(root)).encode()).hexdigest()[:8]}"


def _by_rule(files: tuple[str, ...]) -> Split:
    return {split: tuple(file for file in files if which_split(speaker_of(file)) == split) for split in SPLITS}


def split_table(files: Split) -> str:
    """Clips by word and split, and the number of speakers in each split."""
    counts = {split: Counter(word_of(file) for file in files[split]) for split in SPLITS}
    total = sum(counts.values(), Counter[str]())
    rows = [(word, *(counts[split][word] for split in SPLITS), number) for word, number in total.most_common()]
    rows.append(("all words", *(counts[split].total() for split in SPLITS), total.total()))
    speakers = [len({speaker_of(file) for file in files[split]}) for split in SPLITS]
    rows.append(("speakers", *speakers, sum(speakers)))
    return tabulate(rows, headers=("word", *SPLITS, "all"), intfmt=",")


def _listing(root: Path) -> tuple[str, ...]:
    words = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "_")))
    files = tuple(
        f"{word.name}/{path.name}"
        for word in words
        for path in sorted(word.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise SpeedproofError(
            f"{root} holds no clips: expected <word>/<speaker>_nohash_<number>.wav or .flac, as in Speech Commands"
        )
    return files


def _read(path: Path, there: frozenset[str]) -> Split:
    remedy = "correct it, or delete it to split by the data set's own rule"
    try:
        content = json.loads(path.read_text())
        files = {split: tuple(content[split]) for split in SPLITS}
        named = [file for split in SPLITS for file in files[split]]
        missing = [file for file in named if file not in there]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpeedproofError(
            f"{path} is no split ({type(error).__name__}: {error}), expected lists of clips named "
            f"{', '.join(SPLITS)}: {remedy}"
        ) from error
    if missing:
        raise SpeedproofError(f"{path} names {len(missing):,} clips that are not there (first: {missing[0]}): {remedy}")
    if len(set(named)) < len(named):
        twice = Counter(named).most_common(1)[0][0]
        raise SpeedproofError(f"{path} names {twice} more than once: {remedy}")
    splits = Counter(speaker for split in SPLITS for speaker in {speaker_of(file) for file in files[split]})
    if shared := [speaker for speaker, number in splits.items() if number > 1]:
        raise SpeedproofError(
            f"{path} puts {len(shared):,} speakers into more than one split (first: {min(shared)}): {remedy}"
        )
    return files
