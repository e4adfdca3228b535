"""The layout of convolutions, and what was chosen automatically."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from src.callbacks import MemoryFormat, OneDNN
from src.datamodules import DigitsDataModule
from src.models import LeNet
from src.tasks import ClassificationTask


@pytest.fixture
def set_up():
    """Set callbacks up on a trainer of this kind; returns the task."""

    def run(*callbacks, model=None, batch_size=64, device="cpu", precision="32-true"):
        data = DigitsDataModule(image_size=16, batch_size=batch_size)
        task = ClassificationTask(model or LeNet(1, 10, 16), data.classes, data.mean, data.std)
        trainer = SimpleNamespace(
            callbacks=callbacks,
            datamodule=data,
            precision=precision,
            strategy=SimpleNamespace(root_device=torch.device(device)),
        )
        for callback in callbacks:
            callback.setup(trainer, task, "fit")
        for callback in callbacks:
            callback.teardown(trainer, task, "fit")
        return task

    return run


@pytest.mark.parametrize(
    ("callbacks", "options", "expected"),
    [
        ([], {}, True),
        ([], {"batch_size": 4}, True),
        ([], {"device": "cuda"}, False),
        ([], {"device": "cuda", "precision": "bf16-mixed"}, True),
        ([OneDNN()], {}, True),
        ([OneDNN()], {"batch_size": 4}, False),  # the layout is that of oneDNN
        ([OneDNN(use=False)], {"batch_size": 4}, False),
        ([], {"model": nn.Sequential(nn.Flatten(), nn.Linear(256, 10))}, False),
    ],
)
def test_channels_last_where_it_pays(set_up, callbacks, options, expected):
    callback = MemoryFormat()
    task = set_up(callback, *callbacks, **options)
    assert callback.automatic == {"channels_last": expected}
    assert (task.memory_format == torch.channels_last) is expected
    for weight in (p for p in task.model.parameters() if p.ndim == 4):
        assert weight.is_contiguous(memory_format=task.memory_format)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_choice_is_kept(set_up, channels_last):
    callback = MemoryFormat(channels_last)
    task = set_up(OneDNN(), callback, batch_size=4)
    assert (task.memory_format == torch.channels_last) is channels_last
    assert callback.automatic == {}


def test_evaluation_keeps_the_layout_of_the_training(fit):
    callback = MemoryFormat()
    run = fit(callback, OneDNN(), data=DigitsDataModule(image_size=16, batch_size=4))
    run.trainer.callbacks.remove(run.trainer.callbacks[1])
    run.trainer.test(run.task, run.data, verbose=False)
    assert run.task.memory_format == torch.contiguous_format
