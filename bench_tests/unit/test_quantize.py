"""Quantization: its grids and ranges against references, its graphs on every backend, what it keeps and refuses."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bench_tests.unit.test_train import QUICK, TOY, colours
from bench_tests.unit.toys import MLP, STREAMING
from models.errors import SpeedproofError
from models.resnet import BasicBlock, resnet18
from models.weights import load_into, read_checkpoint
from models.workload import Quality
from optim.backends import load_backend
from optim.backends.base import Target, computes_in_int8, is_quantized
from optim.backends.cache import module_digest
from optim.backends.export import onnx_file
from optim.distill import DistillConfig, retrain
from optim.kinds import score_on_test
from optim.quantize import QuantizeConfig, coverage_int8, quantize, rebuild, save, sensitivity, sensitivity_table
from optim.quantize.__main__ import main
from optim.quantize.calibrate import calibration_examples
from optim.quantize.grids import BINS, ActivationGrid, WeightGrid, entropy_threshold, percentile_range

CONFIG = QuantizeConfig(size=32, calibration_images=48)
seeds = st.integers(0, 2**32)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def activation(values: Tensor, **options: object) -> ActivationGrid:
    grid = ActivationGrid(**options)
    for stage in ("range", "histogram"):
        grid.stage = stage
        grid(values)
    grid.stage = "round"
    return grid


@given(seeds, st.floats(1e-6, 1e6), st.floats(-3, 3))
def test_rounding_an_activation_costs_at_most_half_a_step(seed, size, shift):
    """Half a step, and as much again at the ends, where the zero point's own rounding shifts the range."""
    values = size * (noise(seed, 500) + shift)
    grid = activation(values)
    scale, zero_point = grid.calculate_qparams()
    error = (grid(values) - values).abs()
    low, high = (float(scale) * (bound - int(zero_point)) for bound in (0, 255))
    inside = (values >= low) & (values <= high)
    assert (error[inside] <= scale / 2 * (1 + 1e-4)).all()
    assert (error <= scale * (1 + 1e-4)).all()
    assert grid(torch.zeros(1)).item() == 0


@given(seeds, st.floats(1e-6, 1e6), st.sampled_from([2, 4, 8]), st.booleans())
def test_rounding_a_weight_costs_at_most_half_a_step(seed, size, bits, per_channel):
    scheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
    largest = 2 ** (bits - 1) - 1
    grid = WeightGrid(quant_min=-largest, quant_max=largest, qscheme=scheme)
    grid.stage = "round"
    weight = size * noise(seed, 6, 5, 3, 3)
    rounded = grid(weight)
    step = grid.calculate_qparams()[0].view(-1, 1, 1, 1)
    assert ((rounded - weight).abs() <= step / 2 * (1 + 1e-4)).all()
    assert (torch.stack([channel.unique().numel() * torch.ones(()) for channel in rounded]) <= 2 * largest + 1).all()


@given(seeds)
def test_a_grid_passes_the_gradient_of_what_it_does_not_clip(seed):
    values = noise(seed, 100).requires_grad_()
    grid = ActivationGrid()
    grid.range, grid.stage = (-0.5, 1.0), "round"
    grid(values).sum().backward()
    inside = (values.detach() > -0.49) & (values.detach() < 0.99)
    assert (values.grad[inside] == 1).all()
    assert (values.grad[(values < -0.51) | (values > 1.01)] == 0).all()


@given(seeds, st.floats(60, 99.99), st.booleans())
def test_percentile_is_that_of_the_values(seed, percentile, positive):
    values = noise(seed, 20_000).abs() if positive else noise(seed, 20_000) + 0.3
    grid = activation(values)
    low, high = percentile_range(grid.histogram, grid.span, percentile)
    cut = (100 - percentile) / 2
    expected = np.percentile(values.numpy(), [cut, 100 - cut])
    gap = float(np.diff(np.sort(values.numpy()))[[0, -1]].max()) + (grid.span[1] - grid.span[0]) / BINS
    assert (low, high) == pytest.approx(tuple(map(float, expected)), abs=2 * gap)


