"""Pruning: exact masks, channels that are really gone, what fine-tuning keeps, resumes and refuses."""

import copy
import json
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import example as also
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as reference

from bench_tests.unit.test_train import QUICK, TOY, build
from bench_tests.unit.toys import SMALL
from models.efficientnet import EfficientNetLite0
from models.errors import SpeedproofError
from models.resnet import BasicBlock, ResNet, resnet50
from models.weights import load_into, read_checkpoint, save_checkpoint
from models.workload import DataChoice, load_workload
from optim import images as imaging
from optim.command import load_model
from optim.distill import DistillConfig, retrain
from optim.images import accuracy
from optim.kinds import score_on_test
from optim.prune import (
    ChannelGroups,
    PruneConfig,
    compressed_bytes,
    parameters,
    prune,
    sensitivity,
    sensitivity_table,
    sparsity,
    sparsity_at,
)
from optim.prune import method as pruning
from optim.prune.__main__ import main
from optim.prune.channels import choose_channels, rounded
from optim.prune.masks import choose_masks, layers_of, semi_structured_mask, smallest
from optim.saved import save_model

TUNING = DistillConfig(**{**asdict(QUICK), "views": 2}, size=32)
CHANNELS = PruneConfig("structured", 0.5, round_to=2)
amounts = st.floats(0, 1, exclude_min=True, exclude_max=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))


