"""Mistakes in a config told by inspection: what is said, and that nothing is built or read for it."""

from typing import Annotated, Any, Literal

import pytest
from conftest import assert_two_lines, composed, run_script, run_warm, write_folder
from omegaconf import OmegaConf
from PIL import Image

from src.command_line import together
from src.config_check import check, describe, fits
from src.datamodules import DigitsDataModule, ImageFolderDataModule
from src.datamodules.scan import scan
from src.errors import UserError


def checked(*overrides: str) -> None:
    check(OmegaConf.to_container(composed(list(overrides)), resolve=True))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.max_epochs=ten"], ["trainer.max_epochs=ten", "a whole number or null"]),
        (["trainer.max_epochs=10.0"], ["a whole number"]),
        (["trainer.max_epochs=true"], ["trainer.max_epochs=true"]),
        (["+model.dropuot=0.1"], ["SimpleV3 takes no argument dropuot", "model.dropout?"]),
        (["+scheduler.gama=1"], ["scheduler.gamma?"]),
        (["+data.augmnt=1"], ["data.augment?"]),
        (["optimizer.lr=abc"], ["optimizer.lr=abc", "a number"]),
        (["optimizer.lr="], ["optimizer.lr=", "a number"]),
        (["data.batch_size=1.5"], ["data.batch_size"]),
        (["data=image_folder", "data.val_size=some"], ["data.val_size"]),  # an argument that **common takes
        (["seed=1.5"], ["seed"]),
        (["test=maybe"], ["true or false"]),
        (["task=[]"], ["Nothing is chosen for task", "task=NAME"]),
        (["scheduler=[]"], ["Nothing is chosen for scheduler"]),
        (["check=dta"], ["true or false or data"]),
        (["trainer.precision=15"], ["bf16-mixed"]),
        (["scheduler.interval=stp"], ["epoch, step"]),
        (["optimizer=adam", "optimizer.betas=[0.9]"], ["a list of 2"]),
        (["callbacks.early_stopping.enabled=yes"], ["true or false"]),
        (["task.loss.label_smoothing=x"], ["task.loss.label_smoothing"]),
        (["model._target_=src.models.LeNett"], ["src.models.LeNet or"]),
        (["model._target_=src.modles.LeNet"], ["src.models.LeNet"]),
        (["optimizer._target_=torch.optim"], ["nothing that can be called"]),
        (["optimizer.fused=true", "trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"], ["optimizer.fused", "null"]),
        (["+trainer.fast_dev_run=true"], ["keeps no checkpoint", "limit_train_batches"]),
        (["trainer.val_check_interval=00:00:10:00"], ["by the clock", "number of batches"]),
        (["scheduler=plateau", "scheduler.interval=step"], ["val/loss is measured once an epoch", "scheduler.interval=epoch"]),
    ],
)
def test_mistakes_are_told(overrides, words):
    with pytest.raises(UserError) as caught:
        checked(*overrides)
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_is_right_passes():
    checked("optimizer.lr=1", "trainer.limit_train_batches=0.5", "trainer.precision=bf16-mixed", "data/augment=rand_augment")
    checked("trainer.deterministic=warn", "data.mean=[0.5]", "trainer.max_time=00:01:00:00", "scheduler=onecycle", "logger=csv")
    checked("logger=[]", "metrics=[]")


def test_types():
    class Own: ...

    for value, kind in (
        (1, float), (None, int | None), ("warn", bool | Literal["warn"]), ([1, 2], tuple[float, float]), ([1], list[int]),
        ({"_target_": "x"}, Own), ("x", Any), (-1, Annotated[str, -1]), ({"a": 1}, dict[str, int]),
    ):  # fmt: skip
        assert fits(value, kind), (value, kind)
    for value, kind in (
        (True, int), (1.5, int), ("1", float), (None, float), ([1], tuple[int, int]), ("ab", list[str]), (["a"], list[int]), (3, Own),
        (True, Literal[1]),
    ):  # fmt: skip
        assert not fits(value, kind), (value, kind)
    assert describe(list[float] | None) == "a list (a number each) or null"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optimzer.lr=1"], ["optimizer.lr?"]),
        (["lr=0.1"], ["optimizer.lr?"]),
        (["optimizer=sdg"], ["sgd"]),
        (["data.augment={_target_: x}"], ["data.augment has no _target_ yet", "+data.augment=..."]),
        (["data/augmnt=none"], ["data/augment?"]),
        (["seed=0", "model=lenet", "logger=null"], ["logger=null", "logger=[]"]),
        (["+seed=1"], ["Leave out the plus sign"]),
        (["--multirn"], ["--multirn"]),
        (["hydra.run.dir=/dev/null/x"], ["/dev/null/x"]),
    ],
)
def test_mistakes_that_hydra_tells_get_the_nearest_names(arguments, words, tmp_path):
    result = run_script("train.py", *arguments, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="")
    assert_two_lines(result, *words)
    assert not list(tmp_path.iterdir())