def slow_entropy(histogram: np.ndarray, largest: float, levels: int, candidates: range) -> float:
    """TensorRT's calibration as its slides write it, one bin after another."""
    best, chosen = np.inf, 0
    for end in candidates:
        reference = [float(count) for count in histogram[:end]]
        reference[-1] += float(histogram[end:].sum())
        groups: dict[int, list[int]] = {}
        for index in range(end):
            groups.setdefault(index * levels // end, []).append(index)
        coarse = [0.0] * end
        for members in groups.values():
            used = [index for index in members if reference[index] > 0]
            for index in used:
                coarse[index] = sum(histogram[member] for member in members) / len(used)
        p, q = (np.array(part) / sum(part) for part in (reference, coarse))
        divergence = sum(a * np.log(a / max(b, 1e-9)) for a, b in zip(p, q, strict=True) if a > 0)
        if divergence < best:
            best, chosen = divergence, end
    return chosen / len(histogram) * largest


@pytest.mark.parametrize(("tail", "levels"), [(1.0, 128), (6.0, 128), (30.0, 64), (6.0, 256)])
def test_entropy_is_the_threshold_of_the_textbook(tail, levels):
    values = torch.cat([noise(1, 40_000).abs(), tail * noise(2, 40).abs()])
    grid = activation(values, magnitudes=True)
    found = entropy_threshold(grid.histogram, grid.span[1], levels)
    assert found == pytest.approx(
        slow_entropy(grid.histogram.numpy(), grid.span[1], levels, range(levels, BINS + 1, 16))
    )
    assert tail < 30 or found < float(values.max())


def test_entropy_does_not_clip_an_even_spread():
    grid = activation(torch.linspace(0, 1, 50_000), magnitudes=True)
    assert entropy_threshold(grid.histogram, grid.span[1], 128) == pytest.approx(1, abs=0.02)


class TinyResNet(nn.Module):
    """Whatever a ResNet has, once: a stem, a max pool, both kinds of shortcut, a mean, a linear layer."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.block1, self.block2 = BasicBlock(8, 8, 1), BasicBlock(8, 16, 2)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.block2(self.block1(x)).mean((2, 3)))


LAYERS = ("conv1", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "block2.downsample.0", "fc")


def build_tiny(size: int, weights: Path | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyResNet().eval()


def tiny_example(size: int, batch: int, seed: int) -> tuple[Tensor, ...]:
    rows = torch.arange(batch) + seed
    images = colours("test", size)
    return (torch.stack([images[int(row) % len(images)][0] for row in rows]),)


def quality(predict, split: str, size: int, batch: int, limit: int | None) -> tuple[Quality, ...]:
    images = colours(split, size)
    answers = []
    for start in range(0, len(images), batch):
        rows = [images[min(row, len(images) - 1)][0] for row in range(start, start + batch)]
        answers.append(predict((torch.stack(rows),))[0].argmax(1).numpy())
    said = np.concatenate(answers)[: len(images)]
    right = (said == np.array(images.labels)).astype(float)
    return (Quality("top1", float(right.mean()), len(images), True, right, said),)


TINY = replace(TOY, name="tiny", build=build_tiny, example=tiny_example, quality=quality)


@pytest.fixture(scope="module")
def trained():
    """A tiny ResNet that knows its colours."""
    model = build_tiny(32, None)
    retrain(model, TINY, DistillConfig(**{**asdict(QUICK), "epochs": 10, "views": 0, "lr": 0.1}, size=32))
    assert score_on_test(model, TINY, 32, "fp32")[0] > 0.9
    return model


@pytest.fixture(scope="module")
def static(trained):
    return quantize(trained, TINY, CONFIG)


def steps(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The last grid's step, as it reaches the outputs: largest weight of the last layer times that step."""
    scales = [node.args[1] for node in module.graph.nodes if "quantize_per_tensor" in str(node.target)]
    return float(scales[-1]) * float(TinyResNet().fc.weight.abs().max())


def test_the_graph_is_int8_but_for_nothing_and_the_argument_stays_as_it_is(trained):
    before, training = copy.deepcopy(trained.state_dict()), trained.training
    found = quantize(trained, TINY, CONFIG)
    assert trained.training == training
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    covered = coverage_int8(found)
    assert sorted(covered.int8) == sorted([*LAYERS, "block1+", "block2+"])
    assert covered.float == ()
    assert "9 of 9" in covered.words
    int8 = [value for value in found.state_dict().values() if value.dtype == torch.int8]
    assert sum(value.numel() for value in int8) == sum(
        value.numel() for value in trained.parameters() if value.dim() > 1
    )
    floats = [value for value in found.state_dict().values() if value.dtype == torch.float32]
    assert all(value.dim() == 1 for value in floats)  # biases and scales


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_one_graph_takes_any_number_of_rows(static, trained, batch):
    inputs = tiny_example(32, batch, 0)
    with torch.no_grad():
        rounded, plain = static(*inputs), trained(*inputs)
    assert rounded.shape == plain.shape
    assert (rounded - plain).norm() < 0.05 * plain.norm()
    rows = torch.cat([static(inputs[0][row : row + 1]) for row in range(batch)])
    assert torch.allclose(rows, rounded, atol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "inductor", "onnxruntime", "openvino"])
