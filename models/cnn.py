"""Small convolutional network for keyword spotting: no recurrence, so that a clip takes a handful of operators.

1. A convolution over mels and frames, as the CRNN's, cuts the log-mel into steps of ``stride`` frames.
2. A convolution over ``span`` steps looks for parts of the word.
3. The largest value over time: wherever in the clip the parts were. A linear layer makes logits of it.

After Sainath & Parada, "Convolutional neural networks for small-footprint keyword spotting" (Interspeech 2015), with
the pooling over all time of Choi et al. (1904.03814). Batch norm is folded by whatever runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from models.crnn import LARGEST, check_log_mel
from models.errors import SpeedproofError
from models.weights import built, load_into, read_checkpoint

# Log-mels of speech lie around -6: without it the first convolution's bias would have to learn that.
CENTRE = -6.0


@dataclass(frozen=True)
class CnnConfig:
    """Sizes; the defaults are 1,670 parameters."""

    mels: int = 40  # what the front end gives
    channels: int = 2  # of the first convolution: its maps are all that the second one reads
    kernel: tuple[int, int] = (8, 10)  # mels x frames: 100 ms
    stride: tuple[int, int] = (4, 5)
    hidden: int = 16  # parts of the word that are looked for
    span: int = 5  # steps, 300 ms in all
    classes: int = 2  # other words and the keyword

    def __post_init__(self) -> None:
        """Raise SpeedproofError for sizes that make no network."""
        sizes = (self.mels, self.channels, *self.kernel, *self.stride, self.hidden, self.span, self.classes)
        if min(sizes) < 1 or max(sizes) > LARGEST or self.kernel[0] > self.mels:
            raise SpeedproofError(
                f"{self} makes no network: expected sizes of 1 to {LARGEST}, a kernel no higher than the mels"
            )

    @property
    def bands(self) -> int:
        """Height of what the first convolution gives."""
        return (self.mels - self.kernel[0]) // self.stride[0] + 1

    @property
    def frames(self) -> int:
        """How many frames it needs at least."""
        return self.kernel[1] + (self.span - 1) * self.stride[1]


class Cnn(nn.Module):
    """Log-mels (B, mels, T) float32 to logits (B, classes). Raises SpeedproofError for other shapes, too few frames."""

    def __init__(self, config: CnnConfig | None = None) -> None:
        """Make the layers."""
        super().__init__()
        self.config = config = config or CnnConfig()
        self.conv = nn.Conv2d(1, config.channels, config.kernel, config.stride, bias=False)
        self.conv_norm = nn.BatchNorm2d(config.channels)
        self.parts = nn.Conv1d(config.channels * config.bands, config.hidden, config.span, bias=False)
        self.parts_norm = nn.BatchNorm1d(config.hidden)
        self.classify = nn.Linear(config.hidden, config.classes)

    def forward(self, logmel: Tensor) -> Tensor:
        """Map log-mels to logits."""
        check_log_mel(logmel, self.config.mels)
        if logmel.shape[-1] < self.config.frames:
            raise SpeedproofError(f"{logmel.shape[-1]} frames are too few, expected at least {self.config.frames}")
        x = F.relu(self.conv_norm(self.conv(logmel[:, None] - CENTRE)))  # (B, channels, bands, steps)
        x = F.relu(self.parts_norm(self.parts(x.flatten(1, 2))))  # (B, hidden, steps - span + 1)
        return self.classify(x.amax(2))  # type: ignore[no-any-return]


def build_cnn(config: CnnConfig, weights: Path | None) -> Cnn:
    """A `Cnn` of a size in eval mode, with a file's weights; without, random, seed 0.

    Raises SpeedproofError for a checkpoint that is broken or of another size.
    """
    model = built(partial(Cnn, config), None)
    if weights is not None:
        state, _ = read_checkpoint(weights)
        own, found = _sizes(model.state_dict()), _sizes(state)
        if found and own != found:
            raise SpeedproofError(
                f"{weights} holds a CNN of {found} where one of {own} was expected: give a checkpoint of that size"
            )
        load_into(model, weights)
    return model


def _sizes(state: Mapping[str, Tensor]) -> str:
    """The size of a CNN in words; empty where a state dict is of something else, of which `load_into` tells."""
    conv, parts = state.get("conv.weight"), state.get("parts.weight")
    if conv is None or parts is None or conv.dim() != 4 or parts.dim() != 3 or not len(conv):
        return ""
    channels, _, height, width = conv.shape
    hidden, read, span = parts.shape  # the second convolution reads channels x bands
    return f"{channels} channels, kernel {height} x {width}, {read // channels} bands, hidden {hidden}, span {span}"
