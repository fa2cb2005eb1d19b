"""The ResNets against torchvision's names and numbers, and against the paper written as plain functions."""

import pytest
import torch
from torch.nn import functional as F

from models.errors import SpeedproofError
from models.resnet import WORKLOADS, BasicBlock, ResNet, resnet18, resnet50
from models.workload import DataChoice, Workload

MAKERS = {"resnet18": resnet18, "resnet50": resnet50}
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def digits(name: str = "resnet18") -> Workload:
    return WORKLOADS[name](DataChoice("digits"))


@pytest.mark.parametrize(
    ("name", "parameters", "entries"), [("resnet18", 11_689_512, 122), ("resnet50", 25_557_032, 320)]
)
def test_numbers_and_names_are_torchvisions(name, parameters, entries):
    model = MAKERS[name]()
    state = model.state_dict()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(state) == entries
    expected = {
        "conv1.weight",
        "bn1.num_batches_tracked",
        "layer1.0.bn1.running_mean",
        "layer4.1.conv2.weight",
        "fc.bias",
    }
    expected |= {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"}
    assert expected <= set(state)
    assert ("layer4.2.conv3.weight" in state) == (name == "resnet50")
    assert ("layer1.0.downsample.0.weight" in state) == (name == "resnet50")


def reference(state: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> torch.Tensor:
    """The network of the paper, by functions over a state dict alone."""

    def norm(x, prefix):
        mean, variance = state[f"{prefix}.running_mean"], state[f"{prefix}.running_var"]
        scale = state[f"{prefix}.weight"] / (variance + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{prefix}.bias"][:, None, None]

    def conv(x, prefix, stride, padding):
        return F.conv2d(x, state[f"{prefix}.weight"], None, stride, padding)

    x = norm(conv(x, "conv1", 2, 3), "bn1").clamp(min=0)
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)  # zeros are neutral: nothing is below them
    for stage, depth in enumerate(DEPTHS[name], 1):
        for index in range(depth):
            block = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            if name == "resnet18":
                y = norm(conv(x, f"{block}.conv1", stride, 1), f"{block}.bn1").clamp(min=0)
                y = norm(conv(y, f"{block}.conv2", 1, 1), f"{block}.bn2")
            else:
                y = norm(conv(x, f"{block}.conv1", 1, 0), f"{block}.bn1").clamp(min=0)
                y = norm(conv(y, f"{block}.conv2", stride, 1), f"{block}.bn2").clamp(min=0)
                y = norm(conv(y, f"{block}.conv3", 1, 0), f"{block}.bn3")
            if f"{block}.downsample.0.weight" in state:
                x = norm(conv(x, f"{block}.downsample.0", stride, 0), f"{block}.downsample.1")
            x = (x + y).clamp(min=0)
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("size", [32, 75])
def test_logits_are_those_of_the_reference(name, size):
    generator = torch.Generator().manual_seed(1)
    model = MAKERS[name](classes=10).double().eval()
    for key, value in model.state_dict().items():  # batch norms that do something, and no number that explodes
        if "bn" in key or "downsample.1" in key or key == "fc.bias":
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    x = torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        expected = reference(model.state_dict(), x, name)
        assert torch.allclose(model(x), expected, rtol=1e-9)
    assert expected.std() > 0


def test_building_is_deterministic_and_does_not_move_the_random_numbers_of_the_caller():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = digits().build(32, None)
    assert torch.rand(1) == expected
    second = digits().build(224, None).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.state_dict().items())
    assert not first.training
    assert first(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_the_number_of_classes_follows_the_weights_file(tmp_path):
    model = resnet18(classes=7)
    torch.save(model.state_dict(), tmp_path / "seven.pth")
    built = digits().build(32, tmp_path / "seven.pth")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(built(x), model.eval()(x))
    assert built(x).shape == (2, 7)


@pytest.mark.parametrize(
    "state",
    [{"fc.bias": torch.tensor(1.0)}, {"fc.bias": torch.zeros(0)}, {"x": torch.zeros(1)}],
    ids=["scalar head", "empty head", "another model"],
)
def test_a_strange_head_is_one_sentence(tmp_path, state):
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(SpeedproofError, match=r"odd\.pth does not fit ResNet"):
        digits().build(32, tmp_path / "odd.pth")


def test_no_module_is_called_twice():
    calls: dict[int, int] = {}
    model = ResNet(BasicBlock, (2, 2, 2, 2), 10)
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, *_: calls.update({id(module): calls.get(id(module), 0) + 1}))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert set(calls.values()) == {1}
