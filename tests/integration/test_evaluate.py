"""evaluate.py as typed on a command line."""

import json

import pytest
from helpers import assert_two_lines, run_script, run_warm

from src.runs import checkpoint
from src.runs.checkpoint_file import save


def test_evaluate_from_another_folder(finished_run, tmp_path):
    best = finished_run / "checkpoints" / "best.ckpt"
    result = run_warm(
        "evaluate.py", f"ckpt={best}", "trainer.accelerator=cpu", "hydra.run.dir=out", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    trained = json.loads((finished_run / "results.json").read_text())
    assert again["test"] == trained["test"]
    assert again["checkpoint"] == str(best)


def test_a_network_that_gives_nan_ends_with_exit_code_1(finished_run, tmp_path):
    content = checkpoint.read(finished_run)
    for tensor in content["state_dict"].values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    save(content, tmp_path / "nan.ckpt")
    typed = [f"ckpt={tmp_path / 'nan.ckpt'}", "trainer.accelerator=cpu", "hydra.run.dir=out"]
    result = run_warm("evaluate.py", *typed, cwd=tmp_path)
    assert result.returncode == 1 and "loss is nan" in result.stdout and not result.stderr


def test_settings_errors_have_two_lines(tmp_path):
    assert_two_lines(run_script("evaluate.py", cwd=tmp_path), "ckpt= is missing")
    result = run_warm("evaluate.py", "ckpt=nowhere.ckpt", cwd=tmp_path)
    assert_two_lines(result, "There is no checkpoint nowhere.ckpt")


@pytest.mark.slow
def test_two_processes_count_each_image_once(tmp_path):
    """An odd number of images on two processes gives the values and tables of one process."""
    result = run_script(
        "train.py",
        "model=lenet",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "data.val_size=143",
        "test=false",
        "logger=none",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    run, again = tmp_path / "run", tmp_path / "again"
    arguments = (f"ckpt={run}/checkpoints/best.ckpt", "split=val", "trainer.accelerator=cpu")
    result = run_script("evaluate.py", *arguments, "hydra.run.dir=again", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    trained = json.loads((run / "results.json").read_text())["val"]
    evaluated = json.loads((again / "results.json").read_text())["val"]
    assert {key: evaluated[key] for key in trained} == pytest.approx(trained, rel=1e-5)
    assert (again / "confusion.csv").read_text() == (run / "confusion.csv").read_text()
    tables = [(folder / "misclassified.csv").read_text() for folder in (run, again)]
    names = [sorted(row.split(",")[0] for row in table.splitlines()) for table in tables]
    assert names[0] == names[1]
