"""Heads, parameter groups and schedules that know the length of the run."""

from functools import partial

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.models import LeNet, Torchvision
from src.tasks import optim


def test_the_head_is_the_last_layer_with_parameters():
    model = LeNet(1, 10, 28)
    assert optim.find_head(model, 10) is model.classifier[-1]
    squeezenet = Torchvision(3, 4, "squeezenet1_1")  # ends in a 1x1 convolution and pooling
    assert isinstance(optim.find_head(squeezenet, 4), nn.Conv2d)
    with pytest.raises(UserError, match="no head of 7 outputs"):
        optim.find_head(model, 7)


def test_groups_cover_every_trainable_parameter_once():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    groups = optim.parameter_groups(model, model[-1], decay_norm_and_bias=False)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert [group["backbone"] for group in groups] == [True, True, False, False]
    assert [group.get("weight_decay") for group in groups] == [0.0, None, 0.0, None]
    model[0].requires_grad_(False)
    kept = optim.parameter_groups(model, None, decay_norm_and_bias=True)
    assert len(kept) == 1 and len(kept[0]["params"]) == 4


def test_the_backbone_gets_a_fraction_of_the_learning_rate():
    model = LeNet(1, 10, 28)
    groups = optim.parameter_groups(model, model.classifier[-1], True)
    optimizer = optim.build_optimizer(partial(torch.optim.SGD, lr=0.1), groups, 0.1, False)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1])


@pytest.mark.parametrize(("given", "expected"), [(None, True), (False, False)])
def test_fused_is_chosen_only_where_it_is_left_open(given, expected):
    groups = optim.parameter_groups(LeNet(1, 10, 28), None, True)
    factory = partial(torch.optim.SGD, lr=0.1, fused=given)
    assert optim.build_optimizer(factory, groups, 1.0, True).defaults["fused"] is expected


def test_length_and_max_lr_are_filled_in():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    factory = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=None, total_steps=None)
    scheduler = optim.build_scheduler(factory, optimizer, lambda: 10)
    assert scheduler.total_steps == 10 and optimizer.param_groups[0]["max_lr"] == 0.1
    step = partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    optim.build_scheduler(step, optimizer, lambda: pytest.fail("the length is not needed"))


def test_a_run_that_is_too_short_for_its_schedule():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    factory = partial(
        torch.optim.lr_scheduler.OneCycleLR, max_lr=None, total_steps=None, pct_start=0.5
    )
    with pytest.raises(UserError, match="does not fit into a run of 2"):
        optim.build_scheduler(factory, optimizer, lambda: 2)


def test_objects_in_place_of_factories():
    parameters = [nn.Parameter(torch.zeros(1))]
    built = torch.optim.SGD(parameters, lr=0.1)
    with pytest.raises(UserError, match="is a SGD that is built already"):
        optim.build_optimizer(built, [{"params": parameters}], 1.0, fused=False)
    with pytest.raises(UserError, match="is a StepLR that is built already"):
        optim.build_scheduler(torch.optim.lr_scheduler.StepLR(built, 1), built, lambda: 10)
