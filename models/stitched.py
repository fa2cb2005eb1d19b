"""What a keyword spotter is judged by on a long stream: clips stitched over noise, misses and false alarms per hour.

As MLPerf Tiny judges its streaming wakeword (mlcommons/tiny, benchmark/runner: README.md and streaming_ww_utils.py):

1. A stream of 20 minutes holds the keyword 50 times, among other words and noise.
2. The keyword may be detected from where it begins until 1 s after it ends; what is detected there is one hit, and a
   keyword without any is a miss.
3. Every chunk whose probability reaches the threshold anywhere else is a false accept, but those within 1 s after a
   counted one belong to it.
4. At most 8 misses and at most 8 false accepts pass.

What differs: its stream is one file of another word over MUSAN's noise and music, ours is stitched from any clips, by a
seed; its words are trimmed, ours begin and end with their clip. Of either, only figures of the same stream compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaincinv
from torch import Tensor

from models.data.audio import SAMPLE_RATE
from models.data.speech import Clips
from models.detection import RESAMPLES, Interval, speaker_interval
from models.errors import SpeedproofError

Array = NDArray[np.float64]

WINDOW_S = 1.0  # after the keyword's end, in which its detection still counts
DEBOUNCE_S = 1.0
SETTLING_S = 1.0  # of a stream: before it a network has less than a second to look back on, and says anything
MOST_MISSES = MOST_FALSE_ACCEPTS = 8  # of MLPerf Tiny, in 20 minutes
_LONGEST_GAP_S = 3.0  # the shortest is WINDOW_S, so that no word falls into the window of the one before
_TAIL = 0.025  # of a 95 % interval on each side


@dataclass(frozen=True)
class StitchedStream:
    """A long recording whose keywords are known.

    ``waveform``: float32 (samples,) in -1..1 at 16 kHz. ``starts_s``, ``ends_s``: float64 (K,), ascending, of the
    keyword's clips; ``speakers``: (K,), who says them.
    """

    waveform: Tensor
    starts_s: Array
    ends_s: Array
    speakers: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Hours in which a detection is false: those outside the keywords' windows."""
        windows_s = float((self.ends_s - self.starts_s + WINDOW_S).sum())
        return (len(self.waveform) / SAMPLE_RATE - windows_s) / 3600


@dataclass(frozen=True)
class StreamQuality:
    """What a detector did on a stream at one threshold.

    ``miss_rate`` has an interval by bootstrap over speakers, or, where no keyword or every one was missed, Clopper &
    Pearson's with one trial a speaker; ``alarms_per_hour`` has Garwood's exact one of a Poisson count.
    """

    threshold: float
    keywords: int
    misses: int
    false_accepts: int
    miss_rate: Interval
    alarms_per_hour: Interval

    @property
    def within_mlperf(self) -> bool:
        """At most 8 misses and 8 false accepts: MLPerf Tiny's target where the stream has its 20 minutes."""
        return self.misses <= MOST_MISSES and self.false_accepts <= MOST_FALSE_ACCEPTS


def stitched(
    clips: Clips, noise: Tensor, *, seconds: float = 1200.0, keywords: int = 50, snr_db: float = 20.0, seed: int = 0
) -> StitchedStream:
    """Clips in random order over noise, 1 to 3 s apart, ``keywords`` of them the keyword at random places.

    ``noise`` is float32 (samples,), repeated as needed from a random place on, and so loud that the clips are
    ``snr_db`` above it in the mean. No clip comes twice before all of its class came once. Raises SpeedproofError
    where the stream has no room for as many keywords, or the clips lack a class.
    """
    dice = np.random.default_rng(seed)
    length = clips.waveforms.shape[1]
    starts = _places(dice, int(seconds * SAMPLE_RATE), length)
    if not 1 <= keywords < len(starts):
        raise SpeedproofError(
            f"a stream of {seconds:g} s has room for {len(starts)} clips, expected at least 1 keyword among them and "
            f"another word, not {keywords} keywords: make it longer"
        )
    is_keyword = np.isin(np.arange(len(starts)), dice.choice(len(starts), keywords, replace=False))
    chosen = np.empty(len(starts), dtype=np.int64)
    for label in (0, 1):
        places = np.flatnonzero(is_keyword == label)
        chosen[places] = _drawn(dice, np.flatnonzero(np.asarray(clips.labels) == label), places.size)
    words = [clips[int(index)][0] for index in chosen]  # float32 (length,) each
    loudness = float(np.mean([float(word.square().mean()) for word in words])) ** 0.5
    waveform = _background(dice, noise, int(seconds * SAMPLE_RATE), loudness * 10 ** (-snr_db / 20))
    for start, word in zip(starts, words, strict=True):
        waveform[start : start + length] += word
    begins = np.asarray(starts)[is_keyword]
    speakers = tuple(clips.speakers[index] for index in chosen[is_keyword])
    return StitchedStream(waveform.clamp_(-1, 1), begins / SAMPLE_RATE, (begins + length) / SAMPLE_RATE, speakers)


def detections(
    points: Iterable[tuple[float, float]], threshold: float, debounce_s: float = DEBOUNCE_S
) -> Iterator[tuple[float, float]]:
    """When a device would speak up, of (time_s, probability): where it rises to the threshold, once in ``debounce_s``.

    Lazy, so that it follows a microphone. A word that stays above the threshold for long is one detection.
    """
    below, last = True, -np.inf
    for time_s, probability in points:
        if below and probability >= threshold and time_s > last + debounce_s:
            last = time_s
            yield time_s, probability
        below = probability < threshold


