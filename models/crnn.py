"""The CRNN of keyword spotting: a convolution, a GRU over time and attention, on log-mels or on waveforms.

1. One wide convolution over frequency and time, without activation, turns 101 frames into 11 steps.
2. A GRU in one direction reads the steps.
3. Attention (Bahdanau et al., 1409.0473) weighs its outputs, and a linear layer makes logits of their weighted sum.

It is the course model of "Deep Learning in Audio" (markovka17/dla, hw2_kws) after Arik et al., 1703.05390. `Crnn`,
`Spotter` and `models.streaming.StreamingCrnn` have the same state dict, so that one checkpoint fits all three. A
checkpoint tells its size by ``meta["crnn"]``, the fields of `CrnnConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from models.errors import SpeedproofError
from models.logmel import HOP, LogMel
from models.weights import built, load_into, read_checkpoint

LARGEST = 4096  # of any size: far past what a spotter needs, and before what no machine can allocate


@dataclass(frozen=True)
class CrnnConfig:
    """Sizes of a CRNN; the defaults are the course's baseline of 70,443 parameters. A student has smaller ones."""

    mels: int = 40  # what the front end gives
    channels: int = 8  # of the convolution: one layer without activation needs no more
    kernel: tuple[int, int] = (5, 20)  # mels x frames: 20 frames are 200 ms, about a syllable
    stride: tuple[int, int] = (2, 8)  # 11 sequential steps a second instead of 101, which is what costs time
    gru: int = 64
    layers: int = 2
    dropout: float = 0.1  # between the GRU's layers, in training
    attention: int = 0  # width of the attention's hidden layer; 0: as wide as the GRU
    classes: int = 2  # other words and the keyword

    def __post_init__(self) -> None:
        """Raise SpeedproofError for sizes that make no network."""
        pairs = len(self.kernel) == len(self.stride) == 2
        sizes = (self.mels, self.channels, *self.kernel, *self.stride, self.gru, self.layers, self.classes)
        whole = all(isinstance(size, int) and 1 <= size <= LARGEST for size in (*sizes, self.attention or 1))
        if not pairs or not whole or self.kernel[0] > self.mels or not 0 <= self.dropout < 1:
            raise SpeedproofError(
                f"{self} makes no network: expected sizes of 1 to {LARGEST}, two each for kernel and stride, a kernel "
                f"no higher than the mels, attention of 0 to {LARGEST} and dropout within 0..1"
            )

    @property
    def bands(self) -> int:
        """Height of what the convolution gives."""
        return (self.mels - self.kernel[0]) // self.stride[0] + 1

    @property
    def frames(self) -> int:
        """How many frames it needs at least."""
        return self.kernel[1]

    def steps(self, samples: int) -> int:
        """How many GRU steps a whole clip of so many samples has."""
        return max(0, (1 + samples // HOP - self.kernel[1]) // self.stride[1] + 1)


class Crnn(nn.Module):
    """Log-mels (B, mels, T) float32 to logits (B, classes).

    Raises SpeedproofError for another shape, and for fewer frames than the kernel.
    """

    def __init__(self, config: CrnnConfig | None = None) -> None:
        """Make the layers."""
        super().__init__()
        self.config = config = config or CrnnConfig()
        self.conv = nn.Conv2d(1, config.channels, config.kernel, config.stride)
        between = config.dropout if config.layers > 1 else 0.0
        features = config.channels * config.bands
        self.gru = nn.GRU(features, config.gru, config.layers, batch_first=True, dropout=between)
        width = config.attention or config.gru
        self.attention = nn.Sequential(nn.Linear(config.gru, width), nn.Tanh(), nn.Linear(width, 1))
        self.classify = nn.Linear(config.gru, config.classes)

    def forward(self, logmel: Tensor) -> Tensor:
        """Map log-mels to logits."""
        outputs, _ = self.gru(self.features(logmel))
        return self.logits(outputs, self.attention(outputs))

    def features(self, logmel: Tensor) -> Tensor:
        """Map log-mels (B, mels, T) to what the GRU reads, (B, steps, channels x bands)."""
        check_log_mel(logmel, self.config.mels)
        if logmel.shape[-1] < self.config.frames:
            raise SpeedproofError(
                f"{logmel.shape[-1]} frames are too few for the CRNN: its convolution needs at least "
                f"{self.config.frames}, which are {(self.config.frames - 1) * HOP} samples of audio"
            )
        return self.conv(logmel[:, None]).flatten(1, 2).transpose(1, 2)  # type: ignore[no-any-return]

    def logits(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Map GRU outputs (B, steps, gru) and the attention's scores (B, steps, 1) to logits (B, classes)."""
        return self.classify((scores.softmax(1) * outputs).sum(1))  # type: ignore[no-any-return]


class Spotter(Crnn):
    """The CRNN with its front end: waveforms (B, samples) float32 in -1..1 at 16 kHz to logits (B, classes)."""

    def __init__(self, config: CrnnConfig | None = None) -> None:
        """Make the layers."""
        super().__init__(config)
        self.front = LogMel(self.config.mels)

    def forward(self, waveform: Tensor) -> Tensor:
        """Map waveforms to logits."""
        return super().forward(self.front(waveform))


def check_log_mel(logmel: Tensor, mels: int) -> None:
    """Raise SpeedproofError for what is no batch of log-mels (B, mels, T), a waveform for instance."""
    if logmel.dim() != 3 or logmel.shape[1] != mels:
        raise SpeedproofError(
            f"an input of shape {tuple(logmel.shape)} does not fit: expected log-mels (batch, {mels}, frames), "
            f"which models.logmel.LogMel makes of waveforms"
        )


Made = TypeVar("Made", bound=Crnn)


def build_crnn(make: type[Made], weights: Path | None, config: CrnnConfig | None = None) -> Made:
    """A `Crnn`, `Spotter` or `StreamingCrnn` in eval mode, of ``config``, else a checkpoint's own size or the default.

    Without weights it is random, seed 0. Raises SpeedproofError for a checkpoint that is broken or of another size.
    """
    state, meta = read_checkpoint(weights) if weights is not None else ({}, {})
    told = config_of(meta, str(weights))
    model = built(lambda: make(config or told), None)
    if weights is not None:
        own = _sizes(model.state_dict(), model.config.stride)
        found = _sizes(state, told.stride if "crnn" in meta else model.config.stride)
        if found and own != found:
            other = "" if config else ', or one that tells its own in meta["crnn"]'
            raise SpeedproofError(
                f"{weights} holds a CRNN of {found} where one of {own} was expected: "
                f"give a checkpoint of that size{other}"
            )
        load_into(model, weights)
    return model


def config_of(meta: Mapping[str, Any], where: str) -> CrnnConfig:
    """The size that a checkpoint's meta data tell, or the default. Raises SpeedproofError for one that makes none."""
    told = meta.get("crnn", {})
    known = {field.name for field in fields(CrnnConfig)}
    if not isinstance(told, dict) or set(told) - known:
        raise SpeedproofError(f'meta["crnn"] of {where} is {told}: expected some of {", ".join(sorted(known))}')
    try:
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
        }
        return CrnnConfig(**sizes)
    except TypeError as error:
        raise SpeedproofError(f'meta["crnn"] of {where} is no size of a CRNN ({error}): save it again') from error


def _sizes(state: Mapping[str, Tensor], stride: tuple[int, int]) -> str:
    """The size of a CRNN in words; empty where a state dict is of something else, of which `load_into` tells."""
    conv, recurrent = state.get("conv.weight"), state.get("gru.weight_hh_l0")
    if conv is None or recurrent is None or conv.dim() != 4 or recurrent.dim() != 2:
        return ""
    layers = sum(name.startswith("gru.weight_hh_l") for name in state)
    parameters = sum(value.numel() for value in state.values())
    return (
        f"{conv.shape[0]} channels, kernel {conv.shape[2]} x {conv.shape[3]}, stride {stride[0]} x {stride[1]}, "
        f"GRU {recurrent.shape[1]} x {layers} ({parameters:,} parameters)"
    )
