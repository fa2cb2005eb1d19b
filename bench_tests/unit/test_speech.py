"""Speech Commands: which clips belong to which split, how they are decoded, and what is refused."""

import hashlib
import itertools
import json
import os
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from models.data import speech, synthetic
from models.data.__main__ import main
from models.data.audio import SAMPLE_RATE
from models.data.speech import FEWEST_CLIPS, SYNTHETIC, background, data_name, speech_root, speech_split
from models.data.splits import SPLITS, speaker_of, split_files, which_split, word_of
from models.errors import SpeedproofError
from models.workload import DataChoice, load_workload

TONES = DataChoice(SYNTHETIC)

# The first speakers in validation_list.txt and testing_list.txt of the official archive.
VALIDATION = [
    "a69b9b3e", "439c84f4", "409c962a", "dbaf8fc6", "a6d586b7", "0e17f595", "ff2b842e", "7fd25f7c",
    "3cc595de", "591d32f3", "52bfbce8", "471a0925", "48bfde8e", "6d818f6c", "6c88cf25", "8b775397",
    "65ec06e5", "827421c4", "7ca023e2", "55feffd5", "6b81fead", "f5e5e8b0",
]  # fmt: skip
TEST = [
    "bb05582b", "97f4c236", "f2e59fea", "fdb5155e", "dc75148d", "3f170018", "18f8afd5", "e1469561",
    "5c8af87a", "aa48c94a", "837a0f64", "e49428d9", "c7124b73", "9d4bab4f", "f0ae7203", "aa80f517",
    "7257420c", "68dd409e", "82d0d3ba", "f428ca69", "62ff07ef", "563aa4e6",
]  # fmt: skip


def speakers_in(split: str) -> list[str]:
    names = (f"{number:08x}" for number in itertools.count())
    return list(itertools.islice((name for name in names if which_split(name) == split), 3))


VOICES = {split: speakers_in(split) for split in SPLITS}


SPEAKERS = [speaker for speakers in zip(*VOICES.values(), strict=True) for speaker in speakers]


def fill(root: Path, words: dict[str, int], suffix: str = "wav", speakers: list[str] = SPEAKERS) -> DataChoice:
    """A small data set: so many clips of each word, the speakers by turns; a clip says its number."""
    for word, number in words.items():
        (root / word).mkdir(parents=True)
        for clip in range(number):
            name = f"{speakers[clip % len(speakers)]}_nohash_{clip // len(speakers)}.{suffix}"
            if suffix == "empty":
                (root / word / name).with_suffix(".wav").touch()
            else:
                soundfile.write(root / word / name, np.full(1600, clip, np.int16), SAMPLE_RATE)
    return DataChoice("speech", root, keyword="yes")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("small"), {"yes": 120, "no": 90, "up": 30})


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    choice = fill(tmp_path_factory.mktemp("ramps"), {"yes": 100, "no": 9}, "empty")
    for file in split_files(choice.directory)["test"]:
        soundfile.write(choice.directory / file, np.arange(1, 1601, dtype=np.int16), SAMPLE_RATE)
    return choice


