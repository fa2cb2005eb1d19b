"""The demo: what it prints and draws of a recording or a microphone, and what it says where it cannot."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import soundfile
import torch

from models import listen
from models.crnn import CrnnConfig, Spotter, build_crnn
from models.data.audio import SAMPLE_RATE
from models.weights import save_checkpoint


class Loudness:
    """Instead of a network: a loud chunk is the keyword."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def feed(self, samples: torch.Tensor) -> list[torch.Tensor]:
        assert samples.dtype == torch.float32
        self.lengths.append(samples.shape[1])
        return [samples.abs().amax(1)]

    def finish(self) -> list[torch.Tensor]:
        return [torch.zeros(1)]


@pytest.fixture
def stream(monkeypatch):
    """The stand-in for a trained network."""
    made = Loudness()
    monkeypatch.setattr(listen, "_weights", lambda options: (Path("happy.pth"), options.keyword or "happy"))
    monkeypatch.setattr(listen, "_stream", lambda weights, samples: made)
    return made


@pytest.fixture(autouse=True)
def own_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def recording(path: Path, loud_s: list[float], seconds: float = 10.0) -> Path:
    """Quiet but for 0.3 s at each of the given times."""
    samples = np.full(int(seconds * SAMPLE_RATE), 0.1, np.float32)
    for start in loud_s:
        samples[int(start * SAMPLE_RATE) : int((start + 0.3) * SAMPLE_RATE)] = 0.75
    soundfile.write(path, samples, SAMPLE_RATE)
    return path


