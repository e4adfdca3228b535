"""Every shipped YAML file builds, and every experiment says its command and what was measured."""

import pytest
from helpers import ROOT, composed, write_image_folder
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

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


def options(groups: tuple[str, ...]) -> list[str]:
    """GROUP=NAME for every file of these groups."""
    return [f"{group}={path.stem}" for group in groups for path in sorted((CONF / group).glob("*"))]


@pytest.mark.parametrize("option", options(GROUPS))
def test_every_option_builds(option):
    cfg = composed([option])
    datamodule = instantiate_datamodule(cfg)
    task = instantiate_task(cfg, instantiate_model(cfg, datamodule), datamodule)
    assert len(task.classes) == len(datamodule.classes)


@pytest.mark.parametrize("option", options(RUN_GROUPS))
def test_every_option_of_a_trainer_builds(option, tmp_path):
    cfg = composed([option, "trainer.accelerator=cpu"])
    callbacks, loggers = instantiate_callbacks(cfg, tmp_path), instantiate_loggers(cfg, tmp_path)
    trainer = instantiate_trainer(cfg, tmp_path, callbacks, loggers)
    assert trainer.max_epochs == cfg.trainer.max_epochs and trainer.max_steps == -1


@pytest.mark.parametrize("name", ["digits", "cifar10", "fashion_mnist", "image_folder", "dog_cat"])
def test_every_data_set_has_the_same_keys(name, tmp_path):
    write_image_folder(tmp_path, {"cat": 2, "dog": 2}, size=8)
    cfg = composed([f"data={name}", f"data.root={tmp_path}", "data.image_size=32"])
    datamodule = instantiate_datamodule(cfg)
    assert instantiate_model(cfg, datamodule) is not None
    assert set(composed(["data=digits"]).data) <= set(cfg.data)


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
