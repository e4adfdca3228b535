"""Checkpoints and run folders from strangers; secrets of the environment."""

import copy
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from helpers import composed, run_training, run_warm
from run_helpers import SMALL, read_checkpoint, read_results

from src.errors import UserError

OF_THE_DATA = ("foreign_data", "interpolation", "odd_data", "objects_in_the_data")
SECRET = "a-secret-of-the-environment"


class RunsCode:
    """What a hostile pickle holds."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def hostile_checkpoints(good: Path, folder: Path, marker: Path) -> None:
    """Write files made from a good checkpoint."""
    stored = torch.load(good, weights_only=True)
    code = RunsCode(marker)
    weight = next(name for name in stored["state_dict"] if name.endswith("weight"))
    text = {"_target_": "src.runs.files.write_text", "path": str(marker), "text": "x"}
    network = {"_target_": "os.system", "command": f"touch {marker}"}
    detour = {"_target_": "src.models.torchvision.torch.hub.load"}
    secret = {"_target_": "src.datamodules.ImageFolderDataModule", "root": "${oc.env:HOSTILE}"}
    foreign = {"_target_": "shutil.rmtree", "path": str(folder)}
    huge = torch.zeros(1).expand(1 << 45)
    changes = {
        "code_in_the_weights": lambda c: c["state_dict"].update(x=code),
        "code_in_the_config": lambda c: c["description"].update(config=code),
        "foreign_target": lambda c: c["description"].update(model=network),
        "target_by_detour": lambda c: c["description"].update(model=detour),
        "function_of_this_project": lambda c: c["description"].update(model=text),
        "interpolation": lambda c: c["description"]["config"].update(data=secret),
        "foreign_data": lambda c: c["description"]["config"].update(data=foreign),
        "wrong_shapes": lambda c: c["state_dict"].update({weight: torch.zeros(3, 3)}),
        "huge_tensor": lambda c: c["state_dict"].update({weight: huge}),
        "huge_network": lambda c: c["description"]["model"].update(image_size=400_000),
        "no_tensor": lambda c: c["state_dict"].update({weight: [1.0] * 5}),
        "odd_facts": lambda c: c["description"].update(classes=10**9, channels="x", mean="abc"),
        "no_description": lambda c: c.pop("description"),
        "integer_keys": lambda c: c["state_dict"].update({7: torch.zeros(1)}),
        "two_names_for_ten_outputs": lambda c: c["description"].update(classes=["a", "b"]),
        "odd_fitted_splits": lambda c: c["description"].update(fitted_on=7),
        "long_names": lambda c: c["description"].update(classes=["a" * 10**6] * 10),
        "large_images": lambda c: c["description"].update(image_size=16_384),
        "odd_data": lambda c: c["description"]["config"]["data"].update(num_folds="x"),
        "objects_in_the_data": lambda c: c["description"]["config"]["data"].update(
            sampler={"_target_": "antigravity.geohash"}
        ),
        "tensors_of_the_meta_device": lambda c: c["state_dict"].update(
            {weight: torch.empty(1, device="meta")}
        ),
    }
    for name, change in changes.items():
        content = copy.deepcopy(stored)
        change(content)
        torch.save(content, folder / f"{name}.ckpt")
    (folder / "plain_pickle.ckpt").write_bytes(pickle.dumps(code))
    with zipfile.ZipFile(folder / "empty_persistent_id.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02)Q.")  # loads the persistent id ()
        archive.writestr("archive/version", "3\n")
    whole = good.read_bytes()
    for i in (0, 3, 9):
        (folder / f"truncated_{i:02d}.ckpt").write_bytes(whole[: len(whole) * i // 12])


def test_hostile_checkpoints_are_refused_and_nothing_runs(finished_run, tmp_path, monkeypatch):
    import src
    from src.engine.evaluate import evaluate

    monkeypatch.setenv("HOSTILE", SECRET)
    folder, marker = tmp_path / "hostile", tmp_path / "ran"
    folder.mkdir()
    hostile_checkpoints(finished_run / "checkpoints" / "best.ckpt", folder, marker)
    paths = sorted(folder.glob("*.ckpt"))
    assert len(paths) == 26
    cfg = composed(["trainer.accelerator=cpu"], "evaluate")
    for path in paths:
        cfg.ckpt = str(path)
        with pytest.raises(UserError) as caught:
            evaluate(cfg, tmp_path / "out")
        assert SECRET not in str(caught.value) and caught.value.remedy
        if path.stem not in OF_THE_DATA:  # which load ignores
            with pytest.raises(UserError):
                src.load(path).predict(torch.zeros(16, 16, dtype=torch.uint8))
        if path.stem.startswith(("code", "plain", "truncated")):
            with pytest.raises(UserError):
                run_training(tmp_path / "resumed", *SMALL, f"resume={path}")
    assert not marker.exists() and folder.exists()


def test_what_belongs_to_the_machine_does_not_come_from_a_checkpoint(finished_run, tmp_path):
    from src.engine.rebuild import rebuild_datamodule

    content = read_checkpoint(finished_run, "best")
    content["description"]["config"]["data"] |= {
        "num_workers": 40,
        "batch_size": 10**9,
        "eval_batch_size": 10**9,
        "pin_memory": True,
        "device_resident": True,
        "root": str(tmp_path / "elsewhere"),
        "cache_gb": 10**6,
    }
    data = rebuild_datamodule(content, {})
    assert data.num_workers is None and data.eval_batch_size == 64 and data.batch_size == 128
    assert data.pin_memory is None and not data.device_resident
    assert data.root == Path("data") and data.cache_gb is None
    (tmp_path / "elsewhere").mkdir()
    rebuild_datamodule(content, {})  # the digits are in no folder
    content["description"]["config"]["data"]["_target_"] = "src.datamodules.CIFAR10DataModule"
    with pytest.raises(UserError, match="does not choose folders"):
        rebuild_datamodule(content, {})
    content["description"]["image_size"] = 2048
    assert rebuild_datamodule(content, {"root": "x"}).eval_batch_size == 4


def test_a_received_run_folder_builds_nothing_foreign_when_it_is_resumed(finished_run, tmp_path):
    run = tmp_path / "received"
    shutil.copytree(finished_run, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["callbacks"]["x"] = {"_target_": "os.system", "command": "touch ran"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    result = run_warm("train.py", f"resume={run}", "trainer.max_epochs=3", cwd=tmp_path)
    assert result.returncode == 2 and "os.system" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_secrets_of_the_environment_stay_out_of_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_API_KEY", "s3cr3t-value")
    argv = ["train.py", "data.root=/x/${oc.env:SERVICE_API_KEY}", "logger.x.api_key=s3cr3t-value"]
    monkeypatch.setattr("sys.argv", argv)
    written = "/x/${oc.env:SERVICE_API_KEY}"
    run_training(tmp_path, *SMALL, "trainer.max_epochs=1", f"data.root={written}")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"s3cr3t-value" not in path.read_bytes(), path
    assert read_results(tmp_path, "run.json")["command"][1] == f"data.root={written}"
    assert read_checkpoint(tmp_path, "best")["description"]["config"]["data"]["root"] == written


def test_variables_with_key_in_their_name_change_no_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEYRING_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("API_TOKEN", "lenet")
    run_training(
        tmp_path / "run", *SMALL, "trainer.max_epochs=1", f"data.root={tmp_path}/data/digits"
    )
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["root"] == f"{tmp_path}/data/digits"
    stored = read_checkpoint(tmp_path / "run")["description"]["config"]
    assert stored["data"]["root"] == f"{tmp_path}/data/digits"