def test_the_graph_runs_everywhere_in_int8(static, backend):
    """Runtimes round sums elsewhere than eager does: a value next to a tie moves by a step."""
    target, inputs = Target("cpu", 2), tiny_example(32, 2, 0)
    if (reason := load_backend(backend).missing("fp32", target)) is not None:
        pytest.skip(reason)
    runner = load_backend(backend).compile(static, inputs, "fp32", target)
    with torch.no_grad():
        expected = static(*inputs)
    assert (runner(*inputs)[0] - expected).abs().max() < 0.05 * expected.abs().max()
    coverage = runner.coverage(inputs)
    assert coverage.fallbacks == ()
    assert sum(count for place, count in coverage.operators.items() if "int8" in place) >= 7


def test_one_scale_a_channel_beats_one_for_all_where_channels_differ():
    weight = noise(0, 8, 4, 3, 3) * torch.logspace(-2, 0, 8).view(-1, 1, 1, 1)
    errors = []
    for scheme in (torch.per_channel_symmetric, torch.per_tensor_symmetric):
        grid = WeightGrid(qscheme=scheme)
        grid.stage = "round"
        errors.append(((grid(weight) - weight)[0].norm() / weight[0].norm()).item())
    assert errors[0] < 0.02 < 0.2 < errors[1]


