"""The TensorRT backend against a stand-in for torch_tensorrt: options, errors and coverage, never a speed."""

import sys
import types

import pytest
import torch
from torch import Tensor, fx, nn

from models.errors import SpeedproofError
from optim.backends import tensorrt
from optim.backends.base import Target

CPU = Target("cpu", 1)  # the stand-in runs where there is no card


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.linear(values)
        return hidden, hidden.relu()


class TorchTensorRTModule(nn.Module):
    """An engine by name: gives the same buffers at every call, as an engine may."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.run = module
        self.serialized_engine = bytes(1000)
        self.buffers_out: list[Tensor] | None = None

    def forward(self, values: Tensor) -> list[Tensor]:
        outputs = self.run(values)
        if self.buffers_out is None:
            self.buffers_out = [output.clone() for output in outputs]
        for buffer, output in zip(self.buffers_out, outputs, strict=True):
            buffer.copy_(output)
        return self.buffers_out


class Whole(nn.Module):
    """One engine, whose two outputs are picked apart."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.engine = TorchTensorRTModule(module)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.engine(values)
        return outputs[0], outputs[1]


class Partial(Whole):
    """One operator stayed in PyTorch."""

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.engine(values)
        return torch.sigmoid(outputs[0]), outputs[1].abs()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, TorchTensorRTModule)


def graph_of(module: nn.Module) -> fx.GraphModule:
    return fx.GraphModule(module, _Tracer().trace(module))


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a stand-in in the place of torch_tensorrt; gives the calls it got and what it shall answer with."""
    module = types.ModuleType("torch_tensorrt")
    calls: list[tuple[nn.Module, dict[str, object]]] = []
    state = types.SimpleNamespace(calls=calls, whole=Whole)

    def compile(module: nn.Module, **options: object) -> nn.Module:
        calls.append((module, options))
        return graph_of(state.whole(module))

    module.compile = compile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    return state


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_stand_in_gets_honest_options_and_the_precision_as_dtype(stand_in, precision, dtype):
    module = Net()
    runner = tensorrt.BACKEND.compile(module, (torch.randn(2, 4),), precision, CPU)
    [(given, options)] = stand_in.calls
    assert given is not module
    assert {parameter.dtype for parameter in given.parameters()} == {dtype}
    assert [tensor.dtype for tensor in options.pop("arg_inputs")] == [dtype]
    assert options == {"ir": "dynamo", "require_full_compilation": True, "min_block_size": 1, "disable_tf32": True}
    assert module.linear.weight.dtype == torch.float32
    assert runner.size_bytes == 1000
    assert runner.build_s > 0


@pytest.mark.usefixtures("stand_in")
def test_stand_in_outputs_belong_to_the_caller():
    runner = tensorrt.BACKEND.compile(Net(), (torch.randn(2, 4),), "fp32", CPU)
    first = runner(torch.ones(2, 4))
    before = [output.clone() for output in first]
    runner(torch.zeros(2, 4))
    assert all(torch.equal(output, kept) for output, kept in zip(first, before, strict=True))


@pytest.mark.usefixtures("stand_in")
def test_stand_in_fully_compiled_has_no_fallbacks():
    inputs = (torch.randn(2, 4),)
    coverage = tensorrt.BACKEND.compile(Net(), inputs, "bf16", CPU).coverage(inputs)
    assert coverage.operators == {"tensorrt/bfloat16": 1}
    assert coverage.fallbacks == ()


def test_stand_in_operators_left_in_pytorch_are_fallbacks(stand_in):
    stand_in.whole = Partial
    inputs = (torch.randn(2, 4),)
    coverage = tensorrt.BACKEND.compile(Net(), inputs, "fp32", CPU).coverage(inputs)
    assert coverage.operators == {"tensorrt/float32": 1, "pytorch": 2}
    assert len(coverage.fallbacks) == 2
    assert all("in PyTorch" in fallback for fallback in coverage.fallbacks)


@pytest.mark.usefixtures("stand_in")
def test_stand_in_engine_fed_another_precision_is_a_fallback():
    runner = tensorrt.BACKEND.compile(Net(), (torch.randn(2, 4),), "fp32", CPU)
    assert isinstance(runner, tensorrt.TensorRTRunner)
    runner._precision = "fp64"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt, "PRECISIONS", {"fp64": torch.float64})
        runner._compiled.double()
        assert runner.coverage((torch.randn(2, 4),)).fallbacks == ()
        patch.setattr(tensorrt, "cast_inputs", lambda inputs, _: tuple(tensor.float() for tensor in inputs))
        runner._compiled.float()
        assert runner.coverage((torch.randn(2, 4),)).fallbacks == ("engine fed float32",)


def test_stand_in_without_any_engine_is_all_fallback(stand_in):
    inputs = (torch.randn(2, 4),)
    stand_in.whole = lambda module: module
    runner = tensorrt.BACKEND.compile(Net(), inputs, "fp32", CPU)
    coverage = runner.coverage(inputs)
    assert "no TensorRT engine ran" in coverage.fallbacks
    assert len(coverage.fallbacks) == 3  # linear, relu, and that
    assert runner.size_bytes == 4 * (4 * 3 + 3)  # no engine to measure: the weights


def test_stand_in_that_fails_is_one_sentence(stand_in):
    def fail(_: nn.Module) -> nn.Module:
        raise AssertionError("no converter for aten.nonzero\nand forty more lines")

    stand_in.whole = fail
    with pytest.raises(
        SpeedproofError, match=r"tensorrt cannot compile Net in fp32 .*aten.nonzero.*inductor"
    ) as caught:
        tensorrt.BACKEND.compile(Net(), (torch.randn(2, 4),), "fp32", CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("stand_in")
def test_stand_in_makes_the_backend_available_only_on_cuda(monkeypatch):
    assert "cuda only" in str(tensorrt.BACKEND.missing("fp32", CPU))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert tensorrt.BACKEND.missing("fp32", Target("cuda")) is None
    assert "unknown precision" in str(tensorrt.BACKEND.missing("int8", Target("cuda")))
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    assert "pip install '.[gpu]'" in str(tensorrt.BACKEND.missing("fp32", Target("cuda")))
