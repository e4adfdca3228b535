"""Every classifier of torchvision behind one constructor.

Names and weights: https://pytorch.org/vision/stable/models.html
"""

import difflib
from typing import Any

import torch
from torch import nn
from torchvision import models

from ..errors import UserError
from .weights import load_weights, read_weights


class Torchvision(nn.Module):
    """A torchvision classifier with a head for `num_classes` classes.

    Args:
        in_channels: channels of the input images; another number than the network's own gets a new
            first convolution, for grey images with the sum of the trained filters over the colours.
        num_classes: number of logits.
        name: torchvision's name of the network, such as `resnet18` or `vgg16`.
        weights: torchvision's name of a set of trained weights (`DEFAULT`, `IMAGENET1K_V1`), a file
            with such weights, or null for random ones.
        head: `replace` replaces the last layer; `append` adds a linear layer behind it.

    Raises:
        UserError: unknown name, weights or head; weights that cannot be downloaded or read, or that
            belong to another network; or `append` for a network that does not end in a linear
            layer.
    """

    suggest_image_size = True

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        name: str,
        weights: str | None = None,
        head: str = "replace",
    ):
        super().__init__()
        _check_name(name)
        if head not in ("replace", "append"):
            raise UserError(f"head={head!r} is unknown.", "Choose model.head=replace or append.")
        if weights is not None and _is_file(weights):
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
        """Return the input that trained weights expect.

        A file is expected to hold weights that were trained like torchvision's DEFAULT ones.

        Returns:
            image_size in pixels, channels, and mean and std of pixels scaled to 0..1.
        """
        _check_name(name)
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
        is_linear = isinstance(old, nn.Linear)
        if head == "append" and not is_linear:
            raise UserError(
                "head=append needs a network that ends in a linear layer.",
                "Set model.head=replace.",
            )
        new: nn.Module
        if head == "append":
            new = nn.Sequential(old, nn.Linear(old.out_features, num_classes))
        elif is_linear:
            new = nn.Linear(old.in_features, num_classes)
        else:
            new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)
        self._replace(path, new)

    def _layers(self, *kinds: type[nn.Module]) -> list[tuple[str, Any]]:
        modules = self.network.named_modules()
        return [(path, module) for path, module in modules if isinstance(module, kinds)]

    def _replace(self, path: str, module: nn.Module) -> None:
        parent, _, child = path.rpartition(".")
        setattr(self.network.get_submodule(parent), child, module)


def _build(name: str, weights: str | None, initialize: bool) -> Any:
    available = models.get_model_weights(name)
    if weights is not None and weights not in available.__members__:
        names = ", ".join(available.__members__)
        raise UserError(f"{name} has no weights {weights!r}.", f"Choose one of {names}.")
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # they warn where this is not given
        options["init_weights"] = initialize
    try:
        return models.get_model(name, weights=weights, **options)
    except OSError as error:
        url = available[weights].url
        file = f"{torch.hub.get_dir()}/checkpoints/{url.rpartition('/')[2]}"
        reason = getattr(error, "reason", error)
        raise UserError(
            f"The weights {weights} of {name} could not be downloaded from {url}: {reason}",
            f"Get that file another way and put it at {file}, or set model.weights=null for "
            "random weights.",
        ) from error


def _check_name(name: str) -> None:
    known = models.list_models(module=models)
    if name not in known:
        similar = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        raise UserError(
            f"torchvision has no classifier {name!r}.",
            f"Choose one of {', '.join(similar or known)}.",
        )


def _is_file(weights: str) -> bool:
    """torchvision's names of weights are words in capitals; a path has a folder or an extension."""
    return any(character in weights for character in "./\\")
