"""`check=true` and `check=data`."""

import pytest
from helpers import composed, write_image_folder

from src.engine.check import check
from src.errors import UserError


def run_check(folder, *overrides):
    cfg = composed(["trainer.accelerator=cpu", "logger=none", *overrides])
    return check(cfg, folder)


def test_settings_that_work_are_summarized_and_nothing_is_written(tmp_path, caplog):
    caplog.set_level("INFO")
    assert run_check(tmp_path, "check=true", "model=lenet")
    assert "LeNet on Digits, 61,706 parameters, on cpu" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folders(tmp_path):
    root = write_image_folder(tmp_path / "data", {"cat": 12, "dog": 12})
    return root, ["data=dog_cat", f"data.root={root}", "data.val_size=6", "data.image_size=32"]


def test_every_image_is_read_and_damaged_ones_are_named(folders, tmp_path, caplog):
    caplog.set_level("INFO")
    root, options = folders
    assert run_check(tmp_path, "check=data", "model=lenet", *options)
    broken = root / "cat" / "000.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    assert run_check(tmp_path, "check=true", "model=lenet", *options)
    caplog.clear()
    assert not run_check(tmp_path, "check=data", "model=lenet", *options)
    assert "000.jpg" in caplog.text


def test_a_flat_test_folder_is_refused(tmp_path):
    root = tmp_path / "data"
    write_image_folder(root / "train", {"cat": 6, "dog": 6})
    write_image_folder(root, {"test": 3})
    options = ["data=image_folder", f"data.root={root}", "data.val_size=2", "data.image_size=32"]
    with pytest.raises(UserError, match="test has 0 class folders"):
        run_check(tmp_path, "check=true", "model=lenet", *options)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["callbacks.best.monitor=val/nothing"], "val/nothing"),
        (["callbacks.ema.enabled=true", "callbacks.swa.enabled=true"], "both average"),
        (["trainer.limit_train_batches=0"], "limit_train_batches=0"),
        (["trainer.max_epochs=0"], "max_epochs=0"),
        (["trainer.precision=16-mixed"], "16-mixed needs a GPU"),
        (["trainer.precision=foo"], "foo"),
        (["+callbacks.own._target_=nowhere.Own"], "nowhere"),
    ],
)
def test_what_would_keep_the_run_from_starting_is_refused(overrides, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        run_check(tmp_path, "check=true", *overrides)
    assert caught.value.remedy


NETWORK = """
from torch import nn


class Own(nn.Sequential):
    def __init__(self, in_channels, num_classes):
        super().__init__(nn.Flatten(), nn.Linear({inputs}, {outputs}))
"""


@pytest.mark.parametrize(
    ("inputs", "outputs", "error", "words"),
    [
        (1024, 7, UserError, "10 classes"),  # the wrong number of outputs
        (99, 10, RuntimeError, "shapes cannot be multiplied"),  # the network's own error
    ],
)
def test_a_network_is_tried(inputs, outputs, error, words, tmp_path, monkeypatch):
    name = f"own_{inputs}"
    (tmp_path / f"{name}.py").write_text(NETWORK.format(inputs=inputs, outputs=outputs))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(error, match=words):
        run_check(tmp_path, "check=true", "model=lenet", f"model._target_={name}.Own")


def test_a_resume_is_checked_as_well(finished_run, tmp_path):
    typed = ["check=true", "model=lenet", f"resume={finished_run}/checkpoints/last.ckpt"]
    assert run_check(tmp_path, *typed, "optimizer.lr=0.05")
    with pytest.raises(UserError, match=r"optimizer\.lr was 0\.05"):
        run_check(tmp_path, *typed, "optimizer.lr=0.3")