def seeded(make, *arguments) -> nn.Module:
    """A net with random weights and batch norms that differ from channel to channel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make(*arguments).eval()
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.3)
                nn.init.normal_(part.running_mean, std=0.3)
                nn.init.uniform_(part.running_var, 0.5, 2.0)
    return model


def tiny() -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1), 10)


def pixels(size: int = 32, seed: int = 1) -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed)),)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(left: nn.Module, right: nn.Module) -> None:
    expected = right.state_dict()
    assert list(left.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in left.state_dict().items())


def zeros_in(model: nn.Module) -> int:
    return sum(int((layer.weight == 0).sum()) for layer in layers_of(model).values())


def weights_in(model: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in layers_of(model).values())


@given(amounts)
@also(0.5)
@also(1e-9)
@also(1 - 1e-9)
def test_masks_are_those_of_torch_and_their_counts_exact(amount):
    layers = layers_of(build(32, None))
    for method in ("global", "local"):
        theirs = {name: copy.deepcopy(layer) for name, layer in layers.items()}
        if method == "global":
            pairs = [(layer, "weight") for layer in theirs.values()]
            reference.global_unstructured(pairs, reference.L1Unstructured, amount=amount)
        else:
            for layer in theirs.values():
                reference.l1_unstructured(layer, "weight", amount=amount)
        masks = choose_masks(layers, PruneConfig(method, amount))
        assert all(torch.equal(mask, theirs[name].weight_mask == 0) for name, mask in masks.items())
        sizes = [mask.numel() for mask in masks.values()]
        expected = round(amount * sum(sizes)) if method == "global" else sum(round(amount * size) for size in sizes)
        assert sum(int(mask.sum()) for mask in masks.values()) == expected


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.data())
def test_counts_are_exact_among_equals_too(values, data):
    weights = torch.tensor(values, dtype=torch.float32)
    count = data.draw(st.integers(0, len(values)))
    chosen = smallest(weights, count)
    assert int(chosen.sum()) == count
    if 0 < count < len(values):
        assert weights[chosen].abs().max() <= weights[~chosen].abs().min()


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32))
def test_of_every_four_weights_the_two_smallest_go(outputs, quarters, seed):
    weight = torch.randn(outputs, quarters, 2, 2, generator=torch.Generator().manual_seed(seed))
    mask = semi_structured_mask(weight).reshape(-1, 4)
    assert mask.sum(1).tolist() == [2] * len(mask)
    for chosen, four in zip(mask, weight.reshape(-1, 4).tolist(), strict=True):
        assert sorted(four, key=abs)[:2] == sorted((v for v, c in zip(four, chosen, strict=True) if c), key=abs)


def test_the_sparsity_grows_as_zhu_and_gupta_say():
    final, steps = 0.8, 20
    found = [sparsity_at(step / steps, final) for step in range(steps + 1)]
    assert found == pytest.approx([final + (0 - final) * (1 - step / steps) ** 3 for step in range(steps + 1)])
    assert found[0] == 0
    assert found[-1] == sparsity_at(1.5, final) == final
    assert found[5] == pytest.approx(final * (1 - 27 / 64))


@pytest.mark.parametrize(
    "config",
    [
        PruneConfig("global", 0.6),
        PruneConfig("local", 0.6, fine_tune=replace(TUNING, epochs=1)),
        PruneConfig("2:4"),
        PruneConfig("2:4", fine_tune=replace(TUNING, epochs=1)),
        PruneConfig("global", 0.6, fine_tune=TUNING, gradual=True, mask_every=2),
        CHANNELS,
        replace(CHANNELS, fine_tune=replace(TUNING, epochs=1), steps=2),
    ],
    ids=lambda config: f"{config.method}{'-tuned' * bool(config.fine_tune)}{'-gradual' * config.gradual}",
)
def test_every_method_leaves_its_argument_alone_and_repeats_itself(config):
    model = build(32, None)
    model.train()
    model[0].requires_grad_(False)
    before = state_of(model)
    found = prune(model, TOY, config)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()].count(False) == 2
    assert not found.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in found.modules())
    assert not any(hasattr(part, "parametrizations") for part in found.modules())
    if config.fine_tune is None:
        assert [parameter.requires_grad for parameter in found.parameters()].count(False) == 2
    assert_same(found, prune(model, TOY, config))
    if config.method != "structured":
        assert found.state_dict().keys() == before.keys()
    if config.method in ("global", "local"):
        sizes = (
            [weights_in(model)]
            if config.method == "global"
            else [layer.weight.numel() for layer in layers_of(model).values()]
        )
        assert zeros_in(found) == sum(round(0.6 * size) for size in sizes)
    if config.method == "2:4":
        assert sparsity(found)["3"] == sparsity(found)["8"] == 0.5
        assert sparsity(found)["0"] == 0  # 27 inputs a row


def cut_and_zeroed(model: nn.Module, config: PruneConfig, inputs: tuple[torch.Tensor, ...]):
    """The net without its least important channels, and the whole net with the same channels zeroed."""
    cut, zeroed = copy.deepcopy(model), copy.deepcopy(model)
    groups = ChannelGroups(cut, inputs)
    chosen = choose_channels(groups, groups.sizes, config)
    sizes = groups.sizes
    groups.remove(chosen)
    ChannelGroups(zeroed, inputs).zero(chosen)
    return cut, zeroed, chosen, sizes, groups.sizes


def assert_equal_outputs(left: nn.Module, right: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    with torch.inference_mode():
        found, expected = left.double()(*(t.double() for t in inputs)), right.double()(*(t.double() for t in inputs))
    assert expected.std() > 1e-3  # something is left to compare
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=8)
@given(
    st.floats(0.1, 0.9), st.sampled_from([1, 8, 16]), st.sampled_from(["l1", "l2"]), st.booleans(), st.integers(0, 9)
)
def test_a_net_without_channels_equals_the_one_with_zeroed_channels(amount, round_to, importance, together, seed):
    config = PruneConfig("structured", amount, round_to, importance, together)
    cut, zeroed, chosen, before, after = cut_and_zeroed(seeded(tiny), config, pixels(seed=seed))
    assert_equal_outputs(cut, zeroed, pixels(seed=seed))
    assert parameters(cut) < parameters(zeroed)
    assert all(size % round_to == 0 for size in after.values())
    assert {name: before[name] - len(chosen.get(name, ())) for name in before} == after
    if not together:
        assert after == {name: rounded((1 - amount) * size, size, round_to) for name, size in before.items()}
    assert cut.fc.out_features == 10


@pytest.mark.parametrize("make", [resnet50, EfficientNetLite0])
def test_deep_nets_too(make):
    model = seeded(make, 10)
    cut, zeroed, *_, after = cut_and_zeroed(model, PruneConfig("structured", 0.5), pixels(64))
    assert_equal_outputs(cut, zeroed, pixels(64))
    assert parameters(cut) < 0.35 * parameters(model)
    assert all(size % 8 == 0 for size in after.values())
    assert next(part for part in cut.modules() if isinstance(part, nn.Linear)).out_features == 10
    for part in cut.modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.shape[:2] == (part.out_channels, part.in_channels // part.groups)


PLAIN = replace(TOY, example=lambda *_: (torch.zeros(1, 3, 8, 8),))


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 5))


def test_channels_that_are_gone_are_those_that_count_least():
    """By hand, in a net without batch norm: rows of the first kernel and columns of the second."""
    model = seeded(plain)
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].weight[0, 0, 0, 0] = 1.5  # little by l1, much by l2
    gone = []
    for power, name in ((1, "l1"), (2, "l2")):
        rows, columns = (model[0].weight.abs() ** power).sum((1, 2, 3)), (model[2].weight.abs() ** power).sum((0, 2, 3))
        gone.append((rows + columns).argsort()[:3].sort().values.tolist())
        found = prune(model, PLAIN, replace(CHANNELS, round_to=1, importance=name))
        kept = [index for index in range(6) if index not in gone[-1]]
        assert torch.equal(found[0].weight, model[0].weight[kept])
        assert torch.equal(found[0].bias, model[0].bias[kept])
        assert found[2].weight.shape == (2, 3, 3, 3)
        assert found[4].weight.shape == (5, 32)  # two channels of 4 x 4 places
    assert gone[0] != gone[1]


def test_one_ranking_over_all_groups_takes_them_where_they_are_least():
    model = seeded(plain)
    with torch.no_grad():
        for weight in (model[0].weight[:4], model[2].weight[:, :4]):
            weight.mul_(0.01)
    for together, widths in ((True, [2, 4]), (False, [4, 2])):  # four of ten, or of each 2.4 of 6 and 1.6 of 4
        found = prune(model, PLAIN, replace(CHANNELS, amount=0.4, round_to=1, global_channels=together))
        assert [found[0].out_channels, found[2].out_channels] == widths


@given(st.floats(0, 3000), st.integers(1, 3000), st.integers(1, 64))
def test_kept_channels_are_a_multiple(kept, channels, multiple):
    found = rounded(kept, channels, multiple)
    assert 0 < found <= channels
    if channels < multiple:
        assert found == channels
    else:
        assert found % multiple == 0
        nearer = [abs(kept - other) for other in range(multiple, channels + 1, multiple)]
        assert abs(kept - found) == pytest.approx(min(nearer))


def test_ignored_layers_stay_and_modules_name_all_their_layers():
    model = seeded(tiny)
    found = prune(model, TOY, PruneConfig("global", 0.5, ignored=("layer1", "fc")))
    shares = sparsity(found)
    assert {name for name, share in shares.items() if share == 0} == {"layer1.0.conv1", "layer1.0.conv2", "fc"}
    found = prune(model, TOY, PruneConfig("structured", 0.5, ignored=("layer1.0.conv2", "layer3.0.conv1")))
    widths = {name: layer.weight.shape[0] for name, layer in layers_of(found).items()}
    assert widths["conv1"] == widths["layer1.0.conv2"] == 64  # they are added to each other
    assert widths["layer3.0.conv1"] == 256
    assert widths["layer1.0.conv1"] == 32


def test_what_cannot_lose_channels_is_left_alone():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.colour = nn.Conv2d(3, 3, 3, groups=3)
            self.conv1, self.norm = nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16)
            self.conv2 = nn.Conv2d(16, 16, 3, groups=4)
            self.conv3, self.conv4 = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 6, 1)

        def forward(self, x):
            x = self.norm(self.conv1(self.colour(x)))
            return self.conv4(self.conv3(self.conv2(x)).relu()).mean((2, 3)).log_softmax(1)

    model = seeded(Odd)
    assert ChannelGroups(model, pixels()).sizes == {"conv3": 16}


def killed(monkeypatch, after: int):
    """Ctrl-C when so many epochs have been judged."""
    calls: list[int] = []

    def judged(*arguments):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return accuracy(*arguments)

    monkeypatch.setattr(imaging, "accuracy", judged)


@pytest.mark.parametrize("after", [1, 3, 5])
@pytest.mark.parametrize(
    "config",
    [
        replace(CHANNELS, amount=0.7, steps=3, fine_tune=replace(TUNING, epochs=2)),
        PruneConfig("global", 0.8, gradual=True, gradual_share=0.7, mask_every=2, fine_tune=replace(TUNING, epochs=6)),
    ],
    ids=["steps", "gradual"],
)
def test_a_killed_run_goes_on_to_the_very_same_weights(config, after, tmp_path, monkeypatch, capsys):
    model = build(32, None)
    whole = prune(model, TOY, config)
    lines = capsys.readouterr().out.count(": loss ")
    for count in (after, 0) if after > 1 else (after,):  # killed again before anything more is done
        with monkeypatch.context() as patch:
            killed(patch, count)
            with pytest.raises(KeyboardInterrupt):
                prune(model, TOY, config, keep=tmp_path / "p.pt")
    done = capsys.readouterr().out.count(": loss ")
    assert_same(prune(model, TOY, config, keep=tmp_path / "p.pt"), whole)
    assert done == after
    # An epoch less where it was killed between the last step of the gradual phase and its judgement, which none needs.
    assert capsys.readouterr().out.count(": loss ") in (lines - after, lines - after - config.gradual)
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".json", "")]


def test_a_stage_of_another_run_or_a_broken_one_is_not_gone_on_from(tmp_path, monkeypatch, capsys):
    config = replace(CHANNELS, amount=0.7, steps=2, fine_tune=replace(TUNING, epochs=1))
    with monkeypatch.context() as patch:
        killed(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            prune(build(32, None), TOY, config, keep=tmp_path / "p.pt")
    stage = tmp_path / "p_step1.stage"
    assert stage.is_file()
    other = replace(config, importance="l1")
    assert_same(prune(build(32, None), TOY, other, keep=tmp_path / "p.pt"), prune(build(32, None), TOY, other))
    stage.write_bytes(b"broken")
    capsys.readouterr()
    assert_same(prune(build(32, None), TOY, config, keep=tmp_path / "p.pt"), prune(build(32, None), TOY, config))
    assert "the stage starts anew" in capsys.readouterr().out


def test_the_gradual_phase_follows_the_cubic_and_ends_exactly(monkeypatch):
    config = PruneConfig("global", 0.9, gradual=True, mask_every=2, fine_tune=replace(TUNING, epochs=4))
    seen = []

    def chosen(layers, config, amount=None):
        seen.append(amount)
        return choose_masks(layers, config, amount)

    monkeypatch.setattr(pruning, "choose_masks", chosen)
    model = build(32, None)
    found = prune(model, TOY, config)
    assert zeros_in(found) == round(0.9 * weights_in(model))
    # 49 images in batches of 16, the single one left out: 3 steps an epoch, of 2 gradual epochs
    assert seen == [*(pytest.approx(sparsity_at(step / 6, 0.9)) for step in (1, 3, 4, 6)), None]


def test_the_gradual_phase_ends_with_its_last_step_whatever_the_validation_says(monkeypatch):
    config = PruneConfig("global", 0.9, gradual=True, mask_every=1, fine_tune=replace(TUNING, epochs=6, patience=1))

    def pruned_where(*validation: float) -> nn.Module:
        calls: list[int] = []

        def judged(*arguments):
            calls.append(1)
            return (validation[len(calls) - 1], 1.0) if len(calls) <= len(validation) else accuracy(*arguments)

        monkeypatch.setattr(imaging, "accuracy", judged)
        return prune(build(32, None), TOY, config)

    assert_same(pruned_where(0.9, 0.6, 0.3), pruned_where(0.1, 0.2, 0.3))


def test_fine_tuning_brings_accuracy_back_and_a_teacher_helps():
    model = build(32, None)
    schedule = replace(TUNING, epochs=8)
    retrain(model, TOY, schedule)
    for teacher in (None, model):
        tuned = prune(model, TOY, replace(CHANNELS, fine_tune=schedule), teacher=teacher)
        assert score_on_test(tuned, TOY, 32, "fp32")[0] > 0.6
        assert tuned[0].out_channels == 4
    labels = prune(model, TOY, replace(CHANNELS, fine_tune=replace(TUNING, epochs=1)))
    taught = prune(model, TOY, replace(CHANNELS, fine_tune=replace(TUNING, epochs=1)), teacher=model)
    assert not torch.equal(labels[0].weight, taught[0].weight)


def test_every_step_keeps_an_equal_ratio(monkeypatch):
    config = replace(CHANNELS, amount=0.75, round_to=1, steps=4, fine_tune=TUNING)
    widths = []
    monkeypatch.setattr(
        pruning, "retrain", lambda own, *_, **__: widths.append(ChannelGroups(own, pixels()).sizes["layer4.0.conv1"])
    )
    prune(seeded(tiny), TOY, config)
    assert widths == [round(512 * 0.25 ** (step / 4)) for step in (1, 2, 3, 4)]


def test_saved_and_loaded_again_it_answers_the_same(tmp_path):
    for make in (tiny, EfficientNetLite0):
        model = seeded(make)
        cut = prune(model, TOY, PruneConfig("structured", 0.6))
        path = tmp_path / "cut.pt"
        save_checkpoint(path, {"state_dict": cut.state_dict(), "meta": {"channels_removed": True}})
        again = seeded(make)
        load_into(again, path)
        with torch.inference_mode():
            assert torch.equal(again(*pixels()), cut(*pixels()))


def test_reports_count_zeros_and_bytes():
    model = build(32, None)
    before, bytes_before = sparsity(model), compressed_bytes(model)
    assert before == {"0": 0, "3": 0, "8": 0, "overall": 0}
    pruned = prune(model, TOY, PruneConfig("local", 0.75))
    assert sparsity(pruned) == {"0": 0.75, "3": 0.75, "8": 0.75, "overall": 0.75}
    assert compressed_bytes(pruned) < 0.6 * bytes_before
    assert compressed_bytes(pruned.bfloat16()) < 0.3 * bytes_before
    assert parameters(pruned) == parameters(model) == 8 * 27 + 8 + 16 + 8 * 72 + 8 + 4 * 8 + 4


SMALL_TUNING = DistillConfig(epochs=2, lr=0.1, size=16, precision="fp32")


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A net that reads digits somewhat."""
    model = SMALL.build(16, None)
    retrain(model, SMALL, SMALL_TUNING)
    return model


