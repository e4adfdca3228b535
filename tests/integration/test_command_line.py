"""Whole commands: errors in settings and in code, and what a check prints."""

from helpers import assert_two_lines, run_warm

NETWORK = """import torch
from torch import nn


class MyNet(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.layer = nn.Linear(99, num_classes)

    def forward(self, images):
        return self.layer(images.flatten(1))
"""


def test_a_mistake_in_a_network_shows_its_own_line(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    typed = ["model._target_=my_net.MyNet", "~model.dropout"]
    result = run_warm("train.py", *typed, cwd=tmp_path)
    lines = result.stderr.rstrip().splitlines()
    assert result.returncode == 1 and len(lines) <= 25, result.stderr
    assert any('my_net.py", line 11, in forward' in line for line in lines), result.stderr
    assert "    return self.layer(images.flatten(1))" in lines
    assert any("RuntimeError: mat1 and mat2" in line for line in lines)
    assert "empty images of 1x32x32" in lines[-2] and "HYDRA_FULL_ERROR=1" in lines[-1]
    (run,) = (tmp_path / "runs").iterdir()
    log = (run / "train.log").read_text()
    assert "Traceback" in log and "engine/train.py" in log


def test_a_mistake_in_the_settings_takes_two_lines(tmp_path):
    assert_two_lines(run_warm("train.py", "optimizer.lr=-1", cwd=tmp_path), "learning rate", "-1")
    result = run_warm("train.py", "trainer.max_epochs=ten", cwd=tmp_path)
    assert_two_lines(result, "trainer.max_epochs=ten", "integer")


def test_required_and_missing_files(tmp_path):
    assert_two_lines(run_warm("evaluate.py", cwd=tmp_path), "ckpt=")
    assert_two_lines(run_warm("evaluate.py", "ckpt=missing.ckpt", cwd=tmp_path), "missing.ckpt")
    assert_two_lines(run_warm("predict.py", "ckpt=missing.ckpt", cwd=tmp_path), "path=")
    assert_two_lines(run_warm("export.py", "ckpt=missing.ckpt", cwd=tmp_path), "missing.ckpt")


def test_a_check_prints_one_line_and_leaves_nothing(tmp_path):
    result = run_warm("train.py", "check=true", "model=lenet", cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.count("\n") == 1, result.stderr
    assert "LeNet on Digits, 61,706 parameters" in result.stdout
    assert not list(tmp_path.iterdir())
