"""Checkpoints: written whole, read with weights_only, and building only what is allowed."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src.errors import UserError
from src.runs import checkpoint
from src.runs.checkpoint_file import save

DESCRIPTION = {
    "classes": ["a", "b"],
    "channels": 1,
    "mean": [0.5],
    "std": [0.5],
    "image_size": 8,
}


def content(**changes) -> dict:
    return {"state_dict": {"model.w": torch.ones(2)}, "description": DESCRIPTION | changes}


def test_a_checkpoint_comes_back(tmp_path):
    save(content(), tmp_path / "a.ckpt")
    stored = checkpoint.read(tmp_path / "a.ckpt")
    assert torch.equal(stored["state_dict"]["model.w"], torch.ones(2))
    assert stored["description"] == DESCRIPTION


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["MARKER"])),)


def test_pickled_code_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKER", str(tmp_path / "ran"))
    torch.save({"state_dict": {}, "description": DESCRIPTION, "x": Evil()}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("a", "b"):
        with pytest.raises(UserError):
            checkpoint.read(tmp_path / f"{name}.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": "ab"}, "classes"),
        ({"classes": []}, "classes"),
        ({"channels": 0}, "channels"),
        ({"channels": True}, "channels"),
        ({"image_size": 10**6}, "image_size"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": None}, "std"),
        ({"config": [1]}, "config"),
        ({"config": {"data": 3}}, "config"),
        ({"data": "x"}, "data"),
    ],
)
def test_odd_descriptions_are_refused(change, words, tmp_path):
    save(content(**change), tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=words):
        checkpoint.read(tmp_path / "a.ckpt")


def test_odd_tensors_are_refused(tmp_path):
    expanded = torch.ones(1).expand(1000)
    for tensor in (expanded, torch.ones(2).to_sparse(), 3, torch.empty(2, device="meta")):
        save({**content(), "state_dict": {"model.w": tensor}}, tmp_path / "a.ckpt")
        with pytest.raises(UserError):
            checkpoint.read(tmp_path / "a.ckpt")


def test_damaged_files_name_the_other_checkpoint(tmp_path):
    save(content(), tmp_path / "best.ckpt")
    whole = (tmp_path / "best.ckpt").read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"x" * 1000):
        (tmp_path / "last.ckpt").write_bytes(damaged)
        with pytest.raises(UserError) as error:
            checkpoint.read(tmp_path / "last.ckpt")
        assert "best.ckpt" in error.value.remedy
    with pytest.raises(UserError, match="There is no checkpoint"):
        checkpoint.read(tmp_path / "none.ckpt")
    torch.save({"weights": 1}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="not written by this project"):
        checkpoint.read(tmp_path / "foreign.ckpt")


def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    save(content(), tmp_path / "checkpoints" / "best.ckpt")
    assert checkpoint.read(tmp_path)["description"] == content()["description"]
    with pytest.raises(UserError, match=r"There is no checkpoint .*checkpoints.best\.ckpt"):
        checkpoint.read(tmp_path / "checkpoints")


def test_a_failed_save_keeps_the_checkpoint(tmp_path):
    save(content(), tmp_path / "a.ckpt")
    before = (tmp_path / "a.ckpt").read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save({"x": lambda: None}, tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_the_name_of_the_package_does_not_matter():
    spec = {"in_channels": 1, "num_classes": 3, "image_size": 16}
    for package in ("src", "mylib"):
        target = {"_target_": f"{package}.models.LeNet"}
        model = checkpoint.construct(target | spec, "models", nn.Module)
        assert model.classifier[-1].out_features == 3


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "src.datamodules.DigitsDataModule",
        "src.models.torch.nn.Linear",
        "src.models",
        "src.models.weights.read_weights",
        "src.models.lenet.nn.Linear",
        "src.models..LeNet",
        "src.models.my net",
        None,
    ],
)
def test_other_targets_are_not_built(target):
    with pytest.raises(UserError):
        checkpoint.construct({"_target_": target}, "models", nn.Module)


def test_plain_types():
    value = {
        1: (Path("a"), np.float32(0.5), torch.tensor([1, 2])),
        "nested": {"none": None, "flag": True, "set": {3}},
    }
    assert checkpoint.to_plain(value) == {
        "1": ["a", 0.5, [1, 2]],
        "nested": {"none": None, "flag": True, "set": [3]},
    }