def judge_stream(
    probabilities: Array,
    times_s: Array,
    stream: StitchedStream,
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> StreamQuality:
    """Misses and false accepts of probabilities (N,), each given at the time (N,) where its audio ends, ascending."""
    best = _best_in_windows(probabilities, times_s, stream)
    missed = (best < threshold).astype(np.float64)  # (K,)
    outside = np.ones(len(times_s), dtype=np.bool_)
    for first, last in _windows(times_s, stream):
        outside[first:last] = False
    alarms = sum(1 for _ in _debounced(times_s[outside & (probabilities >= threshold)], DEBOUNCE_S))
    return StreamQuality(
        threshold=threshold,
        keywords=missed.size,
        misses=int(missed.sum()),
        false_accepts=alarms,
        miss_rate=_share_missed(missed, stream.speakers, resamples, seed),
        alarms_per_hour=_rate(alarms, stream.hours),
    )


def threshold_of_miss_rate(probabilities: Array, times_s: Array, stream: StitchedStream, miss_rate: float) -> float:
    """The highest threshold that misses at most a share of the keywords: no other of that miss rate has fewer alarms.

    It is chosen on the stream itself, as a point of a detector's curve; a device's must be chosen on another stream.
    """
    if not 0 <= miss_rate < 1:
        raise ValueError(f"miss_rate: expected 0 <= miss_rate < 1, got {miss_rate}")
    best = np.sort(_best_in_windows(probabilities, times_s, stream))
    return float(best[int(miss_rate * best.size + 1e-9)])  # 0.07 * 100 is above 7, 0.29 * 100 below 29


def _places(dice: np.random.Generator, samples: int, length: int) -> list[int]:
    """Where clips of a length begin in a stream of so many samples."""
    starts: list[int] = []
    start = int(dice.uniform(WINDOW_S, _LONGEST_GAP_S) * SAMPLE_RATE)
    window = int(WINDOW_S * SAMPLE_RATE)
    while start + length + window <= samples:
        starts.append(start)
        start += length + int(dice.uniform(WINDOW_S, _LONGEST_GAP_S) * SAMPLE_RATE)
    return starts


def _drawn(dice: np.random.Generator, indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of the indices in random order, none again before all came once."""
    if not indices.size:
        raise SpeedproofError("a stream needs clips of the keyword and of other words: take a split that has both")
    rounds = [dice.permutation(indices) for _ in range(-(-count // indices.size))]
    return np.concatenate(rounds)[:count]


def _background(dice: np.random.Generator, noise: Tensor, samples: int, loudness: float) -> Tensor:
    """Noise of a length and a root mean square, float32 (samples,); silence stays silent."""
    if not noise.numel():
        raise SpeedproofError("the background noise is empty: give at least one sample")
    turned = noise.roll(int(dice.integers(noise.numel())))
    repeated = turned.repeat(-(-samples // noise.numel()))[:samples].to(torch.float32)
    own = float(repeated.square().mean()) ** 0.5
    return repeated * (loudness / own if own > 0 else 0.0)


def _debounced(times_s: Iterable[float], debounce_s: float) -> Iterator[float]:
    last = -np.inf
    for time_s in times_s:
        if time_s > last + debounce_s:
            last = time_s
            yield time_s


def _windows(times_s: Array, stream: StitchedStream) -> Iterator[tuple[int, int]]:
    """For each keyword the chunks of its window, from the first to behind the last."""
    first = np.searchsorted(times_s, stream.starts_s, "left")
    behind = np.searchsorted(times_s, stream.ends_s + WINDOW_S, "right")
    return zip(first.tolist(), behind.tolist(), strict=True)


def _best_in_windows(probabilities: Array, times_s: Array, stream: StitchedStream) -> Array:
    """The highest probability in each keyword's window: float64 (K,); -inf where it has no chunk."""
    if probabilities.shape != times_s.shape or not (np.diff(times_s) > 0).all():
        raise ValueError(
            f"expected ascending times, one for each probability, got shapes {times_s.shape}, {probabilities.shape}"
        )
    if not np.isfinite(probabilities).all():
        raise SpeedproofError(
            f"{(~np.isfinite(probabilities)).sum()} of {probabilities.size} probabilities of the stream are NaN or "
            f"infinite: the model is broken; check its weights"
        )
    return np.asarray([probabilities[first:behind].max(initial=-np.inf) for first, behind in _windows(times_s, stream)])


def _share_missed(missed: Array, speakers: tuple[str, ...], resamples: int, seed: int) -> Interval:
    share = float(missed.mean())
    if 0 < share < 1:
        return speaker_interval(lambda weights: weights @ missed / weights.sum(1), speakers, resamples, seed)
    bound = float(1 - _TAIL ** (1 / len(set(speakers))))  # all draws are alike, which says nothing of other speakers
    return Interval(share, 0.0, bound) if share == 0 else Interval(share, 1 - bound, 1.0)


def _rate(count: int, hours: float) -> Interval:
    """Garwood, "Fiducial Limits for the Poisson Distribution", Biometrika 28 (1936)."""
    low = float(gammaincinv(count, _TAIL)) if count else 0.0
    return Interval(count / hours, low / hours, float(gammaincinv(count + 1, 1 - _TAIL)) / hours)
