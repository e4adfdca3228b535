"""Warnings and messages of libraries about things that are as they should be."""

import logging
import warnings

from lightning.fabric.utilities.warnings import PossibleUserWarning

# Beginnings of messages that have no category of their own.
MESSAGES = (
    "Checkpoint directory",  # of a resumed run
    "Found .* module\\(s\\) in eval mode",  # a frozen backbone
    "It is recommended to use `self.log",  # torchmetrics has gathered the values of all processes
    "You passed `Trainer\\(accelerator='cpu', precision='16-mixed'",  # refused by this project
    "The number of training batches",  # the last log interval ends with the epoch
)
# Loggers that report what every run has: devices, the seed, that checkpoints hold all states.
CHATTY = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.fabric.utilities.seed",
    "lightning.fabric.utilities.distributed",
)


def silence_warnings() -> None:
    """Silence them for this process."""
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning.pytorch.utilities")
    for message in MESSAGES:
        warnings.filterwarnings("ignore", message=message)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
