"""The process of one job."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import QUICK, ROOT, composed
from omegaconf import OmegaConf

from src.config.prepare import prepare_config
from src.errors import UserError
from src.runs.files import read_json
from src.sweeps import worker
from src.sweeps.compose import freeze
from src.sweeps.pool import Job


def run_worker(folder: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "src.sweeps.worker", str(folder), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def job(tmp_path) -> Path:
    """The folder of a small job."""
    config = composed(["model=lenet", "logger=none", *QUICK])
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    prepare_config(config)
    freeze(Job("a job", tmp_path / "job", [], config))
    return tmp_path / "job"


@pytest.mark.slow
def test_a_job_trains_and_logs_to_its_folder(job):
    result = run_worker(job)
    assert result.returncode == 0, result.stderr
    assert read_json(job / "results.json")["status"] == "completed"
    log = (job / "train.log").read_text()
    assert "[INFO] - " in log and "[INFO]" not in result.stdout
    assert log.splitlines()[-1].partition(" - ")[2] in result.stdout


def test_a_job_with_a_mistake_ends_with_two_lines(job, capsys):
    config = OmegaConf.load(job / worker.JOB_CONFIG)
    config.data.image_size = 2
    OmegaConf.save(config, job / worker.JOB_CONFIG)
    with pytest.raises(SystemExit) as error:
        worker.run(job, trusted=True)
    assert error.value.code == 2
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["Error:", "Hint:"]
    assert read_json(job / "results.json")["status"] == "failed"


def test_a_job_is_resumed_from_its_last_checkpoint(job, monkeypatch):
    seen = []
    monkeypatch.setattr("src.engine.train.train", lambda cfg, folder: seen.append(cfg.resume))
    worker.run(job, trusted=True)
    (job / "checkpoints").mkdir()
    (job / "checkpoints" / "last.ckpt").touch()
    worker.run(job, trusted=True)
    assert seen == [None, str(job / "checkpoints" / "last.ckpt")]


def test_a_config_from_elsewhere_builds_nothing_of_its_own(job):
    config = OmegaConf.load(job / worker.JOB_CONFIG)
    config.model._target_ = "os.system"
    OmegaConf.save(config, job / worker.JOB_CONFIG)
    with pytest.raises(UserError, match="os.system"):
        worker.read_job(job, trusted=False)
    config.model._target_ = "src.models.LeNet"
    config.model.name = "${oc.env:HOME}"
    (job / worker.JOB_CONFIG).write_text(OmegaConf.to_yaml(config))
    with pytest.raises(UserError, match="interpolation"):
        worker.read_job(job, trusted=False)


def test_other_ranks_write_no_log_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = list(logging.getLogger().handlers)
    worker.configure_logging(tmp_path)
    assert not (tmp_path / "train.log").exists()
    logging.getLogger().handlers[:] = before
