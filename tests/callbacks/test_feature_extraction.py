"""Feature maps are what the layers put out."""

import pytest
import torch
from torchvision.models import VisionTransformer, resnet18

from src.callbacks.feature_extraction import layer_outputs


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_first_layer_of_each_kind(images):
    network = resnet18().eval()
    found = layer_outputs(network, images)
    assert list(found) == ["conv1 Conv2d", "relu ReLU", "maxpool MaxPool2d"]
    with torch.no_grad():
        conv = network.conv1(images)
        assert torch.equal(found["conv1 Conv2d"], conv)
        assert torch.equal(found["relu ReLU"], network.bn1(conv).relu())
    assert not any(module._forward_hooks for module in network.modules())


def test_layers_by_name_and_outputs_that_are_no_maps(images):
    named = layer_outputs(resnet18().eval(), images, ["layer4.1", "fc"])
    shapes = {name: tuple(maps.shape) for name, maps in named.items()}
    assert shapes == {"layer4.1 BasicBlock": (2, 512, 1, 1)}
    transformer = VisionTransformer(32, 16, 1, 2, hidden_dim=16, mlp_dim=16).eval()
    assert list(layer_outputs(transformer, images)) == ["conv_proj Conv2d"]
