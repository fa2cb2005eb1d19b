"""ResNet-18 and ResNet-50 (He et al., 1512.03385), with torchvision's parameter names, so that its weight files load.

ReLU is called as a function: one module called at two places cannot be quantized by PT2E.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from models.data.images import image_workload
from models.weights import built, read_checkpoint
from models.workload import DataChoice, Workload


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, planes, H / stride, W / stride)
        """Map float features to float features."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride sits on the 3x3, as in torchvision."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = _shortcut(inputs, planes * 4, stride)

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, 4 planes, H / stride, W / stride)
        """Map float features to float features."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Image (B, 3, S, S) float32, normalised, to logits (B, classes) float32."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], classes: int) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, depth in enumerate(depths):
            planes = 64 << stage
            blocks = []
            for index in range(depth):
                blocks.append(block(channels, planes, 2 if stage and index == 0 else 1))
                channels = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = F.relu(self.bn1(self.conv1(x)))  # (B, 64, S/2, S/2)
        x = F.max_pool2d(x, 3, 2, 1)  # (B, 64, S/4, S/4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, C, S/32, S/32)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def resnet18(classes: int = 1000) -> ResNet:
    """11,689,512 parameters with 1,000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes)


def resnet50(classes: int = 1000) -> ResNet:
    """25,557,032 parameters with 1,000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes)


def _build(make: Callable[[int], ResNet], classes: int, weights: Path | None) -> nn.Module:
    """A ResNet in eval mode with the classes of its weights file, or random (seed 0) where there is none."""
    if weights is not None:
        state, _ = read_checkpoint(weights)
        if "fc.bias" in state:  # otherwise load_into says what does not fit
            classes = max(1, state["fc.bias"].numel())
    return built(partial(make, classes), weights)


def _workload(name: str, make: Callable[[int], ResNet], choice: DataChoice) -> Workload:
    return image_workload(name, partial(_build, make), choice, smallest_size=32)


WORKLOADS: dict[str, Callable[[DataChoice], Workload]] = {
    "resnet18": partial(_workload, "resnet18", resnet18),
    "resnet50": partial(_workload, "resnet50", resnet50),
}
