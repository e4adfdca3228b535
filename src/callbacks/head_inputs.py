"""What the head of a network gets: one vector of features per image."""

from typing import Any

import lightning as L
import torch


def head_inputs(trainer: L.Trainer, pl_module: Any, images: torch.Tensor) -> torch.Tensor:
    """The input of the head, float (N, D), for uint8 images (N, C, H, W)."""
    inputs = []
    with pl_module.head.register_forward_pre_hook(lambda _, args: inputs.append(args[0])):
        _forward(trainer, pl_module, images)
    return inputs[-1]


def head_takes_features(trainer: L.Trainer, pl_module: Any) -> bool:
    """Whether the head takes one vector per image and nothing follows it."""
    data: Any = trainer.datamodule
    shape = (2, data.channels, data.image_size, data.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=pl_module.device)
    features = head_inputs(trainer, pl_module, images)
    if features.ndim != 2:
        return False
    logits = _forward(trainer, pl_module, images)
    from_features = _forward(trainer, pl_module, features)
    return torch.allclose(from_features, logits, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def _forward(trainer: L.Trainer, pl_module: Any, images: torch.Tensor) -> torch.Tensor:
    """Logits in the precision of the run; frozen layers are in evaluation mode already."""
    with trainer.precision_plugin.forward_context():
        return pl_module(images)