def test_check_says_one_line_and_leaves_nothing(tmp_path):
    result = run_warm("train.py", "check=true", "model=lenet", cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.count("\n") == 1, result.stderr
    assert "LeNet on Digits, 61,706 parameters" in result.stdout and not list(tmp_path.iterdir())


def test_settings_may_stand_on_both_sides_of_an_option(tmp_path):
    result = run_warm("train.py", "model=lenet", "-m", "seed=0,1", "optimizer.lr=0.1,0.2", "check=true", cwd=tmp_path)
    assert result.returncode == 0 and "4 jobs, 2 of them different but for the seed" in result.stdout, result.stderr
    typed = ["model=lenet", "-cn", "a=b", "--cfg", "job", "~logger", "--config-dir=c=d", "-m"]
    assert together(typed) == ["-cn", "a=b", "--cfg", "job", "--config-dir=c=d", "-m", "model=lenet", "~logger"]


# check=data


def test_a_clean_folder_and_a_set_that_is_none(tmp_path):
    found = scan(ImageFolderDataModule(write_folder(tmp_path, {"a": 12, "b": 20}), image_size=8, val_size=0.25))
    assert found.counts == {"train": {"a": 9, "b": 15}, "val": {"a": 3, "b": 5}} and not found.problems and not found.notes
    digits = scan(DigitsDataModule(image_size=8))
    assert {split: counts.total() for split, counts in digits.counts.items()} == {"train": 1293, "val": 144, "test": 360}


def test_a_folder_with_everything_wrong(tmp_path):
    for split in ("train", "val"):
        write_folder(tmp_path / split, {"a": 6, "b": 6}, seed=len(split))
    train, val = tmp_path / "train", tmp_path / "val"
    (train / "a" / "empty.jpg").write_bytes(b"")
    (train / "a" / "cut.jpg").write_bytes((train / "a" / "000.jpg").read_bytes()[:400])
    (train / "b" / "across.jpg").write_bytes((val / "b" / "001.jpg").read_bytes())
    (train / "b" / "torn.jpg").write_bytes((train / "a" / "002.jpg").read_bytes())
    (train / "b" / "twice.jpg").write_bytes((train / "b" / "003.jpg").read_bytes())
    Image.new("RGB", (9, 9)).save(train / "a" / "misnamed.jpg", format="PNG")
    (train / ".thumbnails").mkdir()
    (train / ".thumbnails" / "000.jpg").write_bytes((train / "a" / "000.jpg").read_bytes())
    (train / "a" / "notes.txt").write_text("x")
    found = scan(ImageFolderDataModule(tmp_path, image_size=8))
    problems, notes = " | ".join(found.problems), " | ".join(found.notes)
    assert "2 files are no usable pictures" in problems and "empty.jpg (the file is empty)" in problems and "cut.jpg" in problems
    assert "1 picture occurs in more than one split" in problems and "across.jpg [train, b]" in problems
    assert "1 picture occurs in more than one class" in problems and "torn.jpg [train, b]" in problems
    assert "1 picture occurs more than once in a split" in notes and "misnamed.jpg (it is PNG)" in notes
    assert "1 hidden folder passed over" in notes and "notes.txt" in notes
    assert found.counts["train"] == {"a": 7, "b": 9} and found.report().splitlines()[0].split() == ["class", "train", "val"]


@pytest.mark.slow
def test_check_data_exits_with_1_where_something_is_wrong(tmp_path):
    root = write_folder(tmp_path / "root", {"a": 6, "b": 6}, size=8)
    (root / "a" / "bad.jpg").write_bytes(b"x")
    options = ["check=data", "data=image_folder", f"data.root={root}", "data.image_size=32", "model=lenet", "data.val_size=4"]
    result = run_script("train.py", *options, cwd=tmp_path)
    assert result.returncode == 1 and "bad.jpg (it is no picture)" in result.stdout, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["root"] or {path.name for path in tmp_path.iterdir()} <= {"root", "cache"}


# Bad files in training


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_files_stop_or_are_skipped(workers, tmp_path):
    root = write_folder(tmp_path / "root", {"a": 8, "b": 8}, size=8)
    (root / "a" / "bad.jpg").write_bytes(b"x")
    options = {"image_size": 8, "val_size": 4, "cache_gb": 0, "num_workers": workers, "cache_dir": tmp_path / "cache"}
    data = ImageFolderDataModule(root, **options)
    data.setup("fit")
    with pytest.raises(UserError, match=r"bad\.jpg"):
        for _ in [*data.train_dataloader(), *data.val_dataloader()]:
            pass
    data = ImageFolderDataModule(root, bad_files="skip", **options)
    data.setup("fit")
    assert sum(len(labels) for _, labels in data.train_dataloader()) == 12
    (root / "b" / "000.jpg").unlink()  # lost while it is being read
    with pytest.raises(UserError, match=r"000\.jpg"):
        for _ in [*data.train_dataloader(), *data.val_dataloader()]:
            pass
