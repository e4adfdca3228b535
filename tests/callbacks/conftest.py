"""A small trainer for the tests of callbacks: LeNet on the digits, without any configuration."""

from collections.abc import Callable
from types import SimpleNamespace

import lightning as L
import pytest

from src.config.warning_filters import silence_warnings
from src.datamodules import DigitsDataModule
from src.models import LeNet
from src.tasks import ClassificationTask


@pytest.fixture
def fit(tmp_path) -> Callable[..., SimpleNamespace]:
    """Train for one epoch of six steps; returns trainer, task and data."""

    def run(
        *callbacks,
        data=None,
        model=None,
        task=None,
        resume=None,
        task_class=ClassificationTask,
        **options,
    ):
        silence_warnings()
        L.seed_everything(0, verbose=False)
        data = data or DigitsDataModule(image_size=16, batch_size=32)
        model = model or LeNet(data.channels, len(data.classes), data.image_size)
        module = task_class(model, data.classes, data.mean, data.std, **(task or {}))
        trainer = L.Trainer(
            **{
                "max_epochs": 1,
                "limit_train_batches": 6,
                "accelerator": "cpu",
                "logger": False,
                "callbacks": list(callbacks),
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "limit_val_batches": 1,
                "default_root_dir": tmp_path,
                **options,
            }
        )
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        return SimpleNamespace(trainer=trainer, task=module, data=data)

    return run