def test_the_same_seed_is_the_same_model_and_another_draws_other_images(static, trained):
    torch.rand(3)  # the caller's dice do not matter
    config = replace(CONFIG, calibration_images=8)
    first, again, other = (quantize(trained, TINY, replace(config, seed=seed)) for seed in (1, 1, 2))
    assert module_digest(first) == module_digest(again) != module_digest(other)
    drawn = [calibration_examples(TINY, replace(config, seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0].inputs[0], drawn[1].inputs[0])
    assert drawn[0].words == drawn[1].words != drawn[2].words
    assert drawn[0].words.startswith("8 of 49 examples, synthetic train, seed 1, ")
    assert first.meta["quantization"]["calibration"] == drawn[0].words
    everything = calibration_examples(TINY, replace(config, calibration_images=1000))
    assert len(everything.inputs[0]) == 49
    stacked = torch.stack([colours("train", 32)[row][0] for row in range(49)])
    assert torch.equal(everything.inputs[0], stacked)


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_every_calibration_keeps_what_the_model_knows(trained, calibration):
    found = quantize(trained, TINY, replace(CONFIG, calibration=calibration, percentile=99.9))
    assert score_on_test(found, TINY, 32, "fp32")[0] >= score_on_test(trained, TINY, 32, "fp32")[0] - 0.05
    ranges = found.meta["quantization"]["ranges"]
    widest = quantize(trained, TINY, CONFIG).meta["quantization"]["ranges"]
    assert all(widest[name][0] <= low <= 0 <= high <= widest[name][1] for name, (low, high) in ranges.items())
    assert (ranges == widest) == (calibration == "minmax")


def test_layers_are_kept_in_float_by_name_and_with_all_that_is_in_them(trained):
    found = quantize(trained, TINY, replace(CONFIG, float_layers=("fc", "block1")))
    covered = coverage_int8(found)
    assert sorted(covered.float) == ["block1+", "block1.conv1", "block1.conv2", "fc"]
    assert "5 of 9" in covered.words
    assert torch.equal(found.state_dict()["fc.weight"], trained.fc.weight)
    target, inputs = Target("cpu", 2), tiny_example(32, 2, 0)
    runner = load_backend("openvino").compile(found, inputs, "fp32", target)
    floats = runner.coverage(inputs).operators["CPU/float32"]
    whole = load_backend("openvino").compile(quantize(trained, TINY, CONFIG), inputs, "fp32", target)
    assert floats >= whole.coverage(inputs).operators["CPU/float32"] + 3


def test_what_hurts_most_goes_back_to_float_until_the_drop_is_small_enough(trained, capsys):
    rows = sensitivity(trained, TINY, replace(CONFIG, bits=2, per_channel=False))
    assert sorted(row.layer for row in rows) == sorted(LAYERS)
    assert [row.error for row in rows] == sorted((row.error for row in rows), reverse=True)
    assert sum(row.parameters for row in rows) == sum(
        value.numel() for value in trained.parameters() if value.dim() > 1
    )
    assert "block2.downsample.0" in sensitivity_table(rows)
    found = quantize(trained, TINY, replace(CONFIG, bits=2, per_channel=False, drop_max=0.0))
    said = capsys.readouterr().out
    kept = found.meta["quantization"]["config"]["float_layers"]
    assert kept == [row.layer for row in rows][: len(kept)]
    assert kept
    assert "in float: nothing; top1 drops by 0." in said
    assert score_on_test(found, TINY, 32, "fp32")[0] > score_on_test(trained, TINY, 32, "fp32")[0] - 0.1
    assert sorted(layer for layer in coverage_int8(found).float) == sorted(kept)


def test_qat_recovers_at_least_half_of_what_is_lost(trained):
    lossy = replace(CONFIG, bits=2, per_channel=False)
    before = score_on_test(trained, TINY, 32, "fp32")[0]
    lost = before - score_on_test(quantize(trained, TINY, lossy), TINY, 32, "fp32")[0]
    assert lost > 0.2
    tune = DistillConfig(**{**asdict(QUICK), "epochs": 8, "views": 0, "lr": 0.02, "weight_decay": 0.0}, size=32)
    state = copy.deepcopy(trained.state_dict())
    found = quantize(trained, TINY, replace(lossy, method="qat", fine_tune=tune), teacher=trained)
    assert before - score_on_test(found, TINY, 32, "fp32")[0] <= lost / 2
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())
    assert len(found.state_dict()["_frozen_param0"].unique()) <= 3
    assert coverage_int8(found).float == ()


@pytest.mark.parametrize(
    "change",
    [
        {}, {"method": "dynamic"}, {"method": "weights"},
        {"float_layers": ("conv1",), "per_channel": False}, {"bits": 4},
    ],
    ids=["static", "dynamic", "weights", "float layer", "4 bit"],
)  # fmt: skip
def test_a_saved_model_is_loaded_bit_for_bit(trained, tmp_path, change):
    found = quantize(trained, TINY, replace(CONFIG, **change))
    path = tmp_path / "q.pt"
    save(path, found, TINY, {"method": "x"})
    state, meta = read_checkpoint(path)
    loaded = rebuild(build_tiny(32, None), TINY, state, meta)
    assert module_digest(loaded) == module_digest(found)
    inputs = tiny_example(32, 5, 3)
    assert torch.equal(loaded(*inputs), found(*inputs))
    assert (meta["workload"], meta["method"]) == ("tiny", "x")


def test_a_file_takes_about_a_byte_a_weight(tmp_path):
    model, workload = resnet18(10).eval(), replace(TINY, name="resnet18")
    save(tmp_path / "q.pt", quantize(model, workload, replace(CONFIG, calibration_images=2)), workload, {})
    assert (tmp_path / "q.pt").stat().st_size < 1.02 * sum(value.numel() for value in model.parameters())


def test_a_pruned_model_is_saved_with_its_channels(tmp_path):
    model = build_tiny(32, None)
    model.block1.conv1, model.block1.bn1 = nn.Conv2d(8, 5, 3, 1, 1, bias=False), nn.BatchNorm2d(5).eval()
    model.block1.conv2 = nn.Conv2d(5, 8, 3, 1, 1, bias=False)
    found = quantize(model, TINY, CONFIG)
    save(tmp_path / "q.pt", found, TINY, {})
    loaded = rebuild(build_tiny(32, None), TINY, *read_checkpoint(tmp_path / "q.pt"))
    assert module_digest(loaded) == module_digest(found)


