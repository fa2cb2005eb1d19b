"""Keyword spotting: is a chosen word in this second of audio? The CRNN offline and streaming, as three workloads.

- ``kws``: log-mels (B, 40, 101) to logits (B, 2), the network alone.
- ``kws_waveform``: waveforms (B, samples) to logits (B, 2), the front end included.
- ``kws_streaming``: a chunk and the state to the probability and the state (`models.streaming`), front end included.

Sizes are milliseconds of audio: of a clip offline, of a chunk on the stream. All three have the same weights, trained
as ``kws``, and are judged alike, by ROC AUC first (`models.detection`); the stream by its probability at a clip's end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from models.crnn import Crnn, CrnnConfig, Spotter, build_crnn
from models.data.speech import Clips, data_name, speech_split
from models.detection import qualities
from models.errors import SpeedproofError
from models.logmel import HOP, MARGIN, SAMPLE_RATE, LogMel
from models.streaming import Stream, StreamingCrnn
from models.weights import spotter_path
from models.workload import DataChoice, Predict, Quality, Tensors, Weights, Workload

CLIP_MS = 1000  # what Speech Commands has, and what the stream's window covers
_ROWS = 256  # clips transformed at once


@dataclass(frozen=True, eq=False)
class LogMels(Dataset[tuple[Tensor, int]]):
    """The log-mels of a split's clips."""

    clips: Clips

    @cached_property
    def features(self) -> Tensor:
        """All log-mels, float32 (N, 40, T), made when they are first asked for."""
        front = LogMel().eval()
        with torch.inference_mode(False), torch.no_grad():  # they are kept, and may be trained on later
            starts = range(0, len(self), _ROWS)
            return torch.cat([front(self.clips.waveforms[start : start + _ROWS].float() / 2**15) for start in starts])

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the log-mel, float32 (40, T), and its label."""
        return self.features[index], int(self.clips.labels[index])


@lru_cache(maxsize=3)  # a split each
def _log_mels(choice: DataChoice, split: str, size: int) -> LogMels:
    return LogMels(speech_split(choice, split, size))


def _waveforms(clips: Clips, rows: Tensor) -> Tensor:
    """Some clips as float32 (B, samples)."""
    return torch.stack([clips[int(row)][0] for row in rows])


def _heard(choice: DataChoice, size: int, batch: int, seed: int) -> Tensor:
    """Waveforms float32 (B, samples): real clips for an even seed, noise for an odd one. Parity is checked on both."""
    generator = torch.Generator().manual_seed(seed)
    if seed % 2:
        return torch.randn(batch, size * SAMPLE_RATE // 1000, generator=generator) * 0.1
    clips = speech_split(choice, "test", size)
    return _waveforms(clips, torch.randint(len(clips), (batch,), generator=generator))


def _log_mel_example(choice: DataChoice, size: int, batch: int, seed: int) -> Tensors:
    with torch.no_grad():
        return (LogMel().eval()(_heard(choice, size, batch, seed)),)


def _waveform_example(choice: DataChoice, size: int, batch: int, seed: int) -> Tensors:
    return (_heard(choice, size, batch, seed),)


def _stream_example(choice: DataChoice, make: Callable[[], StreamingCrnn], size: int, batch: int, seed: int) -> Tensors:
    """A chunk out of the middle of clips that are heard again and again, and the state by then."""
    clip = _heard(choice, CLIP_MS, batch, seed)
    model = make()
    before, samples = clip.shape[1] + 12_345, size * SAMPLE_RATE // 1000  # not at the end of a frame
    audio = clip.repeat(1, -(-(before + samples) // clip.shape[1]))
    with torch.no_grad():
        _, *state = model(audio[:, :before], *model.initial_state(batch))
    return (audio[:, before : before + samples], *state)


def stratified(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """The first ``limit`` indices of a fixed shuffle in which keywords are spread evenly, the first one in front."""
    shuffle = np.random.default_rng(0).permutation(len(labels))
    keyword, other = (shuffle[labels[shuffle] == label] for label in (1, 0))
    rank = np.concatenate([np.arange(len(keyword)) / len(keyword), (np.arange(len(other)) + 0.5) / len(other)])
    return np.concatenate([keyword, other])[np.argsort(rank, kind="stable")][:limit]


def _judged(clips: Clips, batch: int, limit: int | None, ask: Callable[[Tensor], Tensor]) -> tuple[Quality, ...]:
    """The qualities by what ``ask`` says of the clips of rows int64 (batch,), a probability of the keyword (batch,)."""
    chosen = stratified(clips.labels, limit)
    probabilities = []
    for start in range(0, len(chosen), batch):
        rows = torch.from_numpy(chosen[start : start + batch])
        padded = torch.cat([rows, rows[-1:].expand(batch - len(rows))])
        probabilities.append(ask(padded)[: len(rows)].double().cpu())
    speakers = [clips.speakers[index] for index in chosen]
    return qualities(torch.cat(probabilities).numpy(), clips.labels[chosen], speakers)


def _log_mel_quality(
    choice: DataChoice, predict: Predict, split: str, size: int, batch: int, limit: int | None
) -> tuple[Quality, ...]:
    log_mels = _log_mels(choice, split, size)
    return _judged(log_mels.clips, batch, limit, lambda rows: _keyword(predict((log_mels.features[rows],))[0]))


def _waveform_quality(
    choice: DataChoice, predict: Predict, split: str, size: int, batch: int, limit: int | None
) -> tuple[Quality, ...]:
    clips = speech_split(choice, split, size)
    return _judged(clips, batch, limit, lambda rows: _keyword(predict((_waveforms(clips, rows),))[0]))


def _keyword(logits: Tensor) -> Tensor:
    """Logits (B, 2) of any dtype to the keyword's probability, float64 (B,)."""
    return logits.double().softmax(1)[:, 1]


