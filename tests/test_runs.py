"""Whole runs: what they leave behind, that they repeat, resume and evaluate to the same figures."""

import csv
import json
import math

import pytest
import torch
import yaml
from conftest import ROOT, composed, run_script, run_training, run_warm

from src import checkpoint as ckpt
from src.errors import UserError


def test_run_folder_is_complete(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert {"config.yaml", "metrics.csv", "results.json", "run.json", "per_class.csv", "checkpoints"} <= names
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}

    results = json.loads((finished_run / "results.json").read_text())
    assert results["status"] == "completed"
    assert results["epochs"] == 2 and results["seed"] == 0 and results["num_parameters"] == 61706
    assert set(results["test"]["per_class"]) == set("0123456789")
    assert 0.3 < results["test"]["acc"] <= 1 and results["train_seconds"] > 0 and results["images_per_second"] > 0

    rows = list(csv.DictReader(open(finished_run / "metrics.csv")))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    assert float(rows[results["best_epoch"]]["val/loss"]) == pytest.approx(results["val"]["loss"], rel=1e-5)

    classes = list(csv.DictReader(open(finished_run / "per_class.csv")))
    assert [row["class"] for row in classes] == list("0123456789") and {row["split"] for row in classes} == {"test"}
    hits = sum(float(row["recall"]) * int(row["support"]) for row in classes)
    assert hits / 360 == pytest.approx(results["test"]["acc"])

    run = json.loads((finished_run / "run.json").read_text())
    assert run["status"] == "completed" and run["data"]["sizes"] == {"train": 1293, "val": 144}
    assert run["automatic"] == {"onednn": True, "channels_last": True, "fused": True}
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["model"] == {"_target_": "src.models.LeNet"} and config["optimizer"]["lr"] == 0.05