def test_a_file_of_another_model_is_one_sentence(static, tmp_path):
    save(tmp_path / "q.pt", static, TINY, {})
    state, meta = read_checkpoint(tmp_path / "q.pt")
    state.pop("_frozen_param0")
    with pytest.raises(SpeedproofError, match=r"do not fit TinyResNet \(first: _frozen_param0\): quantize"):
        rebuild(build_tiny(32, None), TINY, state, meta)
    meta["quantization"]["ranges"].pop("relu")
    with pytest.raises(SpeedproofError, match="no range is known for the tensor relu"):
        rebuild(build_tiny(32, None), TINY, state, meta)
    with pytest.raises(SpeedproofError, match="TinyResNet is no quantized module"):
        save(tmp_path / "no.pt", build_tiny(32, None), TINY, {})
    assert not (tmp_path / "no.pt").exists()


@pytest.mark.parametrize("backend", ["eager", "inductor", "onnxruntime", "openvino"])
def test_dynamic_runs_everywhere_and_leaves_convolutions_in_float(trained, backend):
    target, size = Target("cpu", 2), replace(CONFIG, method="dynamic")
    if (reason := load_backend(backend).missing("fp32", target)) is not None:
        pytest.skip(reason)
    model = MLP.build(32, None)
    found, inputs = quantize(model, MLP, size), MLP.example(32, 3, 0)
    runner = load_backend(backend).compile(found, inputs, "fp32", target)
    plain = model(*inputs)
    assert (runner(*inputs)[0] - plain).abs().max() < 0.03 * plain.abs().max()
    operators = runner.coverage(inputs).operators
    assert sum(count for place, count in operators.items() if "int8" in place) >= 2
    if backend == "eager":
        assert coverage_int8(found).float == ()
        assert coverage_int8(quantize(trained, TINY, size)).int8 == ("fc",)
        covered = coverage_int8(quantize(STREAMING.build(32, None), STREAMING, size))
        assert covered.int8 == ("head",)


class Recurrent(nn.Module):
    """Three kinds of weights: of a convolution, a GRU and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(4, 6, 3), nn.GRU(6, 48, 2, batch_first=True)
        self.linear = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.gru(self.conv(x).transpose(1, 2))[0][:, -1])


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_weights_alone_are_small_and_computed_in_float(backend):
    torch.manual_seed(0)
    model, example = Recurrent().eval(), (noise(1, 2, 4, 20),)
    workload = replace(MLP, build=lambda size, weights: Recurrent(), example=lambda size, batch, seed: example)
    made = quantize(model, workload, QuantizeConfig(size=32, method="weights"))
    assert is_quantized(made)
    assert not computes_in_int8(made)
    kernels = [tensor for tensor in made.state_dict().values() if tensor.dtype == torch.int8]
    assert sum(tensor.numel() for tensor in kernels) == sum(p.numel() for p in model.parameters() if p.dim() > 1)

    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in (p for p in rounded.parameters() if p.dim() > 1):
            scale = parameter.abs().amax(tuple(range(1, parameter.dim())), keepdim=True) / 127
            parameter.copy_((parameter / scale).round() * scale)
        runner = load_backend(backend).compile(made, example, "fp32", Target("cpu", 1))
        assert torch.allclose(runner(*example)[0], rounded(*example), atol=1e-5)
    seen = {key.rpartition("/")[2] for key in runner.coverage(example).operators}
    assert seen == {"float32"} if backend == "onnxruntime" else "uint8" not in seen  # folded when it is loaded
    whole = load_backend(backend).compile(model, example, "fp32", Target("cpu", 1))
    assert runner.size_bytes < 0.4 * whole.size_bytes


def test_as_good_as_onnxruntimes_own_quantizer(static, trained, tmp_path):
    """Both round the same model on the same images; neither strays further from it than twice the other."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    inputs = calibration_examples(TINY, CONFIG).inputs[0]
    path, _ = onnx_file(trained, (inputs[:1],), "fp32", "onnxruntime")

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(inputs.split(1))

        def get_next(self):
            row = next(self.rows, None)
            return None if row is None else {"x": row.numpy()}

    quantize_static(
        path, tmp_path / "q.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx", providers=["CPUExecutionProvider"])
    rows = tiny_example(32, 24, 0)[0]
    theirs = torch.cat([torch.from_numpy(session.run(None, {"x": row.numpy()})[0]) for row in rows.split(1)])
    with torch.no_grad():
        plain, ours = trained(rows), static(rows)
    error, their_error = (ours - plain).norm(), (theirs - plain).norm()
    assert error < 2 * their_error
    assert their_error < 2 * error
    assert (ours.argmax(1) == theirs.argmax(1)).float().mean() > 0.9