@pytest.mark.parametrize("method", ["global", "2:4", "structured"])
def test_sensitivity_is_what_each_layer_costs_alone(method, small):
    model = small
    before = state_of(model)
    config = PruneConfig(method, fine_tune=SMALL_TUNING)
    shares = [0.5] if method == "2:4" else [0.2, 0.5]
    rows = sensitivity(model, SMALL, config, shares, 100)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    names = {"global": ["conv1", "conv2", "fc"], "2:4": ["conv2", "fc"], "structured": ["conv1", "conv2"]}[method]
    expected = [
        (name, share) for name in names for share in shares if (method, name, share) != ("structured", "conv1", 0.2)
    ]
    assert [(row["layer"], row["amount"]) for row in rows] == expected
    others = set(layers_of(model))
    for row in rows:
        ignored = tuple(others - {row["layer"]} - ({"fc"} if method == "structured" else set()))
        alone = prune(model, SMALL, PruneConfig(method, row["amount"], ignored=ignored))

        def top1(net):
            with torch.inference_mode():
                return SMALL.quality(lambda inputs: (net(*inputs),), "validation", 16, 64, 100)[0].value

        assert row["top1"] == pytest.approx(top1(alone))
        assert row["drop"] == pytest.approx(top1(model) - row["top1"])
    table = sensitivity_table(rows).splitlines()
    assert [line.split()[0] for line in table[2:]] == names
    assert "0.5 gone" in table[0]


