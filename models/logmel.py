"""Log-mel front end: what a spectrogram of ``torch.stft`` and an HTK mel filterbank give, from fast operators alone.

Frames of 400 samples every 160 (25 and 10 ms at 16 kHz), periodic Hann window, power spectrum, triangular mel filters
from 0 to 8 kHz without normalisation, log of the power clamped to 1e-9..1e9. A waveform is reflected at both ends, so
that frame f is centred on sample 160 f.

No runtime has a fast STFT operator and a convolution with the 400 x 400 Fourier basis is wasteful, so the transform is
Cooley and Tukey's (Math. Comp. 19, 1965) with a frame as a matrix of 25 x 16, sample n = 16 row + column and bin
k = k1 + 25 k2:

1. Fourier transform of length 25 down each column. It is a grouped convolution over the rows of the whole waveform
   (10 rows are a hop), so that no frame is ever cut out; the window is in its weights. A real input needs only
   k1 = 0..12.
2. Twiddle factors and the transform of length 16 along each row: a complex 16 x 16 matrix for each k1, as a real one of
   32 x 32.
3. Squares; the bins stay in the order in which they come, and the mel matrix has its columns in that order.

Multiplications a frame: 10,400 + 13,312 + 416 + 8,320 (mel) = 32,448, against 167,558 with the Fourier basis (each
frame's 400 samples times 398 sines and cosines, 398 squares, 199 x 40 for the mels). One second on one Zen 4 core, in
microseconds: ONNX Runtime 81 (Fourier basis 190), OpenVINO 126 (217), eager 176 (478; torch.stft 145).

Rounding in float32 shows in the quiet bands of a loud frame, since the log amplifies it. On real clips bands within
60 dB of the loudest of their frame are exact to 1e-4, and the largest error anywhere is half of torch.stft's. The power
does not fit into float16.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import SpeedproofError

SAMPLE_RATE = 16000
WINDOW = 400  # samples of a frame
HOP = 160
MARGIN = WINDOW // 2  # samples reflected at each end
FLOOR, CEILING = 1e-9, 1e9  # of the mel power, before the log
_ROWS, _COLUMNS = 25, 16
_HALF = _ROWS // 2 + 1  # values of k1; the others are conjugates


class LogMel(nn.Module):
    """Waveforms (B, samples) float32 in -1..1 at 16 kHz to log-mels (B, mels, 1 + samples // 160) float32.

    Its constants are no part of the state dict. Raises SpeedproofError for fewer than the 201 samples of a reflection.
    """

    def __init__(self, mels: int = 40) -> None:
        """Make the constants, in float64, and keep them in float32."""
        super().__init__()
        turn = 2 * np.pi / WINDOW
        row, column, k1, k2 = (np.arange(size) for size in (_ROWS, _COLUMNS, _HALF, _COLUMNS))
        window = (0.5 - 0.5 * np.cos(turn * np.arange(WINDOW))).reshape(_ROWS, _COLUMNS)
        angle = turn * _COLUMNS * np.outer(k1, row)
        down = np.stack([np.cos(angle), -np.sin(angle)], 1)  # (k1, re im, row)
        weight = window.T[:, None, None] * down  # (column, k1, re im, row)
        bins = k1[:, None] + _ROWS * k2  # (k1, k2), 0..387
        angle = turn * bins[..., None] * column
        cos, sin = np.cos(angle), np.sin(angle)  # (k1, k2, column)
        along = np.stack([np.stack([cos, sin], 3), np.stack([-sin, cos], 3)], 1)  # (k1, re im, k2, column, re im)
        filters = mel_filters(mels)[np.minimum(bins, WINDOW - bins)]  # (k1, k2, mel)
        filters[0, 8:] = 0  # bins 200..375 of k1 = 0 are the conjugates of its bins 0..200
        self.down: Tensor
        self.along: Tensor
        self.filters: Tensor
        for name, value, shape in (
            ("down", weight, (_COLUMNS * _HALF * 2, 1, _ROWS)),
            ("along", along, (_HALF, 2 * _COLUMNS, 2 * _COLUMNS)),
            ("filters", filters.transpose(2, 0, 1), (mels, _HALF * _COLUMNS)),
        ):
            constant = torch.from_numpy(np.ascontiguousarray(value.reshape(shape))).float()
            self.register_buffer(name, constant, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Map whole clips to log-mels."""
        samples = waveform.shape[1]
        if samples <= MARGIN:
            raise SpeedproofError(
                f"a waveform of {samples} samples is too short for the log-mel front end: "
                f"give at least {MARGIN + 1} samples ({(MARGIN + 1) / SAMPLE_RATE * 1000:.1f} ms at 16 kHz)"
            )
        padded = F.pad(waveform, (MARGIN, MARGIN), mode="reflect")
        return self.frames(padded[:, : WINDOW + samples // HOP * HOP])

    def frames(self, samples: Tensor) -> Tensor:
        """Map (B, 240 + 160 F) samples, nothing added at their ends, to the log-mels (B, mels, F) of their frames."""
        batch, count = samples.shape[0], (samples.shape[1] - WINDOW) // HOP + 1
        columns = samples.reshape(batch, -1, _COLUMNS).transpose(1, 2)  # (B, 16, 15 + 10 F)
        y = F.conv1d(columns, self.down, stride=HOP // _COLUMNS, groups=_COLUMNS)  # (B, column k1 re/im, F)
        y = y.reshape(batch, _COLUMNS, _HALF, 2 * count).transpose(1, 2)
        z = self.along @ y.reshape(batch, _HALF, 2 * _COLUMNS, count)  # (B, k1, re/im k2, F)
        z = z * z
        power = z[:, :, :_COLUMNS] + z[:, :, _COLUMNS:]  # (B, k1, k2, F)
        mel = self.filters @ power.reshape(batch, _HALF * _COLUMNS, count)
        return mel.clamp(FLOOR, CEILING).log()


def mel_filters(mels: int) -> np.ndarray:
    """Triangles with their corners equally spaced in HTK mels, height 1: float64 (201 bins, mels)."""
    hertz = np.arange(WINDOW // 2 + 1) * (SAMPLE_RATE / WINDOW)
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, mels + 2) / 2595) - 1)
    rising = (hertz[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hertz[:, None]) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling))
