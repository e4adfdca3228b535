"""The base class: no hook of a callback is called in a step without need."""

import inspect

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

import src.callbacks
from src.callbacks import EpochCallback
from src.callbacks.base import epoch_metrics

NEEDED = {  # what each callback does in a step; all others do nothing there
    "EMA": {"on_train_batch_end"},
    "SWA": {"on_train_batch_end"},
    "NaNGuard": {"on_train_batch_end"},
    "StepSeed": {"on_train_batch_end"},
    "Throughput": {"on_train_batch_end"},
}
SHIPPED = [
    value
    for name in src.callbacks.__all__
    if inspect.isclass(value := getattr(src.callbacks, name)) and issubclass(value, L.Callback)
]


@pytest.mark.parametrize("callback", SHIPPED, ids=lambda callback: callback.__name__)
def test_callbacks_have_only_the_step_hooks_that_they_need(callback):
    hooks = [name for name in dir(L.Callback) if "batch" in name or name.startswith("on_before")]
    hooks += ["on_after_backward"]
    called = {name for name in hooks if callable(getattr(callback, name))}
    assert called == NEEDED.get(callback.__name__, set())


def test_lightning_skips_hooks_that_are_none(fit):
    class Ends(EpochCallback):
        epochs = 0

        def on_train_epoch_end(self, trainer, pl_module):
            self.epochs += 1

    callback = Ends()
    run = fit(callback)
    run.trainer.test(run.task, run.data, verbose=False)
    images = DataLoader(run.data.images("val", torch.arange(8)), batch_size=4)
    run.trainer.predict(run.task, images, return_predictions=False)
    assert callback.epochs == 1


def test_metrics_of_an_epoch_are_plain_numbers_of_seven_digits(fit):
    metrics = epoch_metrics(fit().trainer)
    assert {"train/loss", "train/acc", "val/loss", "val/acc", "lr"} <= set(metrics)
    assert metrics["lr"] == 0.05
