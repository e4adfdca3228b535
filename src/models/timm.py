"""Every classifier of timm (PyTorch Image Models) behind one constructor. Needs the extra `timm`.

Names: https://huggingface.co/docs/timm
"""

import difflib
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from .weights import load_weights, read_weights


class Timm(nn.Module):
    """A timm classifier with a head for `num_classes` classes.

    Args:
        in_channels: channels of the input images; timm adapts the first convolution.
        num_classes: number of logits.
        name: timm's name of the network, such as `convnext_nano` or `resnet50.a1_in1k`.
        weights: `DEFAULT` for the weights that timm downloads for that name, a file with such
            weights, or null for random ones.

    Raises:
        UserError: timm is not installed, the name is unknown or has no trained weights, the weights
            cannot be downloaded or read, or they belong to another network.
    """

    suggest_image_size = True

    def __init__(self, in_channels: int, num_classes: int, name: str, weights: str | None = None):
        super().__init__()
        timm = _import_timm()
        _check_name(name)
        if weights is None:
            self.network = timm.create_model(name, in_chans=in_channels, num_classes=num_classes)
        elif weights == "DEFAULT":
            self.network = _with_downloaded_weights(name, in_channels, num_classes)
        else:
            self.network = timm.create_model(name)
            load_weights(self.network, read_weights(weights))
            if in_channels != 3:
                raise UserError(
                    "Weights from a file are for 3 channels.",
                    "Leave data.channels out: grey images are converted to RGB.",
                )
            self.network.reset_classifier(num_classes)

    @staticmethod
    def pretrained_input(name: str, weights: str) -> dict[str, Any]:
        """Return the input that trained weights expect.

        Returns:
            image_size in pixels, channels, and mean and std of pixels scaled to 0..1.
        """
        timm = _import_timm()
        _check_name(name)
        config = timm.get_pretrained_cfg(name)
        return {
            "image_size": config.input_size[1],
            "channels": 3,
            "mean": list(config.mean),
            "std": list(config.std),
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.network(images)


def _with_downloaded_weights(name: str, in_channels: int, num_classes: int) -> nn.Module:
    timm = _import_timm()
    if not timm.models.is_model_pretrained(name):
        raise UserError(
            f"timm has no trained weights for {name}.",
            "Choose another model.name, or set model.weights=null for random weights.",
        )
    try:
        return timm.create_model(
            name, pretrained=True, in_chans=in_channels, num_classes=num_classes
        )
    except OSError as error:  # the errors of huggingface_hub are of this kind
        source = timm.get_pretrained_cfg(name).hf_hub_id
        raise UserError(
            f"The weights of {name} could not be downloaded from {source}: "
            f"{str(error).splitlines()[0]}",
            "Get the file another way and set model.weights=FILE, or set model.weights=null for "
            "random weights.",
        ) from error


def _import_timm() -> Any:
    try:
        import timm
    except ImportError:
        raise UserError(
            "timm is not installed.", 'Install the extra: pip install -e ".[timm]"'
        ) from None
    return timm


def _check_name(name: str) -> None:
    """Raise a UserError unless timm knows the network and, where given, its tag of weights."""
    timm = _import_timm()
    architecture, _, tag = name.partition(".")
    known = timm.list_models() if not tag else timm.list_pretrained(f"{architecture}.*")
    if timm.is_model(name) and (not tag or name in known):
        return
    similar = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    raise UserError(
        f"timm has no classifier {name!r}.",
        f"Similar names: {', '.join(similar)}." if similar else "See timm.list_models().",
    )
