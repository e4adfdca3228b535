"""Several processes (gloo, on the CPU) compared with one."""

import pytest
import torch
from helpers import composed, run_script, run_training
from run_helpers import read_checkpoint, read_results, read_rows

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "logger=none"]


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does(dog_cat_root, tmp_path):
    """Odd splits: 11 test, 13 val and 36 train images, in batches of 2 x 5 or of 10."""
    from src.engine.evaluate import evaluate

    options = [
        "data=image_folder",
        f"data.root={dog_cat_root}",
        "data.test_size=11",
        "data.val_size=13",
        "data.image_size=32",
        "data.eval_batch_size=3",
        "model=lenet",
        "optimizer.lr=0.01",
        "trainer.max_epochs=3",
    ]
    place = ["data.batch_size=5", "hydra.run.dir=run"]
    done = run_script("train.py", *TWO, *options, *place, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    two = read_results(run)
    record = read_results(run, "run.json")
    assert record["processes"] == 2 and record["data"]["sizes"] == {"train": 36, "val": 13}

    # Every image is counted once.
    classes = read_rows(run / "per_class.csv")
    assert sum(int(row["support"]) for row in classes) == 11
    predictions = read_rows(run / "predictions.csv")
    assert len(predictions) == len({row["image"] for row in predictions}) == 11
    assert two["val"]["acc"] * 13 == pytest.approx(round(two["val"]["acc"] * 13), abs=1e-9)

    # The same checkpoint in one process.
    typed = [f"ckpt='{run}/checkpoints/best.ckpt'", "trainer.accelerator=cpu"]
    again = evaluate(composed(typed, "evaluate"), tmp_path / "again")
    for name, value in two["test"].items():
        close = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        assert again[name] == close, name
    assert read_rows(tmp_path / "again" / "per_class.csv") == classes

    # The same training in one process with the same global batch.
    one = run_training(tmp_path / "one", *options, "data.batch_size=10")
    split = read_results(tmp_path / "one", "run.json")["data"]["split_hash"]
    assert split == record["data"]["split_hash"]
    assert one["val"]["loss"] == pytest.approx(two["val"]["loss"], rel=1e-4)
    assert one["best_epoch"] == two["best_epoch"]
    weights = [read_checkpoint(path, "best")["state_dict"] for path in (run, tmp_path / "one")]
    assert list(weights[0]) == list(weights[1])
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-4, rtol=0)

    # One set of files, and one line per epoch.
    files = [{path.name for path in folder.iterdir()} for folder in (run, tmp_path / "one")]
    other_log = "train_ddp_process_1.log"  # only where that process had something to report
    assert files[0] - {other_log} == files[1] | {".hydra", "train.log"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert not (tmp_path / "runs").exists()
    assert len(read_rows(run / "metrics.csv")) == 3 and done.stdout.count("epoch   1/3") == 1


@pytest.mark.slow
def test_a_split_too_small_for_the_processes_is_refused(dog_cat_root, tmp_path):
    data = ["data=dog_cat", f"data.root={dog_cat_root}", "data.val_size=2", "data.image_size=32"]
    done = run_script("train.py", *TWO, "trainer.devices=3", *data, "model=lenet", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "2 images for 3 processes are too few" in done.stderr


@pytest.mark.slow
def test_jobs_of_a_sweep_may_have_several_processes(tmp_path):
    options = ["trainer=ddp", "trainer.accelerator=cpu", "logger=none", "model=simple_v3"]
    options += ["data.image_size=16", "data.val_size=129", "trainer.max_epochs=1"]
    done = run_script("train.py", "-m", *options, "trainer.devices=2,1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"sweeps"}
    assert {path.name for path in sweep.iterdir() if path.is_dir()} >= {"0", "1"}
    assert [read_results(sweep / job, "run.json")["processes"] for job in "01"] == [2, 1]
    place = ["trainer.devices=2", "hydra.run.dir=alone"]
    alone = run_script("train.py", *options, *place, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    job, single = read_results(sweep / "0"), read_results(tmp_path / "alone")
    assert job["val"] == single["val"] and job["test"] == single["test"]
