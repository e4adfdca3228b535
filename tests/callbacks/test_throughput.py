"""Speed of training."""

import lightning as L
import pytest
import torch

from src.callbacks import Throughput
from src.callbacks.base import epoch_metrics


def test_images_and_seconds_of_each_epoch(fit):
    throughput = Throughput()
    trainer = fit(throughput, max_epochs=2).trainer
    metrics = epoch_metrics(trainer)
    assert throughput.images == 2 * 6 * 32
    assert 0 < throughput.trained_seconds < throughput.train_seconds
    assert metrics["images_per_second"] > 6 * 32 / metrics["seconds"]  # without validation


def test_a_resumed_run_adds_up(fit, tmp_path):
    run = fit(Throughput())
    run.trainer.save_checkpoint(tmp_path / "end.ckpt")
    throughput = Throughput()
    fit(throughput, max_epochs=2, resume=tmp_path / "end.ckpt")
    assert throughput.images == 2 * 6 * 32


class Plain(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch["images"]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore")
def test_batches_of_another_form(tmp_path):
    throughput = Throughput()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[throughput],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader([{"images": torch.rand(4)}] * 10, batch_size=4)
    trainer.fit(Plain(), loader)
    assert throughput.images == 10
