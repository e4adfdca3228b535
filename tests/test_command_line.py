"""What people type: paths taken verbatim, mistakes told in two lines with exit code 2."""

import pytest
from conftest import assert_two_lines, composed, run_script, run_training, run_warm
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.command_line import quote
from src.errors import UserError


@pytest.mark.parametrize(
    "path",
    [
        "runs/lr=0.1,b/best.ckpt",
        "a(1).jpg",
        "mit Leer zeichen",
        "图片/猫.jpg",
        "it's",
        "back\\slash",
        "ends\\",
        "\\'both",
        "${x}",
        "{a,b}[1]",
        "~/x",
    ],
)
def test_paths_reach_the_program_verbatim(path):
    (override,) = OverridesParser.create().parse_overrides([quote(f"ckpt={path}")])
    assert override.value() == path
    assert quote(quote(f"ckpt={path}")) == quote(f"ckpt={path}")


def test_other_keys_are_left_to_hydra():
    assert quote("optimizer.lr=0.1,0.2") == "optimizer.lr=0.1,0.2" and quote("resume=null") == "resume=null"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=nonsense"], ["nonsense", "simple_v3", "lenet"]),
        (["data=nonsense"], ["nonsense", "cifar10", "image_folder"]),
        (["optimizer.lrr=1"], ["lrr"]),
        (["optimizer"], ["optimizer"]),
        (["resume=nowhere.ckpt"], ["nowhere.ckpt"]),
        (["resume=last"], ["resume=last"]),
    ],
)
def test_mistakes_that_hydra_alone_can_tell(arguments, words, tmp_path):
    result = run_script("train.py", *arguments, cwd=tmp_path)
    assert_two_lines(result, *words)


@pytest.mark.slow
def test_a_gpu_that_is_not_there(tmp_path):
    result = run_script("train.py", "trainer.accelerator=gpu", cwd=tmp_path)
    assert_two_lines(result, "no GPU", "trainer.accelerator=cpu")
    (run,) = (tmp_path / "runs").iterdir()
    assert '"failed"' in (run / "results.json").read_text()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.batch_size=0"], "batch_size"),
        (["data.val_size=0"], "val_size"),
        (["data=image_folder", "data.root=/nowhere/at/all"], "/nowhere/at/all"),
        (["model=vgg16", "data.image_size=16"], "data.image_size=32"),
        (["+model.dropuot=0.1"], "dropuot"),
        (["optimizer.lr=-1"], "optimizer"),
        (["trainer.precision=8-mixed"], "precision"),
        (["model=torchvision", "model.name=resnet1"], "resnet18"),
        (["model=torchvision", "model.weights=NOPE"], "NOPE"),
        (["model._target_=src.models.Nope"], "Nope"),
        (["callbacks.early_stopping.enabled=true", "callbacks.early_stopping.monitor=val/nope"], "val/nope"),
    ],
)
def test_mistakes_told_before_training(overrides, words, tmp_path):
    with pytest.raises(UserError) as caught:
        run_training(tmp_path, *overrides)
    assert words in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken zip"])
def test_files_that_are_no_checkpoints(content, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(content)
    from src import checkpoint

    with pytest.raises(UserError, match=r"x\.ckpt"):
        checkpoint.read(tmp_path / "x.ckpt")


def test_evaluate_without_and_with_a_missing_checkpoint(tmp_path):
    assert_two_lines(run_warm("evaluate.py", "ckpt=missing.ckpt", cwd=tmp_path), "missing.ckpt")


@pytest.mark.slow
def test_multirun_leaves_a_folder_a_job(tmp_path):
    result = run_script(
        "train.py", "-m", "model=lenet", "seed=0,1", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "data.image_size=16",
        "logger=none", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"0", "1"}
    assert (sweep / "1" / "results.json").exists()


def test_composition_of_what_the_readme_shows():
    assert composed(["model=simple_v3", "data=cifar10", "trainer.accelerator=gpu"]).trainer.accelerator == "gpu"
