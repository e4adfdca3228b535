"""Outputs of the layers inside a network."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn

# Where torch has its layers of each kind.
KINDS = ("torch.nn.modules.conv", "torch.nn.modules.activation", "torch.nn.modules.pooling")


@torch.inference_mode()
def layer_outputs(
    network: nn.Module, images: torch.Tensor, layers: Sequence[str] | None = None
) -> dict[str, torch.Tensor]:
    """Feature maps of layers, by names and types of the layers. Other outputs are left out.

    Args:
        network: in evaluation mode.
        images: float (N, C, H, W), normalized.
        layers: names of layers; None takes the first convolution, activation and pooling.

    Returns:
        float (N, channels, height, width) each.
    """
    missing = set(KINDS if layers is None else layers)
    found: dict[str, torch.Tensor] = {}

    def keep_output(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        key = type(module).__module__ if layers is None else name

        def keep(module: nn.Module, inputs: object, output: object) -> None:
            if key not in missing or not isinstance(output, torch.Tensor) or output.ndim != 4:
                return
            if layers is None and output.shape[2:] == (1, 1):  # one number per image is no map
                return
            found[f"{name} {type(module).__name__}"] = output.clone()  # the next may work in place
            missing.discard(key)

        return module.register_forward_hook(keep)

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.enter_context(keep_output(name, module))
        network.forward(images)  # not network(images): a compiled one would be compiled again
    return found
