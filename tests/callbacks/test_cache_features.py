"""Features that are computed once change nothing but the time."""

from functools import partial

import pytest
import torch
from torch import nn

from src.callbacks import CacheFeatures, FreezeBackbone, StepSeed
from src.datamodules import CropFlip, DigitsDataModule
from src.models import ResNet9

onecycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=None)


class Counting(ResNet9):
    images = 0

    def forward(self, images):
        self.images += len(images)
        return super().forward(images)


def counting():
    torch.manual_seed(1)
    return Counting(1, 10, width=4, scale=1)


@pytest.mark.parametrize("schedule", [{}, {"scheduler": onecycle, "interval": "step"}])
def test_the_results_stay_the_same(fit, schedule):
    options = {"max_epochs": 2, "task": schedule}
    options |= {"limit_train_batches": None, "limit_val_batches": None}
    cache = CacheFeatures()
    cached = fit(StepSeed(0), FreezeBackbone(), cache, model=counting(), **options)
    plain = fit(StepSeed(0), FreezeBackbone(), model=counting(), **options)
    assert cache.automatic == {"cached_features": True}
    images = sum(cached.data.sizes()[split] for split in ("train", "val"))
    assert cached.task.model.images <= images + 10  # each image once, and some to try it
    assert plain.task.model.images >= 2 * images - 32
    for name in ("loss", "acc"):
        values = [run.task.evaluations["val"].metrics[name] for run in (cached, plain)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert set(cached.task.state_dict()) == set(plain.task.state_dict())
    assert cached.trainer.test(cached.task, cached.data, verbose=False)  # on images


class Pooled(nn.Module):
    """Its head works on maps, and pooling follows it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Conv2d(4, 10, 1)

    def forward(self, images):
        return self.head(self.conv(images)).mean((2, 3))


@pytest.mark.parametrize(
    ("freeze", "model", "data"),
    [
        (FreezeBackbone(epochs=1), counting, {}),
        (FreezeBackbone(), Pooled, {}),
        (FreezeBackbone(), counting, {"augment": CropFlip()}),
        (FreezeBackbone(), counting, {"mixup": 0.2}),
    ],
)
def test_features_that_change_are_not_cached(fit, freeze, model, data):
    cache = CacheFeatures()
    data = DigitsDataModule(image_size=16, batch_size=64, **data)
    fit(freeze, cache, model=model(), data=data, limit_val_batches=1)
    assert cache.automatic == {}


def test_without_a_frozen_backbone_it_does_nothing(fit):
    cache = CacheFeatures()
    fit(cache)
    assert cache.automatic == {}


def test_a_training_step_of_a_subclass_gets_images(fit):
    from src.callbacks import CacheFeatures, FreezeBackbone
    from src.tasks import ClassificationTask

    class Own(ClassificationTask):
        def training_step(self, batch, batch_idx):
            assert batch[0].ndim == 4
            return super().training_step(batch, batch_idx)

    cache = CacheFeatures()
    fit(FreezeBackbone(), cache, task_class=Own)
    assert "cached_features" not in cache.automatic
