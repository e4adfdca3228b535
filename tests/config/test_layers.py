"""Notes on the layer that failed."""

import pytest
import torch
from torch import nn

from src.config.layers import layer_notes, location


class Net(nn.Module):
    def __init__(self, layer, reshape=lambda x: x):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.block = nn.Sequential(nn.ReLU(), layer)
        self.reshape = reshape

    def forward(self, images):
        return self.block(self.reshape(self.first(images)))


@pytest.mark.parametrize(
    ("network", "note"),
    [
        (Net(nn.Linear(9, 2)), "self.block.1: got 6 features in (2, 4, 6, 6), expects 9."),
        (Net(nn.Conv2d(3, 2, 3)), "self.block.1: got 4 channels in (2, 4, 6, 6), expects 3."),
        (Net(nn.BatchNorm2d(5)), "self.block.1: got 4 channels in (2, 4, 6, 6), expects 5."),
        (Net(nn.MaxPool2d(9)), "self.block.1: got (2, 4, 6, 6)."),
        (
            Net(nn.Identity(), lambda x: x.view(7, -1)),
            "the layer before, self.first, returned (2, 4, 6, 6).",
        ),
    ],
)
def test_the_layer_its_input_and_what_it_expects(network, note):
    with pytest.raises(RuntimeError) as caught, layer_notes(network):
        network(torch.zeros(2, 1, 8, 8))
    (text,) = caught.value.__notes__
    assert text.startswith("test_layers.py:") and text.endswith(note)
    assert not network.first._forward_hooks and not network.first._forward_pre_hooks


def test_a_network_without_forward_is_located():
    network = nn.Module()
    with pytest.raises(NotImplementedError), layer_notes(network):
        network(torch.zeros(1))


def test_location():
    assert location(Net).endswith("tests/config/test_layers.py:10")
    assert location(len) == "builtins"
