"""The stitched stream: keywords where it says, judged as MLPerf Tiny does, with exact intervals of its counts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.data.audio import SAMPLE_RATE
from models.data.speech import Clips
from models.errors import SpeedproofError
from models.stitched import StitchedStream, detections, judge_stream, stitched, threshold_of_miss_rate


def some_clips(count: int = 12, samples: int = SAMPLE_RATE, keywords: int = 4, level: int = 8000) -> Clips:
    """Clips of constant samples, each of its own value, so that each is found again in a stream."""
    values = torch.arange(count, dtype=torch.int16) * 100 + level
    labels = (np.arange(count) < keywords).astype(np.int64)
    return Clips(
        values[:, None].repeat(1, samples),
        labels,
        speakers=tuple(f"speaker{index}" for index in range(count)),
        words=tuple("happy" if label else "cat" for label in labels),
        files=tuple(f"{index}.wav" for index in range(count)),
        keyword="happy",
    )


def noise(samples: int = 5 * SAMPLE_RATE, level: float = 0.3) -> torch.Tensor:
    return level * torch.randn(samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("samples", [SAMPLE_RATE, SAMPLE_RATE // 2])
def test_a_stream_holds_its_keywords_where_it_says(samples):
    clips = some_clips(samples=samples)
    stream = stitched(clips, torch.zeros(7), seconds=60.0, keywords=6, seed=3)
    assert stream.waveform.shape == (60 * SAMPLE_RATE,)
    assert stream.waveform.dtype == torch.float32
    assert len(stream.starts_s) == len(stream.ends_s) == len(stream.speakers) == 6
    loud = torch.nn.functional.pad(stream.waveform, (1, 1)).ne(0).int().diff()
    begins, ends = (torch.nonzero(loud == edge).flatten().numpy() for edge in (1, -1))
    assert (ends - begins == samples).all()
    assert (begins[1:] - ends[:-1] >= SAMPLE_RATE).all()  # no word within the window of the one before
    assert (begins[1:] - ends[:-1] <= 3 * SAMPLE_RATE).all()
    assert ends[-1] <= 59 * SAMPLE_RATE
    found = [round(float(stream.waveform[begin]) * 2**15 - 8000) // 100 for begin in begins]
    keywords = [
        (begin / SAMPLE_RATE, end / SAMPLE_RATE, clip)
        for begin, end, clip in zip(begins, ends, found, strict=True)
        if clip < 4
    ]
    assert [(begin, end) for begin, end, _ in keywords] == list(zip(stream.starts_s, stream.ends_s, strict=True))
    assert tuple(f"speaker{clip}" for _, _, clip in keywords) == stream.speakers
    assert set(stream.speakers) == {f"speaker{index}" for index in range(4)}  # 6 of 4 clips: all before any again
    assert stream.hours == pytest.approx((60 - 6 * (samples / SAMPLE_RATE + 1)) / 3600)


def test_noise_has_its_level_and_place():
    clips = some_clips(level=16000)
    loudness = float(np.sqrt(np.mean([(clips[index][0] ** 2).mean() for index in range(12)])))
    quiet = {}
    for snr_db in (20.0, 40.0):
        stream = stitched(clips, noise(), seconds=120.0, keywords=5, snr_db=snr_db)
        quiet[snr_db] = stream.waveform[: SAMPLE_RATE // 2]  # no clip begins before 1 s
        rms = float(quiet[snr_db].square().mean().sqrt())
        assert 20 * np.log10(loudness / rms) == pytest.approx(snr_db, abs=0.7)  # words are drawn, and noise is a piece
        assert stream.waveform.abs().max() <= 1
    assert torch.allclose(quiet[20.0], 10 * quiet[40.0], rtol=1e-4)


def test_a_seed_makes_the_stream():
    first, again, other = (stitched(some_clips(), noise(), seconds=30.0, keywords=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.waveform, again.waveform)
    assert first.speakers == again.speakers
    assert not torch.equal(first.waveform, other.waveform)


@pytest.mark.parametrize(
    ("clips", "back", "options", "said"),
    [
        (
            some_clips(),
            noise(),
            {"seconds": 10.0, "keywords": 20},
            r"room for \d clips.*not 20 keywords: make it longer",
        ),
        (some_clips(), noise(), {"seconds": 0.0}, r"room for 0 clips"),
        (some_clips(), noise(), {"keywords": 0}, r"at least 1 keyword"),
        (some_clips(keywords=0), noise(), {"seconds": 60.0, "keywords": 2}, r"clips of the keyword and of other words"),
        (some_clips(), noise(0), {"seconds": 60.0, "keywords": 2}, r"background noise is empty"),
    ],
)
def test_a_stream_that_cannot_be_stitched(clips, back, options, said):
    with pytest.raises(SpeedproofError, match=said):
        stitched(clips, back, **options)


def a_stream(starts: list[float], seconds: float = 60.0, speakers: list[str] | None = None) -> StitchedStream:
    begins = np.array(starts)
    names = tuple(speakers or [f"speaker{index}" for index in range(len(starts))])
    return StitchedStream(torch.zeros(int(seconds * SAMPLE_RATE)), begins, begins + 1.0, names)


def mlperf(times_s, hits, windows):
    """MLPerf Tiny's count written out: (misses, false accepts) of the times at which a detector was above threshold."""
    left = [time for time, hit in zip(times_s, hits, strict=True) if hit]
    misses = 0
    for start, end in windows:
        inside = [time for time in left if start <= time <= end + 1.0]
        misses += not inside
        left = [time for time in left if time not in inside]
    alarms = 0
    while left:
        alarms += 1
        left = [time for time in left[1:] if time > left[0] + 1.0]
    return misses, alarms


