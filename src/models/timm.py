"""Every classifier of timm (PyTorch Image Models) behind one constructor. Needs the extra `timm`.

Names: https://huggingface.co/docs/timm
"""

from typing import Any

import torch
from torch import nn

from ..errors import UserError
from .weights import check_name, download_error, load_weights, read_weights


class Timm(nn.Module):
    """A timm classifier with a head for `num_classes` classes.

    Args:
        in_channels: channels of the input images; timm adapts the first convolution.
        name: timm's name of the network, such as `convnext_nano` or `resnet50.a1_in1k`.
        weights: `DEFAULT` for the weights that timm downloads for that name, a file with such
            weights (3 channels only), or null for random ones.
    """

    suggest_image_size = True

    def __init__(self, in_channels: int, num_classes: int, name: str, weights: str | None = None):
        super().__init__()
        timm = _import_timm(name)
        shape = {"in_chans": in_channels, "num_classes": num_classes}
        if weights is None:
            self.network = timm.create_model(name, **shape)
        elif weights == "DEFAULT":
            self.network = _download(timm, name, **shape)
        elif in_channels == 3:
            self.network = timm.create_model(name)
            load_weights(self.network, read_weights(weights))
            self.network.reset_classifier(num_classes)
        else:
            raise UserError(
                "Weights from a file are for 3 channels.",
                "Leave data.channels out: grey images are converted to RGB.",
            )

    @staticmethod
    def pretrained_input(name: str, weights: str) -> dict[str, Any]:
        """Return size, channels, mean and std (of 0..1) that trained weights expect."""
        config = _import_timm(name).get_pretrained_cfg(name)
        return {
            "image_size": config.input_size[1],
            "channels": 3,
            "mean": list(config.mean),
            "std": list(config.std),
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.network(images)


def _import_timm(name: str) -> Any:
    """Import timm and check that it knows a network and, where given, its tag of weights."""
    try:
        import timm
    except ImportError:
        raise UserError(
            "timm is not installed.", 'Install the extra: pip install -e ".[timm]"'
        ) from None
    check_name("timm", name, [*timm.list_models(), *timm.list_pretrained()])
    return timm


def _download(timm: Any, name: str, **shape: int) -> nn.Module:
    if not timm.models.is_model_pretrained(name):
        raise UserError(
            f"timm has no trained weights for {name}.",
            "Choose another model.name, or set model.weights=null for random weights.",
        )
    try:
        return timm.create_model(name, pretrained=True, **shape)
    except OSError as error:  # the errors of huggingface_hub are of this kind
        raise download_error(name, timm.get_pretrained_cfg(name).hf_hub_id, error) from error
