"""What Hydra calls during a sweep, with a script in place of training runs."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, use_as_worker
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from hydra_plugins.processes import ProcessLauncher
from src.runs.files import read_json, write_json
from src.sweeps.launcher import SweepCallback
from src.sweeps.plan import PLAN

FAKE_JOB = """
import json, os, sys
(folder / "word").write_text(os.environ.get("WORD", ""))
if folder.name == "2":
    sys.exit(1)
results = {"status": "completed", "val": {"loss": 0.5, "acc": 0.5}, "train_seconds": 1.0}
(folder / "results.json").write_text(json.dumps(results))
(folder / "run.json").write_text(json.dumps({"status": "completed"}))
"""


@pytest.fixture(autouse=True)
def forget_plan() -> Iterator[None]:
    yield
    PLAN.jobs.clear()
    if PLAN.lock is not None:
        PLAN.lock.release()


def test_unfinished_jobs_run_and_failures_end_the_command_with_code_1(
    tmp_path, monkeypatch, capsys
):
    use_as_worker(FAKE_JOB, tmp_path, monkeypatch)
    sweep = tmp_path / "sweep"
    results = {"status": "completed", "val": {"loss": 0.25, "acc": 0.5}, "train_seconds": 1.0}
    write_json(sweep / "0" / "results.json", results)
    write_json(sweep / "1" / "run.json", {"status": "running"})  # it was killed
    typed = ["model=lenet", "seed=0,1,2", f"hydra.sweep.dir={sweep}", "hydra.mode=MULTIRUN"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        hydra = GlobalHydra.instance().hydra
        typed.append("+hydra.job.env_set.WORD=given")
        config = hydra.compose_config("config", typed, RunMode.MULTIRUN)
        callback = SweepCallback()
        callback.on_multirun_start(config)
        launcher = ProcessLauncher()
        launcher.config = config
        returned = launcher.launch([job.overrides for job in PLAN.jobs.values()], 0)
    losses = [result.return_value for result in returned]
    assert losses[:2] == [0.25, 0.5] and math.isnan(losses[2])
    assert not (sweep / "0" / "word").exists() and (sweep / "1" / "word").read_text() == "given"
    assert read_json(sweep / "2" / "results.json")["error"].startswith("ended with exit code 1")
    with pytest.raises(SystemExit) as error:
        callback.on_multirun_end(config)
    output = capsys.readouterr().out
    assert error.value.code == 1
    assert "1 of 3 jobs were finished before." in output
    assert f"[2/2] Job 2 (seed=2): {sweep / '2'}" in output
    assert "3 jobs: 2 completed, 1 failed." in output
    assert f"type the same command with hydra.sweep.dir={sweep}" in output


def test_a_mistake_ends_the_program_before_the_first_job(tmp_path, capsys):
    typed = ["model=lenet", "data.image_size=2,3", f"hydra.sweep.dir={tmp_path}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        hydra = GlobalHydra.instance().hydra
        config = hydra.compose_config("config", [*typed, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        with pytest.raises(SystemExit) as error:
            SweepCallback().on_multirun_start(config)
    assert error.value.code == 2
    assert "Job 0 (data.image_size=2)" in capsys.readouterr().err
    assert list(Path(tmp_path).iterdir()) == []
