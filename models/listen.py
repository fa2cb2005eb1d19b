"""Listen to a recording or the microphone and say when a word is heard: ``python -m models.listen FILE.wav``.

1. The audio goes through the streaming network chunk by chunk (`models.streaming`), as a device would hear it.
2. Each chunk gives the probability that the keyword was said just before; where it rises to the threshold, the word was
   heard (`models.stitched.detections`), and a line with the time at which that chunk ends appears at once.
3. At the end stands the real-time factor: seconds of computing a second of audio, front end included, on one thread.
4. ``--picture`` draws the probability over time.

What it heard in training were single words: expect false detections in running speech. In the first second, while it
has little to look back on, nothing counts as heard but at the end of a recording that is no longer.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.command import run
from models.crnn import build_crnn
from models.data.audio import SAMPLE_RATE, read_audio
from models.errors import SpeedproofError
from models.files import check_picture, save_figure
from models.kws import check_word, word_of_weights
from models.stitched import SETTLING_S, detections
from models.streaming import Stream, StreamingCrnn
from models.weights import read_checkpoint, spotter_path

_NAMED = 6  # detections in a picture's title
_WARM_UP = 3  # chunks
USUAL_WORD = "happy"  # that the weights of record are of
MOST_SECONDS = 86_400  # of one run with the microphone


@dataclass
class Heard:
    """What a stream gave: for each chunk the time at which it ends and the probability; detections are such points."""

    times_s: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    found: list[tuple[float, float]] = field(default_factory=list)
    samples: int = 0
    computing_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of audio."""
        return self.samples / SAMPLE_RATE

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing a second of audio."""
        return self.computing_s / self.seconds

    def point(self, compute: Callable[[], list[Tensor]]) -> tuple[float, float]:
        """Compute a probability, keep it with the time of the audio so far, and return both."""
        before = time.perf_counter()
        probability = float(compute()[-1])
        self.computing_s += time.perf_counter() - before
        self.times_s.append(self.seconds)
        self.probabilities.append(probability)
        return self.seconds, probability


def listen(chunks: Iterable[Tensor], stream: Stream, keyword: str, threshold: float) -> Heard:
    """Feed chunks, float32 (samples,) each, to a stream and print a line for each detection as it comes."""
    heard = Heard()

    def points() -> Iterator[tuple[float, float]]:
        for chunk in chunks:
            heard.samples += len(chunk)
            time_s, probability = heard.point(partial(stream.feed, chunk[None]))
            yield time_s, probability if time_s >= SETTLING_S else 0.0
        yield heard.point(stream.finish)  # a recording, as a clip, may end right behind its word

    for time_s, probability in detections(points(), threshold):
        heard.found.append((time_s, probability))
        print(f"{time_s:9.3f} s  {keyword}  {probability:.3f}", flush=True)
    return heard


def microphone(seconds: float, samples: int) -> Iterator[Tensor]:
    """Chunks of so many samples from the default microphone. Raises SpeedproofError where there is none."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the wheel of Linux comes without PortAudio itself
        raise SpeedproofError(
            f"--microphone needs the library sounddevice with PortAudio ({error}): install it with "
            f"`python -m pip install sounddevice`, on Debian also `apt-get install libportaudio2`, or give a WAV file"
        ) from error
    try:
        device = sounddevice.InputStream(SAMPLE_RATE, samples, channels=1, dtype="float32")
        with device:
            for index in range(math.ceil(seconds * SAMPLE_RATE / samples)):
                block, lost = device.read(samples)  # float32 (samples, 1)
                if lost:
                    print(f"audio was lost before {index * samples / SAMPLE_RATE:.1f} s", file=sys.stderr)
                yield torch.from_numpy(block[:, 0].copy())
    except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: no default device
        raise SpeedproofError(
            f"--microphone: cannot record at {SAMPLE_RATE:,} Hz ({str(error).splitlines()[0]}): plug in a microphone, "
            f"see `python -m sounddevice`, or give a WAV file"
        ) from error


