"""Grad-CAM (Selvaraju et al., 2017): which parts of an image raise the score of a class."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import UserError

# The output of a pooling layer is coarser than that of the convolution before it.
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


def grad_cam(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Heat maps of how much each place of an image raises the logit of a class.

    The feature map is the last one in the forward pass that is not the output of a pooling layer
    and has more than one place. The network runs in evaluation mode and keeps its state.

    Args:
        images: float (N, C, H, W), normalized.
        targets: int64 (N,), the class to explain for each image.

    Returns:
        float (N, H, W) from 0 to 1, the strongest place of the image; all 0 where no place raises
        the logit.

    Raises:
        UserError: the network has no feature map with more than one place.
    """
    # A compiled network would skip hooks that it was not compiled with.
    eager = torch.compiler.set_stance("force_eager")
    with torch.inference_mode(False), torch.enable_grad(), eager, _last_map(model) as found:
        images = images.clone().requires_grad_()  # frozen networks have gradients then, too
        logits = model(images)
        if "map" not in found:
            raise UserError(
                f"{type(model).__name__} has no feature map that Grad-CAM could show.",
                "Choose a convolutional network, or leave Grad-CAM out.",
            )
        scores = logits.gather(1, targets.clone()[:, None]).sum()
        (gradient,) = torch.autograd.grad(scores, found["map"])
    features = found["map"].detach().float()
    weights = gradient.float().mean((2, 3), keepdim=True)
    maps = (weights * features).sum(1, keepdim=True).relu()
    maps = F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


@contextmanager
def _last_map(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """In evaluation mode, collect the last feature map of a forward pass under the key `map`."""
    found: dict[str, torch.Tensor] = {}

    def keep(module: nn.Module, inputs: tuple, output: Any) -> None:
        is_map = isinstance(output, torch.Tensor) and output.ndim == 4
        if not is_map or output.shape[2:].numel() == 1:
            return
        if isinstance(module, POOLING):
            found["pooled"] = output
        elif output is not found.get("pooled"):  # not a container that ends in a pooling layer
            found["map"] = output

    with ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(module.register_forward_hook(keep))
            stack.callback(setattr, module, "training", module.training)
        model.eval()
        yield found


def overlay(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, 3, H, W) with heat maps (N, h, w): red at 1, then yellow, none at 0."""
    heat = F.interpolate(maps[:, None], images.shape[-2:], mode="bilinear", align_corners=False)
    # The heat, in quarters, at which red, green and blue are strongest.
    peaks = torch.tensor([3.0, 2.0, 1.0], device=heat.device).view(1, 3, 1, 1)
    colours = (1.5 - (4 * heat - peaks).abs()).clamp(0, 1) * 255
    weight = 0.6 * heat
    return (images * (1 - weight) + colours * weight).round().to(torch.uint8)
