"""An ensemble averages probabilities, matches classes by name, and mirrors images."""

import pytest
import torch
from torch import nn

from src.inference import Classifier, Ensemble


def make(classes: list[str], seed: int) -> Classifier:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, len(classes)))
    facts = {"classes": classes, "channels": 3, "image_size": 4}
    return Classifier(model, facts | {"mean": [0.5] * 3, "std": [0.1 + seed] * 3}).eval()


@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_are_averaged_by_class_name(flip):
    first, second = make(["a", "b", "c"], 0), make(["c", "a", "b"], 1)
    images = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)
    views = [images, images.flip(3)] if flip else [images]
    expected = torch.stack(
        [net(view).softmax(1)[:, order] for view in views
         for net, order in ((first, [0, 1, 2]), (second, [1, 2, 0]))]
    ).mean(0)  # fmt: skip
    ensemble = Ensemble([first, second], ["a", "b", "c"], flip)
    torch.testing.assert_close(ensemble(images.float() / 255).exp(), expected)


def test_one_network_twice_is_that_network():
    net = make(["a", "b"], 0)
    images = torch.rand(3, 3, 4, 4)
    once, twice = (Ensemble([net] * n, ["a", "b"], flip=False)(images) for n in (1, 2))
    torch.testing.assert_close(once, twice)


def test_input_is_unchanged_and_members_move_along():
    net = Ensemble([make(["a", "b"], 0)], ["a", "b"], flip=True)
    images = torch.rand(2, 3, 4, 4)
    before = images.clone()
    net(images)
    assert torch.equal(images, before)
    assert net.double()(images.double()).dtype == torch.float32


def test_every_member_needs_every_class():
    with pytest.raises(ValueError):
        Ensemble([make(["a", "b"], 0)], ["a", "c"], flip=False)
