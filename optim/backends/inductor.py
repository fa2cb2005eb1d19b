"""torch.compile: Inductor writes C++ for the CPU and Triton for a GPU.

On the CPU weights are frozen (batch norm folded, convolutions packed for oneDNN); on a GPU the whole call is a CUDA
graph, whose outputs live in memory that the next replay overwrites, so they are cloned. `compile` runs the module
once, so that compilation is in ``build_s`` and never in a timed call.

The artefact is Inductor's own cache folder, one for each content. Its compiled kernels are reused, which is most of
the time; tracing is done again by each process. ``size_bytes`` is that of the weights: the kernels are generated at
the place of use.

Traps: ``options={"freezing": True}`` alone does nothing in torch 2.13, because Dynamo reads the setting when it traces
and by then only the global counts: the weights stay inputs and no convolution is packed. Dynamo's guards compile again,
in the middle of a timed run, when an input was made in inference mode (as every state that a model returned was) or
the number of threads changed: a runner fixes shapes, strides and threads by contract, so the guards are dropped, and
the generated code still asserts sizes and strides itself.

Mechanism: one graph without Python between operators; elementwise operators are fused into loops, and convolutions
get packed weights. Limits: convolutions and matrix products are still oneDNN's. Risk: compiling takes seconds to
minutes, and whatever changes a shape compiles again.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    as_tuple,
    cast_inputs,
    first_line,
    unsupported,
)
from optim.backends.cache import artefact, module_digest, signature
from optim.backends.eager import (
    forbid_tf32,
    is_arithmetic,
    no_kernels,
    prepared,
    reduced_fp32,
    use_threads,
    weight_bytes,
)
from optim.backends.export import exported, quiet

# The profiler's spelling of dtypes.
_DTYPES = {
    "float": torch.float32,
    "double": torch.float64,
    "c10::BFloat16": torch.bfloat16,
    "c10::Half": torch.float16,
    "unsigned char": torch.uint8,
    "signed char": torch.int8,
}


class InductorRunner(Runner):
    """A compiled graph, called in inference mode."""

    def __init__(
        self, compiled: Callable[..., Any], precision: str, target: Target, *, size_bytes: int, from_cache: bool
    ) -> None:
        super().__init__(size_bytes=size_bytes, build_s=0.0, device=target.device, from_cache=from_cache)
        self._compiled = compiled
        self._precision = precision
        self._target = target

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        use_threads(self._target)
        with torch.inference_mode():
            outputs = as_tuple(self._compiled(*_cast(inputs, self._precision)))
            return tuple(output.clone() for output in outputs) if self.device == "cuda" else outputs

    def coverage(self, inputs: Tensors) -> Coverage:
        """Compiled graphs called, and the arithmetic operators inside and outside them.

        Kernels that Inductor generated itself, and what a CUDA graph replays, show only as part of their graph.
        """
        asked = PRECISIONS[self._precision]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
            self(*inputs)
        assert profile.profiler is not None
        events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
        counts: Counter[str] = Counter()
        fallbacks = []
        graph_end = operator_end = -1
        for event in events:
            end = event.start_ns() + event.duration_ns()
            if "CompiledFxGraph" in event.name():
                counts["inductor/graph"] += 1
                graph_end = max(graph_end, end)
            elif is_arithmetic(event.name()) and event.start_ns() >= operator_end:  # not a part of the one before
                operator_end = end
                dtype = next((_DTYPES[name] for name in event.dtypes() if name in _DTYPES), None)
                place = self.device if event.start_ns() < graph_end else "eager"
                counts[f"{place}/{str(dtype)[6:]}"] += 1
                if place == "eager":
                    fallbacks.append(f"{event.name()} outside the compiled graph")
                elif dtype is not None and dtype.is_floating_point and dtype != asked:
                    fallbacks.append(f"{event.name()} in {str(dtype)[6:]}")
        if not counts["inductor/graph"]:
            fallbacks.append("no compiled graph ran")
        return Coverage(+counts, (*fallbacks, *reduced_fp32(self._precision)))


class Inductor(Backend):
    """torch.compile with frozen weights on the CPU and CUDA graphs on a GPU."""

    name = "inductor"

    def missing(self, precision: str, target: Target) -> str | None:
        return unsupported(precision, target) or no_kernels(precision, target) or _no_compiler(target)

    def compile(self, module: nn.Module, example: Tensors, precision: str, target: Target) -> Runner:
        start = time.perf_counter()
        forbid_tf32()
        use_threads(target)
        own = prepared(module, precision, target)
        inputs = _cast(tuple(tensor.to(target.device) for tensor in example), precision)
        graph = exported(own, inputs, self.name)
        parts: dict[str, object] = {
            "module": module_digest(module),
            "inputs": signature(inputs),
            "precision": precision,
            "target": [target.device, target.threads],
            "machine": _machine(target),
            "torch": torch.__version__,
        }
        built: list[Callable[..., Any]] = []

        def build(folder: Path) -> None:
            built.append(_compiled(graph, inputs, folder, target))

        try:
            folder, hit = artefact("inductor", parts, build)
            if hit:
                kernels = _kernels(folder)
                build(folder)
                hit = _kernels(folder) == kernels  # nothing had to be compiled after all
        except SpeedproofError:
            raise
        except Exception as error:
            raise SpeedproofError(
                f"inductor cannot compile {type(module).__name__} in {precision} on {target.device} "
                f"({first_line(error)}): run it on eager, or see TORCH_LOGS=output_code"
            ) from error
        runner = InductorRunner(built[0], precision, target, size_bytes=weight_bytes(own), from_cache=hit)
        runner.build_s = time.perf_counter() - start
        return runner


def _cast(inputs: Tensors, precision: str) -> Tensors:
    return tuple(tensor.contiguous() for tensor in cast_inputs(inputs, PRECISIONS[precision]))


def _no_guards(guards: Sequence[object]) -> list[bool]:
    return [False] * len(guards)


def _compiled(graph: nn.Module, inputs: Tensors, folder: Path, target: Target) -> Callable[..., Any]:
    """Compile a graph and run it until nothing is left to do: a CUDA graph is recorded by the second call."""
    with quiet():
        import torch._inductor.config as config

    cuda = target.device == "cuda"
    options: dict[str, Any] = {"triton.cudagraphs": True} if cuda else {"freezing": True}
    unguarded = options | {"guard_filter_fn": _no_guards}
    with quiet(), _cache_folder(folder), config.patch(options), torch.inference_mode():
        compiled: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False, options=unguarded)
        for _ in range(3 if cuda else 1):
            compiled(*inputs)
    return compiled


@contextmanager
def _cache_folder(folder: Path) -> Iterator[None]:
    """Point Inductor at a folder, and make it forget what it holds in memory: that would not be written there."""
    from torch._inductor.utils import clear_caches

    names = {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": folder / "triton"}
    before = {name: os.environ.get(name) for name in names}
    clear_caches()
    os.environ.update({name: str(path) for name, path in names.items()})
    try:
        yield
    finally:
        clear_caches()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _kernels(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.suffix in {".so", ".cubin"}}


def _machine(target: Target) -> str:
    if target.device == "cuda":
        return torch.cuda.get_device_name()
    model = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    return f"{model[1] if model else 'CPU'} {torch.backends.cpu.get_cpu_capability()}"


def _no_compiler(target: Target) -> str | None:
    if target.device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton cannot be imported: pip install '.[gpu]'"
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:
        return f"no C++ compiler ({first_line(error)}): apt-get install g++"
    return None


BACKEND = Inductor()
