"""What pruning has left: zeros, parameters, and bytes."""

from __future__ import annotations

import zlib

import torch
from torch import nn

from optim.prune.masks import layers_of


def sparsity(model: nn.Module) -> dict[str, float]:
    """Share of zeros, 0 to 1, among the weights of each convolution and linear layer, and ``overall`` among all."""
    weights = {name: layer.weight.detach() for name, layer in layers_of(model).items()}
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    shares = {name: zeros[name] / weight.numel() for name, weight in weights.items()}
    return {**shares, "overall": sum(zeros.values()) / sum(weight.numel() for weight in weights.values())}


def parameters(model: nn.Module) -> int:
    """How many parameters a model has, zeros among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def compressed_bytes(model: nn.Module) -> int:
    """Bytes of the tensors of a model's state dict, one after the other, compressed by zlib at level 6 (as gzip's)."""
    packer, size = zlib.compressobj(6), 0
    for tensor in model.state_dict().values():
        raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)  # NumPy has no bfloat16
        size += len(packer.compress(raw.numpy().tobytes()))
    return size + len(packer.flush())
