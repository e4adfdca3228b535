"""From a config to the objects of a run, and the errors on that way."""

import copy
import os
import sys
from functools import cache
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from helpers import composed
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from src.config.instantiate import (
    instantiate_callbacks,
    instantiate_datamodule,
    instantiate_loggers,
    instantiate_model,
    instantiate_task,
    instantiate_trainer,
)
from src.config.prepare import prepare_config
from src.config.validate import validate
from src.errors import UserError
from src.models import SimpleV3
from src.runs.checkpoint_io import AtomicCheckpointIO

USER_CODE = """
import lightning as L
import torch
from torch import nn


class Misfit(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.layer = nn.Linear(99, num_classes)

    def forward(self, images):
        return self.layer(images.flatten(1))


class Broken(nn.Module):
    def __init__(self, in_channels, num_classes, mode="name"):
        super().__init__()
        if mode == "name":
            undefined_name
        if mode == "library":
            nn.Conv2d(3, 4, 3, groups=2)
        raise ValueError("of the user")


class Needs(nn.Module):
    def __init__(self, in_channels, num_classes, width):
        super().__init__()


class Augmentation:
    def __init__(self):
        raise TypeError("of the augmentation")


class Own(L.Callback):
    def __init__(self, run_dir, config, level=1):
        self.run_dir, self.config, self.level = run_dir, config, level


class OwnTask(L.LightningModule):
    def __init__(self, model, optimizer):
        super().__init__()
        self.model, self.optimizer = model, optimizer


class OwnData(L.LightningDataModule):
    def __init__(self, root):
        super().__init__()
        self.root = root


class Tiny(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layer = nn.Linear(width, 2)
"""


@pytest.fixture(autouse=True)
def user_code(tmp_path, monkeypatch):
    """A module `user_code` with classes as people write them."""
    (tmp_path / "user_code.py").write_text(USER_CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "user_code", raising=False)


@cache
def composed_once(*groups: str) -> DictConfig:
    return composed(list(groups))


def changed(*overrides: str) -> DictConfig:
    """A config with these overrides; only groups need Hydra."""
    settings = [override for override in overrides if "." in override.partition("=")[0]]
    cfg = copy.deepcopy(composed_once(*(o for o in overrides if o not in settings)))
    OmegaConf.set_struct(cfg, False)
    for override in settings:
        key, _, value = override.lstrip("+~").partition("=")
        if override.startswith("~"):
            group, _, name = key.partition(".")
            del cfg[group][name]
        else:
            OmegaConf.update(cfg, key, yaml.safe_load(value))
    return cfg


def build(*overrides: str):
    """Data, network and task of a config."""
    cfg = changed(*overrides)
    prepare_config(cfg)
    validate(cfg)
    datamodule = instantiate_datamodule(cfg)
    model = instantiate_model(cfg, datamodule)
    return datamodule, model, instantiate_task(cfg, model, datamodule)


def test_the_task_describes_network_and_input():
    datamodule, model, task = build("model=lenet", "data.image_size=16")
    assert task.model is model and task.classes == datamodule.classes
    assert task.description["model"] == {
        "_target_": "src.models.LeNet",
        "in_channels": 1,
        "num_classes": 10,
        "image_size": 16,
    }
    assert task.description["image_size"] == 16 and task.description["resize"] == "stretch"
    assert task.description["config"]["optimizer"]["lr"] == 0.02


def test_the_network_is_the_first_to_draw_random_numbers():
    L.seed_everything(0, verbose=False)
    expected = SimpleV3(1, 10).state_dict()
    L.seed_everything(0, verbose=False)
    _, model, _ = build()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.batch_size=0"], "batch_size"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["optimizer.momentum=-1"], "optimizer: "),
        (["scheduler.step_size=0"], "scheduler: "),
        (["scheduler=onecycle", "scheduler.pct_start=2"], "scheduler: "),
        (["task.loss.label_smoothing=2"], "task.loss: "),
        (["model=vgg16", "data.image_size=16"], "data.image_size=32"),
        (["model=torchvision", "model.name=resnet1"], "resnet18"),
        (["model=torchvision", "model.weights=NOPE"], "NOPE"),
        (["model._target_=user_code.Needs", "~model.dropout"], "argument: 'width'"),
        (["callbacks.best.monitor=val/nope"], "callbacks.best.monitor=val/nope"),
        (["scheduler=plateau", "scheduler.monitor=x"], "scheduler.monitor=x"),
    ],
)
def test_settings_that_are_refused(overrides, words):
    with pytest.raises(UserError) as caught:
        build(*overrides)
    assert words in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["model._target_=user_code.Misfit"], RuntimeError, "mat1 and mat2"),
        (["model._target_=user_code.Broken"], NameError, "undefined_name"),
        (["model._target_=user_code.Broken", "+model.mode=user"], ValueError, "of the user"),
        (["model._target_=user_code.Broken", "+model.mode=library"], ValueError, "divisible"),
        (["+data.augment={_target_: user_code.Augmentation}"], TypeError, "of the augmentation"),
    ],
)
def test_errors_of_user_code_are_not_changed(overrides, error, words):
    if "Augmentation" not in overrides[0]:
        overrides = ["~model.dropout", *overrides]
    with pytest.raises(error, match=words) as caught:
        build(*overrides)
    assert type(caught.value) is error
    assert caught.traceback[-1].path.name == "user_code.py" or words in (
        "mat1 and mat2",
        "divisible",
    )


