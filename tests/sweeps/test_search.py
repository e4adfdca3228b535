"""Searches, with a script in place of training runs."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, composed, use_as_worker
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from src.errors import UserError
from src.runs.files import Lock, read_json
from src.runs.run_folder import status
from src.sweeps.search import search

optuna = pytest.importorskip("optuna")

from src.sweeps.space import check_space, read_space  # noqa: E402
from src.sweeps.study import open_study  # noqa: E402

SPACE = {"optimizer.lr": {"low": 0.001, "high": 0.1}}
# A run without torch whose loss is its learning rate; it writes what train.py writes.
FAKE_TRIAL = """
import json, os, sys, time, yaml
config = yaml.safe_load((folder / "job.yaml").read_text())
assert config["test"] is False
lr, kind = float(config["optimizer"]["lr"]), os.environ.get("KIND", "")
last = folder / "checkpoints" / "last.ckpt"
with open(folder / "starts", "a") as file:
    file.write("resumed\\n" if last.exists() else "new\\n")
last.parent.mkdir(exist_ok=True)
last.touch()
if kind == "crash":
    sys.exit(3)
rows = ["epoch,val/loss"]
for epoch in range(4):
    rows.append(f"{epoch},{lr}")
    (folder / "metrics.csv.part").write_text("\\n".join(rows) + "\\n")
    (folder / "metrics.csv.part").replace(folder / "metrics.csv")
    time.sleep(float(os.environ.get("PAUSE", "0")))
