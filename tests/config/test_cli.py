"""The command line before Hydra: paths, options and resumed runs; how errors end."""

import bdb
import errno
import subprocess
import sys

import pytest
from helpers import ROOT, assert_two_lines, composed, run_script, run_warm
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.config.cli import (
    options_first,
    prepare_arguments,
    quote,
    require,
    two_line_errors,
)
from src.config.hydra_errors import to_user_error
from src.config.tracebacks import is_library
from src.errors import UserError


@pytest.mark.parametrize(
    "path",
    [
        "runs/lr=0.1,b/best.ckpt",
        "a(1).jpg",
        "with blanks",
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
def test_paths_reach_the_program_as_they_are(path):
    (override,) = OverridesParser.create().parse_overrides([quote(f"ckpt={path}")])
    assert override.value() == path
    assert quote(quote(f"ckpt={path}")) == quote(f"ckpt={path}")


def test_other_keys_are_left_to_hydra():
    assert quote("optimizer.lr=0.1,0.2") == "optimizer.lr=0.1,0.2"
    assert quote("resume=null") == "resume=null"
    assert quote("reproduce=runs/a,b") == "reproduce='runs/a,b'"


def test_settings_may_stand_on_both_sides_of_an_option():
    typed = ["model=lenet", "-cn", "a=b", "--cfg", "job", "~logger", "--config-dir=c=d", "-m"]
    options = ["-cn", "a=b", "--cfg", "job", "--config-dir=c=d", "-m"]
    assert options_first(typed) == [*options, "model=lenet", "~logger"]


@pytest.mark.parametrize("typed", [["--multirn", "model=lenet"], ["-x"], ["--lr", "0.1"]])
def test_an_unknown_option_takes_two_lines(typed):
    with pytest.raises(UserError, match=f"There is no option {typed[0]}"):
        prepare_arguments(typed)


def test_resume_names_the_checkpoint_and_its_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    last = tmp_path / "runs" / "a b=1,c" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"")
    expected = [f"resume='{last}'", f"hydra.run.dir='{last.parent.parent}'", "seed=1"]
    for value in ("last", "runs/a b=1,c", str(last)):
        assert prepare_arguments(["seed=1", f"resume={value}"]) == expected
    elsewhere = prepare_arguments(["resume=last", "hydra.run.dir=runs/a b=1,c"])
    assert elsewhere == [f"resume='{last}'", "hydra.run.dir=runs/a b=1,c"]
    last.rename(last.with_name("best.ckpt"))
    with pytest.raises(UserError, match=r"best\.ckpt"):
        prepare_arguments(["resume=runs/a b=1,c"])


def test_a_check_writes_into_a_temporary_folder():
    run_dir, sweep_dir, check = prepare_arguments(["check=true", "hydra.run.dir=elsewhere"])
    assert run_dir.startswith("hydra.run.dir='") and "check-" in run_dir
    assert sweep_dir.startswith("hydra.sweep.dir='") and check == "check=true"
    assert prepare_arguments(["check=false"]) == ["check=false"]


@pytest.mark.parametrize("mode", ["find_lr=true", "reproduce=runs/x"])
def test_other_modes_have_folders_of_their_own_name(mode):
    folder, _ = prepare_arguments([mode])
    assert folder.startswith("hydra.run.dir=runs/") and folder.endswith(mode.split("=")[0])
    assert prepare_arguments(["hydra.run.dir=x", mode])[0] == "hydra.run.dir=x"


def test_required_keys(monkeypatch):
    from omegaconf import OmegaConf

    cfg = OmegaConf.create({"ckpt": "???", "path": "x"})
    require(cfg, "path")
    with pytest.raises(UserError, match="ckpt= is missing"):
        require(cfg, "path", "ckpt")


def hydra_error(arguments: list[str], monkeypatch) -> str:
    """What is reported about a command line that Hydra refuses."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(Exception) as caught:
        composed(arguments)
    error = caught.value
    while not is_library(error.__traceback__.tb_frame.f_code.co_filename):
        error.__traceback__ = error.__traceback__.tb_next  # the frames of this test
    return str(to_user_error(error))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=nonsense"], ["model=nonsense", "simple_v3", "lenet"]),
        (["optimizer=sdg"], ["optimizer=sgd?"]),
        (["logger=[tensorboard,cvs]"], ["logger=csv?"]),
        (["optimzer.lr=1"], ["optimizer.lr?"]),
        (["optimizer.lrr=1"], ["optimizer.lr?"]),
        (["lr=0.1"], ["optimizer.lr?"]),
        (["optimizer.nothing_like_it=1"], ["optimizer has lr", "+optimizer.nothing_like_it="]),
        (["data/augmnt=none"], ["data/augment?"]),
        (["data.augment={_target_: x}"], ["data.augment has no _target_", "+data.augment=..."]),
        (["seed=0", "model=lenet", "logger=null"], ["logger=null", "logger=[]"]),
        (["+seed=1"], ["seed", "plus sign"]),
        (["optimizer"], ["optimizer", "KEY=VALUE"]),
        (["+logger=csv"], ["logger has a value already", "'logger=[tensorboard,csv]'"]),
    ],
)
def test_mistakes_that_hydra_finds(arguments, words, monkeypatch):
    message = hydra_error(arguments, monkeypatch)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("lr=0.1", "optimizer.lr?"),
        ("hydra.run.dir=/dev/null/x", "/dev/null/x"),
        ("resume=nowhere.ckpt", "nowhere.ckpt"),
        ("resume=last", "resume=last"),
    ],
)
def test_mistakes_take_two_lines_and_leave_nothing(argument, word, tmp_path):
    assert_two_lines(run_warm("train.py", argument, cwd=tmp_path), word)
    assert not list(tmp_path.iterdir())


def test_a_wrong_option_is_a_usage_error(tmp_path):
    result = run_script("train.py", "--multirn", cwd=tmp_path)
    assert result.returncode == 2 and "--multirn" in result.stderr


def test_the_whole_traceback_on_request(tmp_path):
    result = run_script("train.py", "lr=0.1", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert result.returncode == 2 and "Traceback" in result.stderr and "Hint: " in result.stderr


def test_settings_are_shown_without_importing_torch():
    result = run_script("train.py", "--cfg", "job", PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 0 and "max_epochs: 10" in result.stdout
    assert " torch" not in result.stderr and "lightning" not in result.stderr


def test_a_closed_pipe_ends_quietly(tmp_path):
    command = f"{sys.executable} {ROOT / 'train.py'} --help | head -1"
    result = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.count("\n") == 1 and result.stderr == ""


def test_leaving_a_debugger_is_quiet(capsys):
    with pytest.raises(SystemExit) as caught, two_line_errors():
        raise bdb.BdbQuit
    assert caught.value.code == 1 and capsys.readouterr().err == ""


@pytest.mark.parametrize("path", [None, "runs/a/.hydra/config.yaml"])
def test_a_full_disk_before_the_run_is_reported(path):
    error = to_user_error(OSError(errno.ENOSPC, "No space left on device", path))
    assert f"The disk is full: {path or 'the run folder'} cannot be written." in str(error)
