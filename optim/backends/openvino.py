"""OpenVINO on the CPU: the same ONNX file as ONNX Runtime's, compiled for this machine.

One stream, one request, as many threads as the target has, inputs shared with torch, outputs copied. The compiled
model is kept as a blob in the cache, and a second build imports it.

Traps: without a precision hint OpenVINO picks bf16 where the CPU has it; with a hint that the CPU cannot follow it
picks another one without a word (f16 became bf16). So `missing` asks what the CPU can do, and `coverage` reads the
compiled model, which says of every node in which precision it runs. A blob keeps that information. The ONNX file is
always fp32, and ``size_bytes`` is the file's; OpenVINO casts the weights when it compiles.

Mechanism: a graph compiled for this very CPU, with fused operators and its own bf16 and int8 kernels. Limits: x86 and
ARM CPUs here, one request at a time. Risk: it may leave out roundings between fused operators, so that int8 outputs
differ from the module's.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import SpeedproofError
from models.workload import Tensors
from optim.backends.base import Backend, Coverage, Runner, Target, absent, cast_inputs, first_line, unsupported
from optim.backends.cache import artefact
from optim.backends.export import onnx_bytes, onnx_file

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "u8": "uint8"}  # as torch spells them
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_ARITHMETIC = re.compile(r"\w*(Convolution|Deconvolution|FullyConnected|MatMul|RNN|LSTM|GRU|Attention|MHA)", re.I)
_FLOATS = {"f64", "f32", "bf16", "f16"}


class OpenVinoRunner(Runner):
    """A compiled model with one request."""

    def __init__(self, compiled: Any, precision: str, *, size_bytes: int, from_cache: bool) -> None:
        super().__init__(size_bytes=size_bytes, build_s=0.0, from_cache=from_cache)
        self._compiled = compiled
        self._precision = precision
        self._request = compiled.create_infer_request()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        arrays = [tensor.detach().numpy() for tensor in cast_inputs(inputs, torch.float32)]
        outputs = self._request.infer(arrays, share_inputs=True, share_outputs=False)
        return tuple(torch.from_numpy(array) for array in outputs.values())

    def __del__(self) -> None:
        self._request = self._compiled = None
        if not sys.is_finalizing():
            _leave_signal_stack()

    def coverage(self, inputs: Tensors) -> Coverage:
        self(*inputs)
        nodes = [
            (str(info["layerType"].value), str(info["runtimePrecision"].value))
            for info in (node.get_rt_info() for node in self._compiled.get_runtime_model().get_ordered_ops())
        ]
        return read_nodes(nodes, _HINTS[self._precision])


class OpenVino(Backend):
    """OpenVINO's CPU plugin."""

    name = "openvino"
    package = "openvino"

    def missing(self, precision: str, target: Target) -> str | None:
        reason = unsupported(precision, target, ("cpu",)) or absent(("openvino", "onnx", "onnxscript"), "cpu")
        if reason:
            return reason
        import openvino

        known = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if _CAPABILITIES[precision] not in known:
            return f"OpenVINO has no {precision} arithmetic on this CPU, only {', '.join(known)}"
        return None

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        import openvino

        start = time.perf_counter()
        path, _ = onnx_file(module, example, "fp32", self.name)
        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": target.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # or activations that meet int8 weights would be rounded too
        }
        parts: dict[str, object] = {
            "onnx": path.parent.name,
            "options": options,
            "cpu": core.get_property("CPU", "FULL_DEVICE_NAME"),
            "openvino": version("openvino"),
        }
        built: list[Any] = []

        def build(folder: Path) -> None:
            built.append(core.compile_model(core.read_model(path), "CPU", {**options, "CACHE_DIR": str(folder)}))

        try:
            folder, hit = artefact("openvino", parts, build)
            if hit:
                build(folder)
            runner = OpenVinoRunner(
                built[0],
                precision,
                size_bytes=onnx_bytes(path),
                from_cache=bool(built[0].get_property("LOADED_FROM_CACHE")),
            )
        except SpeedproofError:
            raise
        except Exception as error:
            raise SpeedproofError(
                f"openvino cannot compile {type(module).__name__} in {precision} ({first_line(error)}): "
                f"run it on onnxruntime, which reads the same file"
            ) from error
        runner.build_s = time.perf_counter() - start
        return runner


class _SignalStack(ctypes.Structure):
    """C's ``stack_t`` on Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def _leave_signal_stack() -> None:
    """Let this thread take its signals on its ordinary stack.

    OpenVINO 2026.4 gives the calling thread an alternate signal stack and unmaps it with the model: the next signal, a
    Ctrl-C, would then be a segmentation fault instead of a KeyboardInterrupt, and the session's results would be lost.
    """
    if sys.platform == "linux":
        disabled = 2  # SS_DISABLE
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(None, disabled, 0)), None)


def read_nodes(nodes: list[tuple[str, str]], asked: str) -> Coverage:
    """Coverage from the layer type and the precision of each node of a compiled model."""
    work = [(kind, precision) for kind, precision in nodes if kind not in {"Const", "Input", "Output"}]
    fallbacks = tuple(
        f"{kind} in {precision}"
        for kind, precision in work
        if _ARITHMETIC.match(kind) and precision in _FLOATS and precision != asked
    )
    return Coverage(Counter(f"CPU/{_DTYPES.get(precision, precision)}" for _, precision in work), fallbacks)


BACKEND = OpenVino()
