"""Pruning: weights, or whole channels, that count little are taken out of a trained model.

1. Every weight, or channel, gets an importance: its magnitude. Unstructured pruning takes |w|, over all layers together
   (``global``) or in each (``local``); structured pruning takes the mean L1 or squared L2 norm of all weights that
   belong to a channel in the layers that share it.
2. The least important ones go. Unstructured: exactly ``round(amount n)`` weights become zero. Structured: channels are
   removed from all layers that share them, as Torch-Pruning's dependency graph finds them (Fang et al., 2301.12900);
   each group of layers keeps a multiple of ``round_to``. ``2:4``: of every four weights in a row, the two smallest
   become zero (Mishra et al., 2104.08378).
3. Fine-tuning, on labels or on a teacher's logits, brings accuracy back; zeros stay zero in every step.
4. Optionally the way is long: ``gradual`` raises the sparsity while training goes on, s_t = s (1 - (1 - t/T)^3), and
   recomputes the masks (Zhu & Gupta, 1710.01878); ``steps`` removes channels in several steps of equal ratio with
   fine-tuning in between.

Mechanism: removed channels are arithmetic, memory traffic and parameters that are gone, on every backend. Limits: zeros
at arbitrary places make a file compress better and nothing faster, since dense kernels multiply them like any number;
2:4 zeros are faster only on GPUs with sparse tensor cores, through ``torch.sparse.to_sparse_semi_structured``; on a CPU
they bring no speed. Risk: magnitude is a guess at importance; look at `sensitivity` before a large amount.
"""

from optim.prune.channels import ChannelGroups
from optim.prune.config import PruneConfig, sparsity_at
from optim.prune.method import prune
from optim.prune.report import compressed_bytes, parameters, sparsity
from optim.prune.sensitivity import sensitivity, sensitivity_table

__all__ = [
    "ChannelGroups",
    "PruneConfig",
    "compressed_bytes",
    "parameters",
    "prune",
    "sensitivity",
    "sensitivity_table",
    "sparsity",
    "sparsity_at",
]
