"""How much of a quantized graph is in int8; what a runtime made of it is what its backend's coverage says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from optim.quantize.graph import ADDITIONS, WEIGHTED, both_activations, layer_of

_DEQUANTIZE = {
    torch.ops.quantized_decomposed.dequantize_per_tensor.default,
    torch.ops.quantized_decomposed.dequantize_per_tensor.tensor,
    torch.ops.quantized_decomposed.dequantize_per_channel.default,
}


@dataclass(frozen=True)
class Coverage8:
    """Names of layers (``+`` for an addition in one) whose operands both come from integers, and of the others."""

    int8: tuple[str, ...]
    float: tuple[str, ...]

    @property
    def words(self) -> str:
        """In words, with the layers that stay in float."""
        total = len(self.int8) + len(self.float)
        rest = f"; in float: {', '.join(self.float)}" if self.float else ""
        return f"{len(self.int8)} of {total} convolutions, linear layers and additions take int8{rest}"


def coverage_int8(module: GraphModule) -> Coverage8:
    """Count the convolutions, linear layers and additions of a quantized graph that take integers."""
    placed: dict[bool, list[str]] = {True: [], False: []}
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        addition = node.target in ADDITIONS and both_activations(node)
        if node.target in WEIGHTED or addition:
            operands = [part.target if isinstance(part, Node) else None for part in node.args[:2]]
            placed[all(part in _DEQUANTIZE for part in operands)].append(layer_of(node) + "+" * addition)
    return Coverage8(tuple(placed[True]), tuple(placed[False]))
