"""A checkpoint without a training, for the commands that only read one."""

from pathlib import Path

import pytest
import torch

from src.models import LeNet
from src.runs.checkpoint_file import save

DIGITS = list("0123456789")


@pytest.fixture(scope="session")
def lenet_checkpoint(tmp_path_factory) -> Path:
    """The file of a LeNet for the digits with random weights; do not write into its folder."""
    torch.manual_seed(0)
    description = {
        "model": {
            "_target_": "src.models.LeNet",
            "in_channels": 1,
            "num_classes": 10,
            "image_size": 32,
        },
        "image_size": 32,
        "resize": "stretch",
        "config": {"data": {"_target_": "src.datamodules.DigitsDataModule", "image_size": 32}},
        "classes": DIGITS,
        "channels": 1,
        "mean": [0.2],
        "std": [0.1],  # below that of the data, so that random weights give different logits
    }
    weights = {f"model.{name}": tensor for name, tensor in LeNet(1, 10).state_dict().items()}
    path = tmp_path_factory.mktemp("checkpoint") / "lenet.ckpt"
    save({"state_dict": weights, "description": description}, path)
    return path
