"""Targets of a config and their arguments."""

from functools import partial

import torch

from src.config.factory import partial_instantiate


def test_partials_are_plain_and_objects_are_not_copied():
    factory = partial_instantiate("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1})
    assert type(factory) is partial and factory.func is torch.optim.SGD
    assert factory.keywords == {"lr": 0.1}