def refused(action, *arguments) -> str:
    with pytest.raises(SpeedproofError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_rule_agrees_with_the_published_lists():
    assert {which_split(speaker) for speaker in VALIDATION} == {"validation"}
    assert {which_split(speaker) for speaker in TEST} == {"test"}


@given(st.text("0123456789abcdef", min_size=8, max_size=8))
def test_the_rule_is_the_published_function_in_exact_arithmetic(speaker):
    number = int.from_bytes(hashlib.sha1(speaker.encode()).digest(), "big") % 134_217_728
    share = Fraction(number, 134_217_727)
    assert which_split(speaker) == ("validation" if share < 0.1 else "test" if share < 0.2 else "train")


def test_the_rule_gives_a_tenth_each_to_validation_and_test():
    found = [which_split(f"{number:08x}") for number in range(20_000)]
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert found.count(split) / len(found) == pytest.approx(share, abs=0.01)


@given(st.sampled_from(["wav", "flac"]), st.integers(0, 99), st.text("abcdef0123456789", min_size=1))
def test_the_speaker_is_the_name_before_nohash(suffix, number, speaker):
    file = f"happy/{speaker}_nohash_{number}.{suffix}"
    assert (speaker_of(file), word_of(file)) == (speaker, "happy")
    assert speaker_of(f"happy/{speaker}.{suffix}") == speaker


def test_every_clip_is_in_one_split_and_every_speaker_too(small):
    clips = {split: speech_split(small, split, 100) for split in SPLITS}
    files = [file for split in clips.values() for file in split.files]
    assert sorted(files) == sorted(f"{path.parent.name}/{path.name}" for path in small.directory.glob("*/*.wav"))
    for split, found in clips.items():
        assert set(found.speakers) == set(VOICES[split])
        assert found.speakers == tuple(speaker_of(file) for file in found.files)
        assert found.words == tuple(word_of(file) for file in found.files)
        assert found.labels.tolist() == [int(word == "yes") for word in found.words]
        assert found.labels.dtype == np.int64
        assert (found.keyword, len(found)) == ("yes", len(found.files))


def test_a_clip_comes_out_as_it_was_written(small):
    clips = speech_split(small, "test", 100)
    assert (clips.waveforms.dtype, clips.waveforms.shape) == (torch.int16, (len(clips), 1600))
    for index, file in enumerate(clips.files):
        written, _ = soundfile.read(small.directory / file, dtype="float32")
        waveform, label = clips[index]
        assert torch.equal(waveform, torch.from_numpy(written))
        assert label == clips.labels[index]
        assert type(label) is int


@pytest.mark.parametrize(("size", "before", "after"), [(200, 800, 800), (101, 8, 8), (30, -560, -560), (1, -792, -792)])
def test_clips_are_made_equally_long_at_both_ends_alike(ramps, size, before, after):
    ramp = np.arange(1, 1601, dtype=np.int16)
    expected = np.pad(ramp, (max(before, 0), max(after, 0)))[max(-before, 0) : 1600 + max(before, 0) + after]
    waveforms = speech_split(ramps, "test", size).waveforms
    assert waveforms.shape[1] == size * 16 == len(expected)
    assert all(torch.equal(waveform, torch.from_numpy(expected)) for waveform in waveforms)


def test_flac_and_wav_are_the_same_and_other_entries_are_no_clips(small, tmp_path):
    choice = fill(tmp_path, {"yes": 120, "no": 90, "up": 30}, "flac")
    (tmp_path / "_background_noise_").mkdir()
    (tmp_path / "_background_noise_" / "hum.wav").touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / "yes" / ".hidden.wav").touch()
    (tmp_path / "yes" / "notes.txt").touch()
    (tmp_path / "testing_list.txt").touch()
    for split in SPLITS:
        ours, theirs = speech_split(choice, split, 100), speech_split(small, split, 100)
        assert torch.equal(ours.waveforms, theirs.waveforms)
        assert [Path(file).stem for file in ours.files] == [Path(file).stem for file in theirs.files]


def test_clips_are_decoded_once_whatever_the_keyword(small):
    again = DataChoice("speech", small.directory, keyword="yes")
    assert speech_split(small, "train", 100).waveforms is speech_split(again, "train", 100).waveforms


def test_a_clip_that_does_not_decode_is_named(tmp_path):
    choice = fill(tmp_path, {"yes": 100, "no": 9})
    broken = tmp_path / speech_split(choice, "test", 50).files[0]
    broken.write_bytes(b"")
    assert f"audio {broken} does not decode" in refused(speech_split, choice, "test", 60)


