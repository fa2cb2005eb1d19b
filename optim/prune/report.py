"""What pruning has left: zeros, parameters, and bytes."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from models.integer import IntegerTinychat
from optim.prune.masks import layers_of


def sparsity(model: nn.Module) -> dict[str, float]:
    """Share of zeros, 0 to 1, among the weights of each convolution and linear layer, and ``overall`` among all."""
    weights = {name: tensor for name, tensor in _constants(model).items() if tensor.ndim > 1}
    if not weights:
        weights = {name: layer.weight.detach() for name, layer in layers_of(model).items()}
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    shares = {name: zeros[name] / weight.numel() for name, weight in weights.items()}
    return {**shares, "overall": sum(zeros.values()) / sum(weight.numel() for weight in weights.values())}


def parameters(model: nn.Module) -> int:
    """How many parameters a model has, zeros among them, and those of an integer network, which are constants."""
    return sum(parameter.numel() for parameter in (*model.parameters(), *_constants(model).values()))


def _constants(model: nn.Module) -> dict[str, Tensor]:
    """Weights and biases of an integer network, which may have an encoding before it; empty for all other models."""
    networks = (part for part in model.modules() if isinstance(part, IntegerTinychat))
    return {name: tensor for network in networks for name, tensor in network.named_buffers()}


def compressed_bytes(model: nn.Module) -> int:
    """Bytes of the tensors of a model's state dict, one after the other, compressed by zlib at level 6 (as gzip's)."""
    packer, size = zlib.compressobj(6), 0
    for tensor in model.state_dict().values():
        raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)  # NumPy has no bfloat16
        size += len(packer.compress(raw.numpy().tobytes()))
    return size + len(packer.flush())
