"""Knowledge distillation: a student learns what a teacher says of each example (Hinton et al., 1503.02531).

1. The teacher, in eval mode and without gradients, gives its logits for a view of the example.
2. The soft loss is T^2 KL(softmax(teacher / T) || softmax(student / T)); T^2 keeps its gradient's size as T grows.
3. The student minimises alpha x soft + (1 - alpha) x hard, the cross entropy with the labels; those without a label
   (``unlabeled``) count in the soft part alone.
4. Optionally features are transferred too: a student's layer is led to a teacher's through a learned 1x1 projection
   (Romero et al., 1412.6550), or its attention map, the normalised sum of squares over channels, to the teacher's
   (Zagoruyko & Komodakis, 1612.03928).

With ``views`` above 0 each example has that many fixed random views that take turns, and the teacher's logits for them
are computed once and kept by content, for every student (the same view for both, and patience, is the point of
Beyer et al., 2106.05237). Feature transfer asks the teacher anew.

Mechanism: wrong classes' probabilities tell the student which classes are alike. Limits: a student too small for its
teacher gains little from it; the teacher must know the same classes. Risk: the teacher's mistakes are learned too.
"""

from optim.distill.loss import DistillConfig, attention_map, distillation_loss
from optim.distill.method import distill, retrain, sweep, sweep_table

__all__ = ["DistillConfig", "attention_map", "distill", "distillation_loss", "retrain", "sweep", "sweep_table"]