def test_too_few_clips_name_how_many_there_are_and_better_words(tmp_path):
    choice = fill(tmp_path, {"yes": FEWEST_CLIPS - 1, "no": 120, "up": 110, "go": 130, "on": 1}, "empty")
    better = "choose another, most clips are of go (130), no (120), up (110)"
    for action in (data_name, lambda choice: speech_split(choice, "train", 100)):
        assert refused(action, choice) == (
            f"--keyword 'yes': {tmp_path} holds 99 of the at least 100 clips that are needed; {better}"
        )
    for keyword, said in {
        "yess": "no such word in {} (the closest is 'yes'); ",
        "GO": "no such word in {} (the closest is 'go'); ",
        "zebra": "no such word in {}; ",
        "_background_noise_": "no such word in {}; ",
        "": "no such word in {}; ",  # sheila, the course's
    }.items():
        found = refused(data_name, DataChoice("speech", tmp_path, keyword))
        assert found == f"--keyword {keyword or 'sheila'!r}: {said.format(tmp_path)}{better}"
    assert data_name(DataChoice("speech", tmp_path, "no")) == f"speech_no_{tmp_path.name}"


def test_a_split_without_the_keyword_or_without_others_is_refused(tmp_path):
    choice = fill(tmp_path / "a", {"yes": 120, "no": 20}, speakers=VOICES["train"])
    assert "0 of the 0 clips in the test split" in refused(speech_split, choice, "test", 100)
    choice = fill(tmp_path / "b", {"yes": 120}, "empty")
    assert "clips in the train split of" in refused(speech_split, choice, "train", 100)


def test_a_folder_that_cannot_serve_is_one_sentence(tmp_path, monkeypatch):
    assert refused(speech_root, DataChoice("speech", tmp_path / "none")).startswith(f"--data-dir {tmp_path / 'none'}: ")
    assert refused(data_name, DataChoice("speech", tmp_path)).startswith(f"{tmp_path} holds no clips: expected <word>/")
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    said = refused(data_name, DataChoice(keyword="happy"))
    assert said.startswith(f"--keyword 'happy': no Speech Commands at {tmp_path / 'speech_commands_v0.01'}: fetch them")


def of_record(monkeypatch, root: Path) -> None:
    """Make a folder's clips, empty files as they are, those of record."""
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.*"))
    monkeypatch.setattr(speech, "_RECORD", hashlib.sha256("\n".join(names).encode()).hexdigest())
    speech._own_clips.cache_clear()


def test_the_data_set_is_found_in_the_data_root_else_tones_take_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    assert speech_root(DataChoice()) is None
    assert data_name(DataChoice()) == "synthetic_tones"
    names = {
        "speech_commands_v0.02": "speech_sheila_speech_commands_v0.02",
        "speech_commands_v0.01": "speech_sheila",  # of record
    }
    for version, name in names.items():
        fill(tmp_path / version, {"sheila": 100, "no": 9}, "empty")
        of_record(monkeypatch, tmp_path / version)
        assert speech_root(DataChoice()) == tmp_path / version
        assert data_name(DataChoice()) == name
        assert data_name(DataChoice("speech", tmp_path / version)) == name
    assert data_name(TONES) == "synthetic_tones"


def test_other_clips_and_other_splits_have_other_names(tmp_path, monkeypatch):
    """By the name weights are found and figures compared: what differs must not share it."""
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    root = tmp_path / "speech_commands_v0.01"
    fill(root, {"yes": 120, "no": 60}, "empty")
    fill(tmp_path / "my clips", {"yes": 120, "no": 60}, "empty")
    assert data_name(DataChoice("speech", tmp_path / "my clips", "yes")) == "speech_yes_my_clips"
    usual = DataChoice("speech", keyword="yes")
    assert re.fullmatch("speech_yes_clips_[0-9a-f]{8}", data_name(usual))
    of_record(monkeypatch, root)
    assert data_name(usual) == data_name(DataChoice("speech", root, "yes")) == "speech_yes"

    assert main(["split", "speech"]) == 0  # the rule, written down
    split_files.cache_clear()
    assert data_name(usual) == "speech_yes"
    rule = json.loads((root / "split.json").read_text())
    names = []
    for split in SPLITS:
        (root / "split.json").write_text(json.dumps({**rule, split: rule[split][1:]}))
        split_files.cache_clear()
        names.append(data_name(usual))
    assert len(set(names)) == len(SPLITS)
    assert all(re.fullmatch("speech_yes_split_[0-9a-f]{8}", name) for name in names)
    split_files.cache_clear()
    assert data_name(usual) == names[-1]


