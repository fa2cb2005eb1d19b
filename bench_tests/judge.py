"""``python -m bench_tests.judge MODEL [MODEL ...]``: keyword spotters against the first of them, on clips and a stream.

1. Single clips of the test split: ROC AUC and FA/FR area with intervals over speakers, and, on the same draws of
   speakers, how many times as many pairs each model orders wrongly as the first one does.
2. A stream of the test split (`models.stitched`), judged as MLPerf Tiny's streaming wakeword: the threshold is the
   highest that misses at most ``--miss-rate`` of the keywords of a stream of the validation split, so that no model
   sees what it is judged on before.

A CRNN in fp32 runs with its state, a chunk of 100 ms a call; a model without a streaming form, a convolutional student
or a quantized graph, hears the last second every 100 ms, which costs it ten times its work on a clip a second.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.command import run
from models.crnn import Crnn
from models.data.audio import SAMPLE_RATE
from models.data.speech import NOISE_FOLDER, Clips, background, data_name
from models.detection import (
    Interval,
    far_frr_area_interval,
    paired_auc_difference,
    paired_error_ratio,
    roc_auc_interval,
)
from models.errors import SpeedproofError
from models.kws import CLIP_MS, LogMels
from models.logmel import LogMel
from models.stitched import (
    SETTLING_S,
    StitchedStream,
    StreamQuality,
    judge_stream,
    stitched,
    threshold_of_miss_rate,
)
from models.streaming import Stream, StreamingCrnn
from models.workload import DataChoice, load_workload
from optim.command import load_model

CHUNK = SAMPLE_RATE // 10
MLPERF_MINUTES = 20.0
_ROWS = 128  # clips or windows a call

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spotter:
    """A model to be judged: log-mels (B, 40, 101) to logits (B, 2)."""

    name: str
    model: nn.Module

    @property
    def streams(self) -> bool:
        """Whether it has a state; else it hears windows of a second."""
        return isinstance(self.model, Crnn)

    @torch.inference_mode()
    def on_clips(self, features: Tensor) -> Array:
        """The keyword's probability, float64 (N,), of log-mels (N, 40, 101)."""
        logits = torch.cat([self.model(rows) for rows in torch.split(features, _ROWS)])
        return np.asarray(logits.double().softmax(1)[:, 1].numpy())

    @torch.inference_mode()
    def on_a_stream(self, waveform: Tensor) -> tuple[Array, Array]:
        """Probabilities (C,) after each chunk of float32 (samples,), and the seconds (C,) at which the chunks end."""
        whole = waveform[: len(waveform) // CHUNK * CHUNK]
        times_s = np.arange(1, len(whole) // CHUNK + 1) * CHUNK / SAMPLE_RATE
        found = torch.cat(list(self._chunks(whole))).double()
        found[: round(SETTLING_S * SAMPLE_RATE) // CHUNK - 1] = 0  # as `models.listen` does
        return np.asarray(found.numpy()), times_s

    def _chunks(self, waveform: Tensor) -> Iterator[Tensor]:
        if isinstance(self.model, Crnn):
            network = StreamingCrnn(self.model.config).eval()
            network.load_state_dict(self.model.state_dict())
            stream = Stream(network, network.initial_state(1))
            for chunk in torch.split(waveform, CHUNK):
                yield from stream.feed(chunk[None])
            return
        front = LogMel().eval()
        clip = CLIP_MS * SAMPLE_RATE // 1000
        windows = F.pad(waveform, (clip - CHUNK, 0)).unfold(0, clip, CHUNK)  # (C, clip), silence before the beginning
        for rows in torch.split(windows, _ROWS):
            yield self.model(front(rows)).softmax(1)[:, 1]


@dataclass(frozen=True)
class Verdict:
    """What is said of one model; ``ratio`` and ``difference`` are against the first, None for itself."""

    name: str
    roc_auc: Interval
    area: Interval
    ratio: Interval | None
    difference: Interval | None
    streams: bool
    stream: StreamQuality


def judge(
    spotters: Sequence[Spotter], test: LogMels, streams: tuple[StitchedStream, StitchedStream], miss_rate: float
) -> list[Verdict]:
    """Judge models on clips, and on the second of two streams at the threshold that the first one gives."""
    labels, speakers = test.clips.labels, test.clips.speakers
    verdicts: list[Verdict] = []
    first: Array | None = None
    for spotter in tqdm(spotters, "judging", unit="model", disable=None):
        scores = spotter.on_clips(test.features)
        chosen, heard = (spotter.on_a_stream(stream.waveform) for stream in streams)
        threshold = threshold_of_miss_rate(*chosen, streams[0], miss_rate)
        verdicts.append(
            Verdict(
                spotter.name,
                roc_auc_interval(scores, labels, speakers),
                far_frr_area_interval(scores, labels, speakers),
                None if first is None else paired_error_ratio(first, scores, labels, speakers),
                None if first is None else paired_auc_difference(first, scores, labels, speakers),
                spotter.streams,
                judge_stream(*heard, streams[1], threshold),
            )
        )
        first = scores if first is None else first
    return verdicts


def render(verdicts: Sequence[Verdict], test: Clips, name: str, minutes: float, miss_rate: float) -> str:
    """Two Markdown tables and what they are of."""
    clips: list[tuple[str, ...]] = [
        (
            verdict.name,
            _shown(verdict.roc_auc, "{:.5f}"),
            _shown(verdict.area, "{:.1e}"),
            _shown(verdict.ratio, "{:.2f}"),
            _shown(verdict.difference, "{:+.5f}"),
        )
        for verdict in verdicts
    ]
    streams: list[tuple[str, ...]] = [
        (
            verdict.name,
            "state" if verdict.streams else "windows of 1 s",
            f"{verdict.stream.threshold:.3f}",
            f"{verdict.stream.misses} of {verdict.stream.keywords}",
            _shown(verdict.stream.miss_rate, "{:.0%}"),
            str(verdict.stream.false_accepts),
            _shown(verdict.stream.alarms_per_hour, "{:.1f}"),
        )
        for verdict in verdicts
    ]
    against = ("1 - ROC AUC over the first's", "ROC AUC less the first's")
    noise = "made-up noise" if test.root is None or not (test.root / NOISE_FOLDER).is_dir() else "the data set's noise"
    heads: list[tuple[str, ...]] = [
        ("model", "ROC AUC", "FA/FR area", *against),
        ("model", "runs with", "threshold", "misses", "missed", "false accepts", "false alarms an hour"),
    ]
    if minutes == MLPERF_MINUTES:  # its target is of a stream of that length
        heads[1] += ("at most 8 and 8",)
        streams = [
            (*row, "yes" if verdict.stream.within_mlperf else "no")
            for row, verdict in zip(streams, verdicts, strict=True)
        ]
    return "\n".join(
        (
            f"{len(test):,} test clips of {name} by {len(set(test.speakers))} speakers, {int(test.labels.sum())} of "
            f"the keyword, the others mostly {_words(test)}; in brackets 95 % by bootstrap over speakers",
            "",
            tabulate(clips, heads[0], tablefmt="pipe", disable_numparse=True),
            "",
            f"{minutes:g} min stitched of the test clips over {noise}, threshold from as much of the validation clips, "
            f"of whose keywords it misses at most {100 * miss_rate:g} %; misses with 95 % by bootstrap over speakers, "
            f"alarms an hour with Garwood's",
            "",
            tabulate(streams, heads[1], tablefmt="pipe", disable_numparse=True),
        )
    )


def _words(clips: Clips) -> str:
    """The two words that most of the other clips say, with how many."""
    others = Counter(word for word, label in zip(clips.words, clips.labels, strict=True) if not label)
    return " and ".join(f"{word} ({count})" for word, count in others.most_common(2))


def _shown(interval: Interval | None, form: str) -> str:
    if interval is None:
        return ""
    middle, low, high = (form.format(value) for value in interval)
    return f"{middle} [{low}, {high}]"


def _spotter(spec: str, name: str, choice: DataChoice) -> Spotter:
    model, workload = load_model(spec, choice, CLIP_MS, "MODEL", trained=True)
    if not isinstance(workload.data("test", CLIP_MS), LogMels):
        raise SpeedproofError(
            f"{spec}: {workload.name} does not spot keywords in log-mels; give kws, a student of it, or a file of one"
        )
    return Spotter(name, model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench_tests.judge", description="Judge keyword spotters.")
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="a weights file or a name such as kws; the first is compared with")
    add("--keyword", metavar="WORD", help="the word that is to be spotted (sheila)")
    add("--data-dir", type=Path, metavar="DIR", help="clips by word instead of Speech Commands")
    add("--miss-rate", type=float, default=0.02, metavar="X", help="of the keywords that sets the threshold (0.02)")
    add("--minutes", type=float, default=MLPERF_MINUTES, metavar="N", help="length of a stream (20, as in MLPerf Tiny)")
    add("--seed", type=int, default=0, metavar="N", help="of the streams (0)")
    return parser


def _run(options: argparse.Namespace) -> None:
    if not 0 <= options.miss_rate < 1:
        raise SpeedproofError(f"--miss-rate {options.miss_rate:g}: expected a share from 0 to below 1")
    if not 0.5 <= options.minutes <= 600:
        raise SpeedproofError(f"--minutes {options.minutes:g}: expected 0.5 to 600")
    if options.seed < 0:
        raise SpeedproofError(f"--seed {options.seed}: expected at least 0")
    choice = DataChoice(directory=options.data_dir, keyword=options.keyword or "")
    stems = [Path(spec).stem for spec in options.models]
    short = len(set(stems)) == len(stems)
    spotters = [
        _spotter(spec, stem if short else spec, choice) for spec, stem in zip(options.models, stems, strict=True)
    ]
    splits = [load_workload("kws", choice).data(split, CLIP_MS) for split in ("validation", "test")]
    keywords = max(1, round(2.5 * options.minutes))  # 50 in 20 minutes
    validation, test = (
        stitched(
            split.clips, background(choice), seconds=60 * options.minutes, keywords=keywords, seed=options.seed + place
        )
        for place, split in enumerate(splits)
    )
    verdicts = judge(spotters, splits[1], (validation, test), options.miss_rate)
    print(render(verdicts, splits[1].clips, data_name(choice), options.minutes, options.miss_rate))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when all are judged, 2 for bad input."""
    options = _parser().parse_args(arguments)
    return run(lambda: _run(options), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
