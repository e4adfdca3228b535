"""Resumed runs: bit-equal to runs that never stopped, and refused where they cannot be."""

import multiprocessing
import random
import shutil

import numpy as np
import pytest
import torch
from helpers import run_training, write_image_folder
from hydra.errors import MissingConfigException
from run_helpers import (
    SMALL,
    cut_after,
    differences,
    forks,
    read_checkpoint,
    read_results,
    read_rows,
)

from src.callbacks import BestCheckpoint, LastCheckpoint, StepSeed
from src.errors import UserError
from src.runs.files import Lock
from src.runs.metrics_table import MetricsTable

EVERY = "callbacks.last.every_n_train_steps=5"
TWO_EPOCHS = "trainer.max_epochs=2"
ACCUMULATED = ["trainer.accumulate_grad_batches=2", "optimizer=adam", "scheduler=cosine"]
FROZEN = ["callbacks.freeze_backbone.enabled=true", "data.balance=sampler"]


class NumpyNoise:
    """An augmentation that draws from numpy and random, and not from torch."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return (image + np.random.randint(0, 60) + random.randint(0, 60)).clamp(max=255)


@pytest.mark.parametrize(
    ("batches", "step", "options"),
    [
        (17, 15, [EVERY, "model=simple_v3", "trainer.val_check_interval=0.5"]),
        (23, 20, [EVERY, "scheduler=onecycle", "data.mixup=0.2", "data.cutmix=1"]),
        pytest.param(
            *(17, 15, [EVERY, "callbacks.ema.enabled=true", "data.num_workers=2"]),
            marks=pytest.mark.slow,
        ),
        pytest.param(17, 12, [], marks=pytest.mark.slow),  # no checkpoints inside epochs
        pytest.param(22, 10, [EVERY, *ACCUMULATED], marks=pytest.mark.slow),
        pytest.param(8, 5, [EVERY, *FROZEN], marks=pytest.mark.slow),
    ],
)
def test_a_run_cut_off_inside_an_epoch_ends_bit_equal(batches, step, options, tmp_path):
    options = [*SMALL, "data/augment=photos", TWO_EPOCHS, *options]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_training(whole, *options)
    with cut_after(batches):
        run_training(parts, *options)
    assert read_results(parts)["status"] == "failed"
    assert read_checkpoint(parts)["global_step"] == step
    results = run_training(parts, *options, f"resume={parts}/checkpoints/last.ckpt")
    assert differences(whole, parts) == []
    assert results["status"] == "completed"
    assert len(read_results(parts, "run.json")["earlier"]) == 1


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_transforms_that_draw_from_numpy_and_random_repeat(workers, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.transforms.v2.RandAugment", lambda **kwargs: NumpyNoise())
    options = [*SMALL, "data/augment=rand_augment", f"data.num_workers={workers}", TWO_EPOCHS]
    run_training(tmp_path / "whole", *options, EVERY)
    with cut_after(17):
        run_training(tmp_path / "parts", *options, EVERY)
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    run_training(tmp_path / "parts", *options, EVERY, f"resume={last}")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_the_table_has_every_epoch_after_an_end_between_checkpoint_and_table(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_training(whole, *SMALL, TWO_EPOCHS)

    original = MetricsTable.write

    def fail(self, path):
        if 1 in self.rows:
            raise RuntimeError("killed here")
        original(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsTable, "write", fail)
        with pytest.raises(RuntimeError, match="killed here"):
            run_training(parts, *SMALL, TWO_EPOCHS)
    assert [row["epoch"] for row in read_rows(parts / "metrics.csv")] == ["0"]
    run_training(parts, *SMALL, TWO_EPOCHS, f"resume={parts}/checkpoints/last.ckpt")
    assert differences(whole, parts) == []


# A finished run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch; tests resume copies of it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_training(folder, *SMALL, "trainer.max_epochs=1")
    return folder


@pytest.mark.parametrize(
    "change",
    [
        "optimizer.lr=0.5",
        "scheduler.gamma=0.3",
        "data.val_size=0.2",
        "task.decay_norm_and_bias=false",
        "callbacks.ema.enabled=true",
        "seed=1",
    ],
)
def test_settings_that_do_not_fit_the_state_are_refused(finished, change):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    typed = [*SMALL, TWO_EPOCHS, f"resume={finished}/checkpoints/last.ckpt", "resume_changes=true"]
    with pytest.raises(UserError, match="cannot become") as caught:
        run_training(finished, *typed, change)
    assert change.partition("=")[0] in caught.value.problem
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "change",
    [
        "trainer.accumulate_grad_batches=2",
        "trainer.limit_train_batches=6",
        "trainer.precision=bf16-mixed",
        "trainer.gradient_clip_val=0.1",
        "trainer.devices=2",
        "trainer.deterministic=true",
        "data.batch_size=16",
        "task.loss.label_smoothing=0.1",
    ],
)
def test_settings_that_change_the_training_have_to_be_requested(finished, change):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    typed = [*SMALL, TWO_EPOCHS, f"resume={finished}/checkpoints/last.ckpt"]
    with pytest.raises(UserError, match="changes the training") as caught:
        run_training(finished, *typed, change)
    assert "resume_changes=true" in caught.value.remedy
    assert change.partition("=")[0] in caught.value.problem
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", ["+optimizer.maximize=true", "~callbacks.step_seed"])
def test_added_and_removed_settings_are_refused_too(finished, change):
    last = f"resume={finished}/checkpoints/last.ckpt"
    with pytest.raises(UserError, match="when this run began"):
        run_training(finished, *SMALL, TWO_EPOCHS, last, change)


def test_requested_changes_are_printed_and_recorded(finished, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    caplog.set_level("INFO")
    last = f"resume={folder}/checkpoints/last.ckpt"
    typed = [*SMALL, last, "resume_changes=true", "trainer.gradient_clip_val=0.1"]
    run_training(folder, *typed, TWO_EPOCHS)
    assert "trainer.gradient_clip_val None -> 0.1" in caplog.text
    first = {"key": "trainer.gradient_clip_val", "before": None, "after": 0.1, "step": 12}
    assert read_results(folder)["resume_changes"] == [first]
    results = run_training(folder, *typed, "trainer.max_epochs=3", "data.batch_size=16")
    second = {"key": "data.batch_size", "before": 32, "after": 16, "step": 24}
    assert results["resume_changes"] == [first, second]


def test_a_mistyped_resume_leaves_a_finished_run_as_it_is(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    typed = [*SMALL, TWO_EPOCHS, f"resume={finished}/checkpoints/last.ckpt"]
    for change in (["trainer.accelerator=gpu", "resume_changes=true"], ["logger=tensorboardd"]):
        with pytest.raises((UserError, MissingConfigException)):
            run_training(finished, *typed, *change)
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("loops", "fit_loop"), [1]),
        (("loops", "fit_loop", "epoch_progress", "current", "ready"), "x"),
        (("optimizer_states",), torch.ones(3)),
        (("optimizer_states", 0), {}),
        (("optimizer_states", 0, "state", 2), 1.5),
        (("optimizer_states", 0, "param_groups", 0, "params"), [[]]),
        (("lr_schedulers", 0), None),
        (("callbacks", "Throughput"), 1),
        (("global_step",), None),
        (("loops", "fit_loop", "epoch_loop.batch_progress"), -1),
    ],
)
def test_an_odd_state_is_refused(finished, place, value, tmp_path):
    content = read_checkpoint(finished)
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(UserError, match="does not (hold|fit)"):
        run_training(tmp_path / "run", *SMALL, TWO_EPOCHS, f"resume={tmp_path}/odd.ckpt")


def test_settings_that_leave_the_training_as_it_is_may_change(finished, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder)
    results = run_training(
        folder,
        *SMALL,
        TWO_EPOCHS,
        "data.num_workers=1",
        "data.eval_batch_size=100",
        "trainer.log_every_n_steps=3",
        f"resume={folder}/checkpoints/last.ckpt",
    )
    assert results["epochs"] == 2 and results["checkpoint"].startswith("checkpoints")
    assert [row["epoch"] for row in read_rows(folder / "metrics.csv")] == ["0", "1"]


@pytest.mark.parametrize("change", ["trainer.max_epochs=1", "trainer.max_steps=11"])
def test_a_length_below_what_is_done_is_refused(change, tmp_path):
    run_training(tmp_path, *SMALL, TWO_EPOCHS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    last = f"resume={tmp_path}/checkpoints/last.ckpt"
    with pytest.raises(UserError, match="this run has done (2|24) already"):
        run_training(tmp_path, *SMALL, TWO_EPOCHS, change, last)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_run_with_nothing_left_says_so(finished, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    caplog.set_level("INFO")
    run_training(folder, *SMALL, "trainer.max_epochs=1", f"resume={folder}/checkpoints/last.ckpt")
    assert "Nothing is left to train: trainer.max_epochs is 1." in caplog.text


def test_a_moved_run_keeps_its_best_checkpoint(finished, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder)
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    key = next(name for name in content["callbacks"] if name.startswith(BestCheckpoint.__name__))
    best = content["callbacks"][key]
    lowest = torch.tensor(0.0)  # no validation loss can be lower
    best["best_model_score"] = best["kth_value"] = lowest
    best["best_k_models"] = dict.fromkeys(best["best_k_models"], lowest)
    content["run_record"]["best"]["score"] = 0.0
    torch.save(content, last)
    before = (folder / "checkpoints" / "best.ckpt").read_bytes()
    results = run_training(folder, *SMALL, TWO_EPOCHS, f"resume={last}")
    assert (folder / "checkpoints" / "best.ckpt").read_bytes() == before
    assert results["best_epoch"] == 0 and results["epochs"] == 2


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start"])
def test_a_resume_that_fails_early_keeps_the_results(finished, hook, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def fail(self, *args, **kwargs):
        raise RuntimeError("a mistake")

    before = read_results(folder)
    monkeypatch.setattr(StepSeed, hook, fail)
    with pytest.raises(RuntimeError, match="a mistake"):
        run_training(folder, *SMALL, TWO_EPOCHS, f"resume={folder}/checkpoints/last.ckpt")
    assert read_results(folder) == before
    run = read_results(folder, "run.json")
    assert run["status"] == ("completed" if hook == "setup" else "failed")


def test_a_resume_without_its_data_keeps_the_results(tmp_path):
    root = write_image_folder(tmp_path / "data", {"cat": 12, "dog": 12})
    options = ["data=dog_cat", f"data.root={root}", "data.val_size=6", "data.image_size=32"]
    options = [*SMALL, *options]
    run_training(tmp_path / "run", *options, "trainer.max_epochs=1")
    before = read_results(tmp_path / "run")
    shutil.rmtree(root)
    last = f"resume={tmp_path}/run/checkpoints/last.ckpt"
    with pytest.raises(UserError, match="data"):
        run_training(tmp_path / "run", *options, TWO_EPOCHS, last)
    assert read_results(tmp_path / "run") == before


def test_a_schedule_keeps_its_length(tmp_path):
    options = [*SMALL, "scheduler=onecycle"]
    run_training(tmp_path, *options, "trainer.max_epochs=1")
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="planned for 1 epochs, not for 2") as caught:
        run_training(tmp_path, *options, TWO_EPOCHS, f"resume={last}")
    assert "trainer.max_epochs=1" in caught.value.remedy


def test_a_damaged_checkpoint_names_the_command_with_the_other_one(finished, tmp_path):
    folder = tmp_path / "a b"
    shutil.copytree(finished, folder)
    last, best = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged") as caught:
        run_training(folder, *SMALL, f"resume='{last}'")
    assert caught.value.remedy.endswith(f"python train.py 'resume={best}'")
    results = run_training(folder, *SMALL, TWO_EPOCHS, f"resume='{best}'")
    assert results["epochs"] == 2


def test_a_file_with_weights_alone_cannot_be_resumed(finished, tmp_path):
    content = read_checkpoint(finished)
    path = tmp_path / "weights.ckpt"
    torch.save({key: content[key] for key in ("state_dict", "description")}, path)
    with pytest.raises(UserError, match="does not hold the state of a training"):
        run_training(finished, *SMALL, TWO_EPOCHS, f"resume={path}")


def test_a_folder_with_a_run_is_left_alone(finished):
    before = (finished / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="already holds a run") as caught:
        run_training(finished, *SMALL, "trainer.max_epochs=1")
    assert f"resume={finished}" in caught.value.remedy
    assert (finished / "config.yaml").read_bytes() == before


def _hold(path, held, done):
    with Lock(path):
        held.set()
        done.wait(60)


@forks
def test_a_run_is_not_resumed_while_it_runs(finished):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(finished / ".run.lock", held, done))
    process.start()
    before = {name: (finished / name).read_bytes() for name in ("run.json", "results.json")}
    try:
        assert held.wait(60)
        with pytest.raises(UserError, match="Another process is writing into"):
            last = f"resume={finished}/checkpoints/last.ckpt"
            run_training(finished, *SMALL, TWO_EPOCHS, last)
    finally:
        done.set()
        process.join()
    assert before == {name: (finished / name).read_bytes() for name in before}


def test_a_checkpoint_before_a_validation_waits(tmp_path, monkeypatch):
    """Lightning would skip that validation when the run is resumed."""
    steps = []
    original = LastCheckpoint.save

    def save(self, trainer):
        steps.append(trainer.global_step)
        original(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "save", save)
    options = ["callbacks.last.every_n_train_steps=4", "trainer.val_check_interval=0.5"]
    run_training(tmp_path, *SMALL, *options, TWO_EPOCHS)
    assert steps == [4, 8, 12, 16, 20, 24]