def picture(heard: Heard, keyword: str, threshold: float, file: Path) -> None:
    """Draw the probability over time, the threshold and the detections. Raises SpeedproofError if it cannot write."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.add_subplot()
    # Blue and vermilion of Okabe & Ito, which the colour-blind tell apart, and another mark for each.
    axes.plot(heard.times_s, heard.probabilities, color="#0072B2", linewidth=1.2, label="probability")
    axes.axhline(threshold, color="0.35", linestyle="--", linewidth=1, label=f"threshold {threshold:g}")
    if heard.found:
        axes.plot(*zip(*heard.found, strict=True), "v", color="#D55E00", markersize=9, label="heard", clip_on=False)
    axes.set(xlabel="time in s", ylim=(0, 1), xlim=(0, heard.seconds))
    axes.set_ylabel(f"probability of “{keyword}”", parse_math=False)  # a dollar is a dollar
    axes.set_title(_finding(heard, keyword), loc="left", parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    save_figure(file, figure)


def _finding(heard: Heard, keyword: str) -> str:
    if not heard.found:
        return f"“{keyword}” not heard in {heard.seconds:.1f} s: at most {max(heard.probabilities):.2f} probable"
    at = [f"{time_s:.1f}" for time_s, _ in heard.found]
    named = ", ".join(at[:_NAMED]) + (", …" if len(at) > _NAMED else "")
    times = "once" if len(at) == 1 else f"{len(at)} times"
    return f"“{keyword}” heard {times} in {heard.seconds:.1f} s: at {named} s"


def _check(options: argparse.Namespace) -> None:
    if (options.file is None) == (options.microphone is None):
        raise SpeedproofError("give either a WAV or FLAC file or --microphone SECONDS")
    if options.microphone is not None and not 0 < options.microphone <= MOST_SECONDS:
        raise SpeedproofError(f"--microphone {options.microphone:g}: expected 0 to {MOST_SECONDS:,} seconds")
    if not 0 < options.threshold < 1:
        raise SpeedproofError(f"--threshold {options.threshold:g}: expected a probability between 0 and 1")
    if not 1 <= options.chunk_ms <= 10_000:
        raise SpeedproofError(f"--chunk-ms {options.chunk_ms}: expected 1 to 10000")
    if options.picture is not None:
        check_picture(options.picture, "--picture")


def _weights(options: argparse.Namespace) -> tuple[Path, str]:
    """The file, and the word that it spots."""
    if options.weights is not None:
        _, meta = read_checkpoint(options.weights)
        word = options.keyword or word_of_weights(meta) or USUAL_WORD
        check_word(meta, word, f"--weights {options.weights}")
        return options.weights, word
    word = options.keyword or USUAL_WORD
    path = spotter_path("kws", f"speech_{word}")
    if not path.is_file():
        raise SpeedproofError(
            f"no trained weights for {word!r} at {path}: train them with "
            f"`python -m optim.train --workload kws --keyword {word}`, or give --weights FILE"
        )
    return path, word


def _stream(weights: Path, samples: int) -> Stream:
    """A stream whose network has taken chunks of so many samples before: the first calls are slow."""
    network = build_crnn(StreamingCrnn, weights)
    state = network.initial_state(1)
    warming = Stream(network, state)
    for _ in range(_WARM_UP):
        warming.feed(torch.zeros(1, samples))
    return Stream(network, state)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.listen", description="Say when a word is heard.")
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="FILE", help="a WAV or FLAC file")
    add("--microphone", type=float, metavar="SECONDS", help="listen to the microphone for so long instead")
    add("--keyword", metavar="WORD", help=f"the word that the weights were trained on (what they tell, {USUAL_WORD})")
    add("--weights", type=Path, metavar="FILE", help="of the network (the best trained ones of the keyword)")
    add("--chunk-ms", type=int, default=100, metavar="MS", help="length of a chunk (100)")
    add("--threshold", type=float, default=0.5, metavar="P", help="probability from which a word is heard (0.5)")
    add("--picture", type=Path, metavar="FILE", help="draw the probability over time, as PNG, PDF or SVG")
    return parser


def _run(options: argparse.Namespace) -> None:
    _check(options)
    samples = options.chunk_ms * SAMPLE_RATE // 1000
    chunks: Iterable[Tensor]
    if options.file is None:
        source, chunks = "the microphone", microphone(options.microphone, samples)
    else:
        source, chunks = str(options.file), torch.split(read_audio(options.file), samples)
    torch.set_num_threads(1)
    weights, keyword = _weights(options)
    heard = listen(chunks, _stream(weights, samples), keyword, options.threshold)
    times = "once" if len(heard.found) == 1 else f"{len(heard.found)} times"
    print(
        f"{keyword} heard {times} in {heard.seconds:.1f} s of {source}; "
        f"real-time factor {heard.real_time_factor:.2g}: {1e3 * heard.real_time_factor:.4g} ms of computing a second "
        f"of audio, in chunks of {options.chunk_ms} ms"
    )
    if options.picture is not None:
        picture(heard, keyword, options.threshold, options.picture)
        print(f"{options.picture}: written")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when all was heard, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return run(partial(_run, options), "interrupted: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
