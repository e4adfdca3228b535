"""Sweeps and searches from strangers that are continued or summed up.

Each attack ends in an error of two lines or is read as empty: nothing runs, nothing is written
outside of the folder, in less than 20 s and 1 GB (the fixture `outside`).
"""

import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import composed, run_warm
from hostile import BOMB, Write, put, sparse
from omegaconf import OmegaConf
from run_helpers import SMALL

from src.errors import UserError
from src.runs.run_folder import RunFolder, status
from src.sweeps.job_files import typed_for
from src.sweeps.summary import format_summary, write_summary

optuna = pytest.importorskip("optuna")

from src.sweeps.space import read_space  # noqa: E402
from src.sweeps.study import open_study  # noqa: E402
from src.sweeps.trials import trial_folder  # noqa: E402

pytestmark = pytest.mark.usefixtures("outside")
SPACE = {"optimizer.lr": {"low": 0.001, "high": 0.1}}


# Jobs of a sweep

RESULTS: dict[str, Write] = {
    "text_for_numbers": '{"status": "completed", "val": {"loss": "0.1", "acc": []}}',
    "list_for_metrics": '{"status": "completed", "val": [1], "train_seconds": "x"}',
    "nan": '{"status": "completed", "val": {"loss": NaN}, "best_epoch": Infinity}',
    "long_number": f'{{"status": "completed", "val": {{"loss": {"9" * 4000}}}}}',
    "names": '{"status": "completed", "metrics": [[1], {}, "a\\u001b[31m"], "best_epoch": 1e300}',
    "status": '{"status": {"a": []}, "error": {"a": "\\ud800\\u001b[2J"}}',
    "deep": '{"status": "completed", "a": ' + "[" * 500 + "]" * 500 + "}",
    "many_values": '{"a": [' + "[]," * 4_000_000 + "0]}",
    "huge": sparse,
    "truncated": '{"status": "comp',
    "empty": "",
    "pipe": os.mkfifo,
    "missing": lambda path: None,
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_summary_of_hostile_results(name, tmp_path):
    sweep = tmp_path / "sweep"
    for number in range(2):
        put(sweep / str(number) / ".hydra" / "overrides.yaml", f"[seed={number}]")
    put(sweep / "0" / "results.json", RESULTS[name])
    run = {"status": "completed", "earlier": 3, "data": {"sizes": []}}
    put(sweep / "0" / "run.json", json.dumps(run))
    write_summary(sweep)
    assert format_summary(sweep).isascii() and "2 jobs" in format_summary(sweep)
    if name in ("deep", "many_values", "huge", "truncated", "empty", "pipe", "missing", "status"):
        assert status(sweep / "0") == "waiting"  # not completed, whatever run.json says
    RunFolder(sweep / "0").start({}, [])


OVERRIDES: dict[str, Write] = {
    "bomb": BOMB,
    "mapping": "{a: 1}",
    "numbers": "[1, {}]",
    "too_many": yaml.safe_dump([f"k{i}={i}" for i in range(2000)]),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_summary_of_hostile_settings(name, tmp_path):
    path = tmp_path / "sweep" / "0" / ".hydra" / "overrides.yaml"
    put(path, OVERRIDES[name])
    put(tmp_path / "sweep" / "1" / ".hydra" / "overrides.yaml", r'[val/loss=1, "job=\e[31m"]')
    assert typed_for(path.parents[1]) is None
    write_summary(tmp_path / "sweep")


# Searches

SETTINGS = {"fixed": [], "space": SPACE}


def study_in(folder: Path) -> optuna.Study:
    return open_study(folder, SETTINGS, read_space(OmegaConf.create(SPACE)))


def change(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)


STUDIES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x" * 5000),
    "huge": sparse,
    "view": lambda path: change(path, "CREATE VIEW endless AS SELECT 1"),
    "trigger": lambda path: change(
        path, "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END"
    ),
    "journal": lambda path: path.with_name("study.db-journal").write_bytes(
        bytes.fromhex("d9d505f920a163d7")
    ),
    "no_tables": lambda path: change(path, "DROP TABLE studies"),
    "settings": lambda path: change(path, "UPDATE study_user_attributes SET value_json = '[1]'"),
    "value": lambda path: change(path, "UPDATE trial_params SET param_value = 7"),
    "name": lambda path: change(path, "UPDATE trial_params SET param_name = 'hydra.run.dir'"),
    "next_trial": lambda path: change(
        path,
        "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
        """VALUES (1, 'fixed_params', '{"optimizer": "../../../evil"}')""",
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_hostile_studies(name, tmp_path):
    study_in(tmp_path / "study").ask(read_space(OmegaConf.create(SPACE)))
    study_in(tmp_path / "study")  # an honest one is opened again
    STUDIES[name](tmp_path / "study" / "study.db")
    with pytest.raises(UserError):
        study_in(tmp_path / "study")


def test_a_full_disk_is_not_a_foreign_study(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(optuna, "create_study", fail)
    with pytest.raises(OSError, match="No space left"):
        study_in(tmp_path / "study")


@pytest.mark.parametrize("name", ["../../outside/x", "/x", "..", ["0"], 3, ""])
def test_the_folder_of_a_trial_is_in_that_of_the_search(name):
    trial = optuna.trial.create_trial(value=0.0, user_attrs={"folder": name})
    assert trial_folder(trial) == str(trial.number)


class RunsCode:
    """What a hostile pickle holds."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.slow
def test_a_received_sweep_runs_nothing_of_its_own(tmp_path):
    job = tmp_path / "sweep" / "0"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(RunsCode(tmp_path / "ran")))
    call = {"_target_": "joblib.load", "filename": str(tmp_path / "evil.pkl")}
    evil = yaml.safe_dump({"hydra": {"callbacks": {"evil": call}}})
    honest = OmegaConf.to_yaml(composed([*SMALL, "seed=0"]), resolve=True)
    for folder in (job, job / ".hydra"):
        put(folder / "evil.yaml", "# @package _global_\n" + evil)
        put(folder / "job.yaml", "defaults: [_self_, evil]\n" + honest + evil)
    put(job / ".hydra" / "hydra.yaml", evil)
    typed = ["-m", *SMALL, "seed=0", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    result = run_warm("train.py", *typed, cwd=tmp_path / "work")
    assert result.returncode == 2 and "holds defaults" in result.stderr
    assert not (tmp_path / "ran").exists()
