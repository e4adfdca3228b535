"""What TensorBoard shows beside its curves: training pictures, answers, feature maps, the confusion matrix."""

import difflib
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from src.callbacks.drawing import confusion_matrix, feature_maps, picture_grid
from src.errors import UserError

# Where torch keeps the layers of each kind. The first layer of a kind whose output is a map is shown.
KINDS = ("torch.nn.modules.conv", "torch.nn.modules.activation", "torch.nn.modules.pooling")


class Pictures(L.Callback):
    """Hands pictures to every logger that takes them (`log_image`), and does nothing where there is none.

    At the start the training pictures as augmented; once the best checkpoint is measured, behind the training: pictures of the split
    with the network's answers, the confusion matrix, and feature maps of some validation pictures. No random number of the run is
    used up, and no training step does anything for it. It needs one of this project's data sets.

    Args:
        count: pictures in a grid.
        layers: the layers whose feature maps are shown, by their names in the network (`features.0`); None shows the first
            convolution, the first activation and the first pooling.

    Raises:
        UserError: a layer that the network does not have.
    """

    def __init__(self, count: int = 24, layers: list[str] | None = None):
        self.count, self.layers = count, layers

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Misspelt layers are told before anything is trained."""
        known = [name for name, _ in pl_module.model.named_modules() if name]
        for layer in self.layers or ():
            if layer not in known:
                near = difflib.get_close_matches(layer, known, 5, 0.5) or known[:10]
                raise UserError(f"callbacks.pictures.layers: the network has no layer {layer!r}.", f"Near it: {', '.join(near)}.")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step > 0 or not self._wanted(trainer):  # a resumed run has shown them
            return
        data = trainer.datamodule
        positions = torch.arange(min(self.count, data.sizes()["train"]))
        with isolate_rng():
            pictures = data.augmented(positions)
        self._show(trainer, "train/augmented", picture_grid(pictures, _names(data, data.labels("train")[positions])))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":  # not between the epochs
            self._show_answers(trainer, pl_module, "val")
            self._show_features(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._show_answers(trainer, pl_module, "test")

    def _show_answers(self, trainer: L.Trainer, task: Any, split: str) -> None:
        if not self._wanted(trainer):
            return
        data, seen = trainer.datamodule, task.predictions[split]
        # Spread over the split: a folder's pictures come class by class.
        rows = torch.linspace(0, len(seen.labels) - 1, min(self.count, len(seen.labels))).round().long()
        names, answers = _names(data, seen.labels[rows]), _names(data, seen.predicted[rows])
        self._show(trainer, f"{split}/answers", picture_grid(data.images(split, seen.positions[rows]), names, answers))
        self._show(trainer, f"{split}/confusion", confusion_matrix(task.confusion[split], task.classes))

    def _show_features(self, trainer: L.Trainer, task: Any, split: str) -> None:
        if not self._wanted(trainer):
            return
        data = trainer.datamodule
        pictures = data.images(split, torch.arange(min(4, data.sizes()[split])))
        for name, maps in outputs(task.model, task.normalize(pictures.to(task.device)), self.layers).items():
            self._show(trainer, f"{split}/features {name}", feature_maps(pictures, maps.cpu()))

    def _wanted(self, trainer: L.Trainer) -> bool:
        return trainer.is_global_zero and any(hasattr(logger, "log_image") for logger in trainer.loggers)

    def _show(self, trainer: L.Trainer, key: str, image: np.ndarray) -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(key, [image], step=trainer.global_step)


def _names(data: Any, labels: torch.Tensor) -> list[str]:
    return [data.classes[i] for i in labels.tolist()]


class _Enough(Exception):
    """Ends a pass through a network behind the last layer that is wanted."""


@torch.inference_mode()
def outputs(network: nn.Module, images: torch.Tensor, layers: list[str] | None = None) -> dict[str, torch.Tensor]:
    """What layers make of pictures: by their names and kinds, float (N, channels, height, width). Other outputs are left out.

    Args:
        network: in evaluation mode.
        images: (N, C, H, W), normalised.
        layers: their names; None takes the first convolution, the first activation and the first pooling that put out maps.
    """
    found: dict[str, torch.Tensor] = {}
    missing = set(KINDS if layers is None else layers)
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        wanted = type(module).__module__ if layers is None else name

        def keep(module: nn.Module, inputs: object, output: object) -> None:
            if wanted not in missing or not isinstance(output, torch.Tensor) or output.ndim != 4:
                return
            if layers is None and output.shape[2:] == (1, 1):
                return  # one figure a picture is no map
            found[f"{name} {type(module).__name__}"] = output.clone()  # a ReLU may work in place on what a convolution put out
            missing.discard(wanted)
            if not missing:
                raise _Enough

        if wanted in missing:
            handles.append(module.register_forward_hook(keep))

    for name, module in network.named_modules():
        watch(name, module)
    try:
        network.forward(images)  # itself: a compiled network would be compiled anew for this batch
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found
