"""How a model is quantized."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from models.errors import SpeedproofError
from optim.distill import DistillConfig
from optim.schedule import SPEECH

for _name in ("torchao", "torch.utils._pytree"):  # torchao, when it is imported, warns of what is missing for a GPU
    logging.getLogger(_name).setLevel(logging.ERROR)

METHODS = ("static", "dynamic", "qat", "weights")
CALIBRATED = ("static", "qat")
CALIBRATIONS = ("minmax", "entropy", "percentile")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class QuantizeConfig:
    """How a model is quantized; weights lie on ``bits`` bits, signed, activations on 8, unsigned."""

    method: str = "static"  # ranges fixed beforehand: the only one whose convolutions run in int8
    size: int = 224
    calibration: str = "minmax"  # or entropy, percentile: they clip, which pays where a few outliers stretch the range
    percentile: float = 99.99  # share of an activation's values, in per cent, that its range keeps
    calibration_images: int = 256  # ranges hardly move after a hundred
    calibration_split: str = "train"  # never images that the result is judged on
    per_channel: bool = True  # one scale for each output channel of a weight: costs nothing at run time
    bits: int = 8  # of weights; below 8 they are stored in int8 all the same, for want of kernels
    float_sums: bool = False  # sums of two branches stay in float: outliers in a residual stream make a scale coarse
    float_layers: tuple[str, ...] = ()  # names of modules, with all that is in them, that stay in float
    drop_max: float | None = None  # of the first quality on validation: what hurts most is put back to float until then
    fine_tune: DistillConfig | None = None  # how qat trains; None: as `QAT` says
    seed: int = 0  # which images are drawn for the calibration

    def check(self) -> None:
        """Raise SpeedproofError for a value that cannot be quantized with."""
        for name, known in (("method", METHODS), ("calibration", CALIBRATIONS), ("calibration_split", SPLITS)):
            if getattr(self, name) not in known:
                raise SpeedproofError(f"{_option(name)} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name, least, most in (
            ("size", 1, 1 << 16),
            ("calibration_images", 1, 1 << 31),
            ("bits", 2, 8),
            ("seed", 0, 1 << 63),
        ):
            if not least <= getattr(self, name) <= most:
                raise SpeedproofError(f"{_option(name)} {getattr(self, name)}: expected from {least} to {most}")
        if not 50 < self.percentile <= 100:
            raise SpeedproofError(f"--percentile {self.percentile:g}: expected a number above 50, at most 100")
        if self.drop_max is not None and not 0 <= self.drop_max < math.inf:
            raise SpeedproofError(f"--drop-max {self.drop_max:g}: expected a number from 0")
        if self.drop_max is not None and self.method not in CALIBRATED:
            raise SpeedproofError(
                f"--drop-max goes with static and qat: {self.method} has no ranges to judge layers by"
            )
        if self.fine_tune is not None:
            if self.method != "qat":
                raise SpeedproofError(f"fine_tune goes with the method qat, not with {self.method}")
            self.fine_tune.check()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}" if name != "method" else "--quantization-method"


# Low rates and no weight decay: the weights only have to find their way around the grid.
QAT = DistillConfig(epochs=2, lr=0.002, warmup_epochs=0.1, start_share=1.0, weight_decay=0.0, views=0, patience=2)
QAT_SPEECH = DistillConfig(**{**SPEECH, "epochs": 2, "lr": 1e-4, "weight_decay": 0.0, "patience": 2}, views=0)
