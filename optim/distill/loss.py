"""What a student minimises, and how its training is configured."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from models.errors import SpeedproofError
from optim.schedule import TrainConfig

TRANSFERS = ("none", "feature", "attention")


@dataclass(frozen=True)
class DistillConfig(TrainConfig):
    """How a student is distilled; the schedule is that of `TrainConfig`."""

    size: int = 224
    temperature: float = 2.0  # above 1 the small probabilities, which tell what is alike, count more
    alpha: float = 0.5  # share of the teacher's word in the loss; the rest is the labels'
    label_smoothing: float = 0.0  # the teacher smooths already
    views: int = 8  # fixed views whose teacher logits are kept; 0: new views, and a teacher asked in every step
    teacher_size: int = 0  # px of the teacher's views of the same crops; 0: as the student's
    transfer: str = "none"  # or feature, attention: needs `layers`
    transfer_weight: float = 1.0
    layers: tuple[tuple[str, str], ...] = ()  # names of modules, teacher's and student's
    unlabeled: str | None = None  # a folder of further images, in it or below it, without labels

    def check(self) -> None:
        """Raise SpeedproofError for a value that cannot be distilled with."""
        super().check()
        if not 0 < self.temperature < float("inf"):
            raise SpeedproofError(f"--temperature {self.temperature:g}: expected a number above 0")
        if not 0 <= self.alpha <= 1:
            raise SpeedproofError(f"--alpha {self.alpha:g}: expected a number from 0 to 1")
        if self.transfer not in TRANSFERS:
            raise SpeedproofError(f"--transfer {self.transfer!r}: expected one of {', '.join(TRANSFERS)}")
        if (self.transfer != "none") != bool(self.layers):
            raise SpeedproofError(
                "--transfer feature or attention goes with --layers TEACHER=STUDENT, names of modules"
            )
        if not self.transfer_weight >= 0:
            raise SpeedproofError(f"--transfer-weight {self.transfer_weight:g}: expected a number from 0")


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """The loss of a batch, float32 (): logits (B, C) of both, int64 labels (B,) with -1 for an unknown one."""
    student, teacher = (F.log_softmax(logits.float() / temperature, 1) for logits in (student_logits, teacher_logits))
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
    known = labels >= 0
    if not known.any():
        return alpha * soft
    hard = F.cross_entropy(student_logits[known].float(), labels[known], label_smoothing=label_smoothing)
    return alpha * soft + (1 - alpha) * hard


def attention_map(features: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H W): where a layer is active, of length 1 for each image."""
    return F.normalize(features.float().square().mean(1).flatten(1))
