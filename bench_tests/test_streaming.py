"""Keyword spotting on a stream: the time of one chunk of 10 to 1,000 ms, front end and state included.

``pytest bench_tests/test_streaming.py --keyword happy --threads 1 --size 10,20,100,500,1000``. Before anything is
timed, whole clips cut into chunks must give what the offline model says of them.
"""

from collections.abc import Callable

import pytest
import torch

from bench_tests.harness.case import Case, NotMeasuredError
from bench_tests.harness.record import Record
from bench_tests.harness.session import Session
from bench_tests.harness.timing import case_clock
from models.crnn import Spotter
from models.kws import CLIP_MS, stratified
from models.logmel import SAMPLE_RATE
from models.streaming import Stream, StreamingCrnn

CLIPS = 4
# What rounding adds up to over a clip. In fp32 of the log-odds, since a trained network's probabilities are next to 0
# and 1 and hide what is wrong; other precisions have too few digits next to 1 for it.
ALLOWED = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}


@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
def test_streaming(case: Case, measure: Callable[..., object]) -> None:
    """Take one chunk length on one backend through the harness."""
    measure(case, check=equals_offline)


def equals_offline(case: Case, session: Session) -> Record:
    """How far clips heard chunk by chunk are from those heard in one piece. Raises NotMeasuredError for too far."""
    model = session.module(case)
    if not isinstance(model, StreamingCrnn):
        raise NotMeasuredError("failed", f"streaming: {type(model).__name__} has no offline form to compare with")
    offline = Spotter(model.config).eval()
    offline.load_state_dict(model.state_dict())
    clips = session.workload("kws_waveform").data("test", CLIP_MS)
    rows = stratified(clips.labels, CLIPS * case.batch)  # keywords are among them
    waveforms = [torch.stack([clips[int(row)][0] for row in rows[at::CLIPS]]) for at in range(CLIPS)]
    # Clips end in silence, which hides what happens at their end: the same ones end and begin within their word, too.
    waveforms += [waveform.roll(waveform.shape[1] // 2, 1) for waveform in waveforms]
    chunk = case.size * SAMPLE_RATE // 1000
    stream = Stream(session.compile(case), model.initial_state(case.batch), chunk)
    farthest = 0.0
    for waveform in waveforms:
        heard = [*stream.feed(waveform), *stream.finish()][-1]
        with torch.inference_mode():
            expected = offline(waveform).softmax(1)[:, 1]
        of = _log_odds if case.precision == "fp32" else torch.Tensor.float
        off = float((of(heard) - of(expected)).abs().max())
        if not off <= ALLOWED[case.precision]:
            raise NotMeasuredError(
                "failed",
                f"streaming: chunks of {case.size} ms give an answer that is off by {off:.1e} from the whole clip's, "
                f"allowed are {ALLOWED[case.precision]:.0e}",
            )
        farthest = max(farthest, off)
    return {"streaming_deviation": farthest}


def _log_odds(probability: torch.Tensor) -> torch.Tensor:
    return probability.double().clamp(1e-5, 1 - 1e-5).logit()
