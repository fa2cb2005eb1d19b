"""The streaming CRNN: however a clip is cut into chunks, it ends with the probability of the whole clip."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.crnn import Crnn, CrnnConfig, Spotter, build_crnn
from models.errors import SpeedproofError
from models.streaming import Stream, StreamingCrnn
from optim.backends import load_backend
from optim.backends.base import Target

TOLERANCE = 1e-5
LONGEST = 17_119  # samples of a clip of 11 steps


def sensitive(make, config=None):
    """A model whose probability depends on what it hears: random weights alone say the same of everything."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = make(config).eval()
        with torch.no_grad():
            model.conv.weight *= 0.3
            model.attention[2].weight *= 20
            model.classify.weight *= 8
            model.classify.bias.zero_()
    return model


STREAMING, OFFLINE = sensitive(StreamingCrnn), sensitive(Spotter)


def sound(samples, seed=0, batch=1):
    """Noise that comes and goes, float32 (batch, samples)."""
    generator = np.random.default_rng(seed)
    points = generator.uniform(-9, 0, (batch, samples // 800 + 2))
    level = np.exp([np.interp(np.arange(samples), np.arange(len(row)) * 800, row) for row in points])
    return torch.from_numpy((generator.standard_normal((batch, samples)) * level).clip(-1, 1).astype(np.float32))


@torch.inference_mode()
def whole(clip, model=OFFLINE):
    return model(clip).softmax(1)[:, 1]


def streamed(clip, cuts=(), stream=None):
    stream = stream or Stream(STREAMING, STREAMING.initial_state(len(clip)))
    edges = [0, *sorted(cuts), clip.shape[1]]
    for start, end in itertools.pairwise(edges):
        stream.feed(clip[:, start:end])
    return stream.finish()[-1]


@st.composite
def clips_with_cuts(draw):
    samples = draw(st.integers(3_040, LONGEST))
    near = st.integers(0, samples)
    runs = draw(st.lists(st.tuples(near, st.integers(0, 8)), max_size=6))  # single samples one after the other, too
    cuts = {min(samples, start + offset) for start, count in runs for offset in range(count + 1)}
    return sound(samples, draw(st.integers(0, 99))), sorted(cuts)


def test_different_clips_have_different_probabilities():
    probabilities = whole(sound(16_000, 1, batch=16))
    assert probabilities.std() > 0.02
    clip = sound(16_000, 1)
    assert (streamed(clip[:, 40:]) - whole(clip)).abs() > 10 * TOLERANCE  # a shift by 2.5 ms is noticed


@settings(max_examples=60)
@given(clips_with_cuts())
def test_every_cut_of_a_clip_ends_with_the_probability_of_the_whole(case):
    clip, cuts = case
    assert streamed(clip, cuts) == pytest.approx(whole(clip), abs=TOLERANCE)


def test_single_samples_are_chunks_too():
    clip = sound(3_300)
    assert streamed(clip, [*range(1, 400), *range(3_000, 3_300)]) == pytest.approx(whole(clip), abs=TOLERANCE)


@pytest.mark.parametrize("length", [1000, 16_000])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_of_one_chunk_length_takes_every_cut(backend, length):
    runtime = load_backend(backend)
    if reason := runtime.missing("fp32", Target("cpu", 1)):
        pytest.skip(reason)
    state = STREAMING.initial_state(1)
    runner = runtime.compile(STREAMING, (sound(length), *state), "fp32", Target("cpu", 1))

    @settings(max_examples=15)
    @given(clips_with_cuts())
    def law(case):
        clip, cuts = case
        assert streamed(clip, (), Stream(runner, state, length)) == pytest.approx(whole(clip), abs=TOLERANCE)
        assert streamed(clip, cuts, Stream(runner, state, length)) == pytest.approx(whole(clip), abs=TOLERANCE)

    law()


@torch.inference_mode()
def expected_after(audio, counts, model=OFFLINE, window=11):
    """What a stream should say after so many samples, from features and GRU outputs of all of the audio at once."""
    outputs, _ = model.gru(model.features(model.front(audio)))
    for count in counts:
        steps = max(0, (count - 3_240) // 1_280 + 1)
        if steps == 0:
            yield 0.0
            continue
        last = outputs[:, max(0, steps - window) : steps]
        weights = model.attention(last).softmax(1)
        yield float(model.classify((weights * last).sum(1)).softmax(1)[0, 1])


@pytest.mark.parametrize("length", [160, 1_279, 1_600, 16_000])
def test_a_long_stream_judges_the_last_second_after_each_chunk(length):
    audio = sound(130_000, 7)
    stream = Stream(STREAMING, STREAMING.initial_state(1))
    counts = range(length, audio.shape[1] + 1, length)
    found = [float(stream.feed(audio[:, count - length : count])[0]) for count in counts]
    assert found == pytest.approx(list(expected_after(audio, counts)), abs=TOLERANCE)
    assert np.std(found) > 0.02


def test_nothing_grows_with_the_stream():
    state = STREAMING.initial_state(1)
    shapes = [tensor.shape for tensor in state]
    stream = Stream(STREAMING, state)
    clocks = []
    for index in range(400):
        stream.feed(sound(700 + index % 7, index))
        assert [tensor.shape for tensor in stream._state] == shapes
        assert stream._last.shape[1] <= 201
        clocks.append(int(stream._state[0][0]))
    assert max(clocks) < 20_000 < 400 * 700
    assert [tensor.dtype for tensor in stream._state] == [tensor.dtype for tensor in state]


@given(st.integers(1, 3_000), st.integers(0, 3_000))
@settings(max_examples=30)
def test_what_is_left_out_of_a_chunk_is_not_heard(heard, left_out):
    audio = sound(9_000, 2)
    with torch.inference_mode():
        _, *state = STREAMING(audio[:, :6_000], *STREAMING.initial_state(1))
        clock, *rest = state
        chunk = audio[:, 6_000 : 6_000 + heard]
        expected = STREAMING(chunk, clock, *rest)
        padded = torch.cat([chunk, torch.full((1, left_out), 0.7)], 1)
        found = STREAMING(padded, torch.stack([clock[0], torch.tensor(left_out)]), *rest)
    for one, other in zip(found[:1] + found[2:], expected[:1] + expected[2:], strict=True):
        assert one.numpy() == pytest.approx(other.numpy(), abs=TOLERANCE)
    assert (found[1][0] - expected[1][0]) % 1_280 == 0
    assert found[1][1] == expected[1][1] == 0


def test_a_batch_is_its_clips_side_by_side():
    clips = sound(9_000, 3, batch=3)
    together = streamed(clips, [1_000, 5_555])
    assert together == pytest.approx(whole(clips), abs=TOLERANCE)
    assert together == pytest.approx(torch.cat([streamed(clip[None]) for clip in clips]), abs=TOLERANCE)


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_silence_and_clipping_at_full_scale_end_as_offline(level):
    clip = (sound(16_000, 4) * level * 10).clamp(-1, 1)
    assert streamed(clip, [5_000]) == pytest.approx(whole(clip), abs=TOLERANCE)


def test_before_the_first_step_the_probability_is_zero():
    stream = Stream(STREAMING, STREAMING.initial_state(2))
    audio = sound(3_300, 1, batch=2)
    assert [float(p.abs().max()) for p in stream.feed(audio[:, :1]) + stream.feed(audio[:, 1:3_239])] == [0, 0]
    assert (stream.feed(audio[:, 3_239:3_240])[0] > 0).all()


def test_a_stream_begins_anew_after_its_end():
    stream = Stream(STREAMING, STREAMING.initial_state(1))
    first, second = sound(5_000, 1), sound(6_000, 2)
    assert torch.equal(streamed(first, (), stream), streamed(first))
    assert torch.equal(streamed(second, (), stream), streamed(second))


CONFIGS = [CrnnConfig(gru=8, channels=2, layers=1), CrnnConfig(gru=16, channels=4, layers=3, attention=5)]


@pytest.mark.parametrize("config", [*CONFIGS, CrnnConfig(kernel=(7, 9), stride=(3, 4))], ids=str)
def test_other_sizes_stream_alike(config):
    offline = sensitive(Spotter, config)
    streaming = StreamingCrnn(config).eval()
    streaming.load_state_dict(offline.state_dict())
    clip = sound(16_000, 8)  # as long as the window is by default, whatever the stride
    stream = Stream(streaming, streaming.initial_state(1))
    assert streamed(clip, [1, 4_000, 4_100], stream) == pytest.approx(whole(clip, offline), abs=TOLERANCE)


def test_a_checkpoint_fits_offline_and_streaming_models():
    names = [set(build_crnn(make, None).state_dict()) for make in (Crnn, Spotter, StreamingCrnn)]
    assert names[0] == names[1] == names[2]


@pytest.mark.parametrize(
    "samples", [torch.zeros(3), torch.zeros(2, 5), torch.tensor([[0.0, float("nan")]]), torch.full((1, 2), torch.inf)]
)
def test_audio_that_would_spoil_the_state_is_refused(samples):
    stream = Stream(STREAMING, STREAMING.initial_state(1))
    with pytest.raises(SpeedproofError, match=r"does not fit: expected \(1, samples\), all of them finite"):
        stream.feed(samples)


def test_no_samples_are_no_call_and_a_stream_too_short_cannot_end():
    stream = Stream(STREAMING, STREAMING.initial_state(1))
    assert stream.feed(torch.zeros(1, 0)) == []
    stream.feed(sound(200))
    with pytest.raises(SpeedproofError, match=r"a stream of 200 samples cannot end .* at least 201 samples"):
        stream.finish()


def test_the_state_of_a_model_of_another_size_is_refused():
    other = StreamingCrnn(CrnnConfig(gru=16)).eval()
    with pytest.raises(SpeedproofError, match=r"\(1, 11, 64\).*\(1, 11, 16\)"):
        other(sound(160), *STREAMING.initial_state(1))
    with pytest.raises(
        SpeedproofError, match="longer than its stride and within a second, not of 8 frames with a stride of 8"
    ):
        StreamingCrnn(CrnnConfig(kernel=(5, 8)))