BAD = [
    ({"amount": 1.5}, "--amount 1.5: expected a share above 0 and below 1"),
    ({"amount": 0.0}, "--amount 0: expected a share"),
    ({"amount": float("nan")}, "--amount nan: expected a share"),
    ({"method": "magic"}, "--pruning-method 'magic': expected one of global, local, structured, 2:4"),
    ({"method": "2:4", "amount": 0.3}, "--amount 0.3: 2:4 zeroes half of the weights"),
    ({"method": "structured", "round_to": 0}, "--round-to 0: expected at least 1"),
    ({"method": "structured", "importance": "l3"}, "--importance 'l3': expected one of l1, l2"),
    ({"method": "structured", "steps": 2}, "--steps goes with --fine-tune"),
    ({"method": "structured", "amount": 0.1}, "--amount 0.1 with --round-to 8 removes no channel of Sequential"),
    ({"method": "structured", "gradual": True, "fine_tune": TUNING}, "--gradual goes with --pruning-method global or"),
    ({"method": "structured", "ignored": ("0", "3")}, "Sequential has no channels that can be removed"),
    ({"round_to": 16}, "--round-to goes with --pruning-method structured"),
    ({"gradual": True}, "--gradual goes with --fine-tune"),
    ({"gradual_share": 0.2}, "--gradual-share goes with --gradual"),
    ({"gradual": True, "fine_tune": TUNING, "gradual_share": 1.0}, "--gradual-share 1: expected a share"),
    ({"gradual": True, "fine_tune": replace(TUNING, epochs=1)}, "--fine-tune-epochs 1: --gradual needs at least 2"),
    ({"ignored": ("layer9",)}, "--ignored layer9: Sequential has no layer of that name; expected one such as 0"),
    ({"ignored": ("0", "3", "8")}, "Sequential has no layer that can be pruned"),
    ({"fine_tune": replace(TUNING, lr=-1.0)}, "--lr -1.0: expected a number above 0"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said.split(":")[0] for _, said in BAD])
