"""Searches: a study that grows to its number of trials, whatever becomes of its workers; and the learning rate finder."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, assert_two_lines, composed, run_script, run_training, run_warm
from omegaconf import OmegaConf

from src.errors import UserError
from src.lr_finder import find_lr

SMALL = ["model=lenet", "data.image_size=16", "trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.accelerator=cpu"]
# A run without torch: its loss hangs on the rate alone; writes what train.py writes.
STAND_IN = """
import json, os, sys, time
from pathlib import Path
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
assert given["test"] == "false"
folder, lr = Path(given["hydra.run.dir"].strip("'")), float(given["optimizer.lr"])
with open(folder / "starts", "a") as file:
    file.write(given.get("resume", "anew") + "\\n")
(folder / "config.yaml").write_text("trainer: {max_epochs: 4}")
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "last.ckpt").touch()
kind = os.environ.get("KIND", "")
if kind == "crash":
    sys.exit(3)
rows = ["epoch,val/loss"]
for epoch in range(4):
    rows.append(f"{epoch},{lr}")
    (folder / "metrics.csv").write_text("\\n".join(rows) + "\\n")
    time.sleep(float(os.environ.get("PAUSE", "0")))
loss = float("nan") if kind == "nan" and lr > 0.05 else lr
(folder / "results.json").write_text(json.dumps({"status": "completed", "val": {"loss": loss, "acc": 1 - lr}, "train_seconds": 1.0}))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Searches in this process, with a stand-in for train.py; returns the study."""
    optuna = pytest.importorskip("optuna")
    from hydra import initialize_config_dir

    from src import search, search_worker

    (tmp_path / "train.py").write_text(STAND_IN)
    monkeypatch.setattr(search_worker, "SCRIPT", tmp_path / "train.py")

    def start(*typed: str) -> "optuna.Study":
        folder = tmp_path / "study"
        cfg = composed(list(typed), "search")
        cfg.search = {"optimizer.lr": {"low": 0.001, "high": 0.1}}
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            search.search(cfg, list(typed), folder)
        return optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")

    return start


def states(study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_started_again_it_goes_on_to_the_total(stand_in, tmp_path, capsys):
    assert states(stand_in("n_trials=3", "sampler=random")) == ["COMPLETE"] * 3
    study = stand_in("n_trials=5", "sampler=random", "workers=2")
    assert states(study) == ["COMPLETE"] * 5 and len({trial.value for trial in study.trials}) == 5
    assert states(stand_in("n_trials=5")) == ["COMPLETE"] * 5
    with open(tmp_path / "study" / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/loss"]) for row in rows] == sorted(trial.value for trial in study.trials)
    page = (tmp_path / "study" / "search.html").read_text()
    assert "Validation loss by trial" in page and "Importance" in page and "://" not in page
    assert f"optimizer.lr={study.best_params['optimizer.lr']}" in capsys.readouterr().out
    with pytest.raises(UserError, match="another search"):
        stand_in("model=lenet")


@pytest.mark.slow
def test_hopeless_trials_are_pruned_and_nan_counts_as_failed(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.5")
    monkeypatch.setenv("KIND", "nan")
    study = stand_in("n_trials=7", "sampler=random", "pruner.startup_trials=2", "pruner.warmup_epochs=0", "workers=2", "max_failures=20")
    assert states(study).count("PRUNED") >= 1 and states(study).count("COMPLETE") + states(study).count("PRUNED") == 7
    for trial in study.trials:
        results = json.loads((tmp_path / "study" / trial.user_attrs["folder"] / "results.json").read_text())
        assert results["status"] == {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
        if trial.state.name == "PRUNED":
            assert len(trial.intermediate_values) < 4
    assert study.best_value == min(trial.value for trial in study.trials if trial.state.name == "COMPLETE")


def test_failures_in_a_row_end_a_search(stand_in, monkeypatch):
    monkeypatch.setenv("KIND", "crash")
    with pytest.raises(UserError, match="3 trials failed in a row") as caught:
        stand_in("n_trials=5", "max_failures=3")
    assert "exit code 3" in caught.value.problem and "output.log" in caught.value.remedy


def test_a_trial_whose_worker_died_goes_on_from_its_checkpoint(stand_in, tmp_path):
    from src.search import open_study, read_space

    space = OmegaConf.create({"optimizer.lr": {"low": 0.001, "high": 0.1}})
    study = open_study(tmp_path / "study", {"fixed": [], "space": OmegaConf.to_container(space)})
    left = study.ask(read_space(space))  # running, and nobody holds its folder
    (tmp_path / "study" / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "study" / "0" / "checkpoints" / "last.ckpt").touch()
    study = stand_in("n_trials=2")
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"] and study.trials[1].params == left.params
    assert (tmp_path / "study" / "0" / "starts").read_text().strip().endswith("last.ckpt")
    assert [trial.user_attrs["folder"] for trial in study.trials[1:]] == ["0", "2"]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "log"),
        ({"optimizer.lr": {"low": 2, "high": 1}}, "low"),
        ({"optimizer.lr": {"min": 1, "max": 2}}, "neither"),
        ({"optimizer.lr": 3}, "neither"),
        ({"test": [True, False]}, "test"),
        ({"optimizer.lrr": [1, 2]}, "lrr"),
        ({"optimizer": ["sgd", "nope"]}, "nope"),
        ({"data.batch_size": [1, 2]}, "given and searched"),
        ({"trainer.max_epochs": ["many"]}, "max_epochs"),
        ({}, "nothing"),
    ],
)
def test_slips_in_a_space_show_before_the_first_trial(space, words):
    pytest.importorskip("optuna")
    from hydra import initialize_config_dir

    from src.search import check, read_space

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"), pytest.raises(UserError, match=words):
        check(read_space(OmegaConf.create(space)), ["data.batch_size=16"])


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "search").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_space_composes(path):
    pytest.importorskip("optuna")
    from hydra import initialize_config_dir

    from src.search import check, read_space

    space = read_space(composed([f"search={path.stem}"], "search").search)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        check(space, [])


@pytest.mark.slow
def test_real_trials_by_two_workers(tmp_path):
    optuna = pytest.importorskip("optuna")
    study = tmp_path / "study"
    result = run_script("search.py", *SMALL, "n_trials=2", "workers=2", f"hydra.run.dir={study}")
    assert result.returncode == 0, result.stderr
    trials = optuna.load_study(study_name="search", storage=f"sqlite:///{study / 'study.db'}").trials
    for trial in trials:
        results = json.loads((study / str(trial.number) / "results.json").read_text())
        assert results["test"] is None and results["val"]["loss"] == trial.value
    assert len(trials) == 2 and "python train.py model=lenet" in result.stdout


def test_a_search_never_sees_the_test_split(tmp_path):
    pytest.importorskip("optuna")
    assert_two_lines(run_warm("search.py", "test=true", f"hydra.run.dir={tmp_path}", cwd=tmp_path), "test split")


@pytest.mark.slow
def test_two_workers_one_of_them_killed_finish_twelve_trials(tmp_path):
    optuna = pytest.importorskip("optuna")
    study = tmp_path / "study"
    command = [sys.executable, str(ROOT / "search.py"), *SMALL, "trainer.max_epochs=6", "pruner=null", "n_trials=12"]
    command = [c for c in command if c != "trainer.max_epochs=2"] + [f"hydra.run.dir={study}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    first, second = (subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) for _ in range(2))

    def load():
        return optuna.load_study(study_name="search", storage=f"sqlite:///{study / 'study.db'}").trials

    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:  # until both are at work and two trials are over
        time.sleep(0.5)
        if (study / "study.db").is_file() and len(list(study.glob("*/results.json"))) >= 2:
            break
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert first.wait(600) == 0
    trials = load()
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(complete) == 12 and not [trial for trial in trials if trial.state.name == "RUNNING"]
    assert len({trial.user_attrs["folder"] for trial in complete}) == 12
    cut_off = [trial for trial in trials if trial.state.name == "FAIL"]
    assert len(cut_off) == 1
    assert [trial.params for trial in complete if trial.user_attrs["folder"] == cut_off[0].user_attrs["folder"]] == [cut_off[0].params]
    for trial in complete:
        results = json.loads((study / trial.user_attrs["folder"] / "results.json").read_text())
        assert results["status"] == "completed" and results["val"]["loss"] == trial.value and results["epochs"] == 6


@pytest.mark.slow
def test_ctrl_c_ends_the_trials_and_the_same_command_goes_on(tmp_path):
    optuna = pytest.importorskip("optuna")
    study = tmp_path / "study"
    options = ["model=lenet", "data.image_size=16", "trainer.accelerator=cpu", "trainer.max_epochs=25", "pruner=null", "sampler=random"]
    options += ["n_trials=1", f"hydra.run.dir={study}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    first = subprocess.Popen(
        [sys.executable, str(ROOT / "search.py"), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts in the background ignores it
    )
    deadline = time.monotonic() + 240
    while not (study / "0" / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 130 and "The same command goes on." in errors and "Traceback" not in errors
    assert json.loads((study / "0" / "run.json").read_text())["status"] == "interrupted"
    again = run_script("search.py", *options)
    assert again.returncode == 0, again.stderr
    assert "Trial 0 goes on" in again.stdout
    trials = optuna.load_study(study_name="search", storage=f"sqlite:///{study / 'study.db'}").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"] and trials[0].params == trials[1].params
    with open(study / "0" / "metrics.csv", newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(25))


# The learning rate finder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_suggested_rate_trains(optimizer, tmp_path, capsys):
    typed = ["model=lenet", "data.image_size=16", f"optimizer={optimizer}", "trainer.accelerator=cpu"]
    rate = find_lr(composed(typed, "find_lr"), typed, tmp_path / "lr")
    assert sorted(path.name for path in (tmp_path / "lr").iterdir()) == ["lr_finder.csv", "lr_finder.svg"]
    assert f"optimizer={optimizer} trainer.accelerator=cpu optimizer.lr={rate:.2g}" in capsys.readouterr().out
    results = run_training(tmp_path / "run", *typed, f"optimizer.lr={rate:.2g}", "trainer.max_epochs=2", "test=false")
    assert results["val"]["loss"] < 1.5  # chance is 2.3


@pytest.mark.parametrize(("range_", "words"), [(["min_lr=50", "max_lr=1e4"], "Start lower"), (["max_lr=2e-6"], "Go higher")])
def test_a_range_without_a_good_rate_is_told(range_, words, tmp_path):
    typed = ["model=lenet", "data.image_size=16", "trainer.accelerator=cpu", "num_steps=20", *range_]
    with pytest.raises(UserError, match="No rate can be suggested") as caught:
        find_lr(composed(typed, "find_lr"), typed, tmp_path)
    assert words in caught.value.remedy and (Path(tmp_path) / "lr_finder.csv").is_file()