def run(capsys, *arguments: object, code: int) -> tuple[str, str]:
    assert listen.main([str(argument) for argument in arguments]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.out, said.err


def test_detections_come_with_their_times(tmp_path, capsys, stream):
    out, err = run(capsys, recording(tmp_path / "a.wav", [2.05, 6.0]), code=0)
    lines = out.splitlines()
    assert [line.split() for line in lines[:-1]] == [["2.100", "s", "happy", "0.750"], ["6.100", "s", "happy", "0.750"]]
    assert lines[-1].startswith(f"happy heard 2 times in 10.0 s of {tmp_path / 'a.wav'}; real-time factor ")
    assert err == ""
    assert stream.lengths == [SAMPLE_RATE // 10] * 100


@pytest.mark.parametrize(("chunk_ms", "times"), [(10, ["2.060", "6.010"]), (250, ["2.250", "6.250"])])
def test_the_time_is_where_the_chunk_ends(tmp_path, capsys, stream, chunk_ms, times):
    out, _ = run(capsys, recording(tmp_path / "a.wav", [2.05, 6.0]), "--chunk-ms", chunk_ms, code=0)
    assert [line.split()[0] for line in out.splitlines()[:-1]] == times


def test_the_last_chunk_may_be_short(tmp_path, capsys, stream):
    out, _ = run(capsys, recording(tmp_path / "a.flac", [0.9], seconds=1.03), code=0)
    assert stream.lengths == [1600] * 10 + [480]
    assert "happy heard once in 1.0 s" in out


def test_threshold_and_keyword_are_the_users(tmp_path, capsys, stream):
    audio = recording(tmp_path / "a.wav", [2.0])
    assert run(capsys, audio, "--threshold", 0.8, "--keyword", "cat", code=0)[0].startswith(
        "cat heard 0 times in 10.0 s"
    )
    assert "  cat  0.750" in run(capsys, audio, "--threshold", 0.7, "--keyword", "cat", code=0)[0]


def test_the_real_time_factor_counts_computing_only(tmp_path, capsys, stream, monkeypatch):
    ticks = iter(np.arange(0, 1000, 0.25))  # each look at the clock is a quarter of a second later
    monkeypatch.setattr("models.listen.time.perf_counter", lambda: next(ticks))
    out, _ = run(capsys, recording(tmp_path / "a.wav", []), code=0)
    # 100 chunks and the end, a quarter of a second each, for 10 s of audio
    assert "real-time factor 2.5: 2525 ms of computing a second of audio, in chunks of 100 ms" in out


@pytest.mark.parametrize(
    ("loud_s", "title"),
    [
        ([], "“happy” not heard in 10.0 s: at most 0.10 probable"),
        ([3.0], "“happy” heard once in 10.0 s: at 3.1 s"),
        ([1.0, 2.5], "“happy” heard 2 times in 10.0 s: at 1.1, 2.6 s"),
        ([1.1, 2.4, 3.7, 5.0, 6.3, 7.6, 8.9], "“happy” heard 7 times in 10.0 s: at 1.2, 2.5, 3.8, 5.1, 6.4, 7.7, … s"),
    ],
)
def test_the_picture_says_what_was_found(tmp_path, capsys, stream, loud_s, title):
    drawn = tmp_path / "probability.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        out, _ = run(capsys, recording(tmp_path / "a.wav", loud_s), "--picture", drawn, code=0)
    text = set(re.findall(r"<text[^>]*>([^<]*)</text>", drawn.read_text()))
    assert {title, "time in s", "probability of “happy”", "threshold 0.5", "probability"} <= text
    assert ("heard" in text) == bool(loud_s)
    assert out.splitlines()[-1] == f"{drawn}: written"
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "probability.svg"}


def test_a_keyword_with_dollars_is_no_formula(tmp_path, capsys, stream):
    drawn = tmp_path / "probability.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        run(capsys, recording(tmp_path / "a.wav", []), "--picture", drawn, "--keyword", r"$\frac$", code=0)
    assert r"probability of “$\frac$”" in drawn.read_text()


def test_a_picture_is_of_the_format_of_its_name(tmp_path, capsys, stream):
    drawn = tmp_path / "new" / "probability.png"
    run(capsys, recording(tmp_path / "a.wav", [1.0]), "--picture", drawn, code=0)
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_bad_input_is_one_sentence_and_no_work(tmp_path, capsys, stream):
    audio = recording(tmp_path / "a.wav", [1.0])
    (tmp_path / "a.txt").write_text("no audio")
    (tmp_path / "taken").write_text("a file where a folder is asked for")
    for arguments, said in (
        ((tmp_path / "b.wav",), "no such file"),
        ((tmp_path / "a.txt",), "does not decode"),
        ((tmp_path,), "is a folder"),
        ((), "give either a WAV or FLAC file or --microphone SECONDS"),
        ((audio, "--microphone", 3), "give either"),
        (("--microphone", -1), "--microphone -1: expected 0 to 86,400 seconds"),
        (("--microphone", "nan"), "--microphone nan: expected 0 to 86,400 seconds"),
        (("--microphone", 1e308), "expected 0 to 86,400 seconds"),
        ((audio, "--threshold", 1.5), "--threshold 1.5: expected a probability between 0 and 1"),
        ((audio, "--threshold", "nan"), "expected a probability"),
        ((audio, "--chunk-ms", 0), "--chunk-ms 0: expected 1 to 10000"),
        ((audio, "--picture", tmp_path), "expected a file that ends in .png, .svg or .pdf"),
        ((audio, "--picture", tmp_path / "a.doc"), "expected a file that ends in .png, .svg or .pdf"),
        ((audio, "--picture", tmp_path / "a.jpg"), "expected a file that ends in .png, .svg or .pdf"),
        ((audio, "--picture", tmp_path / "picture"), "for example picture.png"),
        ((audio, "--picture", tmp_path / "taken" / "a.png"), "cannot write to"),
    ):
        out, err = run(capsys, *arguments, code=2)
        assert (out, stream.lengths) == ("", [])
        assert said in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_without_weights_it_says_how_to_make_them(tmp_path, capsys, monkeypatch):
    audio = recording(tmp_path / "a.wav", [])
    monkeypatch.chdir(tmp_path)
    _, err = run(capsys, audio, "--keyword", "bed", code=2)
    assert "no trained weights for 'bed' at weights/kws/speech_bed_baseline.pt" in err
    assert "`python -m optim.train --workload kws --keyword bed`" in err
    assert "no weights at none.pth" in run(capsys, audio, "--weights", "none.pth", code=2)[1]


def test_the_word_is_that_of_the_weights(tmp_path, capsys):
    config = CrnnConfig(channels=2, gru=8)
    file, audio = tmp_path / "cat.pt", recording(tmp_path / "a.wav", [], seconds=1.2)
    meta = {"crnn": {"channels": 2, "gru": 8}, "data": "speech_cat"}
    save_checkpoint(file, {"state_dict": Spotter(config).state_dict(), "meta": meta})
    assert "cat heard" in run(capsys, audio, "--weights", file, code=0)[0]
    _, err = run(capsys, audio, "--weights", file, "--keyword", "happy", code=2)
    assert "was trained to spot 'cat', not 'happy': give --keyword cat, or weights of 'happy'" in err


def test_nothing_is_heard_in_the_first_second_or_in_silence(tmp_path, capsys, stream):
    assert "heard 0 times" in run(capsys, recording(tmp_path / "a.wav", [0.2]), code=0)[0]
    assert "heard once" in run(capsys, recording(tmp_path / "b.wav", [0.8]), code=0)[0]  # it lasts beyond it


def test_an_interrupted_run_says_so(tmp_path, capsys, stream, monkeypatch):
    def interrupt(chunk):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "feed", interrupt)
    _, err = run(capsys, recording(tmp_path / "a.wav", []), "--picture", tmp_path / "a.png", code=130)
    assert err == "interrupted: nothing was written\n"
    assert not (tmp_path / "a.png").exists()


