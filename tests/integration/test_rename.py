"""The package can be renamed with one command."""

import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_a_fork_renames_the_package(tmp_path):
    for folder in ("src", "conf", "hydra_plugins"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, tmp_path)
    (tmp_path / "src").rename(tmp_path / "mylib")
    for file in [*tmp_path.glob("conf/**/*.yaml"), *tmp_path.glob("*.py")]:
        file.write_text(re.sub(r"\bsrc\.", "mylib.", file.read_text()))
    plugin = tmp_path / "hydra_plugins" / "processes.py"
    plugin.write_text(re.sub(r"\bsrc\.", "mylib.", plugin.read_text()))
    command = [sys.executable, "train.py", "model=lenet", "trainer.max_epochs=1"]
    command += ["trainer.accelerator=cpu", "trainer.limit_train_batches=2", "hydra.run.dir=run"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    command = [sys.executable, "evaluate.py", f"ckpt={checkpoint}", "trainer.accelerator=cpu"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