def test_what_cannot_be_pruned_is_one_sentence_and_nothing_is_written(tmp_path, change, said):
    with pytest.raises(SpeedproofError) as error:
        prune(build(32, None), TOY, PruneConfig(**change), keep=tmp_path / "p.pt")
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_models_that_cannot_be_pruned_are_one_sentence():
    nothing = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3))
    odd = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.LazyLinear(2)).eval()
    odd(*pixels())
    for method in ("global", "structured"):
        with pytest.raises(SpeedproofError, match="Sequential has no layer that can be pruned"):
            prune(nothing, TOY, PruneConfig(method))
    with pytest.raises(SpeedproofError, match="2:4 fits none of the layers"):
        prune(nn.Sequential(nn.Conv2d(3, 8, 3)), TOY, PruneConfig("2:4"))
    with pytest.raises(SpeedproofError, match="cannot be traced"):
        prune(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3)), TOY, PruneConfig("structured"))
    with pytest.raises(SpeedproofError, match="--amounts: expected at least one"):
        sensitivity(build(32, None), TOY, PruneConfig(), [])
    with pytest.raises(SpeedproofError, match="workload toy has no quality"):
        sensitivity(build(32, None), TOY, PruneConfig(), [0.5])


def run(capsys, *arguments: object, code: int) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr()


