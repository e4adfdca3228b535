"""Features of a frozen backbone, computed once."""

import logging
from functools import partial
from typing import Any

import lightning as L

from ..tasks import ClassificationTask
from .base import EpochCallback
from .head_inputs import head_inputs, head_takes_features

log = logging.getLogger(__name__)


class CacheFeatures(EpochCallback):
    """Replaces images by the features that a frozen backbone computes from them.

    It does so where they never change: the backbone is frozen for the whole run
    (`FreezeBackbone()`), no augmentation is on, one process trains, the head takes one vector per
    image and computes the logits, and no subclass of the task has a training step of its own, which
    may need images. Otherwise it does nothing.
    """

    def __init__(self) -> None:
        self.automatic: dict[str, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        # The network is on its device, with the weights of the checkpoint if a run is resumed.
        has_own_step = type(pl_module).training_step is not ClassificationTask.training_step
        if (
            has_own_step
            or not _never_changes(trainer)
            or not head_takes_features(trainer, pl_module)
        ):
            return
        log.info("Computing the features of the frozen backbone once ...")
        for split in ("train", "val"):
            trainer.datamodule.cache_features(split, partial(head_inputs, trainer, pl_module))
        loader: Any = trainer.train_dataloader
        if loader is not None:
            # Schedules that depend on the number of steps (`scheduler=onecycle`) make Lightning
            # build it before the network is on its device.
            new = trainer.datamodule.train_dataloader()
            loader.dataset.images, loader.dataset.labels = new.dataset.images, new.dataset.labels
            loader.order.indices = new.order.indices
        self.automatic["cached_features"] = True


def _never_changes(trainer: L.Trainer) -> bool:
    data = trainer.datamodule
    frozen = any(getattr(c, "freezes_whole_run", False) for c in trainer.callbacks)
    if not frozen or trainer.world_size > 1 or not hasattr(data, "cache_features"):
        return False
    return data.augment is None and not data.mixup and not data.cutmix
