"""What each layer of a model does in one call: operators, FLOP, bytes, parameters. Counted, not timed.

A layer is a module that calls no other module; what a model does between its layers (``F.relu``, additions, Python) is
"outside". An encoder layer that torch runs as one fused kernel never calls its parts, and is one layer.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench_tests.harness import roofline
from models.workload import Tensors

OUTSIDE = "outside of layers"

Forward = Callable[..., Any]


@dataclass
class Tally:
    """What was counted in one call of a model: in one layer, or outside of all.

    ``bytes_moved`` is the least that must be moved: inputs, outputs and weights, each once a call of the layer; outside
    of layers the inputs and outputs of each operator, since there is nothing that could keep them in a register.
    """

    calls: int = 0
    flop: int = 0  # a multiply-add is 2
    bytes_moved: int = 0
    operators: Counter[str] = field(default_factory=Counter)  # torch's own; views are not among them


def find_layers(module: nn.Module, inputs: Tensors) -> dict[str, nn.Module]:
    """The modules that call no other, by name, in the order of their first call. The whole module's name is ``""``."""
    stack: list[str] = []
    called: dict[str, None] = {}
    callers: set[str] = set()

    def wrap(name: str, forward: Forward) -> Forward:
        def followed(*args: Any, **kwargs: Any) -> Any:
            callers.update(stack[-1:])
            called.setdefault(name)
            stack.append(name)
            try:
                return forward(*args, **kwargs)
            finally:
                stack.pop()

        return followed

    parts = dict(module.named_modules())
    with wrapped(parts, wrap), torch.inference_mode():
        module(*inputs)
    return {name: parts[name] for name in called if name not in callers}


@contextlib.contextmanager
def wrapped(parts: Mapping[str, nn.Module], wrap: Callable[[str, Forward], Forward]) -> Iterator[None]:
    """Give modules another forward for a while.

    Nearer to the work than torch's hooks, which make every call of a module take the slow way, and count it in.
    """
    before: dict[str, Forward | None] = {name: vars(part).get("forward") for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.forward = wrap(name, part.forward)
        yield
    finally:
        for name, part in parts.items():
            if (own := before[name]) is not None:
                part.forward = own
            elif "forward" in vars(part):
                del part.forward


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that does more than view a tensor, and the bytes of its inputs and outputs."""

    def __init__(self, note: Callable[[str, int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        name, returns = func._schema.name.rpartition("::")[2], func._schema.returns
        view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        if not view and not name.startswith("empty"):
            self._note(name.strip("_"), _bytes((args, kwargs)) + _bytes(outputs))
        return outputs


def count(module: nn.Module, inputs: Tensors, names: Sequence[str]) -> dict[str, Tally]:
    """What each of the named layers does in one call, and under `OUTSIDE` what is done between them.

    Expects a float32 module in eval mode on the CPU, where torch's counter sees every kernel.
    """
    tallies = {name: Tally() for name in (*names, OUTSIDE)}
    own = dict(module.named_modules())
    parts = {name: own[name] for name in names}
    counter = FlopCounterMode(display=False)
    current = OUTSIDE

    def note(operator: str, bytes_moved: int) -> None:
        tallies[current].operators[operator] += 1
        if current == OUTSIDE:
            tallies[OUTSIDE].bytes_moved += bytes_moved

    def wrap(name: str, forward: Forward) -> Forward:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal current
            if current != OUTSIDE:  # a layer of one fused kernel, which in its countable form calls others
                return forward(*args, **kwargs)
            current, tally = name, tallies[name]
            flop, operators = counter.get_total_flops(), tally.operators.total()
            try:
                outputs = forward(*args, **kwargs)
            finally:
                current = OUTSIDE
            tally.calls += 1
            tally.flop += counter.get_total_flops() - flop
            if tally.operators.total() > operators:  # otherwise it only passes on a view of its input
                tally.bytes_moved += _least_bytes(parts[name], (args, kwargs), outputs)
            return outputs

        return counted

    # Not in inference mode, where the dispatcher shows a GRU as one operator, which the counter does not know.
    with wrapped(parts, wrap), roofline.countable_kernels(module), torch.no_grad(), counter, _Operators(note):
        module(*inputs)
    tallies[OUTSIDE].flop = counter.get_total_flops() - sum(tallies[name].flop for name in names)
    tallies[OUTSIDE].calls = 1
    return tallies


def _least_bytes(part: nn.Module, inputs: Any, outputs: Any) -> int:
    """Bytes of inputs, outputs and weights, each once; of an embedding's table only the rows that are read."""
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        indices = next(leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor))
        weights = indices.numel() * part.embedding_dim * part.weight.element_size()
    else:
        weights = _bytes([*part.parameters(), *part.buffers()])
    return _bytes(inputs) + _bytes(outputs) + weights


def _bytes(tree: Any) -> int:
    """Bytes of the tensors of a tree, each once."""
    found = {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
    return sum(tensor.nbytes for tensor in found.values())


def parameters(module: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, int]:
    """Parameters of each layer, those of an earlier one not counted again; the model's others under `OUTSIDE`."""
    seen: set[int] = set()

    def fresh(found: Iterable[nn.Parameter]) -> int:
        new = {id(parameter): parameter.numel() for parameter in found if id(parameter) not in seen}
        seen.update(new)
        return sum(new.values())

    return {**{name: fresh(part.parameters()) for name, part in layers.items()}, OUTSIDE: fresh(module.parameters())}


def kind(part: nn.Module) -> str:
    """A layer's class with what its cost depends on: ``Conv2d 3x3 64->128 /2``, ``Linear 512->10``."""
    name = type(part).__name__
    if isinstance(part, nn.modules.conv._ConvNd):
        stride = "" if set(part.stride) == {1} else f" /{'x'.join(map(str, dict.fromkeys(part.stride)))}"
        groups = "" if part.groups == 1 else " dw" if part.groups == part.in_channels else f" g{part.groups}"
        return f"{name} {_kernel(part)} {part.in_channels}->{part.out_channels}{stride}{groups}"
    if isinstance(part, nn.RNNBase):
        depth = f" x{part.num_layers}" if part.num_layers > 1 else ""
        return f"{name} {part.input_size}->{part.hidden_size}{depth}{' both ways' if part.bidirectional else ''}"
    if isinstance(part, nn.RNNCellBase):
        return f"{name} {part.input_size}->{part.hidden_size}"
    if isinstance(part, nn.Linear):
        return f"{name} {part.in_features}->{part.out_features}"
    if isinstance(part, nn.modules.batchnorm._NormBase):
        return f"{name} {part.num_features}"
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        return f"{name} {part.num_embeddings}x{part.embedding_dim}"
    return name


def family(part: nn.Module) -> str:
    """The layers that are spoken of together: ``3x3 convolutions``, ``BatchNorm2d``."""
    if isinstance(part, nn.modules.conv._ConvNd):
        depthwise = "depthwise " if part.groups == part.in_channels > 1 else ""
        return f"{depthwise}{_kernel(part)} convolutions"
    return type(part).__name__


def _kernel(part: nn.modules.conv._ConvNd) -> str:
    return "x".join(map(str, part.kernel_size))