USUAL = ("--model", "resnet18", "--size", 32, "--precision", "fp32", "--threads", 2)


def test_the_command_writes_a_model_that_is_loaded_again(tmp_path, capsys):
    cut, path = tmp_path / "out" / "cut.pt", tmp_path / "out" / "p.pt"
    teacher, digits = tmp_path / "teacher.pt", load_workload("resnet18")
    save_model(teacher, digits.build(32, None), digits, 32, {})
    out, err = run(
        capsys, *USUAL, "--pruning-method", "structured", "--amount", 0.8, "--importance", "l1", "--round-to", 16,
        "--fine-tune", "--fine-tune-epochs", 1, "--teacher", teacher, "--views", 1, "--save-path", cut, code=0,
    )  # fmt: skip
    assert err == ""
    assert "top-1, 360 test images" in out
    assert f"{cut}: written" in out
    state, meta = read_checkpoint(cut)
    assert (meta["workload"], meta["method"], meta["channels_removed"]) == ("resnet18", "prune", True)
    assert meta["config"]["fine_tune"]["lr"] == pytest.approx(0.04 / 5)
    assert state["conv1.weight"].shape == (16, 3, 7, 7)  # of 64, a fifth, in multiples of 16
    assert sorted(entry.name for entry in cut.parent.iterdir()) == ["cut.json", "cut.pt"]
    assert json.loads((cut.parent / "cut.json").read_text())["config"]["epochs"] == 1
    out, _ = run(capsys, "--model", cut, *USUAL[2:], "--amount", 0.3, "--save-path", path, code=0)
    (zeros,) = [line for line in out.splitlines() if line.startswith("zeros among the weights")]
    assert zeros.split()[-2:] == ["0.0%", "30.0%"]
    model, workload = load_model(str(path), DataChoice(), 32, "--model")
    assert workload.name == "resnet18"
    assert sparsity(model)["overall"] == pytest.approx(0.3, abs=1e-5)