@pytest.fixture
def weights(tmp_path):
    """Random weights of a small network."""
    config = CrnnConfig(channels=2, gru=8)
    torch.manual_seed(0)
    file = tmp_path / "small.pth"
    save_checkpoint(file, {"state_dict": Spotter(config).state_dict(), "meta": {"crnn": {"channels": 2, "gru": 8}}})
    return file


@pytest.mark.parametrize("chunk_ms", [37, 1000])
def test_a_clip_ends_with_the_probability_of_the_whole(tmp_path, capsys, weights, chunk_ms):
    """With the network itself, whose answer to a file of one clip's length is the offline one."""
    samples = 0.3 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).clip(-3, 3)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, "FLOAT")
    clip = torch.from_numpy(samples).float()
    with torch.inference_mode():
        offline = float(build_crnn(Spotter, weights)(clip[None]).softmax(1)[0, 1])
    stream = listen._stream(weights, 1600)
    heard = listen.listen(clip.split(chunk_ms * SAMPLE_RATE // 1000), stream, "happy", 0.99)
    assert heard.probabilities[-1] == pytest.approx(offline, abs=1e-5)
    assert heard.seconds == heard.times_s[-1] == heard.times_s[-2] == 1.0
    # Before a second is over, nothing counts as heard.
    highest = max(p for p, time_s in zip(heard.probabilities, heard.times_s, strict=True) if time_s >= 1)
    out, _ = run(
        capsys, tmp_path / "a.wav", "--weights", weights, "--chunk-ms", chunk_ms, "--threshold", highest, code=0
    )
    assert f"  happy  {highest:.3f}\n" in out


def test_what_the_network_cannot_take_is_said(tmp_path, capsys, weights):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), SAMPLE_RATE)
    assert "at least 201 samples" in run(capsys, tmp_path / "a.wav", "--weights", weights, code=2)[1]
    (tmp_path / "broken.pth").write_bytes(weights.read_bytes()[:500])
    audio = recording(tmp_path / "b.wav", [])
    assert "not a weights file" in run(capsys, audio, "--weights", tmp_path / "broken.pth", code=2)[1]


class PortAudioError(Exception):
    pass


class Microphone:
    """As sounddevice's InputStream: loud in the fourth block, and the fifth one lost something."""

    def __init__(self, samplerate, blocksize, *, channels, dtype) -> None:
        assert (samplerate, blocksize, channels, dtype) == (SAMPLE_RATE, 1600, 1, "float32")
        self.blocks = 0

    def __enter__(self):
        return self

    def __exit__(self, *details) -> None:
        self.closed = True

    def read(self, samples):
        self.blocks += 1
        return np.full((samples, 1), 0.9 if self.blocks == 14 else 0.0, np.float32), self.blocks == 15


def test_the_microphone_is_heard(capsys, stream, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "sounddevice", SimpleNamespace(InputStream=Microphone, PortAudioError=PortAudioError)
    )
    out, err = run(capsys, "--microphone", 1.95, code=0)
    assert out.splitlines()[0].split() == ["1.400", "s", "happy", "0.900"]
    assert "happy heard once in 2.0 s of the microphone" in out
    assert err == "audio was lost before 1.4 s\n"
    assert stream.lengths == [1600] * 20


def test_no_library_and_no_microphone(capsys, stream, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    _, err = run(capsys, "--microphone", 1, code=2)
    assert "python -m pip install sounddevice" in err

    def no_device(*arguments, **options):
        raise PortAudioError("Error querying device -1")

    monkeypatch.setitem(
        sys.modules, "sounddevice", SimpleNamespace(InputStream=no_device, PortAudioError=PortAudioError)
    )
    _, err = run(capsys, "--microphone", 1, code=2)
    assert "cannot record at 16,000 Hz (Error querying device -1): plug in a microphone" in err
    assert stream.lengths == []
