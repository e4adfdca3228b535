"""Every shipped YAML is built, every experiment takes real steps, and the house rules hold."""

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, composed, pictures, run_script, run_training, write_folder

from src.build import build, build_trainer
from src.datamodules import ImageDataModule

CONF = ROOT / "conf"
OPTIONS = [
    f"{path.parent.relative_to(CONF).as_posix()}={path.stem}"
    for group in ("data/augment", "model", "task", "optimizer", "scheduler", "metrics", "trainer", "callbacks", "logger")
    for path in sorted((CONF / group).glob("*.yaml"))
]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SMALL = {"cifar10": 16, "fashion_mnist": 16, "dog_cat": 8, "digits": 16}  # batch sizes


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_builds(option, tmp_path):
    cfg = composed([option, *(["data.channels=3"] if "torchvision" in option else [])])
    data, task = build(cfg)
    assert task.model is not None and len(task.classes) == len(data.classes)
    if option.split("=")[0] in ("trainer", "callbacks", "logger"):
        assert build_trainer(cfg, tmp_path).max_epochs == cfg.trainer.max_epochs


@pytest.mark.parametrize("name", [path.stem for path in (CONF / "data").glob("*.yaml")])
def test_every_data_set_builds_with_the_same_names(name, tmp_path):
    write_folder(tmp_path, {"cat": 2, "dog": 2}, size=8)
    data, task = build(composed([f"data={name}", f"data.root={tmp_path}", "data.image_size=32"]))
    assert isinstance(data, ImageDataModule) and task.mean.shape[1] == data.channels
    common = set(composed(["data=digits"]).data)
    assert common <= set(composed([f"data={name}"]).data)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "vgg16" in name else ()) for name in EXPERIMENTS])
def test_every_experiment_takes_real_steps(name, cifar_root, fashion_root, dog_cat_root, tmp_path):
    cfg = composed([f"experiment={name}"])
    kinds = {"CIFAR10": "cifar10", "FashionMNIST": "fashion_mnist", "DogCat": "dog_cat", "Digits": "digits"}
    kind = kinds[cfg.data._target_.rpartition(".")[2].removesuffix("DataModule")]
    root = {"cifar10": cifar_root, "fashion_mnist": fashion_root, "dog_cat": dog_cat_root, "digits": tmp_path}[kind]
    small = ["data.image_size=64"] if kind == "dog_cat" else []
    if "weights" in cfg.model:
        small.append("model.weights=null")
    if name == "vgg16_cifar10":
        small += ["trainer.limit_train_batches=1", "trainer.limit_test_batches=1"]
    quick = [item for item in QUICK if not any(item.split("=")[0] == other.split("=")[0] for other in small)]
    results = run_training(
        tmp_path, f"experiment={name}", f"data.root={root}", "data.val_size=20", f"data.batch_size={SMALL[kind]}", *quick, *small
    )
    assert results["status"] == "completed" and results["val"]["loss"] > 0


def test_every_experiment_says_its_command_and_what_was_measured():
    for name in EXPERIMENTS:
        header = (CONF / "experiment" / f"{name}.yaml").read_text().split("defaults:")[0]
        assert f"python train.py experiment={name}" in header and "Measured here:" in header


