"""The trial of a network before data are read."""

import sys
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

from src.config.trial import check_model, try_loss, try_on_meta
from src.errors import UserError
from src.models import LeNet, SimpleV3, Torchvision


class Net(nn.Module):
    """A linear layer on the mean of each channel, with an output that tests change."""

    def __init__(self, outputs: int = 10, change=lambda logits: logits):
        super().__init__()
        self.layer = nn.Linear(3, outputs)
        self.change = change

    def forward(self, images):
        return self.change(self.layer(images.mean((2, 3))))


def test_a_network_that_fits_is_not_tried_again():
    assert try_on_meta(Net, 3, 32, 10)
    assert try_on_meta(lambda: SimpleV3(1, 10, 32), 1, 32, 10)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Net(7), "num_classes"),
        (Net(10, lambda logits: None), "returns nothing"),
        (Net(10, lambda logits: (logits, logits)), "returns a tuple"),
        (Net(10, lambda logits: logits[:, :, None]), r"shape \(2, 10, 1\)"),
    ],
)
def test_another_output_than_logits_is_refused(network, words):
    with pytest.raises(UserError, match=words):
        check_model(network, 3, 32, 10)


def test_a_wrong_number_of_outputs_shows_on_meta():
    with pytest.raises(UserError, match="10 classes"):
        try_on_meta(lambda: Net(7), 3, 32, 10)


def test_a_size_that_works_is_proposed_for_shipped_networks():
    with pytest.raises(UserError) as caught:
        try_on_meta(lambda: Torchvision(3, 10, "vgg16"), 3, 16, 10)
    assert "data.image_size=32" in caught.value.remedy
    with pytest.raises(UserError, match="16x16"):
        try_on_meta(lambda: LeNet(1, 10, 8), 1, 8, 10)


def test_an_exception_of_the_network_is_not_changed():
    class Misfit(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(99, 10)

        def forward(self, images):
            return self.layer(images.flatten(1))

    assert not try_on_meta(Misfit, 3, 32, 10)
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        check_model(Misfit(), 3, 32, 10)
    layer, images = caught.value.__notes__
    assert "self.layer: got 3072 features in (2, 3072), expects 99." in layer
    assert images == "Raised in a trial with 2 empty images of 3x32x32."


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits * float(logits.abs().max() + 1),
        lambda logits: logits + torch.ones(logits.shape, device="cpu"),
        lambda logits: logits + torch.from_numpy(logits.detach().numpy()),
    ],
)
def test_what_cannot_run_on_meta_is_tried_for_real(change):
    assert not try_on_meta(lambda: Net(10, change), 3, 32, 10)
    check_model(Net(10, change), 3, 32, 10)


def test_a_network_that_cannot_be_built_on_meta():
    assert not try_on_meta(lambda: Net(int(torch.ones(1).item())), 3, 32, 10)


def test_a_lazy_network_is_tried_for_real():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

        def forward(self, images):
            return self.layers(images)

    network = Lazy()
    if not try_on_meta(Lazy, 3, 8, 10):
        check_model(network, 3, 8, 10)
    assert network.layers[1].in_features == 192


def test_a_trial_changes_nothing(capsys):
    L.seed_everything(0, verbose=False)
    network = Net(10, lambda logits: (print("forward"), logits)[1]).train()
    before = torch.get_rng_state()
    hook = sys.breakpointhook
    assert try_on_meta(lambda: network, 3, 32, 10) is False  # it has weights already
    check_model(network, 3, 32, 10)
    with pytest.raises(RuntimeError):
        check_model(network, 1, 32, 10)
    assert torch.equal(before, torch.get_rng_state()) and network.training
    assert sys.breakpointhook is hook
    assert capsys.readouterr().out == "forward\n"


def test_a_breakpoint_in_forward_waits_for_a_real_batch(monkeypatch):
    met = []
    monkeypatch.setattr(sys, "breakpointhook", lambda *args, **kwargs: met.append(1))
    network = Net(10, lambda logits: (breakpoint(), logits)[1])
    check_model(network, 3, 32, 10)
    assert not met
    network(torch.zeros(1, 3, 8, 8))
    assert met


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.BCELoss(), nn.L1Loss()])
def test_losses_that_take_one_number_per_class(loss):
    with pytest.raises(UserError, match="one number per class") as caught:
        try_loss(loss, SimpleNamespace(classes=list("ab")))
    assert "one_hot" in caught.value.remedy


def test_a_loss_with_swapped_arguments():
    class Swapped(nn.Module):
        def forward(self, labels, logits):
            return nn.functional.cross_entropy(logits, labels)

    with pytest.raises(UserError, match=r"takes \(labels, logits\)"):
        try_loss(Swapped(), SimpleNamespace(classes=list("abc")))


def test_a_loss_that_fails_says_how_it_was_called():
    def loss(logits, labels):
        return logits.reshape(7, 7)

    with pytest.raises(RuntimeError, match="invalid for input") as caught:
        try_loss(loss, SimpleNamespace(classes=list("abc")))
    assert "loss(logits, labels)" in caught.value.__notes__[0]


def test_losses_that_take_class_indices():
    for loss in (nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MultiMarginLoss()):
        try_loss(loss, SimpleNamespace(classes=list("abc")))
