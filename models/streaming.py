"""The CRNN on a stream: chunks of audio in, the keyword's probability over the last second out, after each chunk.

`StreamingCrnn` is a pure function of static shapes, ``(chunk, *state)`` to ``(probability, *state)``, which every
backend can run. How many frames and steps a chunk completes depends on what came before it, so the most possible ones
are computed and the valid ones selected by index:

1. Samples: a frame is done when its 400 samples are there. The frames that the chunk may complete are gathered from the
   last 400 samples and the chunk; before the first sample the signal is reflected, as in a whole clip.
2. Frames: a step of the convolution is done when its 20 frames are there, 8 after those of the step before. The last
   19 frames are kept, so that none is ever computed twice.
3. Steps: the GRU runs on from its state, and its state after the last valid step is kept.
4. Attention looks at the last ``window`` GRU outputs, and masks those that are not there yet.

For a clip of at most ``window`` steps that ends with its own last 200 samples reflected (`Stream.finish`), the
probability is that of the whole clip, whatever the chunks were. The state has a fixed size and its counter is kept
small (past the window only the place within a step matters), so that a stream may run forever, with 32 bits too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.crnn import CrnnConfig, Spotter
from models.errors import SpeedproofError
from models.logmel import HOP, MARGIN, SAMPLE_RATE, WINDOW
from models.workload import Tensors


class StreamingCrnn(Spotter):
    """``(chunk, *state)`` to ``(probability (B, 1), *state)``; chunk (B, n) float32 in -1..1 at 16 kHz, any n >= 1.

    The state (see `initial_state`):
    - ``clock`` (2,) int64: samples so far, and how many at the end of the chunk are no audio and not to be heard (0,
      and 0 again after each call): by it a runner of one chunk length takes shorter chunks too,
    - ``tail`` (B, 400): the last samples,
    - ``recent`` (B, mels, 19): the last frames,
    - ``outputs`` (B, window, gru): the last outputs of the GRU, whose last one is the state of its last layer,
    - ``hidden`` (B, gru) for each layer of the GRU but the last: its state.
    """

    def __init__(self, config: CrnnConfig | None = None, window: int | None = None) -> None:
        """Make the layers; ``window`` is in steps, None: as many as a clip of one second has."""
        super().__init__(config)
        check_streams(self.config)
        self.window = window = window or self.config.steps(SAMPLE_RATE)
        kernel, stride = self.config.kernel[1], self.config.stride[1]
        self._step = stride * HOP
        # With these samples the first frame, or the first step, is done but for one hop, or one step.
        self._missing = MARGIN - HOP, (kernel - 1) * HOP + MARGIN - self._step
        self._settled = self._missing[1] + window * self._step  # past it only the place within a step matters

    def initial_state(self, batch: int) -> Tensors:
        """Return the state before the first sample: all zeros."""
        config = self.config
        shapes = [(batch, WINDOW), (batch, config.mels, config.kernel[1] - 1), (batch, self.window, config.gru)]
        shapes += [(batch, config.gru)] * (config.layers - 1)
        return (torch.zeros(2, dtype=torch.int64), *(torch.zeros(shape) for shape in shapes))

    def forward(  # type: ignore[override]
        self, chunk: Tensor, clock: Tensor, tail: Tensor, recent: Tensor, outputs: Tensor, *hidden: Tensor
    ) -> Tensors:
        """Take a chunk in."""
        self._check(chunk, outputs, hidden)
        length = chunk.shape[1]
        kernel, stride = self.config.kernel[1], self.config.stride[1]
        most_frames, most_steps = -(-length // HOP), -(-length // self._step)
        start, left_out = clock.chunk(2)  # each (1,)
        taken = length - left_out
        frames_before, frames, steps_before, steps = self._done(start, start + taken)

        samples = torch.cat([tail, chunk], 1)  # (B, 400 + n), the first is number start - 400
        wanted = (frames_before * HOP + _range(-MARGIN, WINDOW - HOP + HOP * most_frames, chunk)).abs()
        fresh = self.front.frames(_padded_select(samples, 1, wanted + (WINDOW - start)))  # (B, mels, most_frames)
        tail = samples.index_select(1, taken + _range(0, WINDOW, chunk))

        known = torch.cat([recent, fresh], 2)  # the first is frame frames_before - 19
        wanted = stride * steps_before - frames_before + _range(kernel - 1, stride * (most_steps - 1) + kernel, chunk)
        x = self.features(_padded_select(known, 2, wanted))  # (B, most_steps, features)
        recent = known.index_select(2, frames - frames_before + _range(0, kernel - 1, chunk))

        new = steps - steps_before  # (1,), of most_steps
        kept = []
        for weights, state in zip(self._layers(), (*hidden, outputs[:, -1]), strict=True):
            x, _ = torch.gru(x, state[None], weights, True, 1, 0.0, False, False, True)
            kept.append(torch.cat([state[:, None], x], 1).index_select(1, new)[:, 0])
        outputs = torch.cat([outputs, x], 1).index_select(1, new + _range(0, self.window, chunk))

        scores = self.attention(outputs)  # (B, window, 1)
        missing = _range(0, self.window, chunk) < self.window - steps  # (window,)
        scores = scores.masked_fill(missing[:, None], torch.finfo(scores.dtype).min)
        probability = self.logits(outputs, scores).softmax(1)[:, 1:2] * (steps > 0)
        return (probability, self._advanced(start + taken, most_steps), tail, recent, outputs, *kept[:-1])

    def _done(self, before: Tensor, after: Tensor) -> tuple[Tensor, ...]:
        """Complete frames before and after, complete steps before and after, each int64 (1,), of samples so far."""
        counts = torch.cat([before, after, before, after])
        missing = counts.new_tensor([self._missing[0]] * 2 + [self._missing[1]] * 2)
        size = counts.new_tensor([HOP] * 2 + [self._step] * 2)
        return ((counts - missing) // size).clamp(min=0).chunk(4)

    def _layers(self) -> list[list[Tensor]]:
        """Weights and biases of each layer of the GRU, which runs one layer after the other here."""
        return [list(weights) for weights in self.gru.all_weights]

    def _advanced(self, count: Tensor, most_steps: int) -> Tensor:
        """The clock for the next chunk: by as many steps as a chunk may have, it goes back where it has settled."""
        back = most_steps * self._step
        return torch.cat([count - back * (count >= self._settled + back), torch.zeros_like(count)])

    def _check(self, chunk: Tensor, outputs: Tensor, hidden: Tensors) -> None:
        own = (chunk.shape[0], self.window, self.config.gru)
        if tuple(outputs.shape) != own or len(hidden) != self.config.layers - 1 or chunk.shape[1] == 0:
            raise SpeedproofError(
                f"a chunk of shape {tuple(chunk.shape)} with outputs of shape {tuple(outputs.shape)} does not fit "
                f"this model, which expects at least one sample and {own}: take its own initial_state"
            )


def _range(start: int, length: int, like: Tensor) -> Tensor:
    return torch.arange(start, start + length, device=like.device)


def _padded_select(values: Tensor, dim: int, wanted: Tensor) -> Tensor:
    """Select along an axis; what is wanted past the end belongs to something incomplete, which nobody reads."""
    return values.index_select(dim, wanted.clamp(max=values.shape[dim] - 1))


def check_streams(config: CrnnConfig) -> None:
    """Raise SpeedproofError for a size that cannot run on a stream, or whose kernel does not fit into a second."""
    kernel, stride = config.kernel[1], config.stride[1]
    if kernel <= stride or config.steps(SAMPLE_RATE) == 0:
        raise SpeedproofError(
            f"a streaming CRNN needs a kernel longer than its stride and within a second, not of {kernel} frames with "
            f"a stride of {stride}"
        )


class Stream:
    """Drives a streaming model over audio of any length and any cut, holding state for one chunk at a time.

    ``step`` is a `StreamingCrnn` or what a backend made of it; ``state`` its initial state; ``chunk`` the number of
    samples that it was compiled for, or None for a module that takes any number.
    """

    def __init__(self, step: Callable[..., Tensors], state: Tensors, chunk: int | None = None) -> None:
        self._step, self._initial, self._chunk = step, state, chunk
        self._begin()

    def _begin(self) -> None:
        self._state = self._initial
        self._last = torch.zeros(self._initial[1].shape[0], 0)  # (B, 0..201), for the end

    def feed(self, samples: Tensor) -> list[Tensor]:
        """Take samples (B, any number) float32 in; return the probability (B,) after each call that this took.

        Raises SpeedproofError for another shape and for samples that are not finite, which would poison the state.
        """
        batch = self._last.shape[0]
        if samples.dim() != 2 or samples.shape[0] != batch or not samples.isfinite().all():
            raise SpeedproofError(
                f"audio of shape {tuple(samples.shape)} does not fit: expected ({batch}, samples), all of them finite"
            )
        self._last = torch.cat([self._last, samples[:, -MARGIN - 1 :]], 1)[:, -MARGIN - 1 :]
        probabilities = []
        with torch.inference_mode():
            length = self._chunk or max(1, samples.shape[1])
            for begin in range(0, samples.shape[1], length):
                piece = samples[:, begin : begin + length]
                clock, *rest = self._state
                if self._chunk is not None and piece.shape[1] < self._chunk:
                    left_out = self._chunk - piece.shape[1]
                    piece = torch.nn.functional.pad(piece, (0, left_out))
                    clock = torch.stack([clock[0], clock.new_tensor(left_out)])
                probability, *state = self._step(piece, clock, *rest)
                self._state = tuple(state)
                probabilities.append(probability[:, 0])
        return probabilities

    def finish(self) -> list[Tensor]:
        """End the stream as a clip ends, its last samples reflected; return as `feed` does and begin anew.

        Raises SpeedproofError for a stream of fewer than 201 samples, which cannot be reflected.
        """
        if self._last.shape[1] <= MARGIN:
            raise SpeedproofError(
                f"a stream of {self._last.shape[1]} samples cannot end as a clip does: "
                f"give it at least {MARGIN + 1} samples"
            )
        probabilities = self.feed(self._last.flip(1)[:, 1:])
        self._begin()
        return probabilities
