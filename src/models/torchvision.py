"""Every classifier of torchvision behind one constructor. What a name means: https://pytorch.org/vision/stable/models.html"""

import torch
from torch import nn
from torchvision import models


class Torchvision(nn.Module):
    """A torchvision classifier with its head made to measure.

    Args:
        in_channels: channels of the input images; another number than the network's own gets a new first convolution.
        num_classes: number of logits.
        name: torchvision's name of the network, such as `resnet18` or `vgg16`.
        weights: torchvision's name of a set of trained weights (`DEFAULT`, `IMAGENET1K_V1`), or null for random ones.
        head: `replace` puts a new last linear layer in the place of the old one; `append` adds one behind it.

    Raises:
        OSError: the weights cannot be downloaded; the text says where to put the file.
        ValueError: unknown name, unknown weights, unknown head, or a network that does not end in a linear or 1x1 convolution.
    """

    def __init__(self, in_channels: int, num_classes: int, name: str, weights: str | None = None, head: str = "replace"):
        super().__init__()
        known = models.list_models(module=models)
        if name not in known:
            raise ValueError(f"torchvision has no classifier {name!r}; it has {', '.join(known)}")
        if head not in ("replace", "append"):
            raise ValueError(f"head is 'replace' or 'append', got {head!r}")
        if weights is not None and weights not in (sets := models.get_model_weights(name).__members__):
            raise ValueError(f"{name} has no weights {weights!r}; it has {', '.join(sets)}")
        # Inception and GoogLeNet warn unless told whether to initialise; the others take no such argument.
        own_init = {"init_weights": weights is None} if name in ("googlenet", "inception_v3") else {}
        try:
            self.network = models.get_model(name, weights=weights, **own_init)
        except OSError as error:
            url = models.get_model_weights(name)[weights].url
            file = f"{torch.hub.get_dir()}/checkpoints/{url.rpartition('/')[2]}"
            raise OSError(
                f"the weights {weights} of {name} could not be downloaded from {url}: {getattr(error, 'reason', error)}\n"
                f"Get that file another way and put it at {file}, or start from random weights with model.weights=null"
            ) from None
        if hasattr(self.network, "aux_logits"):  # the auxiliary heads of Inception and GoogLeNet change what forward returns
            self.network.aux_logits = False
            self.network.AuxLogits = self.network.aux1 = self.network.aux2 = None
        self._fit_input(in_channels)
        self._fit_head(num_classes, head)

    def _fit_input(self, in_channels: int) -> None:
        path, conv = next((path, m) for path, m in self.network.named_modules() if isinstance(m, nn.Conv2d))
        if conv.in_channels != in_channels:
            new = nn.Conv2d(in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None)
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
            new = nn.Conv2d(last.in_channels, num_classes, last.kernel_size)
        self._put(path, new)

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, child = path.rpartition(".")
        setattr(self.network.get_submodule(parent), child, module)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float images -> (N, num_classes) logits."""
        return self.network(images)
