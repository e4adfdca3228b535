"""Whole commands: train.py as it is typed."""

import re

import pytest
import yaml
from helpers import QUICK, assert_two_lines, run_script, run_training, run_warm
from run_helpers import SMALL, read_results, read_rows


@pytest.mark.slow
def test_training_on_files_in_their_original_format(cifar_root, tmp_path):
    data = ["data=cifar10", f"data.root={cifar_root}", "data.batch_size=16"]
    result = run_script("train.py", "model=simple_v3", *data, *QUICK, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}(-\d\d){2}_\d\d-\d\d-\d\d-\d{6}_simple_v3_cifar10", run.name)
    assert "SimpleV3 on CIFAR10: 419,690 parameters; 180 train, 20 val" in result.stdout
    assert "airplane" in result.stdout and str(run) in result.stdout
    results = read_results(run)
    assert results["status"] == "completed"
    assert read_results(run, "run.json")["command"][0] == "train.py"
    events = {path.parent.name for path in run.rglob("events.out.tfevents.*")}
    assert events == {"train", "val", "test", "results"}
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["runs"]


def test_resume_last_continues_the_newest_run_in_its_folder(tmp_path):
    run = tmp_path / "runs" / "a b=1,(c) 猫"
    run_training(run, *SMALL, "optimizer.lr=0.05", "trainer.max_epochs=1")
    result = run_warm("train.py", "resume=last", "trainer.max_epochs=3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]
    assert read_results(run)["epochs"] == 3
    assert [row["epoch"] for row in read_rows(run / "metrics.csv")] == ["0", "1", "2"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 0.05 and config["trainer"]["max_epochs"] == 3


def test_a_resume_with_other_settings_is_refused_in_two_lines(tmp_path):
    run = tmp_path / "runs" / "one"
    run_training(run, *SMALL, "trainer.max_epochs=1")
    before = (run / "results.json").read_bytes()
    for change in ("trainer.accumulate_grad_batches=2", "data.batch_size=16"):
        result = run_warm("train.py", f"resume={run}", change, cwd=tmp_path)
        assert_two_lines(result, change.partition("=")[0], "when this run began")
    assert (run / "results.json").read_bytes() == before


NETWORK = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.layer = nn.Linear(in_channels, num_classes)

    def forward(self, images):
        if self.training:
            return self.layer(images.undefined)
        return self.layer(images.mean((2, 3)))
"""


def test_a_mistake_in_own_code_is_shown_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["model=lenet", "model._target_=mine.Mine", "hydra.run.dir=run", *QUICK]
    result = run_warm("train.py", *own, cwd=tmp_path)
    assert result.returncode == 1
    line = NETWORK.splitlines().index("            return self.layer(images.undefined)") + 1
    assert f'mine.py", line {line}, in forward' in result.stderr
    assert result.stderr.splitlines()[-2].endswith("'Tensor' object has no attribute 'undefined'")
    assert "Error:" not in result.stderr.replace("AttributeError:", "")
    assert len(result.stderr.splitlines()) < 30
    assert read_results(tmp_path / "run")["status"] == "failed"


def test_a_check_leaves_nothing_behind(tmp_path):
    result = run_warm("train.py", "check=true", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "The settings work: SimpleV3 on Digits" in result.stdout
    assert not list(tmp_path.iterdir())
