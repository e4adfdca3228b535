"""A LightningModule and a LightningDataModule that know nothing of this project."""

import lightning as L
import pytest
import torch
from helpers import composed
from run_helpers import read_results, read_rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from src.engine.train import train
from src.errors import UserError
from src.runs import checkpoint


class Plain(L.LightningModule):
    def __init__(self, hidden: int = 16):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, 10))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self.layers(batch[0])
        self.log("val/loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val/acc", (logits.argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, batch_idx):
        self.log("test/acc", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PlainData(L.LightningDataModule):
    def setup(self, stage=None):
        images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        self.data = TensorDataset(images, (images.mean((1, 2, 3)) * 10).long())

    def train_dataloader(self):
        return DataLoader(self.data, 16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data, 16)

    test_dataloader = val_dataloader


class FactsData(PlainData):
    classes, channels, mean, std = list("0123456789"), 1, (0.5,), (0.25,)

    def setup(self, stage=None):
        super().setup(stage)
        images, labels = self.data.tensors
        self.data = TensorDataset(nn.functional.interpolate(images, 32), labels)


OPTIONS = ["trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none", "model=lenet"]


def config(task, data):
    cfg = composed(OPTIONS)
    if task:
        cfg.task = {"_target_": f"{__name__}.{task}"}
    if data:
        cfg.data = {"_target_": f"{__name__}.{data}"}
    return cfg


def test_both_train_and_leave_a_run_folder(tmp_path, caplog):
    caplog.set_level("INFO")
    results = train(config("Plain", "PlainData"), tmp_path)
    assert results["status"] == "completed" and results["test"]["acc"] >= 0
    assert "Plain does not take model, optimizer, scheduler" in caplog.text
    rows = read_rows(tmp_path / "metrics.csv")
    assert len(rows) == 2 and float(rows[0]["train_loss"]) > 0
    assert read_results(tmp_path)["val"]["loss"] == min(float(row["val/loss"]) for row in rows)
    for name in ("report.html", "config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (tmp_path / name).is_file()


def test_a_module_without_a_model_group(tmp_path):
    cfg = config("Plain", "PlainData")
    del cfg.model
    assert train(cfg, tmp_path)["status"] == "completed"


class Other(Plain):
    """Logs under other names, keeps its hyper-parameters and has no test."""

    test_step = L.LightningModule.test_step

    def __init__(self, optimizer, hidden: int = 16):
        super().__init__(hidden)
        self.save_hyperparameters()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))


class Manual(Plain):
    """Optimizes by itself and validates nothing."""

    validation_step = L.LightningModule.validation_step
    test_step = L.LightningModule.test_step

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))
        optimizer.step()


def test_other_names_and_no_test(tmp_path, caplog):
    caplog.set_level("INFO")
    cfg = config("Other", "PlainData")
    with pytest.raises(UserError, match="does not log val/loss") as error:
        train(cfg, tmp_path / "a")
    assert "Logged so far: train_loss, val_loss" in error.value.remedy
    cfg.callbacks.best.monitor = "val_loss"
    results = train(cfg, tmp_path / "b")
    assert results["status"] == "completed" and results["test"] is None
    assert results["val"]["loss"] > 0
    assert "val loss" in caplog.text  # in the line of an epoch

    cfg.trainer.max_epochs = 3
    cfg.resume = str(tmp_path / "b" / "checkpoints" / "last.ckpt")
    assert train(cfg, tmp_path / "b")["epochs"] == 3
    with pytest.raises(UserError, match="not derived from ClassificationTask"):
        checkpoint.read(tmp_path / "b")
    cfg.trainer.accumulate_grad_batches = 2
    with pytest.raises(UserError, match="accumulate_grad_batches was 1"):
        train(cfg, tmp_path / "b")


def test_manual_optimization_without_validation(tmp_path):
    results = train(config("Manual", "PlainData"), tmp_path)
    assert results["status"] == "completed"
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_a_task_of_this_project_with_plain_data(tmp_path, caplog):
    cfg = config(None, "FactsData")
    cfg.model = {"_target_": "src.models.LeNet"}
    assert train(cfg, tmp_path)["status"] == "completed"
    assert (tmp_path / "report.html").is_file()
    assert "images of the first batch run from 0 to 1" in caplog.text
    assert "could not be written" not in caplog.text
