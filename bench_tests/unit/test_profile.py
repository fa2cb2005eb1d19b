"""Where the time goes: counts against hand-computed ones, times of layers that sleep, the laws of the roofline."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from bench_tests import profile as command
from bench_tests.harness import layer_times, roofline
from bench_tests.harness.bottlenecks import HEAVY, IDLE, SIZE, TAKE, answer, bound, judged, raised, shown, take, terms_s
from bench_tests.harness.layer_table import report, short
from bench_tests.harness.layer_times import Clock, Layer, Profile, profile
from bench_tests.harness.layers import OUTSIDE, count, family, find_layers, kind, parameters
from bench_tests.harness.roofline import Ceiling
from bench_tests.unit import toys
from models.data.speech import SYNTHETIC
from models.errors import SpeedproofError
from models.workload import DataChoice, Workload, load_workload, workload_names
from optim.backends.base import Target

ROOF = Ceiling("fp32", 2, peak_gflops=400.0, copy_gb_per_s=40.0, theoretical_gflops=None, how="made up")
RIDGE = ROOF.peak_gflops / ROOF.copy_gb_per_s  # FLOP a byte
CPU = Target("cpu", 1)
FLOAT = 4  # bytes


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(layer_times, "_BUDGET_S", 0.05)
    monkeypatch.setattr(command, "ceiling", lambda *_: ROOF)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def made(time_s=1e-3, flop=0, bytes_moved=0, operators=1, name="a", parameters=0, family="Linear", calls=1) -> Layer:
    return Layer(name, "Linear 2->2", family, calls, operators, time_s, flop, bytes_moved, parameters)


def profile_of(*layers: Layer, outside: Layer | None = None) -> Profile:
    outside = outside or made(1e-4, name=OUTSIDE, family="operators outside of layers")
    return Profile(layers, outside, sum(layer.time_s for layer in (*layers, outside)), 10)


times_s, flops, sizes = st.floats(1e-7, 10), st.integers(0, 10**12), st.integers(0, 10**10)
layers = st.builds(made, times_s, flops, sizes, st.integers(0, 300), parameters=st.just(0) | st.integers(0, 10**8),
                   family=st.sampled_from(["Linear", "ReLU"]), calls=st.integers(1, 4))  # fmt: skip
profiles = st.lists(layers, min_size=1, max_size=12).map(
    lambda found: profile_of(*(Layer(**{**vars(layer), "name": f"l{n}"}) for n, layer in enumerate(found)))
)


@given(st.integers(1, 10**12), st.integers(1, 10**10), times_s)
def test_share_of_roofline_is_reached_over_what_the_intensity_allows(flop, bytes_moved, time_s):
    row = judged(profile_of(made(time_s, flop, bytes_moved)), ROOF)
    found = next(one for one in row if one.layer.name == "a")
    allowed = min(ROOF.peak_gflops, found.intensity * ROOF.copy_gb_per_s)
    assert found.of_roofline == pytest.approx(found.gflops / allowed)


@given(st.integers(1, 10**10), st.floats(0.01, 100))
def test_the_bound_changes_at_the_ridge(bytes_moved, ridges):
    flop = round(bytes_moved * RIDGE * ridges)
    layer = made(max(terms_s(flop, bytes_moved, ROOF)), flop, bytes_moved)  # as fast as can be: no overhead
    assert bound(layer, ROOF) == ("memory" if flop / bytes_moved < RIDGE else "compute")


@given(layers)
def test_overhead_is_many_times_the_roofline_in_little_time_an_operator(layer):
    longest_s = max(terms_s(layer.flop, layer.bytes_moved, ROOF))
    works, slow = longest_s > 0, layer.time_s > 5 * longest_s
    short_one = layer.time_s / max(1, layer.operators) < 100e-6
    assert (bound(layer, ROOF) == "overhead") == (not works or (slow and short_one))


def test_bounds_of_known_layers():
    convolution = made(1.1e-3, 231_211_008, 1_753_088)
    batch_norm = made(170e-6, 0, 6_424_576)
    recurrent = made(300e-6, 1_800_000, 280_000, operators=180)
    depthwise_kernel_of_poor_quality = made(9e-3, 5_000_000, 2_000_000)
    found = [bound(one, ROOF) for one in (convolution, batch_norm, recurrent, depthwise_kernel_of_poor_quality)]
    assert found == ["compute", "memory", "overhead", "memory"]


@given(st.sampled_from(["compute", "memory", "overhead"]), st.floats(0, 1), st.floats(0, 1))
def test_only_the_size_is_won_of_many_parameters_that_take_little_time(found, time_share, parameter_share):
    only_size = parameter_share >= HEAVY and parameter_share >= IDLE * time_share
    assert take(found, time_share, parameter_share) == (SIZE if only_size else TAKE[found])


@given(profiles, st.none() | st.integers(1, 15))
def test_rows_add_up_however_many_are_shown(found, top):
    rows = judged(found, ROOF)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [row.layer.time_s for row in rows] == sorted((row.layer.time_s for row in rows), reverse=True)
    table = shown(rows, top)
    for name in ("time_s", "flop", "bytes_moved", "parameters", "calls", "operators"):
        assert sum(getattr(row.layer, name) for row in table) == pytest.approx(
            sum(getattr(part, name) for part in found.parts)
        )
    assert sum(row.share for row in table) == pytest.approx(1)
    assert sum(row.layer.name == OUTSIDE for row in table) == 1
    if top is not None:
        assert len(table) <= top + 2
    else:
        holders = {layer.name for layer in found.layers if layer.parameters}
        assert holders <= {row.layer.name for row in table}
        assert len(table) <= len(holders) + 2


@given(profiles, st.none() | st.integers(1, 3))
def test_the_report_fits_and_names_what_it_is_about(found, top):
    lines = report(found, ROOF, top).splitlines()
    assert max(map(len, lines[:-1])) <= 160  # the answer is one line, however long
    assert OUTSIDE in "".join(lines)
    roof = raised(ROOF, found)
    assert lines[-1] == answer(judged(found, roof), roof)


def test_long_names_are_shortened_so_that_a_row_fits():
    one = made(123.4, 10**15, 10**14, name="encoder." * 9 + "out_proj", parameters=99 * 10**9, calls=10**4)
    outside = made(1e-4, name=OUTSIDE, family="operators outside of layers")
    layer, rest = (Layer(**{**vars(part), "kind": "a very long name " * 9}) for part in (one, outside))
    text = report(profile_of(layer, outside=rest), ROOF, None)
    assert "…ncoder.encoder.out_proj  a very long name" in text
    assert max(map(len, text.splitlines()[:-1])) <= 160


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (made(10e-3, 10**9, 10**6, family="3x3 convolutions"),
         "3x3 convolutions, at 25% of the peak: take a compiled backend first, then INT8 or structured pruning"),
        (made(10e-3, 34 * 10**8, 10**6, family="Linear"),
         "Linear, at 85% of the peak: fp32 kernels are near their limit, take INT8 or structured pruning"),
        (made(10e-3, 0, 2 * 10**8, family="BatchNorm2d"),
         "BatchNorm2d, at 50% of the copy bandwidth: take a compiled backend, which fuses, first, "
         "then INT8 or fewer channels"),
        (made(10e-3, 4 * 10**6, 0, operators=1000, family="GRU"),
         "GRU, of which the roofline explains 0.1%: take a compiled graph or larger batches; "
         "less arithmetic will not help"),
    ],
    ids=["poor kernels", "good kernels", "memory", "overhead"],
)  # fmt: skip
def test_answer(layer, words):
    found = profile_of(layer, outside=made(1e-3, 0, 30 * 10**6, name=OUTSIDE, family="operators outside of layers"))
    line = answer(judged(found, ROOF), ROOF)
    if bound(layer, ROOF) != "memory":
        assert line.endswith(words)
        assert line.startswith(f"91% of 11 ms is {bound(layer, ROOF)}-bound: ")
    else:  # together with what is outside of layers
        assert line == (f"100% of 11 ms is memory-bound: {words.replace('50%', '52%')}")


def test_the_report_warns_where_the_rows_do_not_add_up():
    found = profile_of(made(1e-3, 10**6, 10**6))
    assert "warning" not in report(found, ROOF, None)
    for factor in (0.8, 1.2):
        other = Profile(found.layers, found.outside, factor * found.total_s, 10)
        assert "warning: the rows' sum and the untouched model differ by more than 10%" in report(other, ROOF, None)


@given(profiles)
def test_the_ceiling_is_no_lower_than_what_was_reached(found):
    roof = raised(ROOF, found)
    reached = [layer.flop / layer.time_s / 1e9 for layer in found.layers]
    assert roof.peak_gflops == max([ROOF.peak_gflops, *reached])
    assert roof.copy_gb_per_s == ROOF.copy_gb_per_s
    assert ("stands for it here" in report(found, ROOF, None)) == (max(reached) > ROOF.peak_gflops)


def test_counts_are_short():
    assert [short(number) for number in (0, 512, 9408, 147_456, 2_359_296, 7 * 10**9)] == [
        "-", "512", "9.41k", "147.5k", "2.36M", "7.00G",
    ]  # fmt: skip


def counted(module: nn.Module, *inputs: torch.Tensor):
    module = module.eval()
    names = tuple(find_layers(module, inputs))
    return count(module, inputs, names)


@pytest.mark.parametrize(
    ("module", "shape", "flop", "numbers"),
    [
        (nn.Linear(30, 50), (4, 30), 2 * 4 * 30 * 50, 4 * 30 + 4 * 50 + 30 * 50 + 50),
        (nn.Linear(30, 50, bias=False), (2, 7, 30), 2 * 14 * 30 * 50, 14 * 30 + 14 * 50 + 30 * 50),
        (nn.Conv2d(3, 8, 5, 2, 2), (2, 3, 16, 16), 2 * 2 * 8 * 64 * 75, 2 * 3 * 256 + 2 * 8 * 64 + 8 * 75 + 8),
        (nn.Conv2d(8, 8, 3, groups=8, bias=False), (1, 8, 6, 6), 2 * 8 * 16 * 9, 8 * 36 + 8 * 16 + 8 * 9),
        (nn.Conv1d(4, 6, 3), (1, 4, 10), 2 * 6 * 8 * 4 * 3, 40 + 48 + 72 + 6),
        (nn.GRU(16, 32), (11, 1, 16), 2 * 11 * 96 * 48, 11 * 16 + 11 * 32 + 32 + 96 * 48 + 192),
        (nn.LSTM(16, 32, 2), (11, 3, 16), 2 * 33 * 128 * (48 + 64),
         33 * 16 + 33 * 32 + 2 * 2 * 3 * 32 + 128 * (48 + 64) + 4 * 128),
        (nn.ReLU(), (3, 5), 0, 30),
        (nn.ReLU(inplace=True), (3, 5), 0, 30),
        (nn.LayerNorm(8), (3, 8), 0, 24 + 24 + 16),
        (nn.Flatten(), (3, 5, 2), 0, 0),
        (nn.Dropout(), (3, 5), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_flop_and_bytes_are_the_hand_formula(module, shape, flop, numbers):
    found = counted(module, torch.zeros(shape))
    assert set(found) == {"", OUTSIDE}
    assert (found[""].calls, found[""].flop, found[""].bytes_moved) == (1, flop, FLOAT * numbers)
    assert (found[OUTSIDE].flop, found[OUTSIDE].bytes_moved) == (0, 0)


def test_a_batch_norm_moves_its_statistics_and_an_embedding_the_rows_that_it_reads():
    norm = counted(nn.BatchNorm2d(8), torch.zeros(1, 8, 4, 4))[""]
    assert norm.bytes_moved == FLOAT * (2 * 128 + 4 * 8) + 8  # and the number of batches, int64
    table = counted(nn.Embedding(1000, 16), torch.zeros(2, 5, dtype=torch.int64))[""]
    assert table.bytes_moved == 8 * 10 + 2 * FLOAT * 10 * 16


class Residual(nn.Module):
    """One layer called twice, one never called, parameters of its own, and operators between them."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Linear(8, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x, *, fail=False):
        y = F.relu(self.twice(x))
        if fail:
            raise KeyError("on purpose")
        return self.twice(y).view(-1, 8) + x * self.scale, {"shape": y}


