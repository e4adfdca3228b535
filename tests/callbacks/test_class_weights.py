"""`data.balance=loss`: class weights in the training loss alone."""

import pytest
import torch
from torch import nn

from src.callbacks import EMA, ClassWeights
from src.datamodules import DigitsDataModule
from src.errors import UserError


def balanced():
    return DigitsDataModule(image_size=16, batch_size=64, balance="loss")


def test_weights_reach_the_training_loss_alone(fit):
    run = fit(ClassWeights(), EMA(), data=balanced())
    assert torch.equal(run.task.loss.weight, run.data.class_weights)
    assert run.task.eval_loss.weight is None
    assert "loss.weight" not in run.task.state_dict()


def test_without_balance_nothing_changes(fit):
    assert fit(ClassWeights()).task.loss.weight is None


class Loss(nn.Module):
    def __init__(self, weight=None):
        super().__init__()
        self.weight = weight

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, self.weight)


def test_own_losses_may_have_class_weights(fit):
    assert fit(ClassWeights(), data=balanced(), task={"loss": Loss()}).task.loss.weight.sum() > 0


@pytest.mark.parametrize("loss", [nn.Identity(), Loss(nn.Parameter(torch.ones(10)))])
def test_other_losses_are_refused(fit, loss):
    with pytest.raises(UserError, match=r"data\.balance=loss needs a loss with class weights"):
        fit(ClassWeights(), data=balanced(), task={"loss": loss})