@given(
    st.lists(st.integers(0, 4), min_size=240, max_size=240),
    st.lists(st.integers(0, 24), min_size=1, max_size=4, unique=True),
    st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.5]),
)
def test_a_stream_is_judged_as_mlperf_does(levels, places, threshold):
    """In quarters of a second, which floats hold exactly, so that the windows' ends are hit."""
    probabilities, times_s = np.array(levels) / 4, np.arange(1, 241) / 4
    stream = a_stream(sorted(2.25 * place + 0.25 for place in places))
    found = judge_stream(probabilities, times_s, stream, threshold, resamples=5)
    windows = list(zip(stream.starts_s, stream.ends_s, strict=True))
    assert (found.misses, found.false_accepts) == mlperf(times_s, probabilities >= threshold, windows)
    assert found.keywords == len(places)
    assert found.miss_rate.estimate == pytest.approx(found.misses / len(places))
    assert found.alarms_per_hour.estimate == pytest.approx(found.false_accepts / stream.hours)


@given(st.lists(st.floats(0, 1), min_size=240, max_size=240), st.integers(0, 19))
def test_the_threshold_of_a_miss_rate_is_the_highest(values, allowed):
    times_s, stream = np.arange(1, 241) / 4, a_stream([3.0 * index for index in range(20)])
    probabilities = np.array(values)
    threshold = threshold_of_miss_rate(probabilities, times_s, stream, allowed / 20)
    at = judge_stream(probabilities, times_s, stream, threshold, resamples=5)
    above = judge_stream(probabilities, times_s, stream, np.nextafter(threshold, 2), resamples=5)
    below = judge_stream(probabilities, times_s, stream, threshold - 0.1, resamples=5)
    assert at.misses <= allowed < above.misses
    assert below.false_accepts >= at.false_accepts >= above.false_accepts


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_alarms_have_the_exact_poisson_interval(count):
    times_s = np.arange(1, 2401) / 2
    probabilities = np.zeros(2400)
    probabilities[30 : 30 + 4 * count : 4] = 1  # 2 s apart, behind the keyword's window
    stream = a_stream([1.0], seconds=1200.0)
    _, low, high = judge_stream(probabilities, times_s, stream, 0.5).alarms_per_hour
    exact = (stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0, stats.chi2.ppf(0.975, 2 * count + 2) / 2)
    assert (low * stream.hours, high * stream.hours) == pytest.approx(exact)