def test_calls_add_up_and_what_is_between_layers_is_outside():
    x = torch.ones(2, 8)
    found = counted(Residual(), x)
    assert set(found) == {"twice", OUTSIDE}
    assert (found["twice"].calls, found["twice"].flop) == (2, 2 * 2 * 2 * 64)
    assert found["twice"].bytes_moved == 2 * FLOAT * (16 + 16 + 64 + 8)
    assert found[OUTSIDE].operators == Counter({"relu": 1, "mul": 1, "add": 1})  # a view is none
    assert found[OUTSIDE].bytes_moved == FLOAT * ((16 + 16) + (16 + 8 + 16) + (16 + 16 + 16))


def test_layers_within_a_layer_count_as_part_of_it():
    found = count(nn.Sequential(Residual().eval()), (torch.ones(2, 8),), ("0", "0.twice"))
    assert (found["0"].flop, found["0.twice"].flop, found[OUTSIDE].flop) == (2 * 2 * 2 * 64, 0, 0)
    assert found["0"].operators["relu"] == 1
    assert not found[OUTSIDE].operators


def test_parameters_are_counted_once():
    module = Residual()
    assert parameters(module, find_layers(module, (torch.ones(2, 8),))) == {"twice": 72, OUTSIDE: 27 + 8}
    tied = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 50, bias=False))
    tied[1].weight = tied[0].weight
    found = parameters(tied, find_layers(tied, (torch.zeros(1, 3, dtype=torch.int64),)))
    assert found == {"0": 200, "1": 0, OUTSIDE: 0}


