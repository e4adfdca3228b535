"""Every callback and every logger can be taken out."""

import math
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT, run_training

CALLBACKS = list(yaml.safe_load((ROOT / "conf/callbacks/default.yaml").read_text()))
LOGGERS = sorted(path.stem for path in (ROOT / "conf/logger").glob("*.yaml"))
QUICK = [
    "model=lenet",
    "data.image_size=16",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.num_sanity_val_steps=0",
]
NO_REPORT = "~callbacks.report"  # which takes most of the time of such a run
WITH_EXTRA = {  # callbacks that are off by default
    name: f"callbacks.{name}.enabled=true"
    for name in ("compile", "freeze_backbone", "ema", "swa", "early_stopping")
}


def trains(folder, *overrides):
    loss = run_training(folder, *QUICK, *overrides)["val"]["loss"]
    return math.isfinite(loss)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_is_taken_out(name, tmp_path):
    others = [] if name == "report" else [NO_REPORT]
    assert trains(tmp_path, f"~callbacks.{name}", *others)


@pytest.mark.parametrize("name", [n for n in WITH_EXTRA if n not in ("compile", "freeze_backbone")])
def test_a_callback_is_switched_on(name, tmp_path):
    assert trains(tmp_path, WITH_EXTRA[name], NO_REPORT)


def test_all_callbacks_are_taken_out(tmp_path):
    removed = [f"~callbacks.{name}" for name in CALLBACKS]
    assert trains(tmp_path, *removed, "+trainer.enable_progress_bar=false")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", LOGGERS)
def test_each_logger_alone(name, tmp_path):
    assert trains(tmp_path, f"logger={name}", NO_REPORT)
    assert (tmp_path / "metrics.csv").is_file()


def test_without_any_logger(tmp_path):
    assert trains(tmp_path, "logger=[]", NO_REPORT)


# Files. Callbacks that others build upon stay: the base class and what the recorder and the signal
# handler save with.

NEEDED = ("last", "best", "onednn", "run_recorder")


def own_callbacks():
    content = yaml.safe_load((ROOT / "conf/callbacks/default.yaml").read_text())
    own = {name: node["_target_"] for name, node in content.items() if "src." in node["_target_"]}
    return [(name, t.rpartition(".")[2]) for name, t in own.items() if name not in NEEDED]


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
    command = [sys.executable, "train.py", *QUICK, "trainer.accelerator=cpu", "hydra.run.dir=run"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (project / "run" / "results.json").is_file()
