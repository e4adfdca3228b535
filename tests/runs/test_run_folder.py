"""The files of a run folder and the states that they record."""

import json

import pytest
import yaml

from src.errors import UserError
from src.runs.run_folder import RunFolder, flatten, last_checkpoint, set_status, status


def read(path):
    return json.loads(path.read_text())


def test_start_note_and_finish(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert status(folder.path) == "waiting"
    folder.start({"seed": 0, "data": {"root": "猫"}}, ["train.py", "seed=0"])
    assert status(folder.path) == "running"
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["data"]["root"] == "猫"
    folder.note(precision="32-true")
    folder.finish({"status": "completed", "val": None})
    run = read(folder.path / "run.json")
    assert run["precision"] == "32-true" and run["command"] == ["train.py", "seed=0"]
    assert run["status"] == "completed" and run["end"] and "torch" in run["versions"]
    assert status(folder.path) == "completed"


def test_two_writers_are_refused(tmp_path):
    first = RunFolder(tmp_path)
    first.start({}, [])
    with pytest.raises(UserError, match="Another process"):
        RunFolder(tmp_path).start({}, [])
    first.release()
    second = RunFolder(tmp_path)
    second.start({}, [])
    second.release()


def test_a_resumed_run_keeps_its_record_and_its_results(tmp_path):
    first = RunFolder(tmp_path)
    first.start({}, ["train.py"])
    first.finish({"status": "completed", "test": {"acc": 1.0}})
    second = RunFolder(tmp_path)
    second.start({}, ["train.py", "resume=last"])
    assert read(tmp_path / "results.json")["test"] == {"acc": 1.0}
    assert status(tmp_path) == "running"  # whatever the old results say
    assert [run["command"] for run in read(tmp_path / "run.json")["earlier"]] == [["train.py"]]
    second.record_failure(ValueError("odd"))
    assert read(tmp_path / "results.json")["test"] == {"acc": 1.0}
    assert status(tmp_path) == "failed"
    set_status(tmp_path, "interrupted", "ended by SIGKILL")
    assert read(tmp_path / "results.json")["test"] == {"acc": 1.0}
    assert status(tmp_path) == "interrupted"
    (tmp_path / "results.json").unlink()
    third = RunFolder(tmp_path)
    third.start({}, ["train.py"])
    third.finish({"status": "completed", "test": {"acc": 0.5}})
    assert read(tmp_path / "results.json")["test"] == {"acc": 0.5}


def test_a_completed_run_without_its_results_is_not_completed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.start({}, [])
    folder.finish({"status": "completed"})
    (tmp_path / "results.json").unlink()
    assert status(tmp_path) == "waiting"


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (UserError("No data.", "Get them."), "failed", "No data."),
        (ValueError("odd"), "failed", "ValueError: odd"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: "),
    ],
)
def test_failures_are_recorded(error, expected, text, tmp_path):
    folder = RunFolder(tmp_path)
    folder.start({}, [])
    folder.record_failure(error, seed=3)
    assert read(tmp_path / "results.json") == {"status": expected, "error": text, "seed": 3}
    assert status(tmp_path) == expected


def test_a_failure_that_cannot_be_recorded_is_logged(tmp_path, monkeypatch, caplog):
    folder = RunFolder(tmp_path)
    folder.start({}, [])

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("src.runs.run_folder.write_json", full)
    folder.record_failure(ValueError("odd"))
    assert "results.json cannot be written: No space left" in caplog.text


def test_set_status_for_a_job_that_could_not(tmp_path):
    folder = RunFolder(tmp_path)
    folder.start({}, [])
    set_status(tmp_path, "interrupted", "ended by SIGKILL")
    assert status(tmp_path) == "interrupted"


def test_secrets_are_not_written(tmp_path):
    folder = RunFolder(tmp_path)
    folder.start({"logger": {"api_key": "hunter2", "name": "a"}}, [])
    folder.release()
    text = (tmp_path / "config.yaml").read_text()
    assert "hunter2" not in text and "name: a" in text


def test_flatten_and_last_checkpoint(tmp_path):
    assert flatten({"a": {"b": 1, "c": {}}, "d": None}) == {"a.b": 1, "a.c": {}, "d": None}
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"
