"""Training views of a batch of images: a random crop of random size and shape, mirrored half of the time.

One affine map an image, sampled for the whole batch at once: on two cores this is a hundredth of a training step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from models.data.images import MEAN, STD, centre_edge


def draw(count: int, seed: int, view: int, dice: int = 5) -> Tensor:
    """The dice of one view of each of ``count`` examples: float32 (dice, count) in 0..1, equal for equal arguments."""
    return torch.rand(dice, count, generator=torch.Generator().manual_seed((seed * 10_007 + view) % 2**63))


def random_views(images: Tensor, size: int, dice: Tensor, *, mirror: bool, smallest_area: float) -> Tensor:
    """uint8 (B, 3, E, E) to normalised float32 (B, 3, size, size), as the dice (5, B) decide.

    Crops have an area of ``smallest_area`` to 1 of the image and an aspect ratio of 3:4 to 4:3 (Szegedy et al.,
    1409.4842); what reaches beyond the image is cut off, so that the largest ones are less wide or high.
    """
    count = len(images)
    area = smallest_area + (1 - smallest_area) * dice[0]
    ratio = torch.exp((2 * dice[1] - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = width * (1 - 2 * (dice[4] < 0.5) if mirror else 1)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * (2 * dice[2] - 1)
    theta[:, 1, 2] = (1 - height) * (2 * dice[3] - 1)
    pixels = images.float()
    target = centre_edge(size)
    if images.shape[-1] > 1.5 * target:  # sampling alone would alias
        pixels = F.interpolate(pixels, (target, target), mode="bilinear", align_corners=False, antialias=True)
    grid = F.affine_grid(theta.to(images.device), [count, 3, size, size], align_corners=False)
    views = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return (views / 255 - MEAN.to(images.device)) / STD.to(images.device)
