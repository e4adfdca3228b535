"""Folders from strangers that are resumed or reproduced, and links in them.

Each attack ends in an error of two lines: nothing runs, nothing is written outside of the folder,
in less than 20 s and 1 GB (the fixture `outside`).
"""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from helpers import assert_two_lines, run_warm
from hostile import BOMB, Write, put, sparse
from omegaconf import OmegaConf
from run_helpers import SMALL

from src.config.stored import read_stored_config
from src.engine.reproduce import reproduce
from src.errors import UserError
from src.runs.reading import check_folder

pytestmark = pytest.mark.usefixtures("outside")


@pytest.fixture
def received(finished_run, tmp_path) -> Path:
    """A run folder that came from somebody else."""
    shutil.copytree(finished_run, tmp_path / "received")
    return tmp_path / "received"


# Links and special files

WRITTEN = [".hydra", "checkpoints", "tb", "plots", "train.log", ".run.lock", "results.json"]
WRITTEN += ["run.json", "run.json.part", "config.yaml", "checkpoints/last.ckpt.part", "report.html"]


@pytest.mark.parametrize("name", WRITTEN)
def test_links_out_of_the_folder_are_refused(name, received, outside):
    place = received / name
    target = outside if place.is_dir() else outside / "precious"
    put(place, lambda path: path.symlink_to(target))
    with pytest.raises(UserError, match="outside of the folder"):
        check_folder(received)


@pytest.mark.parametrize("name", ["config.yaml", "train.log", "checkpoints/last.ckpt"])
def test_pipes_are_refused(name, received):
    put(received / name, os.mkfifo)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        check_folder(received)


def test_links_to_the_folder_and_inside_it_are_allowed(received, tmp_path):
    (received / "latest").symlink_to("results.json")
    (tmp_path / "link").symlink_to(received)
    check_folder(tmp_path / "link")
    (received / "/".join(["x"] * 40)).mkdir(parents=True)
    with pytest.raises(UserError, match="nested too deeply"):
        check_folder(received)


@pytest.mark.parametrize("script", ["resume", "sweep", "search"])
def test_commands_refuse_links_before_anything_is_written(script, received, outside, tmp_path):
    (tmp_path / "sweep" / "0").mkdir(parents=True)
    for place in (received / ".hydra", tmp_path / "sweep" / "0" / ".hydra"):
        put(place, lambda path: path.symlink_to(outside))
    small = [*SMALL, "trainer.max_epochs=3"]
    commands = {
        "resume": ["train.py", f"resume={received}", "trainer.max_epochs=3"],
        "sweep": ["train.py", "-m", *small, "seed=0", f"hydra.sweep.dir={tmp_path / 'sweep'}"],
        "search": ["search.py", *small, "n_trials=1", f"hydra.run.dir={tmp_path / 'sweep'}"],
    }
    command, *typed = commands[script]
    result = run_warm(command, *typed, cwd=tmp_path / "work")
    assert_two_lines(result, ".hydra is a link", "outside of the folder")


# Settings

CONFIGS: dict[str, Write] = {
    "bomb": BOMB,
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "many_values": "a: [" + "[]," * 33_000 + "]",
    "python_object": "a: !!python/object/apply:os.system ['touch ran']",
    "list": "- 1",
    "empty": "",
    "no_text": b"\xff\xfe\x00",
    "huge": sparse,
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "long_number": "seed: 0x" + "f" * 9000,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_damaged_or_hostile_config_files(name, received, tmp_path):
    put(received / "config.yaml", CONFIGS[name])
    with pytest.raises(UserError):
        reproduce(received, tmp_path / "new")


CHANGES = {
    "callbacks.x": {"_target_": "joblib.load", "filename": "../evil.pkl"},
    "callbacks.best.filename": "../../../outside/x",
    "logger.csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "../../../outside"},
    "model._target_": ["os.system"],
    "data.augment": {"_target_": "src.runs.files.write_text", "path": "../outside/x", "text": ""},
    "trainer.logger": "${oc.env:HOME}",
}


@pytest.mark.parametrize("key", CHANGES)
def test_settings_that_build_or_write_something_foreign(key, received, tmp_path):
    config = OmegaConf.load(received / "config.yaml")
    OmegaConf.update(config, key, CHANGES[key], merge=False, force_add=True)
    put(received / "config.yaml", yaml.safe_dump(OmegaConf.to_container(config)))
    with pytest.raises(UserError):
        reproduce(received, tmp_path / "new")


@pytest.mark.parametrize("root", ["{outside}/new", "../../outside/new", "~/new/data"])
def test_data_are_not_downloaded_to_where_a_stranger_says(root, received, outside):
    config = OmegaConf.load(received / "config.yaml")
    config.data.root = root.format(outside=outside)
    put(received / "config.yaml", OmegaConf.to_yaml(config))
    assert read_stored_config(received / "config.yaml")["data"]["root"] == "data"


TABLES: dict[str, Write] = {
    "huge": sparse,
    "long_line": "epoch," + "x" * 5_000_000,
    "many_cells": ",".join(f"c{i}" for i in range(1000)) + ("\n" + "," * 999) * 3000,
    "pipe": os.mkfifo,
    "no_text": b"\xff\xff",
}


@pytest.mark.parametrize("name", TABLES)
def test_hostile_tables(name, received, tmp_path):
    put(received / "metrics.csv", TABLES[name])
    with pytest.raises(UserError, match="cannot be read"):
        reproduce(received, tmp_path / "new")
