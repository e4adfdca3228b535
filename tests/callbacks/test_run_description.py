"""Names and facts about the objects of a run."""

import lightning as L
import pytest

from src.callbacks.run_description import (
    check_same_data,
    compared_settings,
    describe_data,
    describe_run,
    global_seed,
    run_title,
)
from src.errors import UserError


def test_titles(fit):
    run = fit()
    assert run_title(run.trainer, run.task) == "LeNet on Digits"
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert run_title(trainer, run.task) == "LeNet"
    assert run_title(trainer, L.LightningModule()) == "LightningModule"
    assert describe_data(trainer) == {}


def test_the_data(fit):
    run = fit()
    data = describe_data(run.trainer)
    assert data["sizes"] == {"train": 1293, "val": 144, "test": 360} and data["classes"] == 10
    assert data["split_hash"] == run.data.split_hash()
    assert data["fingerprint"] == run.data.fingerprint()


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"fingerprint": "b", "split_hash": "y", "sizes": {"train": 8}}, "9 train images then, 8"),
        ({"fingerprint": "a", "split_hash": "y", "sizes": {"train": 9}}, "of other content"),
    ],
)
def test_a_resumed_run_keeps_its_data(now, words):
    before = {"fingerprint": "a", "split_hash": "x", "sizes": {"train": 9}}
    check_same_data(before, before)
    check_same_data({}, now)  # a module that does not describe its data
    with pytest.raises(UserError, match=words):
        check_same_data(before, now)


def test_a_run_composed_by_hand(fit):
    run = fit(accumulate_grad_batches=2)
    config = describe_run(run.trainer, run.task)
    assert config["model"]["_target_"] == "src.models.lenet.LeNet"
    assert config["data"]["batch_size"] == run.data.batch_size
    assert config["data"]["image_size"] == run.data.image_size
    assert config["trainer"]["accumulate_grad_batches"] == 2 and config["seed"] == 0


@pytest.mark.parametrize(("value", "expected"), [("0", 0), ("7", 7), ("", None)])
def test_the_seed(value, expected, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", value)
    assert global_seed() == expected


def test_compared_settings_are_flat_and_plain():
    settings = compared_settings(
        {
            "data": {"_target_": "src.datamodules.DigitsDataModule", "batch_size": 32, "root": "x"},
            "model": {"_target_": "src.models.SimpleV3", "dropout": 0.4},
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "nesterov": True},
            "scheduler": None,
            "task": {"_target_": "src.tasks.ClassificationTask", "backbone_lr": 1.0},
            "trainer": {"max_epochs": 3, "devices": 1, "gradient_clip_val": None},
            "seed": 0,
        }
    )
    assert settings == {
        "data": "Digits",
        "data.batch_size": 32,
        "model": "SimpleV3",
        "model.dropout": 0.4,
        "optimizer": "SGD",
        "optimizer.lr": 0.1,
        "optimizer.nesterov": "true",
        "task.backbone_lr": 1.0,
        "trainer.max_epochs": 3,
        "seed": 0,
    }
