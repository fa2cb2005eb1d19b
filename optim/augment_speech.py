"""Training views of clips of speech: shifted, in noise, louder or fainter, and with parts of the spectrum missing.

1. The clip is shifted by up to 100 ms, and where it is asked for made faster or slower about its middle, which makes it
   higher or lower too (Ko et al., "Audio Augmentation for Speech Recognition", Interspeech 2015): clips of "happy" that
   small networks missed were understood at another speed. Silence moves in.
2. Background noise, cut out at random, is added at a random signal-to-noise ratio; a quarter of the clips stay as they
   are. Without them a network never sees digital silence, the log of 1e-9, and errs where a clip is padded with it: 1 -
   ROC AUC of the CRNN on "happy" was 0.0019, against 0.0007 on the same clips with hardly audible noise.
3. The sum is made louder or fainter; what goes beyond full scale is cut off, as a converter does.
4. Where the model takes log-mel features, a band of frequencies and a stretch of time are replaced by the clip's
   mean (SpecAugment, Park et al., 1904.08779, without its time warping). Silence in their place, the log of 1e-9, is so
   far from all else that a CRNN learned next to nothing: ROC AUC 0.844 after three epochs on "happy", against 0.998.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.data.audio import SAMPLE_RATE

DICE = 9  # numbers that one view of one clip needs
SHIFT_S = 0.1
RATIO_DB = (0.0, 40.0)  # from a word that is as loud as the noise to noise that is hardly heard
CLEAN = 0.25  # share of the views without noise
GAIN_DB = (-10.0, 10.0)
FREQUENCY_MASK = 15  # mel bands at most
TIME_MASK = 35  # frames at most


def random_waveforms(waveforms: Tensor, noise: Tensor, dice: Tensor, speed: float = 0.0) -> Tensor:
    """Float32 (B, samples) within -1..1 to as many, as the dice (9, B) decide; ``noise`` (M,).

    ``speed``: the share by which a clip is at most faster or slower.
    """
    samples = waveforms.shape[1]
    most = min(round(SHIFT_S * SAMPLE_RATE), samples - 1)
    places = (dice[0] * (2 * most + 1)).long()
    shifted = F.pad(waveforms, (most, most)).unfold(1, samples, 1)[torch.arange(len(waveforms)), places]
    if speed:
        shifted = _resampled(shifted, 1 + _between((-speed, speed), dice[8]))

    repeated = noise.repeat(-(-samples // len(noise)))
    starts = (dice[1].double() * (len(repeated) - samples + 1)).long()
    heard = repeated.unfold(0, samples, 1)[starts]  # (B, samples)
    loudness, noise_loudness = (part.square().mean(1).sqrt() for part in (shifted, heard))
    ratio = 10 ** (_between(RATIO_DB, dice[2] / (1 - CLEAN)) / 20)
    added = loudness / (ratio * noise_loudness.clamp(min=1e-9)) * (dice[2] < 1 - CLEAN)
    noisy = shifted + heard * added[:, None]
    return (noisy * 10 ** (_between(GAIN_DB, dice[3]) / 20)[:, None]).clamp(-1, 1)


def _resampled(waveforms: Tensor, factors: Tensor) -> Tensor:
    """Each clip (B, samples) faster by its factor (B,) about its middle, by linear interpolation."""
    samples = waveforms.shape[1]
    middle = (samples - 1) / 2
    places = middle + (torch.arange(samples, device=waveforms.device) - middle) * factors[:, None]  # (B, samples)
    first = places.floor()
    share = places - first
    padded = F.pad(waveforms, (2, 2))  # what lies outside is silence
    index = (first.long() + 2).clamp(0, samples + 2)
    return padded.gather(1, index) * (1 - share) + padded.gather(1, index + 1) * share


def mask(features: Tensor, dice: Tensor, share: float = 1.0) -> Tensor:
    """Log-mel (B, 40, T) with a band and a stretch at each clip's mean, as four of the dice (9, B) decide.

    ``share`` shortens both: 0 leaves the features as they are.
    """
    mean = features.mean((1, 2), keepdim=True)
    for axis, most, (width, place) in ((1, FREQUENCY_MASK, dice[4:6]), (2, TIME_MASK, dice[6:8])):
        length = features.shape[axis]
        widths = (share * width * (min(most, length // 2) + 1)).long()  # 0 to the most
        starts = (place * (length - widths + 1)).long()
        steps = torch.arange(length, device=features.device)
        hidden = (steps >= starts[:, None]) & (steps < (starts + widths)[:, None])  # (B, length)
        features = torch.where(hidden.unsqueeze(3 - axis), mean, features)
    return features


def _between(bounds: tuple[float, float], dice: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * dice