def test_every_copy_of_other_clips_has_a_name_of_its_own(tmp_path, monkeypatch):
    names: list[str] = []
    for words in ({"yes": 120, "no": 60}, {"yes": 120, "no": 61}, {"yes": 120, "on": 60}):
        copy = tmp_path / str(len(names))
        monkeypatch.setenv("SPEEDPROOF_DATA", str(copy))
        fill(copy / "speech_commands_v0.01", words, "empty")
        names.append(data_name(DataChoice(keyword="yes")))
        assert not load_workload("kws", DataChoice(keyword="yes")).weights(1000).own
    assert len(set(names)) == 3
    assert all(re.fullmatch("speech_yes_clips_[0-9a-f]{8}", name) for name in names)


def test_the_split_is_written_and_read_back(tmp_path, capsys):
    choice = fill(tmp_path / "data", {"yes": 120, "no": 60})
    rule = {split: list(files) for split, files in split_files(choice.directory).items()}
    assert main(["split", "speech", "--data-dir", str(choice.directory), "--to", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == rule
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["no", "20", "20", "20", "60"] in lines
    assert ["all", "words", "60", "60", "60", "180"] in lines
    assert ["speakers", "3", "3", "3", "9"] in lines

    swapped = {"train": rule["test"], "validation": rule["validation"], "test": rule["train"][1:]}
    (choice.directory / "split.json").write_text(json.dumps(swapped))
    split_files.cache_clear()
    for split in SPLITS:
        assert list(speech_split(choice, split, 100).files) == swapped[split]
    assert main(["split", "speech", "--data-dir", str(choice.directory)]) == 0
    assert json.loads((choice.directory / "split.json").read_text()) == swapped


def test_a_wrong_split_file_is_one_sentence(tmp_path):
    choice = fill(tmp_path, {"yes": 120, "no": 60}, "empty")
    rule = {split: list(files) for split, files in split_files(tmp_path).items()}
    first = rule["train"][0]

    def said(content: object) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "split.json").write_text(text)
        split_files.cache_clear()
        found = refused(speech_split, choice, "train", 100)
        assert found.startswith(f"{tmp_path / 'split.json'} ")
        assert found.endswith(": correct it, or delete it to split by the data set's own rule")
        return found

    missing = {**rule, "test": [*rule["test"], "yes/none_nohash_0.wav", "../secret.wav"]}
    assert "names 2 clips that are not there (first: yes/none_nohash_0.wav)" in said(missing)
    assert f"names {first} more than once" in said({**rule, "train": [*rule["train"], first]})
    torn = {**rule, "train": rule["train"][1:], "test": [*rule["test"], first]}
    assert f"puts 1 speakers into more than one split (first: {speaker_of(first)})" in said(torn)
    wrong: list[object] = ["{", "", "[1]", '"train"', {"train": []}, {**rule, "test": 3}, {**rule, "test": [{}]}]
    for content in wrong:
        assert "is no split (" in said(content)


def test_the_split_command_tells_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    assert main(["split", "speech"]) == 2
    assert "`python -m models.data fetch speech`" in capsys.readouterr().err
    choice = fill(tmp_path / "data", {"yes": 9})
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "s.json"
    assert main(["split", "speech", "--data-dir", str(choice.directory), "--to", str(target)]) == 2
    assert f"error: cannot write {target} " in capsys.readouterr().err
    assert main(["split", "speech", "--data-dir", str(choice.directory), "--to", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == f"error: --to {tmp_path}: this is a folder; give a file, such as {tmp_path / 'split.json'}\n"


def test_background_noise_is_the_data_sets_own_where_it_has_some(tmp_path):
    choice = fill(tmp_path, {"yes": 9})
    folder = tmp_path / "_background_noise_"
    folder.mkdir()
    (folder / "README.md").touch()
    for name, value in {"b.wav": 0.5, "a.flac": 0.25}.items():
        soundfile.write(folder / name, np.full(100, value), SAMPLE_RATE)
    assert background(choice).tolist() == [0.25] * 100 + [0.5] * 100


def test_made_up_noise_is_white_pink_and_brown(small):
    found = background(small)
    assert torch.equal(found, synthetic.noise())
    assert found.dtype == torch.float32
    assert found.abs().max() < 1
    for part, slope_db in zip(found.double().numpy().reshape(3, -1), (0, -3, -6), strict=True):
        assert part.std() == pytest.approx(0.1, rel=1e-3)
        power, frequency = np.abs(np.fft.rfft(part)) ** 2, np.fft.rfftfreq(len(part), 1 / SAMPLE_RATE)
        octaves = [
            10 * np.log10(power[(frequency >= low) & (frequency < 2 * low)].mean()) for low in 2.0 ** np.arange(6, 12)
        ]
        assert np.diff(octaves) == pytest.approx(np.full(5, slope_db), abs=0.3)


def rise_of(waveform: torch.Tensor) -> float:
    """How much higher the loudest pitch is in the second half of a word than in the first, in octaves: no model."""
    spectrum = torch.stft(waveform, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
    spectrum = spectrum[10:130]  # 150 Hz to 2 kHz
    loud = spectrum.amax(0).topk(16).indices.sort().values
    pitch = (spectrum[:, loud].argmax(0) + 10).log2()
    return float(pitch[8:].median() - pitch[:8].median())


def test_tones_are_split_by_speaker_and_can_be_told_apart_but_not_all_nor_by_loudness():
    clips = {split: speech_split(TONES, split, 1000) for split in SPLITS}
    speakers = [set(found.speakers) for found in clips.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == synthetic.SPEAKERS
    assert all(name.startswith("synthetic_") for name in set.union(*speakers))
    assert min(map(len, speakers)) >= 9
    labels = np.concatenate([found.labels for found in clips.values()])
    waveforms = torch.cat([found.waveforms for found in clips.values()]).float() / 2**15
    assert len(torch.unique(waveforms, dim=0)) == len(labels)
    assert 0.9 < roc_auc_score(labels, [rise_of(waveform) for waveform in waveforms]) < 0.999
    assert roc_auc_score(labels, waveforms.square().mean(1)) == pytest.approx(0.5, abs=0.06)


def test_tones_are_always_the_same():
    files = synthetic.tone_files()
    assert len(set(files)) == len(files)
    assert torch.equal(synthetic.tone(files[3]), synthetic.tone(files[3]))
    first = speech_split(TONES, "test", 1000)
    assert torch.equal(first[2][0], (synthetic.tone(first.files[2]) * 2**15).round() / 2**15)


def test_the_real_data_set_is_as_published(monkeypatch):
    root = Path(os.environ.get("SPEEDPROOF_DATA", "data")) / "speech_commands_v0.01"
    if not root.is_dir():
        pytest.skip(f"no Speech Commands at {root}: set SPEEDPROOF_DATA to the folder that holds speech_commands_v0.01")
    choice = DataChoice("speech", root, "happy")
    files = split_files(root)
    assert sum(map(len, files.values())) in (64_721, 8_558)  # as published, or the part of it that we keep
    kept = sum(map(len, files.values())) == 8_558 and not (root / "split.json").is_file()
    monkeypatch.setenv("SPEEDPROOF_DATA", str(root.parent))
    assert (data_name(DataChoice(keyword="happy")) == "speech_happy") == kept
    if kept:  # with the weights of record
        monkeypatch.chdir(Path(__file__).parents[2])
        weights = load_workload("kws", DataChoice(keyword="happy")).weights(1000)
        assert (weights.path, weights.own) == (Path("weights/kws/speech_happy_baseline.pt"), True)
    assert len({word_of(file) for file in files["train"]}) == 30
    clips = speech_split(choice, "test", 1000)
    assert clips.waveforms.shape == (len(files["test"]), SAMPLE_RATE)
    assert 100 < clips.labels.sum() < 250
    assert (clips.waveforms != 0).any(1).all()
    for official, split in (("validation_list.txt", "validation"), ("testing_list.txt", "test")):
        if (root / official).is_file():
            assert sorted((root / official).read_text().split()) == sorted(files[split])
