"""Torchvision networks: heads, first convolutions, names and weights."""

import pytest
import torch
from torchvision import models

from src.errors import UserError
from src.models import Torchvision


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """A file with the weights of a squeezenet, and that network."""
    torch.manual_seed(0)
    network = models.squeezenet1_1()
    path = tmp_path_factory.mktemp("weights") / "squeezenet 1=1.pth"
    torch.save(network.state_dict(), path)
    return path, network


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v3_small", 64),
        ("squeezenet1_1", 64),  # it ends in a convolution
        ("vit_b_16", 224),
        ("googlenet", 64),  # it has auxiliary heads
    ],
)
def test_heads_fit_every_kind_of_network(name, size):
    with torch.device("meta"):
        model = Torchvision(3, 7, name).eval()
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_weights_from_a_file_are_loaded_into_the_backbone(squeezenet):
    path, network = squeezenet
    mine = Torchvision(3, 4, "squeezenet1_1", weights=str(path))
    pairs = zip(mine.network.features.parameters(), network.features.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert mine(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_grey_and_colour_networks_agree_on_grey_images(squeezenet):
    path, _ = squeezenet
    grey, colour = (
        Torchvision(channels, 4, "squeezenet1_1", weights=str(path)).eval() for channels in (1, 3)
    )
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(
        grey.network.features(images),
        colour.network.features(images.expand(-1, 3, -1, -1)),
        atol=1e-5,
        rtol=1e-4,
    )


def test_weights_of_another_architecture(squeezenet):
    path, _ = squeezenet
    words = r"another architecture than MobileNetV3: features.0.0.weight.*and \d+ more"
    with pytest.raises(UserError, match=words):
        Torchvision(3, 10, "mobilenet_v3_small", weights=str(path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet18x"}, "resnet18"),
        ({"name": "resnet18", "weights": "IMAGENET"}, "IMAGENET1K_V1, DEFAULT"),
        ({"name": "squeezenet1_1", "head": "append"}, "head=replace"),
    ],
)
def test_unknown_names_are_user_errors(arguments, words):
    with pytest.raises(UserError) as caught:
        Torchvision(3, 10, **arguments)
    assert words in caught.value.remedy


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    words = r"from https://\S+/resnet18-.*\.pth: no route"
    with pytest.raises(UserError, match=words) as caught:
        Torchvision(3, 10, "resnet18", weights="DEFAULT")
    assert "model.weights=FILE" in caught.value.remedy


def test_the_input_of_trained_weights():
    expected = Torchvision.pretrained_input("resnet18", "DEFAULT")
    assert (expected["image_size"], expected["channels"]) == (224, 3)
    assert expected["mean"] == [0.485, 0.456, 0.406] and expected["std"] == [0.229, 0.224, 0.225]
    assert Torchvision.pretrained_input("inception_v3", "my.pth")["image_size"] == 299
