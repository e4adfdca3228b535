"""Grad-CAM: which parts of a picture speak for a class (Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks, 2017)."""

import torch
from torch import nn
from torch.nn import functional as F

from src.errors import UserError

# Max pooling, average pooling and their adaptive kin: what comes behind them is coarser than what the last convolution saw.
POOLING = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
)


def grad_cam(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Heat maps of how much each place of a picture raises the logit of a class.

    The feature map is the last one of the network that is no pooling's output and has more than one place; it is found while the
    network runs, so any convolutional network works as it is. Runs in evaluation mode, whatever the network's mode was, and leaves
    no gradients behind.

    Args:
        model: (N, C, H, W) normalised float images -> (N, num_classes) logits.
        images: (N, C, H, W), normalised.
        targets: int64 (N,), the class to explain for each picture.

    Returns:
        float (N, H, W) from 0 to 1, where 1 is the picture's strongest place; all 0 where nothing speaks for the class.

    Raises:
        UserError: the network has no feature map with more than one place.
    """
    found: dict[str, torch.Tensor] = {}

    def keep(module: nn.Module, inputs: tuple, output: object) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != 4 or output.shape[-2] * output.shape[-1] == 1:
            return
        if isinstance(module, POOLING):
            found["pooled"] = output
        elif output is not found.get("pooled"):  # a container that ends in a pooling gives the same tensor once more
            found["map"] = output

    modes = [(module, module.training) for module in model.modules()]
    hooks = [module.register_forward_hook(keep) for module, _ in modes]
    try:
        model.eval()
        # A compiled network would pass over hooks that it was not compiled with.
        with torch.inference_mode(False), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            images = images.clone().requires_grad_()  # gives gradients in frozen networks too
            logits = model(images)
            if "map" not in found:
                raise UserError(
                    f"{type(model).__name__} has no feature map that Grad-CAM could show.",
                    "Choose a convolutional network, or leave Grad-CAM out.",
                )
            scores = logits.gather(1, targets.clone()[:, None]).sum()
            (gradient,) = torch.autograd.grad(scores, found["map"])
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    features = found["map"].detach().float()
    weights = gradient.float().mean((2, 3), keepdim=True)
    maps = (weights * features).sum(1, keepdim=True).relu()
    maps = F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def overlay(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Heat maps laid over pictures: red where they are 1, over yellow and green to the bare picture where they are 0.

    Args:
        images: uint8 (N, 3, H, W).
        maps: (N, h, w) from 0 to 1, brought to the pictures' size.

    Returns:
        uint8 (N, 3, H, W).
    """
    heat = F.interpolate(maps[:, None], images.shape[-2:], mode="bilinear", align_corners=False)
    peaks = torch.tensor([3.0, 2.0, 1.0], device=heat.device).view(1, 3, 1, 1)  # of red, green and blue, in quarters of the heat
    colours = (1.5 - (4 * heat - peaks).abs()).clamp(0, 1) * 255
    weight = 0.6 * heat
    return (images * (1 - weight) + colours * weight).round().to(torch.uint8)