loss = float("nan") if kind == "nan" and lr > 0.05 else lr
results = {"status": "completed", "val": {"loss": loss, "acc": 1 - lr}, "train_seconds": 1.0}
(folder / "results.json").write_text(json.dumps(results))
(folder / "run.json").write_text(json.dumps({"status": "completed"}))
"""
Start = Callable[..., "optuna.Study"]


@pytest.fixture
def start(tmp_path, monkeypatch) -> Start:
    """Start a search in this process; returns its study."""
    use_as_worker(FAKE_TRIAL, tmp_path, monkeypatch)

    def run(*typed: str) -> "optuna.Study":
        cfg = composed(["model=lenet", "trainer.max_epochs=4", *typed], "search")
        cfg.search = SPACE
        fixed = ["model=lenet", "trainer.max_epochs=4", *typed]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            search(cfg, fixed, tmp_path / "study")
        return load_study(tmp_path / "study")

    return run


def load_study(folder: Path) -> "optuna.Study":
    return optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")


def states(study: "optuna.Study") -> list[str]:
    return [trial.state.name for trial in study.trials]


@pytest.mark.slow
def test_the_same_command_continues_to_the_number_of_trials(start, tmp_path, capsys):
    assert states(start("n_trials=3", "sampler=random")) == ["COMPLETE"] * 3
    study = start("n_trials=5", "sampler=random", "workers=2")
    assert states(study) == ["COMPLETE"] * 5
    assert len({trial.value for trial in study.trials}) == 5
    assert states(start("n_trials=5")) == ["COMPLETE"] * 5
    with open(tmp_path / "study" / "summary.csv", newline="") as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file)]
    assert losses == sorted(trial.value for trial in study.trials)
    page = (tmp_path / "study" / "search.html").read_text()
    assert "Validation loss by trial" in page and "Importance" in page
    output = capsys.readouterr().out
    assert f"optimizer.lr={study.best_params['optimizer.lr']}" in output
    assert "python train.py model=lenet trainer.max_epochs=4 optimizer.lr=" in output
    with pytest.raises(UserError, match="another search"):
        start("data.batch_size=8")


@pytest.mark.slow
def test_hopeless_trials_are_pruned_and_a_loss_that_is_not_finite_is_a_failure(
    start, tmp_path, monkeypatch
):
    monkeypatch.setenv("PAUSE", "0.4")
    monkeypatch.setenv("KIND", "nan")
    pruner = ["pruner.startup_trials=2", "pruner.warmup_epochs=0", "max_failures=20"]
    study = start("n_trials=6", "sampler=random", "workers=2", *pruner)
    assert states(study).count("PRUNED") >= 1
    assert states(study).count("COMPLETE") + states(study).count("PRUNED") == 6
    expected = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed"}
    for trial in study.trials:
        folder = tmp_path / "study" / trial.user_attrs["folder"]
        assert status(folder) == expected[trial.state.name]
        if trial.state.name == "PRUNED":
            assert "in epoch 4" not in read_json(folder / "run.json").get("error", "")
    complete = [trial.value for trial in study.trials if trial.state.name == "COMPLETE"]
    assert study.best_value == min(complete)


def test_failures_in_a_row_end_a_search(start, monkeypatch):
    monkeypatch.setenv("KIND", "crash")
    with pytest.raises(UserError, match="3 trials failed in a row") as caught:
        start("n_trials=5", "max_failures=3")
    assert "exit code 3" in caught.value.problem and "output.log" in caught.value.remedy


@pytest.mark.parametrize("has_lock_file", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_trial_whose_worker_died_is_resumed_once(has_lock_file, start, tmp_path):
    folder = tmp_path / "study"
    fixed = ["model=lenet", "trainer.max_epochs=4"]
    study = open_study(
        folder, {"fixed": fixed, "space": SPACE}, read_space(OmegaConf.create(SPACE))
    )
    left = study.ask(read_space(OmegaConf.create(SPACE)))  # it is running, by nobody
    (folder / "0" / "checkpoints").mkdir(parents=True)
    if has_lock_file:
        (folder / "0" / ".trial.lock").touch()
    (folder / "0" / "checkpoints" / "last.ckpt").touch()
    study = start("n_trials=2")
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == left.params
    assert (folder / "0" / "starts").read_text() == "resumed\n"
    assert [trial.user_attrs["folder"] for trial in study.trials[1:]] == ["0", "2"]


def test_a_result_that_its_worker_could_not_report_is_not_lost(start, tmp_path):
    folder = tmp_path / "study"
    fixed = ["model=lenet", "trainer.max_epochs=4"]
    study = open_study(
        folder, {"fixed": fixed, "space": SPACE}, read_space(OmegaConf.create(SPACE))
    )
    study.ask(read_space(OmegaConf.create(SPACE)))
    (folder / "0").mkdir()
    results = {"status": "completed", "val": {"loss": 0.25, "acc": 0.5}}
    (folder / "0" / "results.json").write_text(json.dumps(results))
    study = start("n_trials=1")
    assert states(study) == ["COMPLETE"] and study.best_value == 0.25
    assert not (folder / "0" / "starts").exists()


def test_a_trial_of_another_worker_is_left_alone(tmp_path, start):
    """The search waits for it, until its worker is gone."""
    from src.sweeps.trials import SearchWorker

    folder = tmp_path / "study"
    space = read_space(OmegaConf.create(SPACE))
    study = open_study(folder, {"fixed": [], "space": SPACE}, read_space(OmegaConf.create(SPACE)))
    other = study.ask(space)
    cfg = composed(["n_trials=1"], "search")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        jobs = SearchWorker(cfg, study, space, [], folder).jobs()
        with Lock(folder / "0" / ".trial.lock"):
            assert next(jobs) is None
            assert states(study) == ["RUNNING"]
        job = next(jobs)
    assert job is not None and job.folder == folder / "0"
    assert job.trial.params == other.params


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["test=true"], "test split"),
        (["resume=last"], "resume"),
        (["check=true"], "check"),
        (["n_trials=0"], "nothing to do"),
        (["sampler=grid"], "random, tpe"),
    ],
)
def test_settings_that_a_search_cannot_have(typed, words, start):
    with pytest.raises(UserError) as error:
        start(*typed)
    assert words in f"{error.value.problem} {error.value.remedy}"


# The space


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "log"),
        ({"optimizer.lr": {"low": 2, "high": 1}}, "low"),
        ({"optimizer.lr": {"min": 1, "max": 2}}, "neither"),
        ({"optimizer.lr": {"low": False, "high": True}}, "neither"),
        ({"optimizer.lr": 3}, "neither"),
        ({"test": [True, False]}, "test"),
        ({"optimizer.lrr": [1, 2]}, "lrr"),
        ({"optimizer": ["sgd", "nope"]}, "nope"),
        ({"data.batch_size": [1, 2]}, "given and searched"),
        ({"trainer.max_epochs": ["many"]}, "max_epochs"),
        ({}, "nothing"),
    ],
)
def test_mistakes_in_a_space_show_before_the_first_trial(space, words):
    conf = initialize_config_dir(str(ROOT / "conf"), version_base="1.3")
    with conf, pytest.raises(UserError, match=words):
        check_space(read_space(OmegaConf.create(space)), ["data.batch_size=16"])


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "search").glob("*.yaml")), ids=str)
def test_every_space_composes(path):
    space = read_space(composed([f"search={path.stem}"], "search").search)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        check_space(space, [])
