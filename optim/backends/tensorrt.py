"""Torch-TensorRT: the whole module as one TensorRT engine on an NVIDIA GPU.

The precision is the module's dtype, since ``enabled_precisions`` is ignored from 2.13 on and raises before. Nothing is
cached: a cached engine is refittable and can be slower.

Traps: an unknown option is swallowed; an unsupported operator stays in PyTorch without a word unless full compilation
is required, and `coverage` counts what stayed. It sees which tensors enter an engine, not what happens inside.

Not run where this was written, for want of a GPU with the vendor's libraries: the tests use a stand-in.

Mechanism: one engine of fused kernels that were chosen by timing them on the very card. Limits: NVIDIA GPUs; fixed
shapes here. Risk: building takes minutes, and an engine runs on no other card.
"""

from __future__ import annotations

import operator
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from models.errors import SpeedproofError
from models.workload import Tensors
from optim.backends.base import (
    PRECISIONS,
    Backend,
    Coverage,
    Runner,
    Target,
    absent,
    as_tuple,
    cast_inputs,
    first_line,
    unsupported,
)
from optim.backends.eager import prepared, weight_bytes

_ENGINES = {"TorchTensorRTModule", "PythonTorchTensorRTModule"}
OPTIONS = {"ir": "dynamo", "require_full_compilation": True, "min_block_size": 1, "disable_tf32": True}


class TensorRTRunner(Runner):
    """A compiled module of engines, called in inference mode."""

    def __init__(self, compiled: nn.Module, precision: str, target: Target, fallback_bytes: int) -> None:
        engines = [part for part in compiled.modules() if type(part).__name__ in _ENGINES]
        serialized = [getattr(engine, "serialized_engine", None) for engine in engines]
        sizes = [len(content) for content in serialized if isinstance(content, bytes | bytearray)]
        complete = bool(sizes) and len(sizes) == len(engines)
        super().__init__(
            size_bytes=sum(sizes) if complete else fallback_bytes, build_s=0.0, device=target.device, from_cache=False
        )
        self._compiled = compiled
        self._precision = precision

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        with torch.inference_mode():
            outputs = as_tuple(self._compiled(*cast_inputs(inputs, PRECISIONS[self._precision])))
            # An engine may hand out the same buffers again.
            return tuple(output.clone() for output in outputs)

    def coverage(self, inputs: Tensors) -> Coverage:
        asked = PRECISIONS[self._precision]
        entered: list[torch.dtype] = []

        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            dtypes = [leaf.dtype for leaf in args if isinstance(leaf, torch.Tensor)]
            entered.append(next((dtype for dtype in dtypes if dtype.is_floating_point), dtypes[0]))

        engines = [part for part in self._compiled.modules() if type(part).__name__ in _ENGINES]
        hooks = [engine.register_forward_pre_hook(note) for engine in engines]
        try:
            self(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        counts = Counter(f"tensorrt/{str(dtype)[6:]}" for dtype in entered)
        strays = [f"{name} in PyTorch" for name in outside_engines(self._compiled)]
        counts["pytorch"] += len(strays)
        wrong = [f"engine fed {str(dtype)[6:]}" for dtype in entered if dtype.is_floating_point and dtype != asked]
        none = [] if entered else ["no TensorRT engine ran"]
        return Coverage(+counts, (*strays, *wrong, *none))


class TensorRT(Backend):
    """Torch-TensorRT, fully compiled, without TF32."""

    name = "tensorrt"
    package = "torch-tensorrt"

    def missing(self, precision: str, target: Target) -> str | None:
        return unsupported(precision, target, ("cuda",)) or absent(("torch_tensorrt",), "gpu")

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        import torch_tensorrt

        start = time.perf_counter()
        own = prepared(module, precision, target)
        inputs = cast_inputs(tuple(tensor.to(target.device) for tensor in example), PRECISIONS[precision])
        try:
            compiled = torch_tensorrt.compile(own, arg_inputs=list(inputs), **OPTIONS)
            runner = TensorRTRunner(compiled, precision, target, weight_bytes(own))
            runner(*inputs)
        except Exception as error:
            raise SpeedproofError(
                f"tensorrt cannot compile {type(module).__name__} in {precision} on {target.device} "
                f"({first_line(error)}): run it on inductor, or replace the operator that it names"
            ) from error
        runner.build_s = time.perf_counter() - start
        return runner


def outside_engines(compiled: nn.Module) -> Iterator[str]:
    """The operators of a compiled module that no engine runs; picking an output of an engine is none."""
    if not isinstance(compiled, torch.fx.GraphModule):
        if type(compiled).__name__ not in _ENGINES:
            yield type(compiled).__name__
        return
    for node in compiled.graph.nodes:
        if node.op == "call_module":
            yield from outside_engines(compiled.get_submodule(str(node.target)))
        elif node.op == "call_method" or (
            node.op == "call_function"
            and node.target is not operator.getitem
            and "tensorrt.execute_engine" not in str(node.target)
        ):
            yield str(node.target)


BACKEND = TensorRT()
