"""A model as a PT2E graph with a `Grid` at every place that is to be quantized.

What is rounded: both operands of every convolution, linear layer and addition of two activations, the input of a mean,
and what a max pool passes on. With that, every runtime finds the int8 kernel of each operator: ONNX Runtime wants
grids on both sides of one, OpenVINO fuses what lies between two.

Batch norm is folded first, so that the weights that are rounded are the ones that are multiplied.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from models.errors import SpeedproofError
from models.workload import Tensors
from optim.backends.base import first_line
from optim.backends.export import quiet
from optim.quantize.config import QuantizeConfig
from optim.quantize.grids import ActivationGrid, WeightGrid

aten = torch.ops.aten
WEIGHTED = {aten.conv1d.default, aten.conv2d.default, aten.conv2d.padding, aten.conv3d.default, aten.linear.default}
RECURRENT = {aten.gru.input, aten.lstm.input}
ADDITIONS = {aten.add.Tensor, aten.add_.Tensor}
_MEANS = {aten.mean.dim, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default}
_PASSING = {aten.max_pool2d.default, aten.constant_pad_nd.default, aten.pad.default}


class Places(Quantizer):  # type: ignore[misc]
    """Says where the grids are; see the module's docstring."""

    def __init__(self, config: QuantizeConfig) -> None:
        dynamic = config.method == "dynamic"
        self._targets = {aten.linear.default} if dynamic else WEIGHTED
        self._weights_alone = config.method == "weights"
        self._rest = not dynamic
        self._float_layers = config.float_layers
        self._additions = set() if config.float_sums else ADDITIONS
        kind = torch.per_channel_symmetric if config.per_channel else torch.per_tensor_symmetric
        largest = 2 ** (config.bits - 1) - 1
        activation = ActivationGrid.with_args(magnitudes=config.calibration == "entropy")
        self._activation = QuantizationSpec(
            torch.uint8, activation, 0, 255, torch.per_tensor_affine, is_dynamic=dynamic
        )
        self._weight = QuantizationSpec(torch.int8, WeightGrid.with_args(), -largest, largest, kind)

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            if node.op != "call_function" or in_layers(node, self._float_layers):
                continue
            if self._weights_alone:
                if weights := _weights_of(node):
                    _annotate(node, dict.fromkeys(weights, self._weight))
            elif node.target in self._targets:
                x, weight = node.args[:2]
                _annotate(node, {x: self._activation, weight: self._weight})
            elif not self._rest:
                continue
            elif node.target in self._additions and both_activations(node):
                _annotate(node, dict.fromkeys(node.args[:2], self._activation))
            elif node.target in _MEANS:
                _annotate(node, {node.args[0]: self._activation})
            elif node.target in _PASSING:  # what comes out lies on the grid of what went in
                _annotate(node, {node.args[0]: self._activation}, SharedQuantizationSpec((node.args[0], node)))
        return model

    def validate(self, model: GraphModule) -> None:
        """Any graph will do."""


def _weights_of(node: Node) -> list[Any]:
    """The matrices and kernels that an operator multiplies with."""
    if node.target in WEIGHTED:
        return [node.args[1]]
    if node.target in RECURRENT:
        parameters: Any = node.args[2]
        return [part for part in parameters if part.meta["val"].dim() > 1]
    return []


def _annotate(node: Node, inputs: Mapping[Any, QuantizationSpec], output: object = None) -> None:
    node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(dict(inputs), output, _annotated=True)


def both_activations(node: Node) -> bool:
    """Whether neither operand of a sum is a constant: only then it joins two branches."""
    operands = [part for part in node.args[:2] if isinstance(part, Node) and part.op != "get_attr"]
    value = node.meta["val"]
    return len(operands) == 2 and value.dim() > 1 and value.dtype.is_floating_point


def layer_of(node: Node) -> str:
    """The name of the original model's module that a node comes from."""
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return paths[-1].removeprefix("L['self']").lstrip(".") if paths else ""


def in_layers(node: Node, names: Sequence[str]) -> bool:
    """Whether a node comes from one of some modules, or from inside of it."""
    own = layer_of(node)
    return any(own == name or own.startswith(f"{name}.") for name in names)


def traced(model: nn.Module, example: Tensors) -> GraphModule:
    """The graph of a copy of ``model``, for any number of rows where the model allows that."""
    own = copy.deepcopy(model).eval().requires_grad_(False)
    axes = tuple({0: torch.export.Dim.AUTO} for _ in example)
    try:
        with quiet(), torch.no_grad():
            graph = torch.export.export(own, example, dynamic_shapes=axes).module(check_guards=False)
    except Exception as error:
        raise SpeedproofError(
            f"{type(model).__name__} cannot be quantized, since torch.export does not accept it "
            f"({first_line(error)}): change the model until it does"
        ) from error
    assert isinstance(graph, GraphModule)
    return graph


def prepared(model: nn.Module, example: Tensors, config: QuantizeConfig) -> GraphModule:
    """The graph of a copy of ``model`` with its grids, all of them off; ``example`` has at least two rows.

    Raises SpeedproofError for names in ``float_layers`` that the model does not have, and a graph that PT2E refuses.
    """
    known = dict(model.named_modules())
    for name in config.float_layers:
        if not name or name not in known:
            raise SpeedproofError(
                f"--float-layers {name}: {type(model).__name__} has no module of that name; expected one such as "
                f"{next((name for name, part in known.items() if isinstance(part, nn.Conv2d | nn.Linear)), 'fc')}"
            )
    device = next((part.device for part in model.state_dict().values()), torch.device("cpu"))
    example = tuple(tensor.to(device) for tensor in example)
    graph = traced(model, example)
    with quiet(), torch.no_grad():
        try:
            own: GraphModule = prepare_pt2e(graph, Places(config))
        except Exception as error:
            raise SpeedproofError(
                f"{type(model).__name__} cannot be quantized ({first_line(error)}): its batch norm must have running "
                f"statistics and be in eval mode, so that it can be folded"
            ) from error
        own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        own(*example)  # a weight's grid takes its scale from the weight that passes
    return own


def converted(graph: GraphModule) -> GraphModule:
    """A prepared graph, which is used up, with each grid a pair of quantize and dequantize operators, weights int8."""
    with quiet():
        result: GraphModule = convert_pt2e(graph)
    used = {node.target for node in result.graph.nodes if node.op == "get_attr"}
    for name, _ in [*result.named_parameters(), *result.named_buffers()]:  # the weights as they were
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(result.get_submodule(owner), attribute)
    result.delete_all_unused_submodules()
    for mode in ("train", "eval"):  # PT2E forbids them; the graph has but one mode and may be told of others
        delattr(result, mode)
    return result
