"""A frozen backbone stays as it is, and can be released."""

from functools import partial
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from src.callbacks import FreezeBackbone, LastCheckpoint
from src.errors import UserError
from src.models import ResNet9

HEAD = {"model.head.weight", "model.head.bias"}


def resnet():
    torch.manual_seed(1)
    return ResNet9(1, 10, width=4)


def changed(task):
    """Parameters and buffers that training has changed."""
    before = {f"model.{name}": value for name, value in resnet().state_dict().items()}
    after = task.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_only_the_head_is_trained(fit):
    run = fit(FreezeBackbone(), model=resnet(), max_epochs=2)
    assert changed(run.task) == HEAD  # nor did the statistics of batch norm move
    (group,) = run.trainer.optimizers[0].param_groups
    assert [p.shape for p in group["params"]] == [p.shape for p in run.task.head.parameters()]


class Modes(L.Callback):
    """The number of layers in training mode in each epoch."""

    def __init__(self):
        self.training = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.training.append(sum(module.training for module in pl_module.model.modules()))


def test_the_first_epochs_only(fit):
    assert changed(fit(FreezeBackbone(1), model=resnet()).task) == HEAD
    modes = Modes()
    run = fit(FreezeBackbone(1), modes, model=resnet(), max_epochs=2)
    assert len(changed(run.task)) > 10
    assert modes.training == [1, len(list(run.task.model.modules()))]


def test_released_layers_start_without_momentum(fit):
    """Also in the fused optimizer, which needs a momentum for all of them or for none."""

    def train(fused):
        sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=fused)
        options = {"task": {"optimizer": sgd}, "max_epochs": 2}
        return fit(FreezeBackbone(1), model=resnet(), **options).task.state_dict()

    plain, fused = train(False), train(True)
    for name in plain:
        torch.testing.assert_close(plain[name], fused[name])


def test_released_backbones_resume_exactly(fit, tmp_path):
    def train(folder, epochs, resume=None):
        last = LastCheckpoint(dirpath=tmp_path / folder)
        options = {"max_epochs": epochs, "limit_train_batches": 3, "enable_checkpointing": True}
        run = fit(FreezeBackbone(1), last, model=resnet(), resume=resume, **options)
        return run.task.state_dict(), last.path

    whole, _ = train("whole", 3)
    for epochs in (1, 2):  # once before the release and once after it
        _, path = train(str(epochs), epochs)
        parts, _ = train(str(epochs), 3, path)
        assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_settings_that_cannot_work(fit):
    module = SimpleNamespace(model=None, head=None)
    with pytest.raises(UserError, match="several processes"):
        FreezeBackbone(1).setup(SimpleNamespace(world_size=2), module, "fit")
