"""The memory layout of images and convolutions."""

from typing import Any

import lightning as L
import torch
from torch import nn

from .base import EpochCallback


class MemoryFormat(EpochCallback):
    """Sets `memory_format` of the task and the layout of its network.

    Args:
        channels_last: True or False decides; None uses channels last for convolutions on a CPU
            with oneDNN, whose layout it is, and on a GPU in half precision.
    """

    def __init__(self, channels_last: bool | None = None):
        self.channels_last = channels_last
        self.automatic: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if not hasattr(pl_module, "memory_format"):
            return
        channels_last = self.channels_last
        if channels_last is None:
            # Decided once: evaluation after training uses the same layout.
            if "channels_last" not in self.automatic:
                self.automatic["channels_last"] = _channels_last_pays(trainer, pl_module)
            channels_last = self.automatic["channels_last"]
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        pl_module.memory_format = memory_format
        pl_module.model.to(memory_format=memory_format)


def _channels_last_pays(trainer: L.Trainer, pl_module: Any) -> bool:
    if not any(isinstance(module, nn.Conv2d) for module in pl_module.model.modules()):
        return False
    if trainer.strategy.root_device.type == "cpu":
        switches = [c.switches_off for c in trainer.callbacks if hasattr(c, "switches_off")]
        return not any(switches_off(trainer, pl_module) for switches_off in switches)
    return "16" in str(trainer.precision)
