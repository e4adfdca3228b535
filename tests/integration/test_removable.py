"""Every callback and every logger can be taken out."""

import copy
import math
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT, composed
from omegaconf import OmegaConf

from src.engine.train import train

NODES = yaml.safe_load((ROOT / "conf/callbacks/default.yaml").read_text())
OFF = [name for name, node in NODES.items() if node.get("enabled") is False]  # by default
LOGGERS = ["csv", "none", "tensorboard"]  # others need extras: tests/loggers
QUICK = [
    "model=lenet",
    "data.image_size=16",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.num_sanity_val_steps=0",
]


@pytest.fixture(scope="module")
def config():
    """Composed once; without the report, which takes most of the time of such a run."""
    cfg = composed([*QUICK, "logger=none", "~callbacks.report"])
    OmegaConf.set_struct(cfg, False)
    return cfg


def trains(cfg, folder):
    return math.isfinite(train(cfg, folder)["val"]["loss"])


@pytest.mark.parametrize("name", sorted({*NODES} - {*OFF, "report"}))
def test_a_callback_is_taken_out(name, config, tmp_path):
    cfg = copy.deepcopy(config)
    cfg.callbacks.pop(name)
    assert trains(cfg, tmp_path)


def test_callbacks_that_are_off_are_taken_out(config, tmp_path):
    cfg = copy.deepcopy(config)
    for name in OFF:
        cfg.callbacks.pop(name)
    assert trains(cfg, tmp_path)


def test_callbacks_that_are_off_are_switched_on(config, tmp_path):
    cfg = copy.deepcopy(config)
    for name in set(OFF) - {"compile", "swa"}:  # swa averages as ema does
        cfg.callbacks[name].enabled = True
    assert trains(cfg, tmp_path)


def test_all_callbacks_are_taken_out(config, tmp_path):
    cfg = copy.deepcopy(config)
    cfg.callbacks = {}
    assert trains(cfg, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", LOGGERS)
def test_each_logger_alone(name, tmp_path):
    assert trains(composed([*QUICK, f"logger={name}", "~callbacks.report"]), tmp_path)
    assert (tmp_path / "metrics.csv").is_file()


def own_callbacks():
    own = {name: node["_target_"] for name, node in NODES.items() if "src." in node["_target_"]}
    return [(name, target.rpartition(".")[2]) for name, target in own.items()]


def delete_callback(project, name, cls):
    """Delete a callback's file, its lines in `__init__.py` and its block in the YAML."""
    package = project / "src" / "callbacks"
    init = package / "__init__.py"
    text = init.read_text()
    (module,) = re.findall(rf"from \.(\w+) import [^\n]*\b{cls}\b", text)
    names = re.findall(rf"from \.{module} import ([^\n]*)", text)[0].split(", ")
    (package / f"{module}.py").unlink()
    lines = [line for line in text.splitlines() if f"from .{module} import" not in line]
    lines = [line for line in lines if line.strip().strip('",') not in names]
    init.write_text("\n".join(lines) + "\n")
    file = project / "conf" / "callbacks" / "default.yaml"
    content = yaml.safe_load(file.read_text())
    removed = [key for key in content if content[key]["_target_"].rpartition(".")[2] in names]
    kept = {key: node for key, node in content.items() if key not in removed}
    file.write_text(yaml.safe_dump(kept, sort_keys=False))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cls"), own_callbacks())
def test_the_files_of_a_callback_are_deleted(name, cls, tmp_path):
    project = tmp_path / "project"
    for folder in ("src", "conf", "hydra_plugins"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, project / folder, ignore=ignored)
    shutil.copy(ROOT / "train.py", project)
    delete_callback(project, name, cls)
    command = [sys.executable, "train.py", *QUICK, "hydra.run.dir=run"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    if name != "run_recorder":  # which writes it
        assert (project / "run" / "results.json").is_file()
