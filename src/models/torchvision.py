"""Every classifier of torchvision behind one constructor. What a name means: https://pytorch.org/vision/stable/models.html"""

from typing import Any

import torch
from torch import nn
from torchvision import models

from src.models.weights import load_weights, read_weights


class Torchvision(nn.Module):
    """A torchvision classifier with its head made to measure.

    Args:
        in_channels: channels of the input images; another number than the network's own gets a new first convolution, for grey images
            with the sum of the trained filters over the colours.
        num_classes: number of logits.
        name: torchvision's name of the network, such as `resnet18` or `vgg16`.
        weights: torchvision's name of a set of trained weights (`DEFAULT`, `IMAGENET1K_V1`), a file with such weights, or null for
            random ones.
        head: `replace` puts a new last linear layer in the place of the old one; `append` adds one behind it.

    Raises:
        OSError: the weights cannot be downloaded or there is no such file; the text says where to put the file.
        ValueError: unknown name, unknown weights, weights of another network, unknown head, or a network that does not end in a
            linear or 1x1 convolution.
    """

    def __init__(self, in_channels: int, num_classes: int, name: str, weights: str | None = None, head: str = "replace"):
        super().__init__()
        _check_name(name)
        if head not in ("replace", "append"):
            raise ValueError(f"head is 'replace' or 'append', got {head!r}")
        from_file = _is_file(weights)
        if weights is not None and not from_file and weights not in (sets := models.get_model_weights(name).__members__):
            raise ValueError(f"{name} has no weights {weights!r}; it has {', '.join(sets)}")
        # Inception and GoogLeNet warn unless told whether to initialise; the others take no such argument.
        own_init = {"init_weights": weights is None} if name in ("googlenet", "inception_v3") else {}
        try:
            self.network = models.get_model(name, weights=None if from_file else weights, **own_init)
        except OSError as error:
            url = models.get_model_weights(name)[weights].url
            file = f"{torch.hub.get_dir()}/checkpoints/{url.rpartition('/')[2]}"
            raise OSError(
                f"the weights {weights} of {name} could not be downloaded from {url}: {getattr(error, 'reason', error)}\n"
                f"Get that file another way and put it at {file}, or start from random weights with model.weights=null"
            ) from None
        if weights is not None and from_file:
            load_weights(self.network, read_weights(weights))
        if hasattr(self.network, "aux_logits"):  # the auxiliary heads of Inception and GoogLeNet change what forward returns
            self.network.aux_logits = False
            self.network.AuxLogits = self.network.aux1 = self.network.aux2 = None
        self._fit_input(in_channels)
        self._fit_head(num_classes, head)

    @staticmethod
    def pretrained_input(name: str, weights: str) -> dict[str, Any]:
        """What trained weights expect of their pictures: image_size in pixels, channels, and mean and std of pixels scaled to 0..1.

        A file is taken for weights trained as torchvision's best ones were.
        """
        _check_name(name)
        known = models.get_model_weights(name)
        preset = known[weights if weights in known.__members__ else "DEFAULT"].transforms()
        return {"image_size": preset.crop_size[0], "channels": 3, "mean": list(preset.mean), "std": list(preset.std)}

    # (torch declares what a convolution keeps more loosely than what it takes, hence the remarks to the type checker.)

    def _fit_input(self, in_channels: int) -> None:
        path, conv = next((path, m) for path, m in self.network.named_modules() if isinstance(m, nn.Conv2d))
        if conv.in_channels != in_channels:
            new = nn.Conv2d(in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None)  # type: ignore[arg-type]
            if in_channels == 1:  # a grey picture shown as RGB would give the same
                new.weight = nn.Parameter(conv.weight.detach().sum(1, keepdim=True))
                new.bias = conv.bias
            self._put(path, new)

    def _fit_head(self, num_classes: int, head: str) -> None:
        path, last = [(p, m) for p, m in self.network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        if head == "append":
            if not isinstance(last, nn.Linear):
                raise ValueError("head='append' needs a network that ends in a linear layer; use head='replace'")
            new: nn.Module = nn.Sequential(last, nn.Linear(last.out_features, num_classes))
        elif isinstance(last, nn.Linear):
            new = nn.Linear(last.in_features, num_classes)
        else:
            new = nn.Conv2d(last.in_channels, num_classes, last.kernel_size)  # type: ignore[arg-type]
        self._put(path, new)

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, child = path.rpartition(".")
        setattr(self.network.get_submodule(parent), child, module)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float images -> (N, num_classes) logits."""
        return self.network(images)


def _check_name(name: str) -> None:
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}; it has {', '.join(known)}")


def _is_file(weights: str | None) -> bool:
    """torchvision's names of weights are words in capitals; a file has a folder or an ending."""
    return weights is not None and any(mark in weights for mark in "./\\")
