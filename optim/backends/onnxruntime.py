"""ONNX Runtime: the exported graph, fused and run by its CPU or CUDA provider.

On the CPU it runs fp32 and the integer kernels that a recipe quantized to; it has no bf16 or fp16 kernels worth the
name there. On a GPU inputs and outputs stay on the card (IOBinding), so that no copy is in the time.

Traps: the CUDA provider falls back to the CPU silently, so the session's first provider is checked and `coverage`
counts what ran where; TF32 is on by default; idle threads spin by default and slow down everything else in the process.

Mechanism: a graph of few fused operators in C++, whose call costs little. Limits: on a CPU no lower float precision.
Risk: an export may change what the model computes, which parity checks.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
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
    cast_inputs,
    first_line,
    unsupported,
)
from optim.backends.export import onnx_bytes, onnx_file

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ARITHMETIC = re.compile(r"(Nhwc|Fused|QLinear|Q|Dynamic\w*)*(Conv|Gemm|MatMul|GRU|LSTM|RNN|Einsum|\w*Attention)")
# ONNX's name and number for each dtype that a model takes or gives.
_ONNX_TYPES = {
    "float": (torch.float32, 1),
    "uint8": (torch.uint8, 2),
    "int8": (torch.int8, 3),
    "int32": (torch.int32, 6),
    "int64": (torch.int64, 7),
    "bool": (torch.bool, 9),
    "float16": (torch.float16, 10),
    "double": (torch.float64, 11),
    "bfloat16": (torch.bfloat16, 16),
}
_NUMBERS = dict(_ONNX_TYPES.values())


class OnnxRuntimeRunner(Runner):
    """A session on one provider."""

    def __init__(self, path: Path, precision: str, target: Target, from_cache: bool) -> None:
        super().__init__(size_bytes=onnx_bytes(path), build_s=0.0, device=target.device, from_cache=from_cache)
        self._path = path
        self._precision = precision
        self._target = target
        self._session = _session(path, target)
        self._names = [node.name for node in self._session.get_inputs()]

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        return self._run(self._session, inputs)

    def _run(self, session: Any, inputs: Tensors) -> Tensors:
        inputs = cast_inputs(inputs, PRECISIONS[self._precision])
        if self.device == "cuda":
            return run_bound(session, inputs)
        arrays = {name: tensor.detach().numpy() for name, tensor in zip(self._names, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in session.run(None, arrays))

    def coverage(self, inputs: Tensors) -> Coverage:
        with tempfile.TemporaryDirectory() as folder:
            session = _session(self._path, self._target, profile_to=Path(folder))
            self._run(session, inputs)
            events = json.loads(Path(session.end_profiling()).read_text())
        nodes = [event["args"] for event in events if event["cat"] == "Node" and "provider" in event["args"]]
        return read_profile(nodes, _PROVIDERS[self.device], PRECISIONS[self._precision])


class OnnxRuntime(Backend):
    """ONNX Runtime, CPU or CUDA provider."""

    name = "onnxruntime"
    package = "onnxruntime"

    def missing(self, precision: str, target: Target) -> str | None:
        extra = "gpu" if target.device == "cuda" else "cpu"
        reason = unsupported(precision, target) or absent(("onnxruntime", "onnx", "onnxscript"), extra)
        if reason:
            return reason
        if target.device == "cpu" and precision != "fp32":
            return f"its CPU provider has no {precision} kernels worth the name: take fp32, or int8 from a recipe"

        import onnxruntime

        if _PROVIDERS[target.device] not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no {_PROVIDERS[target.device]}: pip install '.[{extra}]'"
        return None

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        start = time.perf_counter()
        path, hit = onnx_file(module, example, precision, self.name)
        try:
            runner = OnnxRuntimeRunner(path, precision, target, from_cache=hit)
        except SpeedproofError:
            raise
        except Exception as error:
            raise SpeedproofError(
                f"onnxruntime cannot load {type(module).__name__} in {precision} on {target.device} "
                f"({first_line(error)}): run it on another backend, or in fp32"
            ) from error
        runner.build_s = time.perf_counter() - start
        return runner


def _session(path: Path, target: Target, profile_to: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors: which initializers it dropped is of no use to anybody
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if b"QuantizeLinear" not in path.read_bytes():
        # At most weights are quantized: they become floats once, when the file is read, and not in every call.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to / "profile")
    wanted = _PROVIDERS[target.device]
    providers: list[Any] = [(wanted, {"use_tf32": "0"}), _PROVIDERS["cpu"]] if target.device == "cuda" else [wanted]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    got = session.get_providers()[0]
    if got != wanted:
        raise SpeedproofError(
            f"onnxruntime runs on {got} where {wanted} was asked for: check that its CUDA libraries match the driver"
        )
    return session


def run_bound(session: Any, inputs: Tensors) -> Tensors:
    """Run with inputs and outputs where the tensors are; outputs are new tensors on the inputs' device."""
    device = inputs[0].device
    if device.type == "cuda":
        torch.cuda.current_stream().synchronize()  # the provider has a stream of its own
    binding = session.io_binding()
    kept = [tensor.detach().contiguous() for tensor in inputs]
    for node, tensor in zip(session.get_inputs(), kept, strict=True):
        number = _NUMBERS[tensor.dtype]
        binding.bind_input(node.name, device.type, device.index or 0, number, list(tensor.shape), tensor.data_ptr())
    outputs = []
    for node in session.get_outputs():
        dtype, number = _ONNX_TYPES[re.sub(r"tensor\((\w+)\)", r"\1", node.type)]
        output = torch.empty(node.shape, dtype=dtype, device=device)
        binding.bind_output(node.name, device.type, device.index or 0, number, node.shape, output.data_ptr())
        outputs.append(output)
    session.run_with_iobinding(binding)
    return tuple(outputs)


def read_profile(nodes: list[dict[str, Any]], provider: str, asked: torch.dtype) -> Coverage:
    """Coverage from the nodes of a profile, each with ``op_name``, ``provider`` and ``input_type_shape``."""
    counts: Counter[str] = Counter()
    fallbacks = []
    for node in nodes:
        names = [name for types in node["input_type_shape"] for name in types]
        dtypes = [_ONNX_TYPES[name][0] for name in names if name in _ONNX_TYPES]
        counts[f"{node['provider']}/{str(dtypes[0])[6:] if dtypes else 'none'}"] += 1
        floats = {dtype for dtype in dtypes if dtype.is_floating_point}
        if node["provider"] != provider:
            fallbacks.append(f"{node['op_name']} on {node['provider']}")
        elif _ARITHMETIC.match(node["op_name"]) and floats - {asked} and dtypes[0].is_floating_point:
            fallbacks.append(f"{node['op_name']} in {str(dtypes[0])[6:]}")
    return Coverage(counts, tuple(fallbacks))


BACKEND = OnnxRuntime()
