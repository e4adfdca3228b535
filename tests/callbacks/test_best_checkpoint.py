"""`best.ckpt` holds the best validation, also after its folder has moved."""

import shutil

import pytest
import torch

from src.callbacks import BestCheckpoint, LastCheckpoint


def test_the_best_epoch_is_kept(fit, tmp_path):
    best = BestCheckpoint(monitor="val/acc", mode="max", dirpath=tmp_path)
    trainer = fit(best, max_epochs=3, enable_checkpointing=True).trainer
    stored = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert stored["description"]["metrics"]["val/acc"] == pytest.approx(
        float(best.best_model_score)
    )
    assert best.best_model_path == str(tmp_path / "best.ckpt") and trainer.checkpoint_callback
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["best.ckpt"]


def test_a_moved_run_keeps_its_best_value(fit, tmp_path):
    first = tmp_path / "first"
    callbacks = [BestCheckpoint(dirpath=first), LastCheckpoint(dirpath=first)]
    fit(*callbacks, enable_checkpointing=True)
    moved = tmp_path / "moved"
    shutil.move(first, moved)
    content = torch.load(moved / "last.ckpt", weights_only=True)
    (state,) = (s for name, s in content["callbacks"].items() if name.startswith("BestCheckpoint"))
    state["best_model_score"] = state["kth_value"] = torch.tensor(0.0)  # no loss can be better
    state["best_k_models"] = {path: torch.tensor(0.0) for path in state["best_k_models"]}
    torch.save(content, moved / "last.ckpt")
    before = (moved / "best.ckpt").read_bytes()
    best = BestCheckpoint(dirpath=moved)
    fit(best, max_epochs=2, resume=moved / "last.ckpt", enable_checkpointing=True)
    assert (moved / "best.ckpt").read_bytes() == before and not first.exists()
    assert best.best_model_path == str(moved / "best.ckpt")
