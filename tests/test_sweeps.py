"""Sweeps: planned and frozen before they start, summed up from what the jobs leave behind, cut off and started again."""

import csv
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, run_script, run_training
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from hydra_plugins.processes import Pool
from src.errors import UserError
from src.job_folder import FROZEN, status
from src.sweep import PLANNED, plan, run_job
from src.sweep_summary import table, write_summary
from src.text_table import brief

pytestmark = pytest.mark.filterwarnings("ignore:\\s*'hydra/launcher")  # src/command_line.py says why
SMALL = ["model=lenet", "data.image_size=16", "trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.accelerator=cpu"]


def planned(sweep: Path, *typed: str, conf: Path = ROOT / "conf") -> list:
    """What `python train.py -m ... hydra.sweep.dir=SWEEP` plans."""
    PLANNED.clear()
    with initialize_config_dir(str(conf), version_base="1.3", job_name="train"):
        arguments = [*typed, f"hydra.sweep.dir='{sweep}'", "hydra.mode=MULTIRUN"]
        plan(GlobalHydra.instance().hydra.compose_config("config", arguments, RunMode.MULTIRUN))
    return list(PLANNED.values())


def finished(folder: Path, overrides: list[str], val: float, test: float | None = None, pictures: int = 100) -> None:
    """A job's folder as a run leaves it; accuracy is 1 - loss."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    figures = {name: {"loss": loss, "acc": 1 - loss} if loss is not None else None for name, loss in (("val", val), ("test", test))}
    (folder / "results.json").write_text(json.dumps({"status": "completed", "best_epoch": 3, "train_seconds": 1.5, **figures}))
    (folder / "run.json").write_text(json.dumps({"status": "completed", "data": {"sizes": {"val": pictures}}}))


def read_rows(sweep: Path) -> list[dict[str, str]]:
    with open(sweep / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


# What is summed up ----------------------------------------------------------------------------------------------------


def test_summary_says_what_the_jobs_say_ranked_by_validation(tmp_path):
    losses = {(0.1, 0): (0.30, 0.10), (0.1, 1): (0.40, 0.11), (0.01, 0): (0.20, 0.90), (0.01, 1): (0.10, 0.80)}
    for i, ((lr, seed), (val, test)) in enumerate(losses.items()):
        finished(tmp_path / str(i), ["model=lenet", f"optimizer.lr={lr}", f"seed={seed}"], val, test)
    (tmp_path / "4" / ".hydra").mkdir(parents=True)
    (tmp_path / "4" / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["model=lenet", "optimizer.lr=9", "seed=0"]))
    (tmp_path / "4" / "results.json").write_text(json.dumps({"status": "failed", "error": "UserError: too\nlarge | <b>"}))
    write_summary(tmp_path)

    rows = read_rows(tmp_path)
    assert list(rows[0])[:4] == ["job", "optimizer.lr", "seed", "status"]  # model does not vary
    assert [row["job"] for row in rows] == ["3", "2", "0", "1", "4"]  # by validation; test would say 0, 1, 3, 2
    for row in rows[:-1]:
        results = json.loads((Path(row["folder"]) / "results.json").read_text())
        for name in ("val/loss", "val/acc", "test/loss", "test/acc"):
            split, figure = name.split("/")
            assert float(row[name]) == results[split][figure]
        assert float(row["train_seconds"]) == results["train_seconds"] and row["status"] == results["status"]
    assert rows[-1]["status"] == "failed" and rows[-1]["error"] == "UserError: too large | <b>" and rows[-1]["val/loss"] == ""

    shown = table(tmp_path).split("Over seed:")[1].splitlines()
    means = {line.split()[0]: line.split() for line in shown if line[:1].isdigit() or line.startswith("0")}
    mean, deviation = statistics.fmean([0.1, 0.2]), statistics.stdev([0.1, 0.2])
    assert means["0.01"][1:5] == ["2", "2", f"{mean:.4f}", f"{deviation:.4f}"] and means["9"][1:3] == ["1", "0"]
    assert "| 0.01 | 2 | 2 | 0.1500 | 0.0707 |" in (tmp_path / "summary.md").read_text()
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == 2 and "&lt;b&gt;" in page and "<b>" not in page and 'http-equiv="refresh"' not in page


def test_further_metrics_have_columns_means_and_deviations(tmp_path):
    """Of a sweep in which two jobs have them and one has not."""
    for seed, f1 in enumerate((0.5, 0.7, None)):
        finished(tmp_path / str(seed), [f"seed={seed}"], 0.1 + seed, 0.2)
        if f1 is not None:
            path = tmp_path / str(seed) / "results.json"
            results = json.loads(path.read_text())
            path.write_text(
                json.dumps(results | {"metrics": ["f1"], "val": results["val"] | {"f1": f1}, "test": results["test"] | {"f1": f1}})
            )
    write_summary(tmp_path)
    assert [row["val/f1"] for row in read_rows(tmp_path)] == [row["test/f1"] for row in read_rows(tmp_path)] == ["0.5", "0.7", ""]
    header, _, row = (line.split(" | ") for line in (tmp_path / "summary.md").read_text().split("Over seed")[1].splitlines()[2:5])
    assert row[header.index("val/f1")] == "0.6000" and row[header.index("val/f1 std")] == f"{statistics.stdev([0.5, 0.7]):.4f}"


def test_long_numbers_are_cut_where_they_are_read_and_whole_where_they_are_kept(tmp_path):
    rates = {"0.009675075153392096": "0.009675", "3.3637102155497184e-06": "3.364e-06", "1.99e-3": "1.99e-3"}
    for i, rate in enumerate(rates):
        finished(tmp_path / str(i), [f"optimizer.lr={rate}"], 0.1 + i, 0.2)
    write_summary(tmp_path)
    assert [row["optimizer.lr"] for row in read_rows(tmp_path)] == list(rates)
    for text in (table(tmp_path), (tmp_path / "summary.md").read_text()):
        assert all(f" {shown} " in text and (shown == rate or rate not in text) for rate, shown in rates.items())
    assert brief("123456789") == "123456789" and brief("large.v2.e5") == "large.v2.e5"


def test_folds_are_pooled_picture_by_picture(tmp_path):
    sizes = [10, 10, 9]
    for fold, (size, hits) in enumerate(zip(sizes, [9, 8, 5], strict=True)):
        finished(tmp_path / str(fold), ["data.num_folds=3", f"data.fold={fold}"], 1 - hits / size, pictures=size)
    write_summary(tmp_path)
    header, _, row = (tmp_path / "summary.md").read_text().split("Over data.fold")[1].splitlines()[2:5]
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["val/acc pooled |"].startswith(f"{22 / 29:.4f}") and cells["n"] == "3"
    assert cells["val/acc"] == f"{statistics.fmean([9 / 10, 8 / 10, 5 / 9]):.4f}"


def test_a_sweep_without_figures_yet_has_a_page(tmp_path):
    planned(tmp_path, "seed=0,1", "model=lenet")
    rows = write_summary(tmp_path)
    assert [row["status"] for row in rows] == ["waiting", "waiting"]
    assert "no figures yet" in (tmp_path / "sweep.html").read_text()


# What is planned ------------------------------------------------------------------------------------------------------


def test_jobs_are_frozen_when_the_sweep_starts(tmp_path, caplog):
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    first = planned(tmp_path / "sweep", "model=lenet", "seed=0,1", conf=conf)
    assert [job.overrides for job in first] == [["model=lenet", "seed=0"], ["model=lenet", "seed=1"]]
    text = (conf / "optimizer" / "sgd.yaml").read_text()
    (conf / "optimizer" / "sgd.yaml").write_text(text.replace("lr: 0.02", "lr: 0.5"))
    again = planned(tmp_path / "sweep", "model=lenet", "seed=0,1", conf=conf)
    assert [job.config.optimizer.lr for job in again] == [0.02, 0.02]
    assert OmegaConf.load(again[1].folder / FROZEN).optimizer.lr == 0.02
    assert "Job 1 (seed=1) keeps the settings" in caplog.text


def test_a_frozen_job_is_the_same_run(tmp_path):
    """Composed from the file that was written, not from conf/."""
    (job,) = planned(tmp_path / "a b=1,(c)", *SMALL, "seed=3", "optimizer=adam", "optimizer.lr=1e-3")
    with initialize_config_dir(str((job.folder / FROZEN).parent), version_base="1.3"):
        cfg = GlobalHydra.instance().hydra.compose_config("job", [], RunMode.RUN)
    assert cfg.hydra.run.dir == str(job.folder) and cfg.hydra.output_subdir is None
    assert cfg.optimizer == job.config.optimizer and cfg.seed == 3 and os.path.isabs(cfg.data.root)


def test_a_received_sweep_folder_builds_nothing_of_its_own(tmp_path):
    """A job's written config is data: neither its targets nor what it tells Hydra are taken on trust."""
    (job,) = planned(tmp_path, "seed=0")
    path = job.folder / FROZEN
    content = OmegaConf.load(path)
    content.hydra.job_logging = {"version": 1, "handlers": {"x": {"()": "os.system", "command": "true"}}}
    OmegaConf.save(content, path)
    planned(tmp_path, "seed=0")
    assert "os.system" not in path.read_text()
    content.model._target_ = "os.system"
    OmegaConf.save(content, path)
    with pytest.raises(UserError, match=r"model\._target_ has os\.system built"):
        planned(tmp_path, "seed=0")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["model=lenet,resnet18", "data.image_size=8"], "Job 0 (model=lenet): model: LeNet needs pictures of at least"),
        (["optimizer.lr=0.1", "callbacks.best.monitor=val/loss,val/f1"], "Job 1 (callbacks.best.monitor=val/f1)"),
        (["hydra/launcher=basic", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1,2"], "Job 1 (trainer.devices=2) takes 2"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_job(typed, words, tmp_path):
    with pytest.raises(UserError) as error:
        planned(tmp_path / "sweep", *typed)
    assert words in error.value.problem
    assert not (tmp_path / "sweep").exists()


def test_a_folder_with_another_sweep_is_left_alone(tmp_path):
    planned(tmp_path, "model=lenet", "seed=0,1")
    with pytest.raises(UserError, match="another sweep: its job 1 is model=lenet seed=1"):
        planned(tmp_path, "model=lenet", "seed=0,2")
    assert len(planned(tmp_path, "seed=0,1,2", "model=lenet")) == 3  # more of the same is fine


def test_a_failed_job_starts_anew_and_an_interrupted_one_keeps_its_checkpoint(tmp_path):
    for job in planned(tmp_path, "model=lenet", "seed=0,1"):
        (job.folder / "checkpoints").mkdir()
        (job.folder / "checkpoints" / "last.ckpt").touch()
        (job.folder / "metrics.csv").touch()
    for folder, how in (("0", "failed"), ("1", "interrupted")):
        (tmp_path / folder / "results.json").write_text(json.dumps({"status": how, "error": "x"}))
    planned(tmp_path, "model=lenet", "seed=0,1")
    assert not (tmp_path / "0" / "checkpoints").exists() and not (tmp_path / "0" / "metrics.csv").exists()
    assert (tmp_path / "1" / "checkpoints" / "last.ckpt").exists() and status(tmp_path / "0") == "waiting"


def test_two_starts_in_the_same_second_make_two_folders():
    folders = set()
    for _ in range(3):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
            cfg = GlobalHydra.instance().hydra.compose_config("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
            OmegaConf.clear_cache(cfg)
            folders.add(cfg.hydra.sweep.dir)
    assert len(folders) == 3


@pytest.mark.parametrize(
    ("devices", "n_jobs", "given"),
    [(1, None, [["0"], ["1"], ["5"]]), (1, 2, [["0"], ["1"]]), (2, None, [None]), (1, 4, [["0"], ["1"], ["5"], ["0"]]), (3, None, [None])],
)
def test_each_job_gets_gpus_of_its_own(devices, n_jobs, given, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,5")
    jobs = planned(tmp_path, "model=lenet", "seed=0,1,2,3", "trainer.accelerator=gpu", "trainer.strategy=ddp", f"trainer.devices={devices}")
    pool = Pool(jobs, n_jobs, tmp_path, None)
    assert pool.gpus == given


def test_cpu_threads_are_divided(tmp_path, monkeypatch):
    monkeypatch.setattr("hydra_plugins.processes.cores", lambda: 8)
    jobs = planned(tmp_path, "model=lenet", "seed=0,1,2,3", "trainer.accelerator=cpu", "trainer=ddp", "trainer.devices=2")
    assert Pool(jobs, 2, tmp_path, None).threads == 2  # 8 cores, 2 jobs of 2 processes
    assert Pool(jobs, None, tmp_path, None).width == 1


# Whole sweeps ---------------------------------------------------------------------------------------------------------

FAULT = '''
import os, signal, time
from pathlib import Path
import lightning as L


class Fault(L.Callback):
    """Raises or is killed behind its second epoch, once, in the jobs that a file names."""

    def on_train_epoch_start(self, trainer, task):
        job = Path(trainer.default_root_dir)
        for what in ("raise", "kill", "usr2", "wait"):
            mark = job.parent / f"{what}.{job.name}"
            if trainer.current_epoch == 1 and mark.exists():
                while what == "wait" and mark.exists():
                    time.sleep(0.1)
                if what == "wait":
                    return
                mark.unlink()
                if what == "raise":
                    raise RuntimeError("a fault of the test")
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "usr2": signal.SIGUSR2}[what])
'''


def sweep_script(sweep: Path, *typed: str, **env: str) -> subprocess.CompletedProcess:
    (sweep.parent / "faults.py").write_text(FAULT)
    paths = os.pathsep.join([str(sweep.parent), str(ROOT)])
    options = [*SMALL, "+callbacks.fault._target_=faults.Fault", f"hydra.sweep.dir='{sweep}'"]
    return run_script("train.py", "-m", *options, *typed, cwd=sweep.parent, PYTHONPATH=paths, **env)


def figures(folder: Path) -> tuple:
    results = json.loads((folder / "results.json").read_text())
    return results["status"], results.get("val"), results.get("test")


def starts(folder: Path) -> int:
    """How often a job was started."""
    return 1 + len(json.loads((folder / "run.json").read_text())["earlier"])


@pytest.mark.slow
def test_a_sweep_that_was_cut_off_is_completed_by_starting_it_again(tmp_path):
    """One of two jobs is killed; then the same command."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "kill.1").touch()
    first = sweep_script(sweep, "seed=0,1", "hydra.launcher.n_jobs=2")
    assert first.returncode == 1, first.stderr
    rows = {row["job"]: row for row in read_rows(sweep)}
    assert [rows[job]["status"] for job in "01"] == ["completed", "interrupted"] and "SIGKILL" in rows["1"]["error"]
    assert "2 jobs: 1 completed, 1 interrupted" in first.stdout and "hydra.sweep.dir=" in first.stdout
    assert "epoch   1/2" in (sweep / "1" / "output.log").read_text()

    again = sweep_script(sweep, "seed=0,1", "hydra.launcher.n_jobs=2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 2 jobs were finished before" in again.stdout and "Job 1 (seed=1) goes on" in again.stdout
    assert [starts(sweep / job) for job in "01"] == [1, 2]
    for seed in range(2):
        alone = run_training(tmp_path / f"alone{seed}", *SMALL, f"seed={seed}")
        assert figures(sweep / str(seed)) == ("completed", alone["val"], alone["test"])
        assert len(list(csv.DictReader(open(sweep / str(seed) / "metrics.csv")))) == 2
    assert {row["status"] for row in read_rows(sweep)} == {"completed"}


def test_a_job_in_a_shared_process_fails_goes_on_and_is_left_alone_when_done(tmp_path, monkeypatch):
    """What Ray, submitit and Hydra's own launcher call."""
    (job,) = planned(tmp_path, *SMALL, "logger=none", "optimizer.lr=0.05")
    changed = OmegaConf.merge(job.config, {"optimizer": {"lr": 9.0}})  # as if the YAML had been edited meanwhile
    with monkeypatch.context() as patch:
        patch.setattr("src.training.summarise", lambda *_: 1 / 0)
        assert math.isnan(run_job(changed, job.folder))
    assert status(job.folder) == "failed" and "ZeroDivisionError" in (job.folder / "results.json").read_text()
    planned(tmp_path, *SMALL, "logger=none", "optimizer.lr=0.05")  # the second start
    loss = run_job(changed, job.folder)
    assert figures(job.folder)[1]["loss"] == loss and yaml.safe_load((job.folder / "config.yaml").read_text())["optimizer"]["lr"] == 0.05
    monkeypatch.setattr("src.training.train", lambda *_: pytest.fail("a finished job was run again"))
    assert run_job(changed, job.folder) == loss


@pytest.mark.slow
def test_hydras_own_launcher_goes_on_behind_a_failed_job(tmp_path):
    """One process for all jobs: the same records, the same second start."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "raise.0").touch()
    first = sweep_script(sweep, "seed=0,1", "hydra/launcher=basic")
    assert first.returncode == 1 and "a fault of the test" in first.stdout
    assert {row["job"]: row["status"] for row in read_rows(sweep)} == {"0": "failed", "1": "completed"}
    again = sweep_script(sweep, "seed=0,1", "hydra/launcher=basic")
    assert again.returncode == 0, again.stderr
    assert [starts(sweep / job) for job in "01"] == [2, 1]


@pytest.mark.slow
def test_six_jobs_with_two_faults_equal_an_undisturbed_sweep(tmp_path):
    typed = ["optimizer.lr=0.05,0.01", "seed=0,1,2", "hydra.launcher.n_jobs=2", "data/augment=crop_flip"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert sweep_script(whole, *typed).returncode == 0
    parts.mkdir()
    (parts / "raise.1").touch()
    (parts / "kill.4").touch()
    assert sweep_script(parts, *typed).returncode == 1
    rows = {row["job"]: row for row in read_rows(parts)}
    assert len(rows) == 6 and rows["1"]["status"] == "failed" and rows["4"]["status"] == "interrupted"
    assert "a fault of the test" in rows["1"]["error"] and "SIGKILL" in rows["4"]["error"]
    assert "RuntimeError: a fault of the test" in (parts / "1" / "output.log").read_text()  # with its traceback
    assert sweep_script(parts, *typed).returncode == 0
    assert [starts(parts / str(job)) for job in range(6)] == [1, 2, 1, 1, 2, 1]
    for job in range(6):
        assert figures(parts / str(job)) == figures(whole / str(job))
    assert [row["job"] for row in read_rows(parts)] == [row["job"] for row in read_rows(whole)]


@pytest.mark.slow
def test_ending_a_sweep_ends_its_jobs_and_a_running_one_is_not_started_twice(tmp_path):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "wait.0").touch()
    (tmp_path / "faults.py").write_text(FAULT)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SMALL, "seed=0,1", "+callbacks.fault._target_=faults.Fault"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen([*command, f"hydra.sweep.dir={sweep}"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (sweep / "0" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert 'http-equiv="refresh"' in (sweep / "sweep.html").read_text()  # the page while it runs
        second = sweep_script(sweep, "seed=0,1")
        assert second.returncode == 2 and "still running" in second.stderr
        process.send_signal(signal.SIGTERM)
        (sweep / "wait.0").unlink()
        assert process.wait(90) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert [status(sweep / job) for job in "01"] == ["interrupted", "waiting"]
    again = sweep_script(sweep, "seed=0,1")
    assert again.returncode == 0 and "Job 0 (seed=0) goes on" in again.stdout, again.stderr


@pytest.mark.slow
def test_out_of_fold_figures_of_a_whole_sweep(tmp_path):
    """Every training picture is validated exactly once."""
    sweep = tmp_path / "sweep"
    done = sweep_script(sweep, "data.num_folds=3", "data.fold=0,1,2", "test=false", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    runs = [json.loads((sweep / str(fold) / "run.json").read_text()) for fold in range(3)]
    sizes = [run["data"]["sizes"]["val"] for run in runs]
    assert sum(sizes) == 1437 and len({run["data"]["split_hash"] for run in runs}) == 3
    rows = {row["data.fold"]: float(row["val/acc"]) for row in read_rows(sweep)}
    pooled = sum(rows[str(fold)] * size for fold, size in enumerate(sizes)) / 1437
    assert f"{pooled:.4f} |" in (sweep / "summary.md").read_text() and "val/acc pooled" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "submitit_local"])
def test_other_engines_run_the_same_sweep(engine, tmp_path):
    package, extra = {"ray": ("hydra_ray_launcher", "ray"), "submitit_local": ("hydra_submitit_launcher", "slurm")}[engine]
    pytest.importorskip(f"hydra_plugins.{package}", reason=f"the extra {extra} is not installed")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "raise.1").touch()
    first = sweep_script(sweep, "seed=0,1", f"hydra/launcher={engine}")
    assert first.returncode == 1, first.stderr
    assert {row["job"]: row["status"] for row in read_rows(sweep)} == {"0": "completed", "1": "failed"}
    again = sweep_script(sweep, "seed=0,1", f"hydra/launcher={engine}")
    assert again.returncode == 0, again.stderr
    assert [starts(sweep / job) for job in "01"] == [1, 2]
    alone = run_training(tmp_path / "alone", *SMALL, "seed=1")
    assert figures(sweep / "1") == ("completed", alone["val"], alone["test"])


@pytest.mark.slow
def test_a_job_that_is_queued_again_goes_on(tmp_path):
    """What SLURM's signal does before a job's time is up, with submitit's own engine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra slurm is not installed")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "usr2.0").touch()
    done = sweep_script(sweep, "seed=0", "hydra/launcher=submitit_local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert starts(sweep / "0") == 2
    alone = run_training(tmp_path / "alone", *SMALL, "seed=0")
    assert figures(sweep / "0") == ("completed", alone["val"], alone["test"])


@pytest.mark.parametrize(("engine", "extra"), [("ray", "ray"), ("submitit_slurm", "slurm")])
def test_a_missing_extra_is_named(engine, extra, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        planned(tmp_path, "seed=0,1", f"hydra/launcher={engine}")
    assert f'.[{extra}]"' in error.value.remedy


def test_slurm_is_asked_for_as_many_processes_as_a_job_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr("shutil.which", lambda name: name)
    typed = ["model=lenet", "hydra/launcher=submitit_slurm", "trainer=ddp", "trainer.accelerator=cpu", "seed=0,1"]
    assert len(planned(tmp_path / "a", *typed, "trainer.devices=4", "trainer.num_nodes=2")) == 2
    with pytest.raises(UserError, match="takes 4 processes, but SLURM is asked for 1 nodes with 1 each"):
        planned(tmp_path / "b", *typed, "trainer.devices=4", "hydra.launcher.tasks_per_node=1")