def test_imports_flow_one_way():
    """Networks import torch alone; data sets, networks and tasks never one another; Hydra stays with the builder and entry points."""
    allowed = {
        "models": {"src.models"},
        "datamodules": {"src.datamodules", "src.decode", "src.errors"},
        "tasks": {"src.tasks", "src.errors"},
        "callbacks": {"src.callbacks", "src.errors"},
    }
    for path in sorted((ROOT / "src").rglob("*.py")):
        package = path.relative_to(ROOT / "src").parts[0]
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
        if package in allowed:
            own = {name for name in imported if name.startswith("src")}
            assert all(any(name == root or name.startswith(root + ".") for root in allowed[package]) for name in own), (path, own)
            assert not {name for name in imported if name.split(".")[0] in ("hydra", "omegaconf")}, path
        if package == "models":
            # What an extra brings is imported where it is needed, inside a function.
            top = ast.Module([node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
            names = {alias.name for node in ast.walk(top) if isinstance(node, ast.Import) for alias in node.names}
            names |= {node.module for node in ast.walk(top) if isinstance(node, ast.ImportFrom)}
            assert {name.split(".")[0] for name in names} <= {"torch", "torchvision", "src", *sys.stdlib_module_names}, path


NETWORK = """
import torch
from torch import nn


class Linear1(nn.Module):
    def __init__(self, in_channels, num_classes, image_size, bias=True):
        super().__init__()
        self.layer = nn.Linear(in_channels * image_size**2, num_classes, bias)

    def forward(self, images):
        return self.layer(images.flatten(1))
"""
DATA = """
import torch

from src.datamodules.image_datamodule import ImageDataModule


class StripesDataModule(ImageDataModule):
    classes = ["across", "down"]
    channels = 1
    native_size = 8
    mean = (0.5,)
    std = (0.5,)

    def load(self, split):
        if split == "val":
            return None
        labels = torch.arange(60) % 2
        images = torch.zeros(60, 1, 8, 8, dtype=torch.uint8)
        images[labels == 0, :, ::2] = 255
        images[labels == 1, :, :, ::2] = 255
        return images, labels
"""
AUGMENTATION = """
import torch


class Invert:
    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, images):
        return torch.where(torch.rand(len(images), 1, 1, 1) < self.p, 255 - images, images)
"""
CALLBACK = """
import lightning as L


class Count(L.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, module):
        with open(self.path, "w") as file:
            file.write(str(trainer.global_step))
"""


def test_additions_are_new_files_and_no_edit(tmp_path):
    """In a copy of the project, as a newcomer would; then the checkpoint is evaluated from the file alone."""
    for part in ("src", "conf"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for script in ("train.py", "evaluate.py"):
        shutil.copy(ROOT / script, tmp_path)
    (tmp_path / "src" / "models" / "linear1.py").write_text(NETWORK)
    (tmp_path / "conf" / "model" / "linear1.yaml").write_text("_target_: src.models.linear1.Linear1\nbias: true\n")
    (tmp_path / "src" / "datamodules" / "stripes.py").write_text(DATA)
    stripes = "defaults: [digits, _self_]\n_target_: src.datamodules.stripes.StripesDataModule\n"
    (tmp_path / "conf" / "data" / "stripes.yaml").write_text(stripes)
    (tmp_path / "src" / "datamodules" / "invert.py").write_text(AUGMENTATION)
    (tmp_path / "conf" / "data" / "augment" / "invert.yaml").write_text("_target_: src.datamodules.invert.Invert\np: 0.3\n")
    (tmp_path / "src" / "callbacks" / "count.py").write_text(CALLBACK)
    count = f"defaults: [default]\ncount:\n  _target_: src.callbacks.count.Count\n  path: {tmp_path}/steps.txt\n"
    (tmp_path / "conf" / "callbacks" / "count.yaml").write_text(count)
    precision = "precision:\n  _target_: torchmetrics.classification.MulticlassPrecision\n"
    (tmp_path / "conf" / "metrics" / "precision.yaml").write_text(precision)

    added = ["data/augment=invert", "data.augment.p=0.2", "callbacks=count", "metrics=[precision,f1]"]
    options = ["trainer.max_epochs=3", "hydra.run.dir=run", "logger=none"]
    typed = [
        ["train.py", "model=linear1", "data=stripes", "model.bias=false", *added, *options],
        ["evaluate.py", "ckpt=run/checkpoints/best.ckpt", "metrics=[precision,f1]", "hydra.run.dir=again"],
    ]
    both = f"import runpy, sys\nfor sys.argv in {typed}:\n    runpy.run_path(sys.argv[0], run_name='__main__')"  # imports take longest
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", both], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test"]["acc"] == 1.0 and results["num_parameters"] == 128
    assert int((tmp_path / "steps.txt").read_text()) == 3 * 2
    assert results["test"]["precision"] == results["test"]["f1"] == 1.0
    assert json.loads((tmp_path / "again" / "results.json").read_text())["test"] == results["test"]


@pytest.mark.slow
def test_a_notebook_composes_by_hand(tmp_path):
    """A plain Python session, from another directory, with no Hydra imported."""
    code = """
import lightning as L
from src.datamodules import CIFAR10DataModule
from src.models import SimpleV3
from src.tasks import ClassificationTask
import sys
data = CIFAR10DataModule(ROOT, batch_size=20, val_size=20)
task = ClassificationTask(SimpleV3(data.channels, len(data.classes)), data.classes, data.mean, data.std)
trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False)
trainer.fit(task, data)
trainer.test(task, data)
assert "hydra" not in sys.modules
print("acc", task.figures["test"]["acc"])
"""
    root = Path(tmp_path) / "root"
    (root / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        content = {b"labels": [k % 10 for k in range(20)], b"data": pictures(20, 3, 32).reshape(20, -1)}
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content, protocol=2))
    result = subprocess.run(
        [sys.executable, "-c", code.replace("ROOT", repr(str(root)))], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0 and "acc 0." in result.stdout, result.stderr


def test_help_does_not_import_torch():
    result = run_script("train.py", "--cfg", "job", PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 0 and "max_epochs: 10" in result.stdout
    assert " torch" not in result.stderr and "lightning" not in result.stderr