def test_sums_stay_in_float_where_asked(trained):
    whole, spared = (coverage_int8(quantize(trained, TINY, replace(CONFIG, float_sums=kept))) for kept in (False, True))
    assert whole.float == ()
    assert sorted(spared.float) == ["block1+", "block2+"]
    assert sorted(spared.int8) == sorted(LAYERS)


def test_a_residual_stream_with_an_outlier_is_told_better_by_sums_in_float(trained):
    with torch.no_grad():
        wild = copy.deepcopy(trained)
        wild.bn1.weight[0] *= 300  # one channel that dwarfs the others, and that nothing reads but the sum
        wild.block1.conv1.weight[:, 0] = wild.block2.conv1.weight[:, 0] = wild.block2.downsample[0].weight[:, 0] = 0
        rows = torch.cat([tiny_example(32, 1, seed)[0] for seed in range(32)])
        plain = wild(rows)
        errors = [
            float((quantize(wild, TINY, replace(CONFIG, float_sums=kept))(rows) - plain).norm())
            for kept in (False, True)
        ]
    assert errors[1] < errors[0]


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def nothing(split: str, size: int):
    whole = colours(split, size)
    return replace(whole, images=whole.images[:0], labels=())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "magic"}, "--quantization-method 'magic': expected one of static, dynamic, qat, weights"),
        ({"calibration": "guess"}, "--calibration 'guess': expected one of minmax, entropy, percentile"),
        ({"calibration_split": "all"}, "--calibration-split 'all': expected one of train, validation, test"),
        ({"calibration_images": 0}, "--calibration-images 0: expected from 1"),
        ({"bits": 1}, "--bits 1: expected from 2 to 8"),
        ({"bits": 16}, "--bits 16: expected from 2 to 8"),
        ({"percentile": 120.0}, "--percentile 120: expected a number above 50, at most 100"),
        ({"percentile": float("nan")}, "--percentile nan: expected a number above 50"),
        ({"drop_max": -0.1}, "--drop-max -0.1: expected a number from 0"),
        (
            {"float_layers": ("conv9",)},
            "--float-layers conv9: TinyResNet has no module of that name; expected one such",
        ),
        ({"float_layers": ("",)}, "--float-layers : TinyResNet has no module of that name"),
        ({"fine_tune": DistillConfig()}, "fine_tune goes with the method qat, not with static"),
        ({"seed": -1}, "--seed -1: expected from 0"),
        ({"drop_max": 0.1, "method": "dynamic"}, "--drop-max goes with static and qat"),
        ({"drop_max": 0.1, "method": "weights"}, "--drop-max goes with static and qat: weights has no ranges"),
    ],
)
def test_what_cannot_be_quantized_with_is_one_sentence(trained, change, said):
    with pytest.raises(SpeedproofError, match=said):
        quantize(trained, TINY, replace(CONFIG, **change))


@pytest.mark.parametrize(
    ("workload", "model", "config", "said"),
    [
        (
            replace(TINY, data=lambda split, size: None),
            None,
            CONFIG,
            "workload tiny has no examples in its train split",
        ),
        (replace(TINY, data=nothing), None, CONFIG, "workload tiny has no examples in its train split"),
        (TINY, Branches(), CONFIG, "Branches cannot be quantized, since torch.export does not accept it"),
        (replace(TINY, quality=TOY.quality), None, replace(CONFIG, drop_max=0.1), "has no quality to judge by"),
    ],
    ids=["no data", "empty data", "cannot be exported", "no quality"],
)
def test_what_cannot_be_quantized_is_one_sentence(trained, workload, model, config, said):
    with pytest.raises(SpeedproofError, match=said) as caught:
        quantize(model or trained, workload, config)
    assert "\n" not in str(caught.value)