class Arithmetic(nn.Module):
    """Arithmetic that no layer does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x) @ x.T


def test_arithmetic_outside_of_layers_is_counted_there():
    found = counted(Arithmetic(), torch.ones(3, 8))
    assert (found["linear"].flop, found[OUTSIDE].flop) == (2 * 3 * 64, 2 * 9 * 8)


TOYS = [f"bench_tests.unit.toys:{name}" for name in ("SMALL", "STREAMING", "TWO_INPUTS", "MLP")]


@pytest.mark.parametrize("name", [*workload_names(), *TOYS])
def test_counts_add_up_to_the_whole_model(name):
    choice = DataChoice(SYNTHETIC) if name.startswith("kws") else None
    workload = load_workload(name, choice)
    size = min(workload.sizes)
    module, inputs = workload.build(size, None), workload.example(size, 2, 1)
    names = find_layers(module, inputs)
    found = count(module, inputs, tuple(names))
    assert sum(tally.flop for tally in found.values()) == round(1e9 * roofline.gflop(module, inputs))
    assert sum(parameters(module, names).values()) == sum(parameter.numel() for parameter in module.parameters())


def test_a_fused_encoder_layer_is_one_layer_with_all_its_arithmetic():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    encoder.requires_grad_(False)
    x = torch.randn(1, 10, 32)
    found = count(encoder, (x,), tuple(find_layers(encoder, (x,))))
    flop = 2 * 10 * 32 * 32 * 4 + 2 * 2 * 10 * 10 * 32 + 2 * 2 * 10 * 32 * 64
    assert {name: tally.flop for name, tally in found.items()} == {"layers.0": flop, "layers.1": flop, OUTSIDE: 0}


def test_attention_whose_parts_are_not_called_is_one_layer():
    module = nn.ModuleDict({"attention": nn.MultiheadAttention(16, 2, batch_first=True)})["attention"].eval()
    x = torch.randn(2, 5, 16)
    names = find_layers(module, (x, x, x))
    assert list(names) == [""]
    assert parameters(module, names)[""] == 4 * 16 * 16 + 4 * 16


@pytest.mark.parametrize(
    "make",
    [lambda module, x: torch.export.export(module, (x,)).module(), lambda module, x: torch.fx.symbolic_trace(module)],
    ids=["exported", "traced"],
)
def test_graphs_have_a_profile_too(make):
    x = torch.randn(2, 16)
    module = make(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval(), x)
    found = profile(module, (x,), CPU)
    assert sum(part.flop for part in found.parts) == 2 * 2 * (16 * 32 + 32 * 4)
    assert found.total_s > 0


@pytest.mark.parametrize(
    ("module", "words", "group"),
    [
        (nn.Conv2d(64, 128, 3, 2, bias=False), "Conv2d 3x3 64->128 /2", "3x3 convolutions"),
        (nn.Conv2d(64, 64, (1, 5), groups=64), "Conv2d 1x5 64->64 dw", "depthwise 1x5 convolutions"),
        (nn.Conv2d(8, 8, 3, groups=2), "Conv2d 3x3 8->8 g2", "3x3 convolutions"),
        (nn.Conv1d(1, 8, 5, 4), "Conv1d 5 1->8 /4", "5 convolutions"),
        (nn.Conv2d(1, 8, (5, 20), (2, 8)), "Conv2d 5x20 1->8 /2x8", "5x20 convolutions"),
        (nn.Linear(512, 10), "Linear 512->10", "Linear"),
        (nn.GRU(144, 64, 2), "GRU 144->64 x2", "GRU"),
        (nn.LSTM(4, 8, bidirectional=True), "LSTM 4->8 both ways", "LSTM"),
        (nn.GRUCell(4, 8), "GRUCell 4->8", "GRUCell"),
        (nn.BatchNorm2d(64), "BatchNorm2d 64", "BatchNorm2d"),
        (nn.Embedding(100, 8), "Embedding 100x8", "Embedding"),
        (nn.ReLU(), "ReLU", "ReLU"),
    ],
)
def test_kinds(module, words, group):
    assert (kind(module), family(module)) == (words, group)


class Timepiece:
    """Time that passes only where it is told to, and by 10 us whenever it is read."""

    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        self.now_s += 1e-5
        return self.now_s


@pytest.fixture
def timepiece(monkeypatch):
    piece = Timepiece()
    monkeypatch.setattr(layer_times, "time", piece)
    monkeypatch.setattr(layer_times, "_BUDGET_S", 5.0)
    return piece


class Busy(nn.Module):
    """A layer that takes so long; every ninth of its calls is disturbed."""

    def __init__(self, piece, seconds):
        super().__init__()
        self.piece, self.seconds, self.calls = piece, seconds, 0

    def forward(self, x):
        self.calls += 1
        self.piece.now_s += self.seconds if self.calls % 9 else 0.1
        return x


class BusyDay(nn.Module):
    """4 ms twice, 2 ms once, and 3 ms outside of layers."""

    def __init__(self, piece):
        super().__init__()
        self.piece, self.long, self.brief = piece, Busy(piece, 4e-3), Busy(piece, 2e-3)

    def forward(self, x):
        self.piece.now_s += 3e-3
        return self.brief(self.long(self.long(x)))


def test_times_land_where_they_are_spent(timepiece):
    module, x = BusyDay(timepiece), (torch.zeros(1),)
    times_s, untouched_s, calls = layer_times._time(module, x, find_layers(module, x), "cpu")
    assert times_s == pytest.approx({"long": 8e-3, "brief": 2e-3, OUTSIDE: 3.01e-3})  # and one reading
    assert untouched_s == pytest.approx(13.01e-3)
    assert calls >= 30


def test_the_clock_on_a_gpu_reads_its_events_only_at_rest(timepiece, monkeypatch):
    """Events whose time is known once the device was waited for, as of those in a stream."""
    waited = Timepiece()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at_s = timepiece.perf_counter()

        def elapsed_time(self, other):
            assert max(self.at_s, other.at_s) <= waited.now_s, "read before the device came to rest"
            return 1e3 * (other.at_s - self.at_s)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: setattr(waited, "now_s", timepiece.now_s))
    module, x = BusyDay(timepiece), (torch.zeros(1),)
    times_s, untouched_s, _ = layer_times._time(module, x, find_layers(module, x), "cuda")
    assert times_s == pytest.approx({"long": 8e-3, "brief": 2e-3, OUTSIDE: 3.01e-3})  # and one reading
    assert untouched_s == pytest.approx(13.01e-3)


def test_the_cost_of_a_reading_is_found(timepiece):
    assert Clock("cpu").cost_s() == pytest.approx((1e-5, 1e-5))


def test_the_cost_of_the_clock_is_taken_out():
    """400 layers that do nothing: uncorrected, the rows would add up to a third more than the whole."""
    deep = nn.Sequential(*(nn.Identity() for _ in range(400)))
    found = profile(deep, (torch.zeros(1),), CPU)
    assert found.total_s == pytest.approx(found.untouched_s, rel=0.2)
    assert len(found.layers) == 400
    assert found.outside.time_s > sum(layer.time_s for layer in found.layers)  # torch's own calls


def traces(module: nn.Module) -> list[str]:
    """What a measuring might have left on a module."""
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    return [
        name for name, part in module.named_modules() if "forward" in vars(part) or any(vars(part)[h] for h in hooks)
    ]


def test_the_argument_is_untouched():
    module = toys.SmallNet(0).train()
    before = copy.deepcopy(module.state_dict())
    profile(module, (torch.randn(1, 3, 32, 32),), CPU)
    assert traces(module) == []
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("own", [False, True], ids=["of the class", "of its own"])
def test_layers_get_their_forward_back_when_the_model_fails(own):
    module = Residual().eval()
    if own:
        module.twice.forward = forward = lambda x: x
    with pytest.raises(KeyError):
        find_layers(_Failing(module), (torch.ones(2, 8),))
    assert traces(module) == (["twice"] if own else [])
    if own:
        assert module.twice.forward is forward


class _Failing(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, fail=True)


def test_a_module_that_does_not_take_its_example_is_one_sentence():
    with pytest.raises(SpeedproofError, match="Linear cannot run in eager fp32 on cpu"):
        profile(nn.Linear(3, 3), (torch.zeros(1, 4),), CPU)


def _broken(*_):
    raise KeyError("nobody has\nforeseen this")


BROKEN_BUILD = Workload("broken", "t", "s", "p", _broken, lambda *_: (torch.zeros(1),), (1,), (1,))
BROKEN_EXAMPLE = Workload("broken", "t", "s", "p", lambda *_: nn.ReLU(), _broken, (1,), (1,))
TOO_LARGE = Workload("large", "t", "s", "p", lambda *_: nn.ReLU(), lambda *_: (torch.empty(1 << 50),), (1,), (1,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--workload resnet19", "unknown workload 'resnet19'"),
        ("--workload nowhere:OBJECT", "failed to import"),
        ("--workload resnet18 --batch 0", "--batch 0: expected a whole number of at least 1"),
        ("--workload resnet18 --batch -3", "--batch -3: expected"),
        ("--workload resnet18 --size 7", "--size 7: resnet18 needs at least 32 px"),
        ("--workload resnet18 --size 0", "--size 0: expected"),
        ("--workload resnet18 --threads 0", "--threads 0: this machine"),
        ("--workload resnet18 --threads 9999", "--threads 9999: this machine"),
        ("--workload resnet18 --seed -1", "--seed -1: expected"),
        ("--workload resnet18 --seed 99999999999999999999", "--seed 99999999999999999999: expected"),
        ("--workload resnet18 --top 0", "--top 0: expected"),
        ("--workload resnet18 --weights nowhere.pth", "no weights at nowhere.pth"),
        ("--workload resnet18 --data folder --data-dir nowhere", "--data-dir nowhere: no such folder"),
        ("--workload bench_tests.unit.toys:MLP --data digits", "brings its data itself"),
        ("--workload bench_tests.unit.test_profile:BROKEN_BUILD", "workload broken cannot be built"),
        ("--workload bench_tests.unit.test_profile:BROKEN_EXAMPLE", "workload broken cannot be built"),
        ("--workload bench_tests.unit.test_profile:TOO_LARGE", "workload large cannot be built"),
    ],
)  # fmt: skip
def test_bad_options_are_one_sentence_and_write_nothing(tmp_path, capsys, arguments, words):
    assert command.main([*arguments.split(), "--json", str(tmp_path / "rows.json")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert words in output.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["--workload"], ["--workload", "resnet18", "--top", "many"], ["--sizes", "3"]]
)
def test_options_that_argparse_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_json_goes_into_a_file_and_not_a_folder(tmp_path, capsys):
    assert command.main(["--workload", "resnet18", "--json", str(tmp_path)]) == 2
    assert "this is a folder" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_one_sentence(capsys):
    assert command.main(["--workload", "resnet18", "--device", "cuda"]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_command_prints_the_report_and_writes_every_row(tmp_path, capsys):
    path = tmp_path / "new" / "rows.json"
    arguments = f"--workload resnet18 --size 32 --batch 2 --threads 1 --seed 3 --top 4 --json {path}".split()
    assert command.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("resnet18 on digits, size 32, batch 2, PyTorch eager fp32 on ")
    assert sum("Conv2d" in line or "BatchNorm2d" in line for line in lines[2:8]) >= 4
    assert lines[-1] == f"{path}: written"
    found = json.loads(path.read_text())
    assert (found["workload"], found["size"], found["batch"], found["threads"], found["seed"]) == (
        "resnet18",
        32,
        2,
        1,
        3,
    )
    assert found["ceiling"]["peak_gflops"] == ROOF.peak_gflops
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 20 + 20 + 1 + 1
    assert rows["fc"]["flop"] == 2 * 2 * 512 * 10
    assert rows["layer1.0.conv1"]["kind"] == "Conv2d 3x3 64->64"
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert sum(row["parameters"] for row in rows.values()) == 11_181_642
    assert sum(row["time_s"] for row in rows.values()) == pytest.approx(found["total_s"])


def test_a_command_that_fails_late_leaves_no_file(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise SpeedproofError("the cache is full")

    monkeypatch.setattr(command, "ceiling", refuse)
    path = tmp_path / "rows.json"
    arguments = ["--workload", "bench_tests.unit.toys:MLP", "--json", str(path)]
    assert command.main(arguments) == 2
    assert "the cache is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_command_takes_models_of_several_inputs_and_outputs(capsys):
    for name in ("STREAMING", "TWO_INPUTS"):
        assert command.main(["--workload", f"bench_tests.unit.toys:{name}"]) == 0
    output = capsys.readouterr().out
    assert "GRUCell 16->8" in output
    assert "overhead-bound" in output
