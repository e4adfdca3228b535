"""oneDNN, the CPU library behind torch's convolutions, during training."""

from typing import Any

import lightning as L
import torch

from .base import EpochCallback

MAX_PARAMETERS = 100_000
MAX_PIXELS = 4 * 32**2  # in a batch
BACKEND: Any = torch.backends.mkldnn  # its own context manager sets other flags too


class OneDNN(EpochCallback):
    """Switches oneDNN off during `fit` where it costs more than it saves.

    LeNet on batches of four 28x28 images trains 1.5 times as fast without it; larger networks or
    batches are up to three times slower, so the limits are tight.

    Args:
        use: True or False decides; None switches it off for very small work on a CPU.
    """

    def __init__(self, use: bool | None = None):
        self.use = use
        self.automatic: dict[str, Any] = {}
        self._previous: bool | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        off = self.switches_off(trainer, pl_module)
        if self.use is None:
            self.automatic["onednn"] = not off
        if off:
            self._previous = bool(BACKEND.enabled)
            BACKEND.enabled = False

    def switches_off(self, trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
        """Whether this run trains without oneDNN."""
        if self.use is not None:
            return not self.use
        data = trainer.datamodule
        if not hasattr(data, "image_size") or trainer.strategy.root_device.type != "cpu":
            return False
        parameters = sum(p.numel() for p in pl_module.parameters())
        pixels = data.batch_size * data.image_size**2
        return parameters < MAX_PARAMETERS and pixels <= MAX_PIXELS

    def _restore(self, *args: Any, **kwargs: Any) -> None:
        if self._previous is not None:
            BACKEND.enabled = self._previous
            self._previous = None

    teardown = on_exception = _restore
