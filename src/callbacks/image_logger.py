"""Images in TensorBoard: training images, predictions, confusion matrix, feature maps."""

import difflib
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from ..errors import UserError
from .base import EpochCallback
from .feature_extraction import layer_outputs

FEATURE_IMAGES = 4


class ImageLogger(EpochCallback):
    """Gives images to every logger that has `log_image`; without one it does nothing.

    At the start: training images with augmentation. After `trainer.test` or `trainer.validate`:
    images with predictions, the confusion matrix, and feature maps of some images. Random numbers
    of the run are not used. It needs one of this project's datamodules.

    Args:
        num_images: images in a grid.
        layers: names of layers whose feature maps are shown, such as `features.0`; None shows the
            first convolution, activation and pooling.

    Raises:
        UserError: the network has no layer of this name.
    """

    def __init__(self, num_images: int = 24, layers: list[str] | None = None):
        self.num_images = num_images
        self.layers = layers

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        names = [name for name, _ in pl_module.model.named_modules()] if self.layers else []
        for layer in set(self.layers or []) - set(names):
            raise UserError(
                f"callbacks.image_logger.layers: the network has no layer {layer!r}.",
                f"Similar names: {', '.join(difflib.get_close_matches(layer, names, 5, 0.0))}.",
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step > 0 or not _is_wanted(trainer):  # a resumed run has logged them
            return
        from ..reporting.plots import image_grid

        data = trainer.datamodule
        positions = torch.arange(min(self.num_images, data.sizes()["train"]))
        with isolate_rng():
            images = data.augmented(positions)
        names = [data.classes[label] for label in data.labels("train")[positions]]
        _log(trainer, "train/augmented", image_grid(images, names))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":  # not between the epochs
            self._log_evaluation(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log_evaluation(trainer, pl_module, "test")

    def _log_evaluation(self, trainer: L.Trainer, task: Any, split: str) -> None:
        evaluation = getattr(task, "evaluations", {}).get(split)
        if evaluation is None or not _is_wanted(trainer):
            return
        from ..reporting.plot_style import to_array
        from ..reporting.plots import confusion_matrix, feature_maps, image_grid

        seen = evaluation.predictions
        # Spread over the split: the images of a folder are sorted by class.
        count = len(seen.labels)
        rows = torch.linspace(0, count - 1, min(self.num_images, count)).round().long()
        names = [task.classes[label] for label in seen.labels[rows]]
        predictions = [task.classes[label] for label in seen.predicted[rows]]
        images = trainer.datamodule.images(split, seen.positions[rows])
        _log(trainer, f"{split}/predictions", image_grid(images, names, predictions))
        matrix = to_array(confusion_matrix(task.classes, evaluation.confusion))
        _log(trainer, f"{split}/confusion", matrix)

        images = images[:FEATURE_IMAGES]
        inputs = task.normalize(images.to(task.device))
        for name, maps in layer_outputs(task.model, inputs, self.layers).items():
            _log(trainer, f"{split}/features {name}", feature_maps(images, maps.cpu()))


def _image_loggers(trainer: L.Trainer) -> list[Any]:
    return [logger for logger in trainer.loggers if hasattr(logger, "log_image")]


def _is_wanted(trainer: L.Trainer) -> bool:
    has_images = hasattr(trainer.datamodule, "augmented")
    return trainer.is_global_zero and has_images and bool(_image_loggers(trainer))


def _log(trainer: L.Trainer, key: str, image: np.ndarray) -> None:
    for logger in _image_loggers(trainer):
        logger.log_image(key, [image], step=trainer.global_step)
