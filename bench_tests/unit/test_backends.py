"""Every backend that runs here against an independent float64 run, and what it says of itself."""

import copy
import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.errors import SpeedproofError
from optim.backends import backend_names, eager, export, inductor, load_backend, onnxruntime, openvino
from optim.backends.base import PRECISIONS, Runner, Target

TARGET = Target("cpu", 1)
# The largest error allowed, as a share of the largest output: a few units in the last place of the precision.
TOLERANCE = {"fp32": 5e-6, "bf16": 3e-2, "fp16": 4e-3}
CPU_BACKENDS = ("eager", "inductor", "onnxruntime", "openvino")


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 10)
        self.norm.register_buffer("running_mean", torch.randn(8) / 10)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.linear(torch.relu(self.norm(self.convolution(image))).mean((2, 3)))
        return scores


class TwoInputs(nn.Module):
    """A float and an integer input, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.linear = nn.Linear(10, 5)

    def forward(self, values: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.linear(torch.cat([values, self.embedding(tokens).mean(1)], 1))
        return torch.tanh(hidden), hidden.sum(1)


class Stream(nn.Module):
    """(chunk, state) to (probability, state)."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, chunk: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.gru(chunk, state)
        return torch.sigmoid(self.head(hidden[:, -1])), state


MODELS = {"convnet": ConvNet, "two-inputs": TwoInputs, "stream": Stream}


