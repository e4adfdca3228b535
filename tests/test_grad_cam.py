"""Grad-CAM against its definition, on every kind of network, and without traces."""

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.grad_cam import grad_cam
from src.models import LeNet, Quick, SimpleV3, Torchvision


def test_the_map_is_what_the_paper_defines():
    """A network small enough to write Grad-CAM down: one convolution, global average, one linear layer."""
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()
    images = torch.randn(5, 3, 6, 6)
    targets = torch.tensor([0, 1, 0, 1, 1])
    maps = grad_cam(net, images, targets)
    # The gradient of a logit by each place of a feature map is the linear layer's weight over the number of places.
    expected = torch.einsum("nchw,nc->nhw", conv(images), linear.weight[targets]).relu()
    torch.testing.assert_close(maps, (expected / expected.amax((1, 2), keepdim=True)).detach())


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: LeNet(1, 10, 28), (1, 28, 28)),
        (lambda: Quick(3, 10), (3, 32, 32)),
        (lambda: SimpleV3(3, 10), (3, 32, 32)),
        (lambda: Torchvision(3, 10, "resnet18"), (3, 64, 64)),
        (lambda: Torchvision(3, 10, "resnet18"), (3, 32, 32)),
        (lambda: Torchvision(3, 10, "squeezenet1_1"), (3, 64, 64)),
    ],
    ids=["lenet", "quick", "simple_v3", "resnet18-64", "resnet18-32", "squeezenet1_1"],
)
def test_every_network_gives_maps_and_keeps_its_state(build, shape):
    torch.manual_seed(0)
    net = build()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == 10 and module.bias is not None:
            torch.nn.init.ones_(module.bias)  # SqueezeNet's logits pass a ReLU: untrained they may all be 0, and nothing speaks for a class
    net.train()
    next(iter(net.children())).eval()  # a frozen part
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.inference_mode():
        maps = grad_cam(net, torch.randn(3, *shape), torch.tensor([0, 3, 9]))
    assert maps.shape == (3, *shape[1:]) and maps.min() >= 0 and maps.max() <= 1 and not maps.requires_grad
    assert maps.std() > 0  # the map of a single place would be flat
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules()) and all(p.grad is None for p in net.parameters())


def test_the_last_convolution_counts_not_the_pooling_behind_it():
    """As VGG16 at 32x32: the last pooling leaves one place, an adaptive one repeats it, and a map of that would be flat."""
    features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(8))
    net = nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(8 * 49, 2))
    maps = grad_cam(net, torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    assert maps.shape == (4, 8, 8) and maps.std() > 0


def test_a_network_without_feature_maps_is_told():
    with pytest.raises(UserError, match="no feature map"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(1, 3, 2, 2), torch.tensor([0]))


@pytest.mark.slow
def test_a_compiled_network_is_explained_too():
    net = LeNet(1, 10, 28).eval()
    images, targets = torch.randn(2, 1, 28, 28), torch.tensor([1, 2])
    expected = grad_cam(net, images, targets)
    net.compile()
    net(images)
    torch.testing.assert_close(grad_cam(net, images, targets), expected)
