"""What is pruned, how much of it, and in how many steps."""

from __future__ import annotations

from dataclasses import dataclass, fields

from models.errors import SpeedproofError
from optim.distill import DistillConfig

METHODS = ("global", "local", "structured", "2:4")
UNSTRUCTURED = ("global", "local")
IMPORTANCES = ("l1", "l2")


@dataclass(frozen=True)
class PruneConfig:
    """How a model is pruned, and fine-tuned afterwards."""

    method: str = "global"  # layers differ in how much they bear: one ranking over all of them finds it out
    amount: float = 0.5  # share of weights, or of channels, that go; 2:4 always takes half
    round_to: int = 8  # channels that are left come in multiples of it: kernels work on vectors of 8 or 16
    importance: str = "l2"  # of a channel; l1 weighs a few large weights less
    global_channels: bool = False  # one ranking over the channels of all groups: thin layers may lose nearly all
    steps: int = 1  # in which channels go, with fine-tuning after each; more for large amounts
    gradual: bool = False  # raise the sparsity during fine-tuning: for amounts that hurt when taken at once
    gradual_share: float = 0.5  # of the epochs: the other half is trained at the full sparsity
    mask_every: int = 32  # steps between two new masks: ranking all weights costs about as much as a step
    fine_tune: DistillConfig | None = None  # None: none; its `size` is the image size
    ignored: tuple[str, ...] = ()  # names of layers, or of modules that hold some, which stay as they are

    def check(self) -> None:
        """Raise SpeedproofError for a value that cannot be pruned with."""
        if self.method not in METHODS:
            raise SpeedproofError(f"--pruning-method {self.method!r}: expected one of {', '.join(METHODS)}")
        if not 0 < self.amount < 1:
            raise SpeedproofError(f"--amount {self.amount:g}: expected a share above 0 and below 1")
        if self.method == "2:4" and self.amount != 0.5:
            raise SpeedproofError(f"--amount {self.amount:g}: 2:4 zeroes half of the weights; leave the option out")
        if self.importance not in IMPORTANCES:
            raise SpeedproofError(f"--importance {self.importance!r}: expected one of {', '.join(IMPORTANCES)}")
        for name in ("round_to", "steps", "mask_every"):
            if getattr(self, name) < 1:
                raise SpeedproofError(f"{_option(name)} {getattr(self, name)}: expected at least 1")
        if not 0 < self.gradual_share < 1:
            raise SpeedproofError(f"--gradual-share {self.gradual_share:g}: expected a share above 0 and below 1")
        self._check_fit()
        if self.fine_tune is not None:
            self.fine_tune.check()

    def _check_fit(self) -> None:
        """Refuse options that the method would not look at."""
        if self.method != "structured":
            self._refuse(("round_to", "importance", "global_channels", "steps"), "--pruning-method structured")
        if self.method not in UNSTRUCTURED:
            self._refuse(("gradual",), "--pruning-method global or local")
        if not self.gradual:
            self._refuse(("gradual_share", "mask_every"), "--gradual")
        if self.fine_tune is None:
            self._refuse(("steps", "gradual"), "--fine-tune")
        elif self.gradual and self.fine_tune.epochs < 2:
            raise SpeedproofError(
                f"--fine-tune-epochs {self.fine_tune.epochs}: --gradual needs at least 2, some while the sparsity "
                f"grows and some after it"
            )

    def _refuse(self, names: tuple[str, ...], companion: str) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise SpeedproofError(f"{_option(name)} goes with {companion}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def sparsity_at(share: float, final: float) -> float:
    """The sparsity when ``share`` of the gradual phase is over (Zhu & Gupta, 1710.01878): cubic from 0 to ``final``."""
    return final * (1 - (1 - min(share, 1.0)) ** 3)
