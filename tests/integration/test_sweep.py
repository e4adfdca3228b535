"""Whole sweeps as they are typed: jobs that fail or are killed, and the second start."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, run_script, run_training, run_warm

from src.runs.files import read_json
from src.runs.run_folder import status

SMALL = [
    "model=lenet",
    "data.image_size=16",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=4",
    "trainer.accelerator=cpu",
    "logger=none",
]
FAULT = '''
import os, signal, time
from pathlib import Path
import lightning as L


class Fault(L.Callback):
    """Raises, waits or is killed in its second epoch, once, in the jobs that a file names."""

    def on_train_epoch_start(self, trainer, task):
        job = Path(trainer.default_root_dir)
        if trainer.current_epoch != 1:
            return
        for what in ("raise", "kill", "usr2", "wait"):
            order = job.parent / f"{what}.{job.name}"
            if not order.exists():
                continue
            if what == "wait":
                while order.exists():
                    time.sleep(0.1)
                return
            order.unlink()
            if what == "raise":
                raise RuntimeError("a fault of the test")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "usr2": signal.SIGUSR2}[what])
'''


@pytest.fixture
def sweep(tmp_path) -> Path:
    """The folder of a sweep, beside the module with the faults."""
    (tmp_path / "faults.py").write_text(FAULT)
    (tmp_path / "sweep").mkdir()
    return tmp_path / "sweep"


def arguments(sweep: Path, *typed: str) -> list[str]:
    fault = "+callbacks.fault._target_=faults.Fault"
    return ["-m", *SMALL, fault, f"hydra.sweep.dir='{sweep}'", *typed]


def run_sweep(sweep: Path, *typed: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(sweep.parent), str(ROOT)])
    return run_script("train.py", *arguments(sweep, *typed), cwd=sweep.parent, PYTHONPATH=paths)


def read_rows(sweep: Path) -> dict[str, dict[str, str]]:
    """The rows of the summary by the name of the job."""
    with open(sweep / "summary.csv", newline="") as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def outcome(folder: Path) -> tuple:
    results = read_json(folder / "results.json")
    return results["status"], results.get("val"), results.get("test")


def num_starts(folder: Path) -> int:
    return 1 + len(read_json(folder / "run.json")["earlier"])


def test_a_sweep_runs_its_jobs_and_summarizes_them(tmp_path):
    """With a folder whose name Hydra's grammar would not read, and several jobs at a time."""
    sweep = tmp_path / "a b=1,(c)"
    typed = [*SMALL, "optimizer.lr=0.05,0.01", "hydra.launcher.n_jobs=2", "test=false"]
    result = run_warm("train.py", "-m", *typed, f"hydra.sweep.dir='{sweep}'", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = read_rows(sweep)
    assert {row["status"] for row in rows.values()} == {"completed"}
    assert "2 jobs: 2 completed." in result.stdout and "[2/2] Job 1 (optimizer.lr=0.01)" in (
        result.stdout
    )
    for job, row in rows.items():
        assert float(row["val/loss"]) == read_json(sweep / job / "results.json")["val"]["loss"]
        assert (sweep / job / "output.log").is_file() and (sweep / job / "train.log").is_file()
    assert (sweep / "sweep.html").is_file() and (sweep / "summary.md").is_file()


def test_mistakes_end_a_sweep_with_two_lines(tmp_path):
    result = run_warm("train.py", "-m", "model=lenet", "optimizer.lrr=1,2", cwd=tmp_path)
    assert result.returncode == 2
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["Error:", "Hint:"]
    assert "optimizer.lrr" in result.stderr


@pytest.mark.slow
def test_a_sweep_that_was_cut_off_is_completed_by_the_same_command(sweep, tmp_path):
    (sweep / "kill.1").touch()
    first = run_sweep(sweep, "seed=0,1", "hydra.launcher.n_jobs=2")
    assert first.returncode == 1, first.stderr
    rows = read_rows(sweep)
    assert [rows[job]["status"] for job in "01"] == ["completed", "interrupted"]
    assert "SIGKILL" in rows["1"]["error"]
    assert "2 jobs: 1 completed, 1 interrupted" in first.stdout
    assert f"hydra.sweep.dir={sweep}" in first.stdout
    assert (sweep / "0" / "output.log").stat().st_size

    again = run_sweep(sweep, "seed=0,1", "hydra.launcher.n_jobs=2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 2 jobs were finished before" in again.stdout
    assert "Job 1 (seed=1) is resumed" in again.stdout
    assert [num_starts(sweep / job) for job in "01"] == [1, 2]
    for seed in range(2):
        alone = run_training(tmp_path / f"alone{seed}", *SMALL, f"seed={seed}")
        assert outcome(sweep / str(seed)) == ("completed", alone["val"], alone["test"])
        with open(sweep / str(seed) / "metrics.csv") as file:
            assert len(list(csv.DictReader(file))) == 2


@pytest.mark.slow
def test_six_jobs_with_two_faults_equal_an_undisturbed_sweep(sweep, tmp_path):
    typed = ["optimizer.lr=0.05,0.01", "seed=0,1,2", "hydra.launcher.n_jobs=2"]
    whole = tmp_path / "whole"
    assert run_sweep(whole, *typed).returncode == 0
    (sweep / "raise.1").touch()
    (sweep / "kill.4").touch()
    assert run_sweep(sweep, *typed).returncode == 1
    rows = read_rows(sweep)
    assert len(rows) == 6
    assert rows["1"]["status"] == "failed" and "a fault of the test" in rows["1"]["error"]
    assert rows["4"]["status"] == "interrupted" and "SIGKILL" in rows["4"]["error"]
    assert "RuntimeError: a fault of the test" in (sweep / "1" / "output.log").read_text()
    assert run_sweep(sweep, *typed).returncode == 0
    assert [num_starts(sweep / str(job)) for job in range(6)] == [1, 2, 1, 1, 2, 1]
    for job in range(6):
        assert outcome(sweep / str(job)) == outcome(whole / str(job))
    assert list(read_rows(sweep)) == list(read_rows(whole))


@pytest.mark.slow
def test_a_sweep_that_has_grown_equals_a_whole_one(sweep, tmp_path):
    """To 12 jobs in two steps, with another key outermost and one job killed."""
    (sweep / "kill.5").touch()
    assert run_sweep(sweep, "optimizer.lr=0.05,0.01", "seed=0,1").returncode == 0
    grown = run_sweep(sweep, "seed=0,1,2", "optimizer.lr=0.05,0.01", "hydra.launcher.n_jobs=2")
    assert grown.returncode == 1 and "2 of 6 jobs are new" in grown.stdout, grown.stdout
    settings = ["optimizer.lr=0.05,0.01,0.02,0.03", "seed=0,1,2", "hydra.launcher.n_jobs=2"]
    assert run_sweep(sweep, *settings).returncode == 0
    whole = tmp_path / "whole"
    assert run_sweep(whole, *settings).returncode == 0
    tables = [
        {
            (row["optimizer.lr"], row["seed"]): (row["status"], row["val/loss"], row["test/acc"])
            for row in read_rows(folder).values()
        }
        for folder in (sweep, whole)
    ]
    assert len(tables[0]) == 12 and tables[0] == tables[1]
    assert [num_starts(sweep / str(job)) for job in range(12)] == [1] * 5 + [2] + [1] * 6


@pytest.mark.slow
def test_hydras_own_launcher_continues_behind_a_failed_job(sweep):
    """One process for all jobs: the same records, the same second start."""
    (sweep / "raise.0").touch()
    first = run_sweep(sweep, "seed=0,1", "hydra/launcher=basic")
    assert first.returncode == 1 and "a fault of the test" in first.stdout
    assert [read_rows(sweep)[job]["status"] for job in "01"] == ["failed", "completed"]
    again = run_sweep(sweep, "seed=0,1", "hydra/launcher=basic")
    assert again.returncode == 0, again.stderr
    assert [num_starts(sweep / job) for job in "01"] == [2, 1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ending_a_sweep_ends_its_jobs_and_a_running_one_is_not_started_twice(number, sweep):
    (sweep / "wait.0").touch()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(sweep.parent), str(ROOT)]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments(sweep, "seed=0,1")],
        cwd=sweep.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        waited_for = [sweep / "0" / "checkpoints" / "last.ckpt", sweep / "sweep.html"]
        while not all(path.exists() for path in waited_for):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        assert 'http-equiv="refresh"' in (sweep / "sweep.html").read_text()
        second = run_sweep(sweep, "seed=0,1")
        assert second.returncode == 2 and "still running" in second.stderr
        process.send_signal(number)
        if number == signal.SIGTERM:
            (sweep / "wait.0").unlink()
            assert process.wait(90) == 128 + signal.SIGTERM
            assert [status(sweep / job) for job in "01"] == ["interrupted", "waiting"]
        process.wait()
    finally:
        process.kill()
    (sweep / "wait.0").unlink(missing_ok=True)
    again = run_sweep(sweep, "seed=0,1")
    assert again.returncode == 0 and "Job 0 (seed=0) is resumed" in again.stdout, again.stderr


@pytest.mark.slow
def test_jobs_of_several_processes_are_one_run_each(sweep, tmp_path):
    """Lightning starts the second process by repeating the command of the job."""
    ddp = ["trainer=ddp", "trainer.devices=2", "data.batch_size=8"]
    (sweep / "kill.1").touch()
    assert run_sweep(sweep, "seed=0,1", *ddp).returncode == 1
    result = run_sweep(sweep, "seed=0,1", *ddp)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [num_starts(sweep / job) for job in "01"] == [1, 2]
    assert [read_json(sweep / job / "run.json")["processes"] for job in "01"] == [2, 2]
    whole = tmp_path / "whole"
    assert run_sweep(whole, "seed=0,1", *ddp).returncode == 0
    for job in "01":
        assert outcome(sweep / job) == outcome(whole / job)
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1", "plots"]


@pytest.mark.slow
def test_out_of_fold_metrics_of_a_whole_sweep(tmp_path):
    """Every training image is validated exactly once."""
    sweep = tmp_path / "sweep"
    folds = ["data.num_folds=3", "data.fold=0,1,2", "test=false", "hydra.launcher.n_jobs=2"]
    result = run_script("train.py", "-m", *SMALL, *folds, f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    data = [read_json(sweep / str(fold) / "run.json")["data"] for fold in range(3)]
    sizes = [facts["sizes"]["val"] for facts in data]
    assert sum(sizes) == 1437 and len({facts["split_hash"] for facts in data}) == 3
    accuracies = {int(row["data.fold"]): float(row["val/acc"]) for row in read_rows(sweep).values()}
    pooled = sum(accuracies[fold] * size for fold, size in enumerate(sizes)) / 1437
    assert f"{pooled:.4f} |" in (sweep / "summary.md").read_text()
    assert "val/acc pooled" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "submitit_local"])
