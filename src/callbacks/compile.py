"""Compilation of the network."""

from typing import Any

import lightning as L

from .base import EpochCallback


class Compile(EpochCallback):
    """Compiles the network with torch.compile before training.

    `model.compile()` works in place, so the names of its parameters stay as they are.

    Args:
        options: arguments of torch.compile, such as `mode`.
    """

    def __init__(self, **options: Any):
        self.options = options

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        # After every setup: weight averaging has copied the module by now, layers are frozen.
        # The network alone: a compiled LightningModule fails at self.log (Lightning issue 21836).
        getattr(pl_module, "model", pl_module).compile(**self.options)
