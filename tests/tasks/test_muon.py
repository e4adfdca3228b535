"""Muon: which parameters it takes, and exact resume."""

import pytest
import torch
from helpers import run_training
from torch import nn

pytest.importorskip("timm.optim.muon")
from src.tasks.muon import muon
from src.tasks.optim import parameter_groups


@pytest.mark.parametrize("decay", [True, False])
def test_hidden_weights_are_trained_by_muon(decay):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)
    )
    groups = parameter_groups(model, None, decay)
    optimizer = muon(groups, lr=0.02, fallback_lr=1e-3)
    by_muon = [g for g in optimizer.param_groups if not g.get("use_fallback")]
    assert [p.shape for g in by_muon for p in g["params"]] == [model[1].weight.shape]
    assert {g["lr"] for g in optimizer.param_groups} == {0.02, 1e-3}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len([*model.parameters()])


@pytest.mark.slow
def test_it_learns_and_a_resumed_run_is_exact(tmp_path):
    options = ["model=resnet9", "model.width=8", "data.image_size=16", "optimizer=muon"]
    options += ["scheduler=constant", "~callbacks.report", "trainer.limit_train_batches=20"]
    whole = run_training(tmp_path / "a", *options, "trainer.max_epochs=2")
    run_training(tmp_path / "b", *options, "trainer.max_epochs=1")
    resume = f"resume={tmp_path}/b/checkpoints/last.ckpt"
    run_training(tmp_path / "b", *options, "trainer.max_epochs=2", resume)
    first, second = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in "ab"
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert whole["val"]["acc"] > 0.5