def test_other_engines_run_the_same_sweep(engine, sweep, tmp_path):
    packages = {"ray": "hydra_ray_launcher", "submitit_local": "hydra_submitit_launcher"}
    pytest.importorskip(f"hydra_plugins.{packages[engine]}", reason="the extra is not installed")
    (sweep / "raise.1").touch()
    first = run_sweep(sweep, "seed=0,1", f"hydra/launcher={engine}")
    assert first.returncode == 1, first.stderr
    assert [read_rows(sweep)[job]["status"] for job in "01"] == ["completed", "failed"]
    again = run_sweep(sweep, "seed=0,1", f"hydra/launcher={engine}")
    assert again.returncode == 0, again.stderr
    assert [num_starts(sweep / job) for job in "01"] == [1, 2]
    alone = run_training(tmp_path / "alone", *SMALL, "seed=1")
    assert outcome(sweep / "1") == ("completed", alone["val"], alone["test"])


@pytest.mark.slow
def test_a_job_that_is_queued_again_is_resumed(sweep, tmp_path):
    """After the signal that SLURM sends before the time of a job is up, with submitit's engine."""
    package = "hydra_plugins.hydra_submitit_launcher"
    pytest.importorskip(package, reason="the extra is not installed")
    (sweep / "usr2.0").touch()
    result = run_sweep(sweep, "seed=0", "hydra/launcher=submitit_local")
    assert result.returncode == 0, result.stdout + result.stderr
    assert num_starts(sweep / "0") == 2
    alone = run_training(tmp_path / "alone", *SMALL, "seed=0")
    assert outcome(sweep / "0") == ("completed", alone["val"], alone["test"])
