"""Spotters side by side: what runs on a stream, with and without a state, and the command with its errors."""

import numpy as np
import pytest
import torch
from torch import nn

from bench_tests import judge
from bench_tests.judge import CHUNK, Spotter
from bench_tests.unit.test_stitched import noise, some_clips
from models.crnn import Crnn, CrnnConfig, build_crnn
from models.data.audio import SAMPLE_RATE
from models.kws import LogMels
from models.logmel import LogMel
from models.stitched import stitched
from models.streaming import Stream, StreamingCrnn
from models.weights import save_checkpoint


class Loud(nn.Module):
    """Says the keyword where any frame is loud: log-mels (B, 40, T) to logits (B, 2)."""

    def forward(self, logmel):
        loudest = logmel.mean(1).amax(1)
        return torch.stack([torch.zeros_like(loudest), (loudest > 0).float()], 1)


def loud_clips(seed: int):
    """Noise as clips, the keyword's a thousand times as loud as the others."""
    clips = some_clips(count=30, keywords=10)
    dice = torch.Generator().manual_seed(seed)
    level = torch.where(torch.from_numpy(clips.labels == 1), 8000.0, 8.0)[:, None]
    clips.waveforms.copy_((torch.randn(clips.waveforms.shape, generator=dice) * level).clamp(-30000, 30000))
    return LogMels(clips)


def test_a_detector_of_what_differs_makes_no_error_and_a_blind_one_many():
    splits = [loud_clips(0), loud_clips(1)]
    streams = tuple(stitched(split.clips, noise(level=1e-4), seconds=90.0, keywords=8) for split in splits)

    class Blind(nn.Module):
        def forward(self, logmel):
            dice = torch.Generator().manual_seed(len(logmel))
            return torch.randn(len(logmel), 2, generator=dice)

    good, again, blind = judge.judge(
        [Spotter("good", Loud()), Spotter("again", Loud()), Spotter("blind", Blind())], splits[1], streams, 0.0
    )
    assert good.roc_auc == (1.0, 1.0, 1.0)
    assert good.ratio is None
    assert (good.stream.misses, good.stream.false_accepts, good.stream.keywords) == (0, 0, 8)
    assert again.ratio == (1.0, 1.0, 1.0)
    assert again.difference == (0.0, 0.0, 0.0)
    assert blind.roc_auc.estimate < 0.9
    assert blind.ratio.estimate == np.inf
    assert blind.difference.high < 0
    assert blind.stream.misses + blind.stream.false_accepts > 8
    text = judge.render([good, again, blind], splits[1].clips, "loud", 1.5, 0.0)
    assert "30 test clips of loud by 30 speakers, 10 of the keyword" in text
    assert "at most 8 and 8" not in text  # MLPerf's target is of 20 minutes
    assert "at most 8 and 8" in judge.render([good], splits[1].clips, "loud", judge.MLPERF_MINUTES, 0.0)


@pytest.mark.parametrize("stateful", [True, False])
def test_a_stream_is_heard_chunk_by_chunk(stateful):
    torch.manual_seed(0)
    model = Crnn(CrnnConfig(channels=2, gru=4)).eval()
    waveform = torch.randn(3 * SAMPLE_RATE + 77, generator=torch.Generator().manual_seed(1)) * 0.1
    spotter = Spotter("crnn", model if stateful else nn.Sequential(model))
    assert spotter.streams == stateful
    found, times_s = spotter.on_a_stream(waveform)
    assert times_s == pytest.approx(np.arange(1, 31) / 10)
    if stateful:
        network = build_crnn(StreamingCrnn, None, model.config)
        network.load_state_dict(model.state_dict())
        stream = Stream(network, network.initial_state(1))
        expected = torch.cat(stream.feed(waveform[None, :SAMPLE_RATE]))[-1]  # the cut makes no difference
        assert found[9] == pytest.approx(float(expected), abs=1e-5)
    else:
        second = waveform[12 * CHUNK - SAMPLE_RATE : 12 * CHUNK]
        with torch.inference_mode():
            expected = model(LogMel().eval()(second[None])).softmax(1)[0, 1]
        assert found[11] == pytest.approx(float(expected), abs=1e-5)


def test_the_command_compares_files_with_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_checkpoint(
            tmp_path / f"net{seed}.pt",
            {
                "state_dict": Crnn(CrnnConfig(channels=2, gru=4)).state_dict(),
                "meta": {"workload": "kws_channels2_gru4", "crnn": {"channels": 2, "gru": 4}},
            },
        )
    assert judge.main(["net0.pt", "net1.pt", "--minutes", "1"]) == 0
    said = capsys.readouterr().out
    assert "synthetic_tones" in said
    rows = [line for line in said.splitlines() if line.startswith("| net")]
    assert [row.split("|")[1].strip() for row in rows] == ["net0", "net1", "net0", "net1"]
    assert all("state" in row for row in rows[2:])
    (tmp_path / "other").mkdir()
    (tmp_path / "net0.pt").rename(tmp_path / "other" / "net1.pt")
    assert judge.main(["net1.pt", "other/net1.pt", "--minutes", "1"]) == 0
    assert "| other/net1.pt" in capsys.readouterr().out  # of one name, their paths tell them apart


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kws"], "no trained weights for synthetic_tones"),
        (["nowhere.pt"], "neither a weights file nor one of"),
        (["efficientnet_lite0"], "does not spot keywords in log-mels"),
        (["kws", "--miss-rate", "1"], "--miss-rate 1: expected a share from 0 to below 1"),
        (["kws", "--minutes", "0"], "--minutes 0: expected 0.5 to 600"),
        (["kws", "--seed", "-1"], "--seed -1: expected at least 0"),
        (["kws", "--keyword", "happy"], "no Speech Commands at"),
        (["kws", "--data-dir", "nowhere"], "no such folder"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    assert judge.main(arguments) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert len(output.err.splitlines()) == 1
    assert not output.out
