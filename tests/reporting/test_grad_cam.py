"""Grad-CAM against its definition, on every kind of network, and without side effects."""

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.models import LeNet, Quick, SimpleV3, Torchvision
from src.reporting.grad_cam import grad_cam, overlay


def test_the_map_is_the_one_of_the_paper():
    """One convolution, global average and one linear layer, small enough for a formula."""
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()
    images = torch.randn(5, 3, 6, 6)
    targets = torch.tensor([0, 1, 0, 1, 1])
    # The gradient of a logit is the weight of the linear layer over the number of places.
    expected = torch.einsum("nchw,nc->nhw", conv(images), linear.weight[targets]).relu().detach()
    expected /= expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(grad_cam(net, images, targets), expected)


@pytest.mark.parametrize(
    ("network", "options", "side"),
    [
        (LeNet, {"image_size": 28}, 28),
        (Quick, {}, 32),
        (SimpleV3, {}, 32),
        (Torchvision, {"name": "resnet18"}, 64),
        (Torchvision, {"name": "resnet18"}, 32),
        (Torchvision, {"name": "squeezenet1_1"}, 64),
    ],
)
def test_every_network_gives_maps_and_keeps_its_state(network, options, side):
    torch.manual_seed(0)
    net = network(3, 10, **options)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.out_channels == 10 and module.bias is not None:
            # SqueezeNet's logits pass a ReLU: without training all of them may be 0.
            nn.init.ones_(module.bias)
    net.train()
    next(iter(net.children())).eval()  # a frozen part
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.inference_mode():
        maps = grad_cam(net, torch.randn(3, 3, side, side), torch.tensor([0, 3, 9]))
    assert maps.shape == (3, side, side) and not maps.requires_grad
    assert maps.min() >= 0 and maps.max() <= 1
    assert maps.std() > 0  # the map of a single place would be constant
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_last_convolution_counts_and_not_the_pooling_after_it():
    """As VGG16 at 32x32: one place is left after the pooling, and an adaptive one repeats it."""
    features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(8))
    net = nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(8 * 49, 2))
    maps = grad_cam(net, torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    assert maps.shape == (4, 8, 8) and maps.std() > 0


def test_a_network_without_feature_maps_raises():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(UserError, match="no feature map"):
        grad_cam(net, torch.randn(1, 3, 2, 2), torch.tensor([0]))
    assert net.training and not any(module._forward_hooks for module in net.modules())


def test_overlay_is_red_where_the_map_is_one():
    images = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 0] = 1
    shown = overlay(images, maps)
    assert shown.dtype == torch.uint8 and (shown[0, :, 3, 3] == 100).all()
    red, green, blue = shown[0, :, 0, 0].tolist()
    assert red > 100 and green == blue == 40


@pytest.mark.slow
def test_compiled_networks_have_maps():
    net = LeNet(1, 10, 28).eval()
    images, targets = torch.randn(2, 1, 28, 28), torch.tensor([1, 2])
    expected = grad_cam(net, images, targets)
    net.compile()
    net(images)
    torch.testing.assert_close(grad_cam(net, images, targets), expected)