def test_the_command_shows_sensitivity(tmp_path, capsys):
    out, err = run(
        capsys, *USUAL, "--pruning-method", "2:4", "--sensitivity", "--examples", 8, "--ignored", "layer2",
        "layer3", "layer4", code=0,
    )  # fmt: skip
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()[2:]] == [
        "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2", "fc",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "resnet19"], "--model resnet19: neither a weights file nor one of resnet18, "),
        (["--amount", 1.5], "--amount 1.5: expected a share above 0 and below 1"),
        (["--pruning-method", "half"], "--pruning-method 'half': expected one of global, local"),
        (["--lr", 0.1], "--lr goes with --fine-tune"),
        (["--teacher", "resnet18"], "--teacher goes with --fine-tune"),
        (["--fine-tune", "--alpha", 1], "--alpha goes with --teacher"),
        (["--fine-tune", "--fine-tune-epochs", 0], "--epochs 0: expected at least 1"),
        (["--amounts", 0.3], "--amounts goes with --sensitivity"),
        (["--sensitivity"], "--save-path does not go with --sensitivity"),
        (["--fine-tune", "--teacher", "resnet18"], "--teacher resnet18: no trained weights for digits; train them"),
        (["--keyword", "happy"], "--keyword happy: resnet18 is not about speech"),
        (["--size", 0], "--size 0: resnet18 needs at least 32 px"),
        (["--save-path", "/"], "--save-path /: this is a folder"),
        (["--ignored", "layer9"], "--ignored layer9: ResNet has no layer of that name"),
        (["--precision", "fp8"], "--precision 'fp8': expected auto, fp32 or bf16"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, capsys, options, said):
    _, err = run(capsys, *USUAL, "--save-path", tmp_path / "p.pt", *options, code=2)
    (line,) = err.splitlines()
    assert said in line
    assert not list(tmp_path.glob("*.pt"))
