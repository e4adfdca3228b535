"""`reproduce=RUN`: the same results to the last digit, and differences by name."""

import json
import shutil

import pytest

from src.engine.reproduce import compare, reproduce
from src.errors import UserError


def test_a_run_is_reproduced_to_the_last_digit(finished_run, tmp_path, caplog):
    caplog.set_level("INFO")
    assert reproduce(str(finished_run), tmp_path / "again") == []
    assert f"All values equal those of {finished_run}" in caplog.text
    assert (tmp_path / "again" / "checkpoints" / "best.ckpt").is_file()


def test_differences_are_named(finished_run, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    changed = tmp_path / "changed"
    changed.mkdir()
    for name in ("config.yaml", "metrics.csv", "run.json", "results.json"):
        shutil.copy(finished_run / name, changed)
    results = json.loads((changed / "results.json").read_text())
    results["val"]["loss"] += 1e-6
    results["train_seconds"] += 5
    (changed / "results.json").write_text(json.dumps(results))
    record = json.loads((changed / "run.json").read_text())
    record["versions"]["torch"] = "1.0.0"
    (changed / "run.json").write_text(json.dumps(record))

    def copy_run(cfg, run_dir):
        assert cfg.resume is None
        shutil.copytree(finished_run, run_dir)

    monkeypatch.setattr("src.engine.reproduce.train", copy_run)
    differences = reproduce(changed, tmp_path / "again")
    assert [line.split()[0] for line in differences] == ["val.loss"]
    assert "Other circumstances: versions.torch was 1.0.0" in caplog.text


def test_only_a_completed_run_can_be_reproduced(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a finished run"):
        reproduce("nowhere", tmp_path / "again")
    (tmp_path / "results.json").write_text('{"status": "failed"}')
    with pytest.raises(UserError, match="is failed"):
        reproduce(tmp_path, tmp_path / "again")


def test_compare_names_keys_of_either_side():
    lines = compare({"a": 1, "b": 2}, {"a": 1, "c": 3})
    assert lines == ["b was 2 and is None", "c was None and is 3"]
