"""Several processes (gloo, on the CPU) against one: every picture counted once, one folder, one best checkpoint."""

import csv
import json

import pytest
import torch
from conftest import run_script, run_training

from src.errors import UserError
from src.evaluation import evaluate

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "logger=none"]


@pytest.mark.slow
def test_two_processes_measure_and_train_as_one_does(dog_cat_root, tmp_path):
    """Odd splits: 11 pictures test, 13 validate, 36 train, in batches of 2 x 5 against 10."""
    from conftest import composed

    options = [
        "data=image_folder", f"data.root={dog_cat_root}", "data.test_size=11", "data.val_size=13", "data.image_size=32", "model=lenet",
        "trainer.max_epochs=3", "optimizer.lr=0.01", "data.eval_batch_size=3",
    ]  # fmt: skip
    done = run_script("train.py", *TWO, *options, "data.batch_size=5", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    two = json.loads((run / "results.json").read_text())
    facts = json.loads((run / "run.json").read_text())
    assert facts["processes"] == 2 and facts["data"]["sizes"] == {"train": 36, "val": 13}

    # The same checkpoint in one process, from the file alone.
    again = evaluate(composed([f"ckpt='{run}/checkpoints/best.ckpt'", "trainer.accelerator=cpu"], "evaluate"), tmp_path / "again")
    for name, value in two["test"].items():
        assert again[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name
    assert (tmp_path / "again" / "per_class.csv").read_text() == (run / "per_class.csv").read_text()
    assert sum(int(row["support"]) for row in csv.DictReader(open(run / "per_class.csv"))) == 11
    assert two["val"]["acc"] * 13 == pytest.approx(round(two["val"]["acc"] * 13), abs=1e-9)

    # The same training in one process at the same global batch.
    one = run_training(tmp_path / "one", *options, "data.batch_size=10")
    assert json.loads((tmp_path / "one" / "run.json").read_text())["data"]["split_hash"] == facts["data"]["split_hash"]
    assert one["val"]["loss"] == pytest.approx(two["val"]["loss"], rel=1e-4) and one["best_epoch"] == two["best_epoch"]
    weights = [torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"] for folder in (run, tmp_path / "one")]
    assert list(weights[0]) == list(weights[1])
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-4) for name in weights[0])

    # One set of files, told by one process.
    assert {path.name for path in run.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()} | {".hydra", "train.log"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()].count("runs") == 0
    assert len(list(csv.DictReader(open(run / "metrics.csv")))) == 3 and done.stdout.count("epoch   1/3") == 1


def test_a_split_too_small_for_the_processes_is_told_before_they_start(tmp_path):
    with pytest.raises(UserError, match="12 processes cannot share the 11 pictures of the val split") as told:
        run_training(tmp_path, *TWO[:2], "trainer.devices=12", "data.val_size=11")
    assert "data.val_size" in told.value.remedy


@pytest.mark.slow
def test_jobs_of_a_sweep_may_have_several_processes(tmp_path):
    """Each is one run with the figures that it has on its own, in one folder of one sweep."""
    options = ["trainer=ddp", "trainer.accelerator=cpu", "logger=none", "model=simple_v3", "data.image_size=16", "trainer.max_epochs=1"]
    done = run_script("train.py", "-m", *options, "trainer.devices=2,1", "data.val_size=129", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (sweep,) = (tmp_path / "sweeps").iterdir()  # ${now:} in the folder's name is not asked twice
    assert [path.name for path in tmp_path.iterdir()] == ["sweeps"]
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"0", "1"}
    runs = [json.loads((sweep / job / "run.json").read_text()) for job in "01"]
    assert [run["processes"] for run in runs] == [2, 1]
    alone = run_script("train.py", *options, "trainer.devices=2", "data.val_size=129", "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    results = [json.loads((folder / "results.json").read_text()) for folder in (sweep / "0", tmp_path / "alone")]
    assert results[0]["val"] == results[1]["val"] and results[0]["test"] == results[1]["test"]