def test_a_miss_rate_has_the_interval_of_its_speakers():
    times_s = np.arange(1, 241) / 4
    starts = [3.0 * index for index in range(20)]
    probabilities = np.zeros(240)
    voices = [f"speaker{index % 4}" for index in range(20)]
    none = judge_stream(np.ones(240), times_s, a_stream(starts, speakers=voices), 0.5).miss_rate
    exact = stats.binomtest(0, 4).proportion_ci(0.95, method="exact")
    assert none == pytest.approx((0.0, exact.low, exact.high))
    every = judge_stream(probabilities, times_s, a_stream(starts, speakers=voices), 0.5).miss_rate
    assert every == pytest.approx((1.0, 1 - exact.high, 1.0))
    for start, voice in zip(starts, voices, strict=True):  # all of one voice's are missed
        probabilities[int(4 * start) + 2] = float(voice != "speaker0")
    by_voice = judge_stream(probabilities, times_s, a_stream(starts, speakers=voices), 0.5).miss_rate
    alone = judge_stream(probabilities, times_s, a_stream(starts), 0.5).miss_rate
    assert by_voice.estimate == alone.estimate == pytest.approx(0.25)
    assert by_voice.high - by_voice.low > 1.3 * (alone.high - alone.low)


def test_eight_and_eight_pass():
    times_s = np.arange(1, 2401) / 2
    stream = a_stream([10.0 * index for index in range(50)], seconds=1200.0)
    probabilities = np.zeros(2400)
    probabilities[[int(2 * start) + 1 for start in stream.starts_s[8:]]] = 0.9
    probabilities[1100 : 1100 + 4 * 8 : 4] = 0.8  # eight alarms behind the last keyword
    assert judge_stream(probabilities, times_s, stream, 0.5).within_mlperf
    probabilities[2000] = 0.8
    found = judge_stream(probabilities, times_s, stream, 0.5)
    assert (found.misses, found.false_accepts, found.within_mlperf) == (8, 9, False)
    found = judge_stream(probabilities, times_s, stream, 0.85)
    assert (found.misses, found.false_accepts, found.within_mlperf) == (8, 0, True)
    probabilities[int(2 * stream.starts_s[8]) + 1] = 0
    assert not judge_stream(probabilities, times_s, stream, 0.85).within_mlperf


def test_what_a_stream_cannot_be_judged_by():
    stream = a_stream([1.0])
    with pytest.raises(SpeedproofError, match=r"1 of 2 probabilities of the stream are NaN"):
        judge_stream(np.array([0.1, np.nan]), np.array([1.0, 2.0]), stream, 0.5)
    with pytest.raises(ValueError, match="ascending times"):
        judge_stream(np.zeros(2), np.array([2.0, 1.0]), stream, 0.5)
    with pytest.raises(ValueError, match="expected 0 <= miss_rate < 1, got 1"):
        threshold_of_miss_rate(np.zeros(2), np.array([1.0, 2.0]), stream, 1.0)


def test_detections_are_risings_and_debounced():
    probabilities = [0.6, 0.7, 0.2, 0.5, 0.1, 0.9, 0.9, 0.0, 0.8]
    points = [(0.5 * (index + 1), probability) for index, probability in enumerate(probabilities)]
    # At 2.0 s it is the threshold itself; at 3.0 s it is too soon, and at 3.5 s no rising.
    assert list(detections(points, 0.5)) == [(0.5, 0.6), (2.0, 0.5), (4.5, 0.8)]
    assert list(detections(points, 0.5, debounce_s=0.0)) == [(0.5, 0.6), (2.0, 0.5), (3.0, 0.9), (4.5, 0.8)]
    assert list(detections([(index / 10, 0.9) for index in range(100)], 0.5)) == [(0.0, 0.9)]  # one long word
    assert list(detections([], 0.5)) == []


def test_detections_do_not_wait_for_the_end():
    taken = []

    def microphone():
        for index in range(10**9):
            taken.append(index)
            yield float(index), float(index == 3)

    assert next(detections(microphone(), 0.5)) == (3.0, 1.0)
    assert len(taken) == 4
