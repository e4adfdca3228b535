"""Settings from a run folder are data: what is refused, and what the command line replaces."""

import shutil
from pathlib import Path

import pytest
import yaml
from helpers import composed
from omegaconf import OmegaConf

from src.config import stored
from src.config.stored import read_stored_config, resumed_config
from src.errors import UserError


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with nothing but its config."""
    config = OmegaConf.to_container(composed(["model=lenet", "optimizer.lr=0.05"]), resolve=True)
    write(tmp_path / "config.yaml", config)
    return tmp_path


def write(path: Path, config: dict) -> None:
    path.write_text(yaml.safe_dump(config))


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"callbacks": {"x": {"_target_": "os.system", "command": "touch ran"}}}, "os.system"),
        ({"optimizer": {"_target_": "src.runs.files.write_text"}}, "write_text"),
        ({"model": {"_target_": "torch.hub.load"}}, "torch.hub.load"),
        ({"data": {"root": "${oc.env:HOME}"}}, "interpolation"),
        ({"callbacks": {"best": {"filename": "/etc/x"}}}, "outside of the run folder"),
        ({"logger": {"csv": {"name": "../../x"}}}, "outside of the run folder"),
        ({"trainer": {"max_epochs": __import__("datetime").date(2026, 1, 1)}}, "plain value"),
    ],
)
def test_nothing_foreign_is_built_interpolated_or_written(change, words, run):
    config = read(run / "config.yaml")
    for group, values in change.items():
        config[group] |= values
    write(run / "config.yaml", config)
    with pytest.raises(UserError, match=words):
        read_stored_config(run / "config.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1, 2]\nb: *x\n",
        "a: " + "[" * 100_000 + "\n",
        "a: " + "[" * 100 + "]" * 100 + "\n",
        "a: x\n" * 300_000,
        "- 1\n",
        "a: !!python/object:os.system x\n",
        "a: [\n",
    ],
)
def test_hostile_or_damaged_files(text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        read_stored_config(path)


@pytest.mark.parametrize("part", [{"hydra": {"searchpath": ["x"]}}, {"defaults": ["evil"]}])
def test_parts_for_hydra_are_refused(part, run):
    write(run / "config.yaml", read(run / "config.yaml") | part)
    with pytest.raises(UserError, match=f"holds {next(iter(part))}"):
        read_stored_config(run / "config.yaml")


def test_output_folders_are_those_of_the_new_run_unless_typed(run):
    config = read(run / "config.yaml")
    config["callbacks"]["best"]["dirpath"] = "/elsewhere"
    write(run / "config.yaml", config)
    stored = read_stored_config(run / "config.yaml")
    assert stored["callbacks"]["best"]["dirpath"] is None
    typed = composed(["callbacks.best.dirpath=/elsewhere"])
    stored = read_stored_config(run / "config.yaml", typed)
    assert stored["callbacks"]["best"]["dirpath"] == "/elsewhere"


def test_a_resumed_config_changes_only_what_is_typed(run):
    resume = f"resume='{run}/checkpoints/last.ckpt'"
    typed = ["trainer.max_epochs=7", "~logger", "+trainer.min_epochs=2", resume]
    cfg = resumed_config(composed(typed), typed)
    assert cfg.trainer.max_epochs == 7 and cfg.trainer.min_epochs == 2 and "logger" not in cfg
    assert cfg.optimizer.lr == 0.05 and cfg.model._target_ == "src.models.LeNet"
    typed = ["data/augment=crop_flip", resume]
    assert resumed_config(composed(typed), typed).data.augment.padding == 4


def test_typed_values_replace_what_is_not_trusted(run):
    config = read(run / "config.yaml")
    config["data"]["root"] = "${oc.env:A_TOKEN}/x"
    config["model"]["_target_"] = "my.Net"
    write(run / "config.yaml", config)
    typed = ["data.root=/data", f"resume='{run}/checkpoints/last.ckpt'", "model._target_=my.Net"]
    cfg = resumed_config(composed(typed), typed)
    assert cfg.data.root == "/data" and cfg.model._target_ == "my.Net"
    with pytest.raises(UserError, match=r"type it: model\._target_="):
        resumed_config(composed(typed[:2]), typed[:2])


def test_a_file_of_another_run_that_is_no_yaml_does_not_matter(run, tmp_path, monkeypatch):
    shutil.copytree(stored.CONF, tmp_path / "conf")
    (tmp_path / "conf" / "model" / "broken.yaml").write_text("_target_: x\nwidth 8\n")
    monkeypatch.setattr(stored, "CONF", tmp_path / "conf")
    stored._known_targets.cache_clear()
    try:
        assert read_stored_config(run / "config.yaml")["model"]
    finally:
        stored._known_targets.cache_clear()