def make(model: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[model]().eval()


def example(model: str, seed: int = 0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    if model == "convnet":
        return (torch.randn(2, 3, 16, 16, generator=random),)
    if model == "two-inputs":
        return torch.randn(2, 4, generator=random), torch.randint(0, 11, (2, 3), generator=random)
    return torch.randn(1, 3, 8, generator=random), torch.randn(1, 1, 16, generator=random)


def reference(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    double = copy.deepcopy(module).double()
    with torch.no_grad():
        outputs = double(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs))
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def error_of(outputs: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    assert [output.shape for output in outputs] == [wanted.shape for wanted in expected]
    pairs = zip(outputs, expected, strict=True)
    return max(((output.double() - wanted).abs().max() / wanted.abs().max()).item() for output, wanted in pairs)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One empty cache for the module, so that a build of one test is the second build of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEEDPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        threads = torch.get_num_threads()
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def build():
    runners: dict[tuple[str, str, str], Runner] = {}

    def built(backend: str, precision: str, model: str) -> Runner:
        reason = load_backend(backend).missing(precision, TARGET)
        if reason:
            pytest.skip(f"{backend} {precision}: {reason}")
        key = (backend, precision, model)
        if key not in runners:
            runners[key] = load_backend(backend).compile(make(model), example(model), precision, TARGET)
        return runners[key]

    return built


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_outputs_match_float64_and_nothing_fell_back(build, backend, precision, model):
    if (backend, precision) == ("inductor", "bf16") and model != "convnet":
        pytest.skip("a build of 5 s that shows nothing new")
    runner = build(backend, precision, model)
    for seed in (1, 2, 1):  # in alternation: a stale buffer would show
        inputs = example(model, seed)
        assert error_of(runner(*inputs), reference(make(model), inputs)) < TOLERANCE[precision]
    coverage = runner.coverage(example(model, 1))
    assert coverage.fallbacks == ()
    asked = str(PRECISIONS[precision])[6:]
    assert sum(coverage.operators.values()) > 0
    assert any(asked in place or openvino._HINTS[precision] in place for place in coverage.operators), coverage
    assert runner.size_bytes > 0
    assert runner.build_s > 0


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_outputs_belong_to_the_caller(build, backend):
    runner = build(backend, "fp32", "stream")
    first = runner(*example("stream", 1))
    before = [output.clone() for output in first]
    runner(*example("stream", 2))
    assert all(torch.equal(output, kept) for output, kept in zip(first, before, strict=True))


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_module_stays_untouched(backend):
    module = make("convnet").train()
    before = copy.deepcopy(module.state_dict())
    runner = load_backend(backend).compile(module, example("convnet"), "fp32", TARGET)
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert error_of(runner(*example("convnet")), reference(make("convnet"), example("convnet"))) < TOLERANCE["fp32"]


@pytest.mark.parametrize("backend", ["inductor", "onnxruntime", "openvino"])
def test_second_build_is_from_cache_and_changed_weight_misses(build, backend):
    first = build(backend, "fp32", "two-inputs")
    again = load_backend(backend).compile(make("two-inputs"), example("two-inputs"), "fp32", TARGET)
    assert again.from_cache
    assert again.coverage(example("two-inputs")) == first.coverage(example("two-inputs"))

    changed = make("two-inputs")
    with torch.no_grad():
        changed.get_parameter("linear.bias")[0] += 1
    runner = load_backend(backend).compile(changed, example("two-inputs"), "fp32", TARGET)
    assert not runner.from_cache
    inputs = example("two-inputs", 1)
    for compiled, module in ((runner, changed), (first, make("two-inputs")), (runner, changed)):
        assert error_of(compiled(*inputs), reference(module, inputs)) < TOLERANCE["fp32"]


def test_a_second_process_builds_from_cache(build):
    backends = ("inductor", "onnxruntime", "openvino")
    for backend in backends:
        build(backend, "fp32", "convnet")
    program = (
        f"from test_backends import *\n"
        f"for backend in {backends}:\n"
        f"    print(load_backend(backend).compile(make('convnet'), example('convnet'), 'fp32', TARGET).from_cache)"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert child.stdout.split() == ["True"] * 3, child.stderr


def test_inductor_does_not_compile_again_for_a_state_or_another_thread_count(build):
    from torch._dynamo.utils import counters

    runner = build("inductor", "fp32", "stream")
    chunk, state = example("stream")
    graphs = counters["stats"]["unique_graphs"]
    for _ in range(2):
        _, state = runner(chunk, state)  # now an inference tensor
        torch.set_num_threads(2)
    assert counters["stats"]["unique_graphs"] == graphs
    assert torch.get_num_threads() == 2


def test_inductor_freezes_its_weights(build):
    runner = build("inductor", "fp32", "convnet")
    with torch.profiler.profile() as profile:
        runner(*example("convnet"))
    names = {event.key for event in profile.key_averages()}
    assert "mkldnn::_convolution_pointwise" in names


class Double(nn.Module):
    """Does its arithmetic in float64, whatever is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, values: Tensor) -> Tensor:
        return (values.double() @ self.weight.double()).float()


@pytest.mark.parametrize("backend", ["eager", "inductor", "onnxruntime"])
def test_arithmetic_in_another_precision_is_a_fallback(backend):
    values = (torch.randn(2, 4),)
    coverage = load_backend(backend).compile(Double(), values, "fp32", TARGET).coverage(values)
    assert len(coverage.fallbacks) == 1
    assert "float64" in coverage.fallbacks[0]


def test_openvino_reports_a_hint_that_was_not_followed():
    if openvino.BACKEND.missing("bf16", TARGET) or not openvino.BACKEND.missing("fp16", TARGET):
        pytest.skip("this CPU follows the f16 hint, or has no bf16 to put in its place")
    runner = openvino.BACKEND.compile(make("stream"), example("stream"), "fp16", TARGET)
    assert any("in bf16" in fallback for fallback in runner.coverage(example("stream")).fallbacks)


def test_inductor_that_runs_eagerly_is_all_fallback(build):
    runner = build("inductor", "fp32", "convnet")
    with torch.compiler.set_stance("force_eager"):
        coverage = runner.coverage(example("convnet"))
    assert "no compiled graph ran" in coverage.fallbacks
    assert sum("outside the compiled graph" in fallback for fallback in coverage.fallbacks) == 2  # conv, linear
    assert not any(place.startswith("cpu/") for place in coverage.operators)


def test_onnxruntime_profile_with_a_node_on_another_provider():
    conv = {"op_name": "FusedConv", "input_type_shape": [{"float": [1]}]}
    nodes = [conv | {"provider": "CUDAExecutionProvider"}, conv | {"provider": "CPUExecutionProvider"}]
    coverage = onnxruntime.read_profile(nodes, "CUDAExecutionProvider", torch.float32)
    assert coverage.operators == {"CUDAExecutionProvider/float32": 1, "CPUExecutionProvider/float32": 1}
    assert coverage.fallbacks == ("FusedConv on CPUExecutionProvider",)
    quantized = conv | {"op_name": "QLinearConv", "provider": "CPUExecutionProvider"}
    quantized["input_type_shape"] = [{"uint8": [1]}, {"float": []}]
    assert onnxruntime.read_profile([quantized], "CPUExecutionProvider", torch.float16).fallbacks == ()


def test_onnxruntime_bound_run_equals_plain_run(build):
    runner = build("onnxruntime", "fp32", "two-inputs")
    inputs = example("two-inputs", 1)
    bound = onnxruntime.run_bound(runner._session, inputs)
    assert all(torch.equal(one, other) for one, other in zip(bound, runner(*inputs), strict=True))


def test_arithmetic_operators_by_name():
    named = "aten::convolution aten::addmm aten::mm aten::_scaled_dot_product_flash_attention_for_cpu aten::gru"
    packed = "mkldnn::_convolution_pointwise mkl::_mkl_linear onednn::qconv_pointwise aten::mkldnn_rnn_layer"
    others = "aten::copy_ prims::convert_element_type aten::linspace aten::upsample_bilinear2d aten::mvlgamma aten::add"
    assert all(map(eager.is_arithmetic, f"{named} {packed}".split()))
    assert not any(map(eager.is_arithmetic, others.split()))


class Branches(nn.Module):
    """What it does depends on the data: no exporter can follow."""

    def forward(self, values: Tensor) -> Tensor:
        return values if values.sum() > 0 else -values


@pytest.mark.parametrize("backend", ["inductor", "onnxruntime", "openvino"])
def test_module_that_cannot_be_exported_is_one_sentence(backend):
    with pytest.raises(SpeedproofError, match=f"{backend} cannot export Branches .*eager") as caught:
        load_backend(backend).compile(Branches(), (torch.randn(3),), "fp32", TARGET)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_eager_that_does_not_fit_its_example_is_one_sentence():
    with pytest.raises(SpeedproofError, match=r"eager cannot run ConvNet in fp32 on cpu .*RuntimeError"):
        eager.BACKEND.compile(make("convnet"), (torch.randn(1, 5, 8, 8),), "fp32", TARGET)


@pytest.mark.parametrize("backend", backend_names())
def test_unknown_precision_and_device_are_reasons(backend):
    assert "unknown precision 'int3'" in str(load_backend(backend).missing("int3", TARGET))
    assert "not on tpu" in str(load_backend(backend).missing("fp32", Target("tpu")))


@pytest.mark.parametrize("backend", backend_names())
def test_cuda_without_a_card_is_a_reason(backend, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_backend(backend).missing("fp32", Target("cuda"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_absent_package_is_a_reason(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    assert "pip install '.[cpu]'" in str(load_backend(backend).missing("fp32", TARGET))


def test_onnxruntime_without_cuda_provider_is_a_reason(monkeypatch):
    import onnxruntime as ort

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "CUDAExecutionProvider" in str(onnxruntime.BACKEND.missing("fp32", Target("cuda")))


def test_half_precision_without_kernels_is_a_reason(monkeypatch):
    assert "no bf16 kernels" in str(onnxruntime.BACKEND.missing("bf16", TARGET))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    assert "AVX512-FP16" in str(eager.BACKEND.missing("fp16", TARGET))
    assert "AVX512-FP16" in str(inductor.BACKEND.missing("fp16", TARGET))


def test_tf32_is_switched_off_and_read_back():
    torch.set_float32_matmul_precision("high")
    try:
        assert eager.reduced_fp32("fp32")
        assert eager.reduced_fp32("bf16") == ()
    finally:
        eager.forbid_tf32()
    assert eager.reduced_fp32("fp32") == ()


def test_size_is_the_bytes_of_the_weights(build):
    module = make("two-inputs")
    assert eager.weight_bytes(module) == 4 * (11 * 6 + 10 * 5 + 5)
    module.get_submodule("linear").register_parameter("again", module.get_parameter("linear.bias"))
    assert eager.weight_bytes(module) == 4 * (11 * 6 + 10 * 5 + 5)
    assert build("eager", "bf16", "two-inputs").size_bytes == 2 * (11 * 6 + 10 * 5 + 5)
    path, _ = export.onnx_file(make("convnet"), example("convnet"), "fp32", "onnxruntime")
    assert build("onnxruntime", "fp32", "convnet").size_bytes == path.stat().st_size


@pytest.mark.skipif(sys.platform != "linux", reason="the alternate signal stack is asked for as Linux has it")
def test_openvino_leaves_no_signal_stack_behind_that_is_gone(cache):
    class Stack(ctypes.Structure):
        _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    backend, example = load_backend("openvino"), (torch.randn(1, 3, 16, 16),)
    if (reason := backend.missing("fp32", TARGET)) is not None:
        pytest.skip(reason)
    for _ in range(2):
        runner = backend.compile(ConvNet(), example, "fp32", TARGET)
        runner(*example)
        del runner
        gc.collect()
        stack = Stack()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
        assert stack.flags & 2, "an interrupt would be delivered on memory that is unmapped"
