"""Whole searches as they are typed, with workers that are killed or interrupted."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, assert_two_lines, run_script, run_warm

from src.runs.files import read_json

optuna = pytest.importorskip("optuna")
SMALL = [
    "model=lenet",
    "data.image_size=16",
    "trainer.limit_train_batches=4",
    "trainer.accelerator=cpu",
    "logger=none",
]


def load_trials(study: Path) -> list["optuna.trial.FrozenTrial"]:
    storage = f"sqlite:///{study / 'study.db'}"
    return optuna.load_study(study_name="search", storage=storage).trials


def start_search(*typed: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "search.py"), *typed],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, *processes: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)


def test_a_search_never_sees_the_test_split(tmp_path):
    result = run_warm("search.py", "test=true", f"hydra.run.dir={tmp_path}", cwd=tmp_path)
    assert_two_lines(result, "test split")


@pytest.mark.slow
def test_trials_are_runs_without_the_test_split(tmp_path):
    study = tmp_path / "study"
    typed = [*SMALL, "trainer.max_epochs=1", "n_trials=2", "workers=2", f"hydra.run.dir={study}"]
    result = run_script("search.py", *typed)
    assert result.returncode == 0, result.stdout + result.stderr
    trials = load_trials(study)
    for trial in trials:
        results = read_json(study / str(trial.number) / "results.json")
        assert results["test"] is None and results["val"]["loss"] == trial.value
    assert len(trials) == 2 and "python train.py model=lenet" in result.stdout


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_finish_twelve_trials(tmp_path):
    study = tmp_path / "study"
    typed = [*SMALL, "trainer.max_epochs=6", "pruner=null", "n_trials=12", f"hydra.run.dir={study}"]
    first, second = start_search(*typed), start_search(*typed)
    wait_for(lambda: len(list(study.glob("*/results.json"))) >= 2, first, second)
    second.kill()
    second.wait()
    assert first.wait(600) == 0
    trials = load_trials(study)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    cut_off = [trial for trial in trials if trial.state.name == "FAIL"]
    assert len(complete) == 12 and len(trials) == 12 + len(cut_off) and len(cut_off) <= 1
    assert len({trial.user_attrs["folder"] for trial in complete}) == 12
    for trial in cut_off:
        name = trial.user_attrs["folder"]
        again = [other for other in complete if other.user_attrs["folder"] == name]
        assert [other.params for other in again] == [trial.params]
    for trial in complete:
        results = read_json(study / trial.user_attrs["folder"] / "results.json")
        assert results["status"] == "completed" and results["epochs"] == 6
        assert results["val"]["loss"] == trial.value


@pytest.mark.slow
def test_ctrl_c_ends_the_trials_and_the_same_command_continues(tmp_path):
    study = tmp_path / "study"
    typed = [*SMALL, "trainer.max_epochs=40", "pruner=null", "sampler=random", "n_trials=1"]
    typed.append(f"hydra.run.dir={study}")
    # A process that a shell starts in the background ignores Ctrl-C; its children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    first = start_search(*typed)
    signal.signal(signal.SIGINT, before)
    wait_for((study / "0" / "checkpoints" / "last.ckpt").is_file, first)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 130 and "The same command continues the search." in errors
    assert "Traceback" not in errors
    assert read_json(study / "0" / "run.json")["status"] == "interrupted"
    again = run_script("search.py", *typed)
    assert again.returncode == 0, again.stderr
    assert "Trial 0 is resumed" in again.stdout
    trials = load_trials(study)
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert trials[0].params == trials[1].params
    with open(study / "0" / "metrics.csv", newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(40))
