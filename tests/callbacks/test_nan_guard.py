"""A run that has diverged stops and keeps its last good checkpoint."""

from functools import partial

import lightning as L
import pytest
import torch

from src.callbacks import LastCheckpoint, NaNGuard
from src.errors import UserError


class Spoil(L.Callback):
    """Turns a weight to nan after the second epoch, behind every loss."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            next(pl_module.model.parameters()).data.fill_(float("nan"))


def test_a_loss_that_is_not_finite_stops_at_a_log_interval(fit):
    optimizer = partial(torch.optim.SGD, lr=1e20)
    with pytest.raises(UserError, match=r"train/loss became (nan|inf).* step [23]\.") as caught:
        fit(NaNGuard(), task={"optimizer": optimizer}, log_every_n_steps=2)
    assert "optimizer.lr" in caught.value.remedy


@pytest.mark.parametrize("every", [4, 50])
def test_the_last_interval_of_an_epoch_counts_as_well(fit, every):
    optimizer = partial(torch.optim.SGD, lr=1e20)
    with pytest.raises(UserError, match="train/loss"):
        fit(NaNGuard(), task={"optimizer": optimizer}, log_every_n_steps=every)


def test_spoilt_weights_never_replace_a_good_checkpoint(fit, tmp_path):
    last = LastCheckpoint(dirpath=tmp_path)
    with pytest.raises(UserError, match="The weights became nan or infinite in epoch 1"):
        fit(NaNGuard(), Spoil(), last, max_epochs=3, enable_checkpointing=True)
    assert torch.load(last.path, weights_only=True)["epoch"] == 0


def test_any_module_is_guarded(fit, tmp_path):
    class Plain(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(256, 10)

        def training_step(self, batch, batch_idx):
            logits = self.model(batch[0].float().flatten(1))
            return torch.nn.functional.cross_entropy(logits, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-6)

    run = fit()
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=2,
        accelerator="cpu",
        logger=False,
        callbacks=[NaNGuard(), Spoil(), LastCheckpoint(dirpath=tmp_path)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(UserError, match="The weights"):
        trainer.fit(Plain(), run.data.train_dataloader())
