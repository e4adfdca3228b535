"""Every shipped YAML file builds, and every experiment says its command and what was measured."""

import copy
from functools import cache

import pytest
from helpers import ROOT, composed, write_image_folder
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from src.config.instantiate import (
    instantiate_callbacks,
    instantiate_datamodule,
    instantiate_loggers,
    instantiate_model,
    instantiate_task,
    instantiate_trainer,
)
from src.config.validate import validate

CONF = ROOT / "conf"
GROUPS = ("data/augment", "model", "task", "optimizer", "scheduler", "metrics")
RUN_GROUPS = ("trainer", "callbacks", "logger")
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


SLOW = {"model=vgg16"}


def options(groups: tuple[str, ...]) -> list:
    """GROUP=NAME for every file of these groups."""
    files = [(group, path.stem) for group in groups for path in sorted((CONF / group).glob("*"))]
    names = [f"{group}={name}" for group, name in files]
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


@cache
def composed_once() -> DictConfig:
    return composed(["trainer.accelerator=cpu"])


def with_option(option: str) -> DictConfig:
    """The default config with another file of a group; only files with defaults need Hydra."""
    group, _, name = option.partition("=")
    content = OmegaConf.load(CONF / group / f"{name}.yaml")
    if "defaults" in content or group == "trainer":
        return composed([option, "trainer.accelerator=cpu"])
    cfg = copy.deepcopy(composed_once())
    OmegaConf.update(cfg, group.replace("/", "."), content, merge=False, force_add=True)
    return cfg


@pytest.mark.parametrize("option", options(GROUPS))
def test_every_option_builds(option):
    cfg = with_option(option)
    datamodule = instantiate_datamodule(cfg)
    task = instantiate_task(cfg, instantiate_model(cfg, datamodule), datamodule)
    assert len(task.classes) == len(datamodule.classes)


@pytest.mark.parametrize("option", options(RUN_GROUPS))
def test_every_option_of_a_trainer_builds(option, tmp_path, monkeypatch):
    group, _, name = option.partition("=")
    if group == "logger" and name in ("mlflow", "wandb"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)  # of mlflow.db
    cfg = with_option(option)
    callbacks, loggers = instantiate_callbacks(cfg, tmp_path), instantiate_loggers(cfg, tmp_path)
    trainer = instantiate_trainer(cfg, tmp_path, callbacks, loggers)
    assert trainer.max_epochs == cfg.trainer.max_epochs and trainer.max_steps == -1


@pytest.mark.parametrize("name", ["digits", "cifar10", "fashion_mnist", "image_folder", "dog_cat"])
def test_every_data_set_has_the_same_keys(name, tmp_path):
    write_image_folder(tmp_path, {"cat": 2, "dog": 2}, size=8)
    cfg = composed([f"data={name}", f"data.root={tmp_path}", "data.image_size=32"])
    datamodule = instantiate_datamodule(cfg)
    assert instantiate_model(cfg, datamodule) is not None
    assert set(composed_once().data) <= set(cfg.data)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_says_its_command(name):
    path = CONF / "experiment" / f"{name}.yaml"
    header = path.read_text(encoding="utf-8").split("defaults:")[0]
    assert f"python train.py experiment={name}" in header and "Measured here:" in header
    validate(OmegaConf.to_container(composed([f"experiment={name}"]), resolve=True))


@pytest.mark.parametrize("name", ["config", "evaluate", "predict", "export", "search"])
def test_the_main_files_compose_and_write_into_two_folders(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, return_hydra_config=True)
    hydra = OmegaConf.to_container(cfg.hydra, resolve=False)
    folder = hydra["run"]["dir"]
    assert folder.startswith(("runs/", "sweeps/")) or (name == "export" and folder == ".")