def test_every_checkpoint_loads_with_weights_only_and_describes_itself(finished_run):
    for name in ("best", "last"):
        content = torch.load(finished_run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        description = content["description"]
        assert description["classes"] == list("0123456789") and description["image_size"] == 32
        assert description["model"] == {
            "_target_": "src.models.LeNet",
            "in_channels": 1,
            "num_classes": 10,
            "image_size": 32,
        }
        assert description["metrics"]["val/acc"] > 0.3
        assert not [key for key in content["state_dict"] if "_orig_mod" in key or "module." in key]


def test_seed_0_is_a_seed_and_runs_repeat(tmp_path):
    options = ("model=lenet", "trainer.max_epochs=1", "data/augment=crop_flip", "test=false")
    losses = [run_training(tmp_path / f"{i}", *options, f"seed={seed}")["val"]["loss"] for i, seed in enumerate((0, 0, 1))]
    assert losses[0] == losses[1] != losses[2]


def test_resumed_run_equals_the_undisturbed_one(tmp_path):
    options = ("model=simple_v3", "data/augment=crop_flip", "data.image_size=16", "scheduler=cosine", "trainer.limit_train_batches=8")
    whole = run_training(tmp_path / "whole", *options, "trainer.max_epochs=4")

    # The schedule spans the whole run, so the first part is told of all four epochs and cut off behind the second.
    class Cut(BaseException):
        pass

    from src.callbacks import Progress

    original = Progress.on_train_epoch_start

    def cut(self, trainer, module):
        if trainer.current_epoch == 2:
            raise Cut
        original(self, trainer, module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "on_train_epoch_start", cut)
        with pytest.raises(Cut):
            run_training(tmp_path / "parts", *options, "trainer.max_epochs=4")
    assert json.loads((tmp_path / "parts" / "results.json").read_text())["status"] == "failed"
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    parts = run_training(tmp_path / "parts", *options, "trainer.max_epochs=4", f"resume={last}")

    assert parts["test"] == whole["test"] and parts["val"] == whole["val"]
    weights = [torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("whole", "parts")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    tables = [list(csv.DictReader(open(tmp_path / run / "metrics.csv"))) for run in ("whole", "parts")]
    timing = ("seconds", "images_per_second")
    assert [{k: v for k, v in row.items() if k not in timing} for row in tables[0]] == [
        {k: v for k, v in row.items() if k not in timing} for row in tables[1]
    ]
    assert len(json.loads((tmp_path / "parts" / "run.json").read_text())["earlier"]) == 1


def test_evaluate_repeats_the_test_figures_from_another_directory(finished_run, tmp_path):
    moved = tmp_path / "a b=1,(c) 猫"
    moved.mkdir()
    (moved / "best.ckpt").write_bytes((finished_run / "checkpoints" / "best.ckpt").read_bytes())
    result = run_warm("evaluate.py", f"ckpt={moved / 'best.ckpt'}", "hydra.run.dir=out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    trained = json.loads((finished_run / "results.json").read_text())
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    assert again["test"] == trained["test"]
    assert (tmp_path / "out" / "per_class.csv").read_text() == (finished_run / "per_class.csv").read_text()


def test_without_a_test_split_the_table_says_val(dog_cat_root, tmp_path):
    results = run_training(
        tmp_path, "data=dog_cat", f"data.root={dog_cat_root}", "data.val_size=20", "data.image_size=32", "model=lenet",
        "trainer.max_epochs=1",
    )  # fmt: skip
    assert results["test"] is None and results["val"]["acc_balanced"] >= 0
    assert {row["split"] for row in csv.DictReader(open(tmp_path / "per_class.csv"))} == {"val"}


def test_early_stopping_by_one_override(tmp_path):
    results = run_training(
        tmp_path, "model=lenet", "optimizer.lr=0", "optimizer.weight_decay=0", "trainer.max_epochs=9", "data.image_size=16",
        "callbacks.early_stopping.enabled=true", "callbacks.early_stopping.patience=2",
    )  # fmt: skip
    assert results["epochs"] == 3


def test_a_failed_run_says_so(tmp_path):
    with pytest.raises(UserError, match="data.val_size"):
        run_training(tmp_path, "data.val_size=0.0001")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "failed" and "val_size" in results["error"]
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"


def test_nan_loss_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="train/loss became"):
        run_training(tmp_path, "model=lenet", "optimizer.lr=1e20", "trainer.log_every_n_steps=2")


def test_a_resumed_config_changes_only_what_is_typed(finished_run):
    from src.stored_config import continued_config

    typed = ["trainer.max_epochs=7", f"resume='{finished_run}/checkpoints/last.ckpt'"]
    cfg = continued_config(composed(typed), typed)
    assert cfg.trainer.max_epochs == 7 and cfg.optimizer.lr == 0.05 and cfg.model._target_ == "src.models.LeNet"


def test_training_from_the_command_line(cifar_root, tmp_path):
    """The command that the project is known by, on files in the original format."""
    from conftest import QUICK

    result = run_script(
        "train.py", "model=simple_v3", "data=cifar10", f"data.root={cifar_root}", "data.batch_size=16", *QUICK, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert "SimpleV3 on CIFAR10: 419,690 parameters; 180 train, 20 val pictures" in result.stdout
    assert "airplane" in result.stdout and json.loads((run / "results.json").read_text())["status"] == "completed"
    assert {path.parent.name for path in run.rglob("events.out.tfevents.*")} == {"train", "val", "test", "results"}
    assert (ROOT / "conf").is_dir()


def test_resume_last_goes_on_in_the_newest_run(tmp_path):
    """From the shell: the run's own config, changed only by what is typed, in the run's own folder."""
    run = tmp_path / "runs" / "a b=1,c"
    run_training(run, "model=lenet", "optimizer.lr=0.05", "data.image_size=16", "trainer.max_epochs=1")
    result = run_warm("train.py", "resume=last", "trainer.max_epochs=3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]
    results = json.loads((run / "results.json").read_text())
    assert results["epochs"] == 3 and len(list(csv.DictReader(open(run / "metrics.csv")))) == 3
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 0.05 and config["trainer"]["max_epochs"] == 3


def test_network_from_a_task_composed_by_hand_needs_the_network(tmp_path):
    import lightning as L

    from src.datamodules import DigitsDataModule
    from src.models import LeNet
    from src.tasks import ClassificationTask

    data = DigitsDataModule(image_size=16)
    net = LeNet(data.channels, len(data.classes), data.image_size)
    task = ClassificationTask(net, data.classes, data.mean, data.std)
    trainer = L.Trainer(
        max_steps=2, logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, accelerator="cpu"
    )
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    stored = ckpt.read(tmp_path / "own.ckpt")
    assert stored["description"]["classes"] == data.classes and stored["description"]["image_size"] == 16
    with pytest.raises(UserError, match="src.load"):
        ckpt.network(stored)
    again = ckpt.network(stored, LeNet(1, 10, 16))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values(), strict=True))


@pytest.mark.parametrize("options", [["trainer.val_check_interval=0.5"], ["callbacks.last.every_n_train_steps=7"]])
def test_a_run_cut_off_in_the_middle_of_an_epoch_ends_bit_equal(options, tmp_path):
    from src.callbacks import StepSeed

    common = ["model=simple_v3", "data/augment=crop_flip", "data.image_size=16", "trainer.limit_train_batches=12", "trainer.max_epochs=2"]
    common += ["callbacks.last.every_n_train_steps=7", *options]
    whole = run_training(tmp_path / "whole", *common)

    class Cut(BaseException):
        pass

    original = StepSeed.on_train_batch_end

    def cut(self, trainer, *args, **kwargs):
        original(self, trainer, *args, **kwargs)
        if self.batches == 17:
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepSeed, "on_train_batch_end", cut)
        with pytest.raises(Cut):
            run_training(tmp_path / "parts", *common)
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 14
    parts = run_training(tmp_path / "parts", *common, f"resume={last}")
    assert parts["test"] == whole["test"] and parts["val"] == whole["val"]
    weights = [torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("whole", "parts")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    tables = [list(csv.DictReader(open(tmp_path / run / "metrics.csv"))) for run in ("whole", "parts")]
    timing = ("seconds", "images_per_second")
    assert [{k: v for k, v in row.items() if k not in timing} for row in tables[0]] == [
        {k: v for k, v in row.items() if k not in timing} for row in tables[1]
    ]


def test_a_schedule_is_not_stretched(tmp_path):
    run_training(tmp_path, "model=lenet", "data.image_size=16", "trainer.max_epochs=1", "scheduler=onecycle")
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="laid out for 1 epochs"):
        run_training(tmp_path, "model=lenet", "data.image_size=16", "trainer.max_epochs=2", "scheduler=onecycle", f"resume={last}")


def test_a_loaded_network_predicts_from_the_file_alone(finished_run):
    import src
    from src.datamodules import DigitsDataModule

    net = src.load(finished_run / "checkpoints" / "best.ckpt")
    data = DigitsDataModule()
    data.setup("test")
    images = data.images("test", torch.arange(360))
    hits = (net(images).argmax(1) == data.labels("test")).float().mean().item()
    assert hits == pytest.approx(json.loads((finished_run / "results.json").read_text())["test"]["acc"])
    assert net.classes == list("0123456789") and not net.training
    from PIL import Image

    picture = images[0, 0].numpy()
    results = [net.predict(x) for x in (Image.fromarray(picture), picture, images[0], [picture])]
    assert all(torch.equal(results[0], other) for other in results) and results[0].sum().item() == pytest.approx(1)


def test_onednn_is_left_out_for_tiny_batches_alone_and_gives_way(tmp_path):
    options = ["model=lenet", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "data.batch_size=4"]
    for name, typed, expected in (("a", [], False), ("b", ["onednn=true"], None), ("c", ["data.batch_size=16"], True)):
        run_training(tmp_path / name, *options, *typed)
        automatic = json.loads((tmp_path / name / "run.json").read_text())["automatic"]
        assert automatic.get("onednn") is expected
    assert torch.backends.mkldnn.enabled


def test_the_table_has_the_rates_that_were_trained_with_and_validations_as_asked_for(tmp_path):
    options = ["model=lenet", "data.image_size=16", "trainer.max_epochs=4", "trainer.limit_train_batches=2", "test=false"]
    options += ["scheduler.step_size=2", "scheduler.gamma=0.5", "optimizer.lr=0.02"]
    run_training(tmp_path, *options, "trainer.check_val_every_n_epoch=2")
    rows = list(csv.DictReader(open(tmp_path / "metrics.csv")))
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.02, 0.02, 0.01, 0.01])
    assert [bool(row["val/loss"]) for row in rows] == [False, True, False, True]
