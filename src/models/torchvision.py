"""Every classifier of torchvision behind one constructor.

Names and weights: https://pytorch.org/vision/stable/models.html
"""

from typing import Any, Literal

import torch
from torch import nn
from torchvision import models

from ..errors import UserError
from .weights import check_name, download_error, load_weights, read_weights


class Torchvision(nn.Module):
    """A torchvision classifier with a head for `num_classes` classes.

    Args:
        in_channels: channels of the input images; for other than 3 the first convolution is new,
            for grey images with the sum of the trained filters over the colours.
        name: torchvision's name of the network, such as `resnet18` or `vgg16`.
        weights: torchvision's name of a set of trained weights (`DEFAULT`, `IMAGENET1K_V1`), a file
            with such weights, or null for random ones.
        head: `replace` replaces the last layer; `append` adds a linear layer behind it.
    """

    suggest_image_size = True

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        name: str,
        weights: str | None = None,
        head: Literal["replace", "append"] = "replace",
    ):
        super().__init__()
        # torchvision's names of weights are words in capitals; a path has a folder or an extension.
        if weights is not None and set(weights) & set("./\\"):
            self.network = _build(name, None, initialize=False)
            load_weights(self.network, read_weights(weights))
        else:
            self.network = _build(name, weights, initialize=weights is None)
        if hasattr(self.network, "aux_logits"):
            # The auxiliary heads of Inception and GoogLeNet change what forward returns.
            self.network.aux_logits = False
            self.network.AuxLogits = self.network.aux1 = self.network.aux2 = None
        self._fit_input(in_channels)
        self._fit_head(num_classes, head)

    @staticmethod
    def pretrained_input(name: str, weights: str) -> dict[str, Any]:
        """Return size, channels, mean and std (of 0..1) that trained weights expect.

        A file is expected to hold weights that were trained like torchvision's DEFAULT ones.
        """
        check_name("torchvision", name, models.list_models(module=models))
        available = models.get_model_weights(name)
        chosen = weights if weights in available.__members__ else "DEFAULT"
        preset = available[chosen].transforms()
        return {
            "image_size": preset.crop_size[0],
            "channels": 3,
            "mean": list(preset.mean),
            "std": list(preset.std),
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.network(images)

    def _fit_input(self, in_channels: int) -> None:
        path, old = self._layers(nn.Conv2d)[0]
        if old.in_channels == in_channels:
            return
        shape = (old.out_channels, old.kernel_size, old.stride, old.padding)
        new = nn.Conv2d(in_channels, *shape, bias=old.bias is not None)
        if in_channels == 1:  # equal to the output for the grey image repeated in three channels
            new.weight = nn.Parameter(old.weight.detach().sum(1, keepdim=True))
            new.bias = old.bias
        self._replace(path, new)

    def _fit_head(self, num_classes: int, head: str) -> None:
        path, old = self._layers(nn.Linear, nn.Conv2d)[-1]
        new: nn.Module
        if isinstance(old, nn.Linear) and head == "append":
            new = nn.Sequential(old, nn.Linear(old.out_features, num_classes))
        elif isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, num_classes)
        elif head == "replace":
            new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)
        else:
            raise UserError(
                "head=append needs a network that ends in a linear layer.",
                "Set model.head=replace.",
            )
        self._replace(path, new)

    def _layers(self, *kinds: type[nn.Module]) -> list[tuple[str, Any]]:
        modules = self.network.named_modules()
        return [(path, module) for path, module in modules if isinstance(module, kinds)]

    def _replace(self, path: str, module: nn.Module) -> None:
        parent, _, child = path.rpartition(".")
        setattr(self.network.get_submodule(parent), child, module)


def _build(name: str, weights: str | None, initialize: bool) -> Any:
    check_name("torchvision", name, models.list_models(module=models))
    available = models.get_model_weights(name)
    if weights is not None and weights not in available.__members__:
        names = ", ".join(available.__members__)
        raise UserError(f"{name} has no weights {weights!r}.", f"Choose one of {names}.")
    # These two warn where this is not given.
    options = {"init_weights": initialize} if name in ("googlenet", "inception_v3") else {}
    try:
        return models.get_model(name, weights=weights, **options)
    except OSError as error:
        raise download_error(name, available[weights].url, error) from error