def _stream_quality(
    choice: DataChoice,
    make: Callable[[], StreamingCrnn],
    predict: Predict,
    split: str,
    size: int,
    batch: int,
    limit: int | None,
) -> tuple[Quality, ...]:
    """Each clip in chunks of ``size`` milliseconds, from silence to its end, judged by the last probability."""
    clips = speech_split(choice, split, CLIP_MS)
    state = make().initial_state(batch)
    stream = Stream(lambda *inputs: predict(inputs), state, size * SAMPLE_RATE // 1000)

    def ask(rows: Tensor) -> Tensor:
        stream.feed(_waveforms(clips, rows))
        return stream.finish()[-1]

    return _judged(clips, batch, limit, ask)


def _build(make: type[Crnn], config: CrnnConfig | None, size: int, weights: Path | None) -> nn.Module:
    return build_crnn(make, weights, config)


def word_in(data: str) -> str | None:
    """The word in the name of a data set of real speech; None where it is of anything else."""
    return data.split("_")[1] if data.startswith("speech_") else None


def word_of_weights(meta: Mapping[str, Any]) -> str | None:
    """The word that a checkpoint of real speech was trained on; None where its meta data do not tell."""
    return word_in(meta.get("data") or (meta.get("config") or {}).get("data") or "")


def check_word(meta: Mapping[str, Any], keyword: str | None, where: str) -> None:
    """Raise SpeedproofError for weights that are known to be of another word; None: any."""
    word = word_of_weights(meta)
    if None not in (word, keyword) and word != keyword:
        raise SpeedproofError(
            f"{where} was trained to spot {word!r}, not {keyword!r}: give --keyword {word}, or weights of {keyword!r}"
        )


def trained(name: str, data: str, size: int = CLIP_MS) -> Weights:
    """The weights of ``kws``, or of a student of that name, for a data set; random ones where there are none.

    Clips of another ``size`` in milliseconds than `CLIP_MS` have none of their own; chunks of a stream all do.
    """
    path = spotter_path(name, data)
    if not path.is_file():
        return Weights(None, "random initialisation, seed 0 (no trained weights found)", own=False)
    own = size == CLIP_MS
    return Weights(path, path.name if own else f"{path.name}, trained at {CLIP_MS} ms", own)


def shortest_ms(frames: int) -> int:
    """Milliseconds of the shortest clip that has so many frames and that the front end can reflect at its ends."""
    return -(-max((frames - 1) * HOP, MARGIN + 1) * 1000 // SAMPLE_RATE)


def _offline(
    name: str,
    heard: str,
    make: type[Crnn],
    example: Callable[[DataChoice, int, int, int], Tensors],
    data: Callable[[DataChoice, str, int], Dataset[tuple[Tensor, int]]],
    quality: Callable[[DataChoice, Predict, str, int, int, int | None], tuple[Quality, ...]],
    choice: DataChoice,
) -> Workload:
    """A spotter of whole clips, which ``heard`` describes."""
    known = data_name(choice)
    return Workload(
        name=name,
        task=f"Tell from {heard} whether it holds the keyword ({known}).",
        scenario="One clip at a time for latency, and batches for throughput.",
        platform="Phones and small devices: one CPU core.",
        build=partial(_build, make, None),
        example=partial(example, choice),
        sizes=(CLIP_MS,),
        batches=(1, 8),
        data=partial(data, choice),
        quality=partial(quality, choice),
        weights=lambda size: trained("kws", known, size),
        smallest_size=shortest_ms(CrnnConfig().frames),
        tolerated_drop=0.005,
        data_name=known,
        size_unit="ms",
    )


def streaming_workload(name: str, choice: DataChoice, weights: Weights, config: CrnnConfig | None = None) -> Workload:
    """A spotter on a stream, of ``config`` or the size that ``weights`` tell, which its state has at every size too."""
    data = data_name(choice)
    make = partial(build_crnn, StreamingCrnn, weights.path, config)
    return Workload(
        name=name,
        task=f"Tell after each chunk of a stream whether the keyword was in the last second ({data}).",
        scenario="One stream in real time, in chunks from 10 ms to 1 s.",
        platform="Phones and small devices: one CPU core, always on.",
        build=partial(_build, StreamingCrnn, config),
        example=partial(_stream_example, choice, make),
        sizes=(10, 100, 1000),
        batches=(1,),
        quality=partial(_stream_quality, choice, make),
        weights=lambda _size: weights,
        tolerated_drop=0.005,
        data_name=data,
        size_unit="ms",
    )


def _streaming(choice: DataChoice) -> Workload:
    return streaming_workload("kws_streaming", choice, trained("kws", data_name(choice)))


WORKLOADS: dict[str, Callable[[DataChoice], Workload]] = {
    "kws": partial(_offline, "kws", "a clip's log-mels", Crnn, _log_mel_example, _log_mels, _log_mel_quality),
    "kws_waveform": partial(
        _offline, "kws_waveform", "a clip's waveform", Spotter, _waveform_example, speech_split, _waveform_quality
    ),
    "kws_streaming": _streaming,
}