def run(capsys, *arguments: object, code: int) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr()


USUAL = ("--model", f"{__name__}:TINY", "--size", 32, "--threads", 2)
FEW = ("--calibration-images", 16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (FEW, "9 of 9 convolutions, linear layers and additions take int8"),
        ([*FEW, "--sensitivity", "--per-tensor", "--bits", 4, "--calibration", "entropy"], "rounded alone"),
        ([*FEW, "--drop-max", 1, "--float-layers", "fc", "conv1"], "7 of 9"),
        (["--quantization-method", "dynamic"], "1 of 9"),
        (["--quantization-method", "dynamic", *FEW, "--sensitivity"], "rounded alone"),
        (
            [
                *FEW,
                "--quantization-method",
                "qat",
                "--fine-tune-epochs",
                1,
                "--lr",
                0.001,
                "--batch-size",
                16,
                "--teacher",
                f"{__name__}:TINY",
            ],
            "qat epoch 1/1 at 32 px",
        ),
    ],
    ids=["static", "sensitivity", "float", "dynamic", "dynamic sensitivity", "qat"],
)
def test_the_command_writes_a_model_that_is_loaded_again(tmp_path, capsys, options, said):
    path = tmp_path / "out" / "q.pt"
    out, err = run(capsys, *USUAL, "--save-path", path, *options, code=0)
    assert err == ""
    assert said in out
    assert "weights: 0.0213 MB before, " in out
    assert f"{path}: top1 " in out
    assert ("calibrated in " in out) == ("dynamic" not in options)
    state, meta = read_checkpoint(path)
    assert rebuild(build_tiny(32, None), TINY, state, meta)(*tiny_example(32, 2, 0)).shape == (2, 4)


@pytest.mark.parametrize("method", ["bf16", "fp16"])
def test_the_command_casts_weights(tmp_path, capsys, method):
    out, _ = run(capsys, *USUAL, "--save-path", tmp_path / "q.pt", "--quantization-method", method, code=0)
    assert f"--precision {method}" in out
    state, meta = read_checkpoint(tmp_path / "q.pt")
    assert state["fc.weight"].dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[method]
    model = build_tiny(32, None)
    expected = model.fc.weight.to(state["fc.weight"].dtype).float()
    load_into(model, tmp_path / "q.pt")
    assert torch.equal(model.fc.weight, expected)
    assert (meta["workload"], meta["method"]) == ("test_quantize:TINY", method)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--quantization-method", "int3"],
            "'int3': expected one of static, dynamic, qat, weights, 2bit, ternary, 1bit, bf16, fp16",
        ),
        (["--model", "resnet19"], "--model resnet19: neither a weights file nor one of"),
        (["--save-path", "/"], "--save-path /: this is a folder"),
        (["--calibration-images", 0], "--calibration-images 0: expected from 1"),
        (["--percentile", 120], "--percentile 120: expected a number above 50"),
        (["--float-layers", "nowhere"], "--float-layers nowhere: TinyResNet has no module of that name"),
        (["--fine-tune-epochs", 3], "go with --quantization-method qat"),
        (["--quantization-method", "qat", "--fine-tune-epochs", 0], "--epochs 0: expected at least 1"),
        (["--quantization-method", "bf16", "--drop-max", 0.1], "go with static, dynamic and qat"),
        (
            ["--quantization-method", "weights", "--calibration", "entropy"],
            "--calibration goes with static and qat: weights finds no ranges",
        ),
        (["--quantization-method", "dynamic", *FEW], "--calibration-images goes with static and qat"),
        (["--quantization-method", "bf16", "--seed", 1], "--seed goes with static and qat: bf16 finds no ranges"),
        (["--model", "resnet18", "--size", -5], "--size -5: resnet18 needs at least 32 px"),
        (["--model", "resnet18", "--keyword", "happy"], "--keyword happy: resnet18 is not about speech"),
        (
            ["--quantization-method", "qat", "--teacher", "resnet18"],
            "--teacher resnet18: no trained weights for digits; train them with "
            "`python -m optim.train --workload resnet18`",
        ),
        (["--threads", 0], "--threads 0: expected at least 1"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, capsys, options, said):
    _, err = run(capsys, *USUAL, "--save-path", tmp_path / "q.pt", *options, code=2)
    (line,) = err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []
