"""The five objects of a run, composed by hand, leave the run folder of train.py."""

from functools import partial

import lightning as L
import pytest
import torch
from helpers import run_training
from run_helpers import differences, read_checkpoint, read_results, read_rows

from src.callbacks import (
    BestCheckpoint,
    CacheFeatures,
    ClassWeights,
    ImageLogger,
    LastCheckpoint,
    MemoryFormat,
    NaNGuard,
    OneDNN,
    Progress,
    Report,
    RunRecorder,
    StepSeed,
    StopSignals,
    Throughput,
)
from src.datamodules import CropFlip, DigitsDataModule
from src.models import LeNet
from src.tasks import ClassificationTask
from src.tasks.schedulers import constant

SETTINGS = [
    "model=lenet",
    "data.image_size=16",
    "data.batch_size=64",
    "data/augment=crop_flip",
    "optimizer.lr=0.05",
    "scheduler=constant",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=8",
]


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The folder of `python train.py` with these settings."""
    folder = tmp_path_factory.mktemp("typed") / "run"
    run_training(folder, *SETTINGS)
    return folder


def compose_and_train(run_dir, callbacks, best="best"):
    """What a notebook does."""
    L.seed_everything(0, workers=True, verbose=False)
    data = DigitsDataModule(image_size=16, batch_size=64, augment=CropFlip())
    model = LeNet(data.channels, len(data.classes), data.image_size)
    task = ClassificationTask(
        model,
        data.classes,
        data.mean,
        data.std,
        optimizer=partial(
            torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=None
        ),
        scheduler=constant,
    )
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=8,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=callbacks,
        enable_model_summary=False,
        default_root_dir=run_dir,
        use_distributed_sampler=False,
    )
    trainer.fit(task, data)
    trainer.test(task, data, ckpt_path=best, weights_only=True, verbose=False)


def files(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return names - {".run.lock"}


def test_all_callbacks_give_equal_results(typed, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    callbacks = [
        StepSeed(0),
        StopSignals(),
        Throughput(),
        Progress(),
        NaNGuard(),
        ClassWeights(),
        MemoryFormat(),
        OneDNN(),
        CacheFeatures(),
        ImageLogger(),
        BestCheckpoint(dirpath=checkpoints),
        LastCheckpoint(dirpath=checkpoints),
        RunRecorder(tmp_path),
        Report(tmp_path),
    ]
    compose_and_train(tmp_path, callbacks, checkpoints / "best.ckpt")
    assert files(tmp_path) == files(typed)
    assert differences(typed, tmp_path) == []


def test_the_recorder_and_the_report_alone_leave_the_same_files(typed, tmp_path):
    compose_and_train(tmp_path, [RunRecorder(tmp_path), Report(tmp_path)])
    assert files(tmp_path) == files(typed)
    results = read_results(tmp_path)
    assert results["status"] == "completed" and set(results) == set(read_results(typed))
    assert results["checkpoint"] == "checkpoints/best.ckpt"
    assert len(read_rows(tmp_path / "metrics.csv")) == 2
    assert len(read_rows(tmp_path / "predictions.csv")) == 360
    content = read_checkpoint(tmp_path, "best")
    assert content["description"]["classes"] == list("0123456789")
    assert content["epoch"] == results["best_epoch"]
    compose_and_train(tmp_path, [RunRecorder(tmp_path), Report(tmp_path)])  # the cell again
    assert read_results(tmp_path)["test"] == results["test"]
