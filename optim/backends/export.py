"""A module as a graph: torch.export for Inductor, an ONNX file for ONNX Runtime and OpenVINO.

The ONNX file is cached by content, since an export takes seconds and both runtimes read the same file. It has static
shapes and keeps a GRU as one node. Quantize and dequantize operators of a PT2E graph become QDQ nodes.

Traps: the exporter logs a missing torchvision and warns of its own deprecations, all silenced here because nobody can
act on them; it reports failure in three coloured paragraphs, of which only the root cause is kept.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import SpeedproofError
from models.workload import Tensors
from optim.backends.base import PRECISIONS, Target, cast_inputs, first_line
from optim.backends.cache import artefact, module_digest, signature
from optim.backends.eager import prepared

OPSET = 20  # the exporter's own default: nothing is converted down


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines that exporters and compilers write about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def exported(module: nn.Module, example: Tensors, backend: str) -> torch.fx.GraphModule:
    """The graph of a module for inputs like ``example``, with a forward of its own.

    Its own forward matters: torch.compile counts recompilations by code object, and past eight of one class it would
    run eagerly without a word.
    """
    try:
        with quiet(), torch.no_grad():
            graph = torch.export.export(module, example).module()
    except Exception as error:
        raise _cannot_export(module, backend, error) from error
    assert isinstance(graph, torch.fx.GraphModule)
    return graph


def onnx_file(module: nn.Module, example: Tensors, precision: str, backend: str) -> tuple[Path, bool]:
    """The ONNX file of a module cast to a precision, and whether it was in the cache already."""
    dtype = PRECISIONS[precision]

    def build(folder: Path) -> None:
        own = prepared(module, precision, Target())
        inputs = cast_inputs(tuple(tensor.cpu() for tensor in example), dtype)
        try:
            with quiet(), torch.no_grad():
                program = torch.onnx.export(
                    own, inputs, dynamo=True, opset_version=OPSET, verbose=False,
                    custom_translation_table=_dynamic_quantization(),
                )  # fmt: skip
                assert program is not None
                for node in program.model.graph.all_nodes():  # stack traces: a sixth of a small quantized file
                    node.metadata_props.clear()
                program.model.graph.metadata_props.clear()
                program.save(folder / "model.onnx")
                _shorten(folder / "model.onnx")
        except Exception as error:
            raise _cannot_export(module, backend, error) from error

    parts: dict[str, object] = {
        "module": module_digest(module),
        "inputs": signature(example),
        "dtype": str(dtype),
        "opset": OPSET,
        "names": "short",
        "versions": {package: version(package) for package in ("torch", "onnx", "onnxscript")},
    }
    folder, hit = artefact("onnx", parts, build)
    return folder / "model.onnx", hit


def _shorten(path: Path) -> None:
    """Leave out of an ONNX file what its readers infer or never ask for: half of a small quantized one.

    These are the shapes between nodes, the names of nodes, and long names of values; those of inputs and outputs stay.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
    if not any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        kept = {"", *(value.name for value in (*graph.input, *graph.output))}
        names: dict[str, str] = {}
        for value in graph.initializer:
            value.name = value.name if value.name in kept else names.setdefault(value.name, f"_{len(names)}")
        for node in graph.node:
            for values in (node.input, node.output):
                values[:] = [name if name in kept else names.setdefault(name, f"_{len(names)}") for name in values]
    path.write_bytes(model.SerializeToString())


def _dynamic_quantization() -> dict[Any, Callable[..., Any]]:
    """Translations of the operators that find an activation's range at run time, which torch's exporter lacks.

    Between them scales are float64 and zero points int64, as torch has them. torch knows the operators once torchao is
    imported: where it is not, no graph holds them.
    """
    operators = torch.ops.quantized_decomposed
    if not hasattr(operators, "choose_qparams"):
        return {}
    from onnxscript import opset20

    op: Any = opset20
    float32, uint8, int64, float64 = 1, 2, 7, 11  # ONNX's numbers

    def choose(x: Any, *_: Any) -> Any:
        _rounded, scale, zero_point = op.DynamicQuantizeLinear(x)
        return op.Cast(scale, to=float64), op.Cast(zero_point, to=int64)

    def quantize(x: Any, scale: Any, zero_point: Any, *_: Any) -> Any:
        return op.QuantizeLinear(x, op.Cast(scale, to=float32), op.Cast(zero_point, to=uint8))

    def dequantize(x: Any, scale: Any, zero_point: Any, *_: Any) -> Any:
        return op.DequantizeLinear(x, op.Cast(scale, to=float32), op.Cast(zero_point, to=uint8))

    return {
        operators.choose_qparams.tensor: choose,
        operators.quantize_per_tensor.tensor: quantize,
        operators.dequantize_per_tensor.tensor: dequantize,
    }


def onnx_bytes(path: Path) -> int:
    """Size of an ONNX file with its external data, if it has any."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def _cannot_export(module: nn.Module, backend: str, error: Exception) -> SpeedproofError:
    return SpeedproofError(
        f"{backend} cannot export {type(module).__name__} ({first_line(error)}): run it on eager, or change the module "
        f"until torch.export accepts it"
    )