def test_a_task_and_data_without_this_projects_classes(tmp_path):
    cfg = changed("data/augment=none")
    cfg.data = {"_target_": "user_code.OwnData", "root": "x"}
    cfg.model = {"_target_": "user_code.Tiny"}
    cfg.task = {"_target_": "user_code.OwnTask"}
    prepare_config(cfg)
    datamodule = instantiate_datamodule(cfg)
    assert datamodule.root == os.path.abspath("x")
    model = instantiate_model(cfg, datamodule)
    task = instantiate_task(cfg, model, datamodule)
    assert task.model is model and task.optimizer.func is torch.optim.SGD


def test_callbacks_get_the_run_folder_and_the_config(tmp_path):
    own = "+callbacks.own={_target_: user_code.Own, level: 2}"
    cfg = changed(own, "callbacks.report.enabled=false", "callbacks.progress=null")
    callbacks = instantiate_callbacks(cfg, tmp_path)
    names = [type(callback).__name__ for callback in callbacks]
    assert names[0] == "StepSeed" and names[-1] == "Own"
    assert not {"Report", "Progress", "EMA", "EarlyStopping"} & set(names)
    assert callbacks[-1].run_dir == tmp_path and callbacks[-1].config["seed"] == 0
    best = next(callback for callback in callbacks if type(callback).__name__ == "BestCheckpoint")
    assert Path(best.dirpath) == tmp_path / "checkpoints"


def test_loggers_write_into_the_run_folder(tmp_path):
    (logger,) = instantiate_loggers(changed("logger=csv"), tmp_path)
    assert Path(logger.save_dir) == tmp_path
    assert instantiate_loggers(changed("logger=none"), tmp_path) == []


def test_the_trainer(tmp_path):
    cfg = changed("trainer.accelerator=cpu", "logger=none")
    trainer = instantiate_trainer(cfg, tmp_path, instantiate_callbacks(cfg, tmp_path))
    assert type(trainer.strategy.checkpoint_io) is AtomicCheckpointIO
    assert trainer.default_root_dir == str(tmp_path) and trainer.loggers == []
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "0"
    assert len(trainer.checkpoint_callbacks) == 2
    alone = instantiate_trainer(cfg, tmp_path, [Callback()])
    assert alone.checkpoint_callbacks == []
    plugin = "+trainer.plugins=[{_target_: user_code_io.OwnIO}]"
    (tmp_path / "user_code_io.py").write_text(
        "from lightning.fabric.plugins import TorchCheckpointIO\n"
        "class OwnIO(TorchCheckpointIO): ...\n"
    )
    trainer = instantiate_trainer(changed("trainer.accelerator=cpu", plugin), tmp_path)
    assert isinstance(trainer.strategy.checkpoint_io, TorchCheckpointIO)
    assert type(trainer.strategy.checkpoint_io).__name__ == "OwnIO"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], "16-mixed needs a GPU"),
        (["trainer.devices=0", "trainer.accelerator=cpu"], "trainer: "),
        (["trainer.strategy=nope", "trainer.accelerator=cpu"], "trainer: "),
    ],
)
def test_settings_of_the_trainer_that_are_refused(overrides, words, tmp_path):
    with pytest.raises(UserError, match=words):
        instantiate_trainer(changed(*overrides), tmp_path)


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(UserError, match="finds no GPU") as caught:
        instantiate_trainer(changed("trainer.accelerator=gpu"), tmp_path)
    assert "trainer.accelerator=cpu" in caught.value.remedy


def test_paths_and_pretrained_settings(tmp_path, monkeypatch):
    (tmp_path / "w.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    cfg = composed(["model=resnet18", "model.weights=w.pt", "data.root=x", "data.std=[1]"])
    prepare_config(cfg)
    assert cfg.model.weights == str(tmp_path / "w.pt") and cfg.data.root == str(tmp_path / "x")
    assert cfg.data.image_size == 224 and cfg.data.channels == 3 and cfg.data.std == [1]
    cfg = changed("model=resnet18", "model.weights=DEFAULT", "data.channels=1")
    prepare_config(cfg)
    assert cfg.data.image_size == 224 and cfg.data.mean is None
