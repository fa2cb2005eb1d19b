"""PyTorch as it is: the reference that every speed-up is paired with.

A copy of the module in eval mode, cast to the precision, convolution weights in channels_last (measured: 1.5 times as
fast for a wide fp32 net on the CPU, no worse for a small one), called in inference mode. No fusion, no folding, no
autocast: all of the module runs in one precision.

Traps: torch's thread count belongs to the process and not to a module, so a runner sets its own before each call;
TF32 would make fp32 a lie on a GPU, so it is switched off for the process and the switch is read back by `coverage`.

Mechanism: none, it is the reference. Limits: each operator is called from Python and writes its result to memory.
Risk: none.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.errors import SpeedproofError
from models.workload import Tensors
from optim.backends.base import (
    PRECISIONS,
    Backend,
    Coverage,
    Runner,
    Target,
    as_tuple,
    cast_inputs,
    copied,
    first_line,
    unsupported,
)

# Operators that do the arithmetic of a network, in the spelling of aten, mkldnn, mkl, onednn and cudnn.
_ARITHMETIC = re.compile(
    r"_*(mkldnn_|mkl_|cudnn_|q)?"
    r"(convolution|conv(?=[\d_])|linear|rnn|gru|lstm|b?mm|addmm|baddbmm|int_mm|scaled_mm|weight_int\dpack_mm|matmul|"
    r"addmv|mv|dot|einsum|bilinear|scaled_dot_product|efficient_attention|flash_attention)(?![a-z])"
)


def is_arithmetic(operator: str) -> bool:
    """Whether an operator, ``aten::addmm``, multiplies matrices: the ones whose place and precision decide a time."""
    return _ARITHMETIC.match(operator.rpartition("::")[2]) is not None


def no_kernels(precision: str, target: Target) -> str | None:
    """Why torch has no kernels worth the name for a precision: without oneDNN's it falls back to plain loops."""
    if target.device == "cpu" and precision == "fp16" and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return "torch has no fast fp16 kernels for this CPU (it lacks AVX512-FP16): take bf16 or fp32"
    if target.device == "cpu" and precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "torch has no fast bf16 kernels for this CPU (it lacks AVX-512): take fp32"
    return None


def prepared(module: nn.Module, precision: str, target: Target) -> nn.Module:
    """A copy for inference on a target: eval mode, cast, convolution weights in channels_last."""
    own = copied(module)
    with contextlib.suppress(NotImplementedError):  # a graph from torch.export has no modes
        own.eval()
    own.requires_grad_(False).to(target.device, PRECISIONS[precision])
    for weight in own.parameters():
        if weight.dim() == 4:  # (out, in, height, width)
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return own


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's state, each tensor once: what a safetensors file of it holds."""
    tensors = {(tensor.data_ptr(), tensor.shape): tensor for tensor in module.state_dict().values()}
    return sum(tensor.nbytes for tensor in tensors.values())


def use_threads(target: Target) -> None:
    """Give torch's CPU pool the target's size; asking costs 0.1 us, setting is done only on a change."""
    if target.device == "cpu" and torch.get_num_threads() != target.threads:
        torch.set_num_threads(target.threads)


def forbid_tf32() -> None:
    """Make fp32 mean fp32, for the whole process."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def reduced_fp32(precision: str) -> tuple[str, ...]:
    """The process's switches that let an fp32 product be computed in less, as fallbacks."""
    if precision != "fp32":
        return ()
    matmul = () if torch.get_float32_matmul_precision() == "highest" else ("float32 matrix products in less",)
    return matmul if not torch.backends.cudnn.allow_tf32 else (*matmul, "cudnn convolutions in TF32")


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that is dispatched, with the device and dtype of its first tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, torch.device, torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        leaf = next((leaf for leaf in tree_leaves((args, kwargs, outputs)) if isinstance(leaf, torch.Tensor)), None)
        if leaf is not None:
            self.seen.append((func._schema.name, leaf.device, leaf.dtype))
        return outputs


class EagerRunner(Runner):
    """A prepared module, called in inference mode."""

    def __init__(self, module: nn.Module, precision: str, target: Target, build_s: float) -> None:
        super().__init__(size_bytes=weight_bytes(module), build_s=build_s, device=target.device)
        self._module = module
        self._precision = precision
        self._target = target

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        use_threads(self._target)
        with torch.inference_mode():
            return as_tuple(self._module(*cast_inputs(inputs, PRECISIONS[self._precision])))

    def coverage(self, inputs: Tensors) -> Coverage:
        asked = PRECISIONS[self._precision]
        use_threads(self._target)
        # Not in inference mode: there the dispatcher shows a GRU as one operator instead of the products it makes.
        with torch.inference_mode(False), torch.no_grad(), _Operators() as operators:
            self._module(*cast_inputs(tuple(tensor.clone() for tensor in inputs), asked))
        counts = Counter(f"{device.type}/{str(dtype)[6:]}" for _, device, dtype in operators.seen)
        fallbacks = tuple(
            f"{name} on {device.type} in {str(dtype)[6:]}"
            for name, device, dtype in operators.seen
            if is_arithmetic(name)
            and (device.type != self.device or (dtype.is_floating_point and dtype != asked))  # int8: the recipe's
        )
        return Coverage(counts, fallbacks + reduced_fp32(self._precision))


class Eager(Backend):
    """PyTorch eager in inference mode."""

    name = "eager"

    def missing(self, precision: str, target: Target) -> str | None:
        return unsupported(precision, target) or no_kernels(precision, target)

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        start = time.perf_counter()
        forbid_tf32()
        try:
            own = prepared(module, precision, target)
            runner = EagerRunner(own, precision, target, 0.0)
            runner(*(tensor.to(target.device) for tensor in example))
        except Exception as error:
            raise SpeedproofError(
                f"eager cannot run {type(module).__name__} in {precision} on {target.device} ({first_line(error)}): "
                f"check that the module takes the workload's example in that precision"
            ) from error
        runner.build_s = time.perf_counter() - start
        return runner


BACKEND = Eager()
