"""Every classifier of timm (PyTorch Image Models) behind one constructor: https://huggingface.co/docs/timm. An extra: `timm`."""

from typing import Any

import torch
from torch import nn

from src.models.weights import load_weights, read_weights


class Timm(nn.Module):
    """A timm classifier with its head made to measure.

    Args:
        in_channels: channels of the input images; timm adapts the first convolution.
        num_classes: number of logits.
        name: timm's name of the network, such as `convnext_nano` or `resnet50.a1_in1k`.
        weights: `DEFAULT` for the weights that timm fetches for that name, a file with such weights, or null for random ones.

    Raises:
        ImportError: timm is not installed.
        OSError: the weights cannot be fetched, or there is no such file.
        ValueError: unknown name, weights of another network, or a name without trained weights.
    """

    def __init__(self, in_channels: int, num_classes: int, name: str, weights: str | None = None):
        super().__init__()
        timm = _timm()
        _check_name(name)
        if weights not in (None, "DEFAULT"):
            self.network = timm.create_model(name)
            load_weights(self.network, read_weights(weights))
            if in_channels != 3:
                raise ValueError("weights from a file are for 3 channels\nLeave data.channels out: grey pictures are shown as RGB.")
            self.network.reset_classifier(num_classes)
            return
        try:
            self.network = timm.create_model(name, pretrained=weights is not None, in_chans=in_channels, num_classes=num_classes)
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # the hub's client raises what its transport raises
            if weights is None:
                raise
            raise OSError(
                f"the weights of {name} could not be fetched from {timm.get_pretrained_cfg(name).hf_hub_id}: {str(error).splitlines()[0]}\n"
                "Get the file another way and give it with model.weights=FILE, or start from random weights with model.weights=null"
            ) from None

    @staticmethod
    def pretrained_input(name: str, weights: str) -> dict[str, Any]:
        """What trained weights expect of their pictures: image_size in pixels, channels, and mean and std of pixels scaled to 0..1."""
        timm = _timm()
        _check_name(name)
        known = timm.get_pretrained_cfg(name)
        return {"image_size": known.input_size[1], "channels": 3, "mean": list(known.mean), "std": list(known.std)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float images -> (N, num_classes) logits."""
        return self.network(images)


def _timm():
    try:
        import timm
    except ImportError:
        raise ImportError('timm is not installed\nInstall the extra: pip install -e ".[timm]"') from None
    return timm


def _check_name(name: str) -> None:
    timm = _timm()
    if not timm.is_model(name):
        import difflib

        near = difflib.get_close_matches(name, timm.list_models(), 5, 0.5)
        raise ValueError(f"timm has no classifier {name!r}; near to it are {', '.join(near) or 'none'}")
